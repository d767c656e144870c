"""One phase after the other: reserve ε, ask, check, add, noise, commit; all side effects pass here (spec 7.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_server import rounds
from fl_server.aggregate import add, noised
from fl_server.budget import Budget, Reservation
from fl_server.checkpoint import Checkpoint
from fl_server.cohort import minimum, require_cohort
from fl_server.rounds import Phase, Release, State
from model.canonical import decode, encode, sha256_hex
from model.contract.envelope import Signed
from model.contract.plan import TrainingPlan
from model.contract.update import (
    TASK_SCHEMA,
    PartialHeader,
    TaskHeader,
    check_answer,
    check_vector,
    norm_bound,
    read_vector,
)
from model.errors import ContractError, RunError, UpdateError
from model.privacy.noise import ByteSource, OsSource, SeededSource

MAX_HEADER_BYTES = 4096
Progress = Callable[[Release, State], None]


@dataclass(frozen=True)
class Question:
    """What goes to every node asked: header, signed plan and knots (empty before they exist) as bytes, one array."""

    phase: Phase
    header: bytes
    plan: bytes
    knots: bytes
    flat: NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What one node sent back: header and little-endian int64 vector, both as bytes and not yet believed."""

    node: int
    header: bytes
    vector: bytes


def noise_for(plan: TrainingPlan) -> Callable[[Phase], ByteSource]:
    """The plan's noise source: the operating system's, or, in tests only, seeded by (plan seed, phase)."""
    if plan.privacy.noise_source == "os":
        return lambda phase: OsSource()
    return lambda phase: SeededSource(plan.seed, phase.kind, phase.round)


class Coordinator:
    """Drives a plan's phases over a checkpoint and a budget. `open` and `close` alternate until `open` gives None."""

    def __init__(
        self,
        signed: Signed,
        plan: TrainingPlan,
        budget: Budget,
        checkpoint: Checkpoint,
        *,
        source: Callable[[Phase], ByteSource] | None = None,
        on_progress: Progress = lambda release, state: None,
    ) -> None:
        if budget.plan != plan:
            raise RunError("the budget belongs to another plan; open the one of this run")
        self.plan, self._signed, self._budget, self._checkpoint = plan, signed.to_bytes(), budget, checkpoint
        self._source, self._on_progress = source or noise_for(plan), on_progress
        for phase in rounds.schedule(plan):
            minimum(plan, phase.population, phase.participation)
        self.releases = checkpoint.releases()
        self.state = rounds.replay(plan, self.releases)
        self._settle()

    def open(self) -> Question | None:
        """Reserve the next phase's ε and say what to ask; None when the run is complete (case 22)."""
        phase = rounds.current(self.plan, self.state)
        if phase is None:
            return None
        if phase.charge is not None and self._reservation(phase.charge.name, phase.round) is None:
            self._budget.reserve(phase.charge.name, phase.round)
        header = TaskHeader(TASK_SCHEMA, self.plan.digest, phase.round, phase.kind)
        knots = encode(self.state.knots.to_dict()) if self.state.knots else b""
        flat = rounds.question(self.plan, self.state, phase.kind)
        return Question(phase, encode(header.to_dict()), self._signed, knots, flat)

    def close(
        self, question: Question, asked: Sequence[int], answers: Sequence[Answer], errors: Sequence[str] = ()
    ) -> Release:
        """Check, add, noise and commit the answers to a question; `errors` says what came instead of an answer.

        What may not enter the sum is left out and named in the release; the denominator stays. RoundError below
        the minimum cohort: nothing is released, and the reservation stays spent (case 21).
        """
        phase = question.phase
        kept, refused = self._sift(phase, asked, answers)
        refused += errors
        phones = sum(header.phones for header, _ in kept.values())
        least = minimum(self.plan, phase.population, phase.participation)
        require_cohort(phones, least, phase.population, phase.name, refused)
        total = add([vector for _, vector in kept.values()], self._dimension(phase))
        self._checkpoint.drawing(phase)
        drawn = noised(total, phase.charge, self.plan.privacy.grid_scale, self._source(phase))
        release = Release(phase.kind, phase.round, phones, len(asked), len(kept), tuple(refused), drawn)
        self._commit(phase, release)
        return release

    def _commit(self, phase: Phase, release: Release) -> None:
        state = rounds.close(self.plan, self.state, release)
        self._checkpoint.commit(release)
        if phase.charge is not None:
            self._settle_one(phase.charge.name, release)
        self.state = state
        self.releases.append(release)
        self._on_progress(release, state)

    def _settle(self) -> None:
        """After a kill: settle releases the ledger had not noted, and void a phase that may have drawn its noise."""
        for phase, release in zip(rounds.schedule(self.plan), self.releases, strict=False):
            if phase.charge is not None:
                self._settle_one(phase.charge.name, release)
        due = rounds.current(self.plan, self.state)
        if due is not None and self._checkpoint.may_have_drawn(due):
            nothing = np.zeros(self._dimension(due), dtype=np.int64)
            self._commit(due, Release(due.kind, due.round, 0, 0, 0, (), nothing, void=True))

    def _settle_one(self, name: str, release: Release) -> None:
        """Commit or void a release's reservation. RunError where ledger and checkpoint tell different stories."""
        reservation, result = self._reservation(name, release.round), sha256_hex(release.noised.astype("<i8").tobytes())
        if reservation is None or (reservation.state, reservation.result) not in (
            ("reserved", ""),
            ("void", "") if release.void else ("committed", result),
        ):
            raise RunError(f"ledger and releases disagree on {name} round {release.round}; restore both from a copy")
        if reservation.state == "reserved" and release.void:
            self._budget.void(reservation)
        elif reservation.state == "reserved":
            self._budget.commit(reservation, result)

    def _reservation(self, name: str, round_: int) -> Reservation | None:
        found = [r for r in self._budget.reservations if (r.name, r.round) == (name, round_)]
        return found[-1] if found else None

    def _dimension(self, phase: Phase) -> int:
        return rounds.dimension(self.plan, self.state, phase.kind)

    def _sift(
        self, phase: Phase, asked: Sequence[int], answers: Sequence[Answer]
    ) -> tuple[dict[int, tuple[PartialHeader, NDArray[np.int64]]], list[str]]:
        """Answers that may be added, by node, and one sentence for each that may not.

        An identical answer twice counts once; two different ones from a node are both left out (case 17); a node
        that was not asked is left out (case 18).
        """
        kept: dict[int, tuple[PartialHeader, NDArray[np.int64]]] = {}
        seen: dict[int, Answer] = {}
        refused: list[str] = []
        for answer in answers:
            if seen.setdefault(answer.node, answer) != answer:
                kept.pop(answer.node, None)
                refused.append(f"node {answer.node} sent two different answers; neither is counted")
            elif answer.node not in asked:
                refused.append(f"node {answer.node} was not asked in {phase.name}; register it first")
            else:
                try:
                    kept[answer.node] = self._checked(phase, answer)
                except (ContractError, UpdateError) as error:
                    refused.append(f"node {answer.node}: {error}")
        return kept, refused

    def _checked(self, phase: Phase, answer: Answer) -> tuple[PartialHeader, NDArray[np.int64]]:
        header = PartialHeader.from_dict(decode(answer.header, max_bytes=MAX_HEADER_BYTES))
        task = TaskHeader(TASK_SCHEMA, self.plan.digest, phase.round, phase.kind)
        dim, field = self._dimension(phase), self.plan.topology == "field"
        check_answer(task, header, dim=dim, max_phones=phase.population, field=field)
        reach = rounds.reach(self.plan, phase.kind)
        bound = norm_bound(reach, self.plan.privacy.grid_scale, dim, header.phones)
        return header, check_vector(read_vector(answer.vector, dim), dim, bound)
