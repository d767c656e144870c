"""One phase after the other: reserve ε, ask, check, add, noise, commit; all side effects pass here (spec 7.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_server import rounds
from fl_server.aggregate import noised
from fl_server.budget import Budget, Reservation
from fl_server.checkpoint import Checkpoint
from fl_server.cohort import minimum, require_cohort
from fl_server.helper import SecondServer
from fl_server.robust import gathered
from fl_server.rounds import Phase, Release, State
from fl_server.shielded import Garbage, Shielded, require_reached
from fl_server.sieve import Answer, Counts, Sieve
from model.canonical import encode, sha256_hex
from model.contract.envelope import Signed
from model.contract.plan import TrainingPlan
from model.contract.update import TASK_SCHEMA, TaskHeader
from model.errors import RoundError, RunError
from model.privacy.noise import ByteSource, OsSource, SeededSource
from model.secagg.context import model_digest

__all__ = ["Answer", "Coordinator", "Progress", "Question", "noise_for"]

BY_SERVER = ("central", "helper")
Progress = Callable[[Release, State], None]


@dataclass(frozen=True)
class Question:
    """What goes to every node asked: header, signed plan and knots (empty before they exist) as bytes, one array."""

    phase: Phase
    header: bytes
    plan: bytes
    knots: bytes
    flat: NDArray[np.float32]

    @cached_property
    def model_digest(self) -> str:
        """Digest of the model in this question (13.3), which masked answers must name."""
        return model_digest(np.ascontiguousarray(self.flat, dtype="<f4").tobytes(), self.knots)


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
        second: SecondServer | None = None,
        on_progress: Progress = lambda release, state: None,
    ) -> None:
        if budget.plan != plan:
            raise RunError("the budget belongs to another plan; open the one of this run")
        self.plan, self._signed, self._budget, self._checkpoint = plan, signed.to_bytes(), budget, checkpoint
        self._source, self._on_progress = source or noise_for(plan), on_progress
        self._shielded = Shielded.of(plan, self._signed, second, checkpoint)
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
        sieve = Sieve(self.plan, phase, self._dimension(phase), question.model_digest)
        sieve.sift(asked, answers)
        sieve.refused += errors
        sieve.require_cohort()
        try:
            if self._shielded is None:
                sums = [(counted.phones, counted.vector) for counted in sieve.kept.values()]
                total = gathered(self.plan, phase.kind, sums)
            else:
                total = self._shielded.close(sieve)
        except Garbage as error:
            return self._flag(phase, sieve.counts, error)
        return self._release(phase, total, sieve.counts)

    def attempt(self, phase: Phase) -> int:
        """The number of the next attempt at a sum of mode pairwise."""
        return self._checkpoint.attempt(phase)

    def mark(self, phase: Phase) -> None:
        """Durably note that what comes next can be done once only."""
        self._checkpoint.drawing(phase)

    def settle(self, question: Question, counts: Counts, total: NDArray[np.int64]) -> Release:
        """Commit the sum (d,) of mode pairwise, under its phones' noise; void if no honest phones add up to it.

        RoundError below the minimum cohort, which phones and witness see to before there is a sum.
        """
        phase, phones = question.phase, counts[0]
        require_cohort(phones, minimum(self.plan, phase.population, phase.participation), phase.population, phase.name)
        try:
            require_reached(self.plan, phase, total, phones, phones)
        except Garbage as error:
            return self.void(question, counts, error)
        return self._release(phase, total, counts)

    def void(self, question: Question, counts: Counts, error: RoundError) -> Release:
        """End a phase whose sum is lost or is none: its ε stays spent; `error` is raised where it cannot be skipped."""
        return self._flag(question.phase, counts, error)

    def dimension(self, phase: Phase) -> int:
        """Numbers in a phase's sum."""
        return self._dimension(phase)

    def _release(self, phase: Phase, total: NDArray[np.int64], counts: Counts) -> Release:
        """Draw the server's noise, once, and commit."""
        self._checkpoint.drawing(phase)
        by_server = self.plan.privacy.mode in BY_SERVER
        # Else the noise is in the answers. In mode helper the plan may ask less of the coordinator than of the helper.
        charge = self.plan.privacy.weakest(phase.charge) if by_server and phase.charge else None
        drawn = noised(total, charge, self.plan.privacy.grid_scale, self._source(phase))
        release = Release(phase.kind, phase.round, *counts, drawn)
        self._commit(phase, release)
        return release

    def _flag(self, phase: Phase, counts: Counts, error: RoundError) -> Release:
        """A round whose sum is no sum of answers is void, and the record says why (case 40).

        Other phases cannot be left out: there `error` ends the run.
        """
        self._checkpoint.drawing(phase)
        if phase.kind != "train":
            raise error
        phones, asked, replied, refused = counts
        nothing = np.zeros(self._dimension(phase), dtype=np.int64)
        void = Release(phase.kind, phase.round, phones, asked, replied, (*refused, str(error)), nothing, void=True)
        self._commit(phase, void)
        return void

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
        elif due is not None and self._shielded is not None:
            self._resume(self._shielded, due)

    def _resume(self, shielded: Shielded, due: Phase) -> None:
        """Put a batch that was collected before a kill to the helper again, which gives the same share."""
        batch = shielded.kept(due)
        if batch is None:
            return
        try:
            total = shielded.lift(due, batch)
        except Garbage as error:
            self._flag(due, batch.counts, error)
        else:
            self._release(due, total, batch.counts)

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
