"""Which answers of a phase may enter its sum, and one sentence for each that may not (spec 7.6, 13.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fl_server.cohort import minimum, require_cohort
from fl_server.ingress import OpenSum, Parts, one_line, read
from fl_server.rounds import Phase
from model.contract.plan import TrainingPlan
from model.errors import ContractError, UpdateError

Counts = tuple[int, int, int, tuple[str, ...]]  # phones, asked, replied, refused: as in a release


@dataclass(frozen=True)
class Answer:
    """What one node sent back, as bytes and not yet believed: header and little-endian vector; under masks (32-bit
    residues) also the sealed seeds, which are None for an unmasked answer. `refusal` says why it was not even taken
    apart."""

    node: int
    header: bytes
    vector: bytes
    seeds: bytes | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Counted:
    """An answer that may be added: its phones, its int64 units or uint32 residues (d,), and its sealed seeds."""

    phones: int
    vector: NDArray[Any]
    seeds: tuple[bytes, ...] = ()


@dataclass
class Sieve:
    """One phase's answers under `plan`: `dim` numbers, asked about the model of `model_digest`."""

    plan: TrainingPlan
    phase: Phase
    dim: int
    model_digest: str
    kept: dict[int, Counted] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    asked: int = 0

    def sift(self, asked: Sequence[int], answers: Sequence[Answer]) -> None:
        """Fill `kept`, by node, and `refused`.

        An identical answer twice counts once; two different ones from a node are both left out (case 17); a node
        that was not asked is left out (case 18), and so is a message that another node sent before.
        """
        self.asked, seen, known = len(asked), dict[int, Answer](), frozenset(asked)
        for answer in answers:
            if answer.node in seen:
                self._again(seen[answer.node], answer)
                continue
            seen[answer.node] = answer
            if answer.node not in known:
                self.refused.append(f"node {answer.node} was not asked in {self.phase.name}; register it first")
            else:
                self._take(answer)
        self._once()

    def leave_out(self, messages: Sequence[str], ids: dict[str, int], why: str) -> bool:
        """Drop the nodes that sent these message ids; whether any was there to drop."""
        nodes = sorted({ids[name] for name in messages if name in ids and ids[name] in self.kept})
        for node in nodes:
            del self.kept[node]
            self.refused.append(f"node {node}: {why}")
        return bool(nodes)

    @property
    def phones(self) -> int:
        """Phones in the answers kept."""
        return sum(counted.phones for counted in self.kept.values())

    @property
    def counts(self) -> Counts:
        """What the release will say of these answers."""
        return self.phones, self.asked, len(self.kept), tuple(self.refused)

    def require_cohort(self) -> None:
        """RoundError, and nothing is released, below the minimum cohort or above the population."""
        phase = self.phase
        least = minimum(self.plan, phase.population, phase.participation)
        require_cohort(self.phones, least, phase.population, phase.name, self.refused)

    def _again(self, first: Answer, answer: Answer) -> None:
        if answer != first:
            self.kept.pop(answer.node, None)
            self.refused.append(f"node {answer.node} sent two different answers; neither is counted")

    def _take(self, answer: Answer) -> None:
        try:
            if answer.refusal:
                raise ContractError(answer.refusal)
            parts = Parts(answer.header, answer.vector, answer.seeds)
            got = read(parts, OpenSum(self.plan, self.phase, self.dim, self.model_digest))
            self.kept[answer.node] = Counted(got.phones, got.vector, got.seeds)
        except (ContractError, UpdateError) as error:
            self.refused.append(f"node {answer.node}: {one_line(error)}")

    def _once(self) -> None:
        """A seed counts once: opened twice it would let two sums be compared."""
        used: set[bytes] = set()
        for node in sorted(self.kept):
            seeds = self.kept[node].seeds
            if len(set(seeds)) != len(seeds) or not used.isdisjoint(seeds):
                del self.kept[node]
                self.refused.append(f"node {node}: a sealed seed came twice; mask each answer afresh")
            else:
                used.update(seeds)
