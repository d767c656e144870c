"""Who of the phones asked is counted when a round closes on its deadline, and what became of the rest (spec 7.13)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import mix
from model.errors import InputError
from simulation.availability import KINDS, arrivals, drawn_tiers
from simulation.faults import DROP, DUPLICATE, HOSTILE, Faults, slowness

OFFLINE, DROPPED, LATE, REFUSED, COUNTED = range(5)
FATES = ("offline", "dropped", "late", "refused", "counted")
DEADLINE, LONGEST = 12.0, 336.0  # hours
PHONES_A_CHUNK = 1 << 14
MOST_ROUNDS, PANEL, PANEL_SEED = 28, 4096, 0x9A5E1


@dataclass(frozen=True)
class Roll:
    """A round's phones (P,): their fate (OFFLINE … COUNTED), which of those counted answered twice, and when an answer
    that comes arrives, in hours after the round opened (inf: never)."""

    fate: NDArray[np.int8]
    twice: NDArray[np.bool_]
    answer: NDArray[np.float64]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(P,) whose answer enters the sum, once."""
        return np.asarray(self.fate == COUNTED)

    def tally(self) -> dict[str, int]:
        """Phones by fate; `asked` is their sum, `duplicate` a part of `counted`."""
        sizes = np.bincount(self.fate, minlength=len(FATES)).tolist()
        return {"asked": len(self.fate), **dict(zip(FATES, sizes, strict=True)), "duplicate": int(self.twice.sum())}


class Attendance(Protocol):
    """Says who of the phones `ids` (P,) of these handsets is counted in a round."""

    def roll(self, ids: NDArray[np.uint64], tiers: NDArray[np.int8], round_: int) -> Roll:
        """Stateless: the same phone has the same fate, alone or in a crowd, asked once or again."""
        ...


@dataclass(frozen=True)
class Reach:
    """What a person says about availability: kind, deadline in hours, how many more to ask, what goes wrong.

    InputError for an unknown kind, a deadline outside 0 … 336 hours or a factor outside 1 … 10.
    """

    availability: str = "always"
    deadline: float = DEADLINE
    over_select: float = 1.0
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        if self.availability not in KINDS:
            raise InputError(f"--availability {self.availability!r} is unknown; use {' or '.join(KINDS)}")
        if not 0 < self.deadline <= LONGEST:
            raise InputError(f"--deadline {self.deadline:g} is outside 0 to {LONGEST:g} hours; 8 is a night")
        if not 1 <= self.over_select <= 10:
            raise InputError(f"--over-select {self.over_select:g} is outside 1 to 10; 1.3 asks 30 % more phones")

    @property
    def full(self) -> bool:
        """Whether every phone asked is sure to answer."""
        return self.availability == "always" and not self.faults.any

    def attendance(self, seed: int) -> Virtual | None:
        """Who attends, in the simulation of this seed; None where everybody does."""
        return None if self.full else Virtual(self.availability, self.deadline, self.faults, seed)


@dataclass(frozen=True)
class Virtual:
    """An `Attendance` on the virtual clock, drawn by hash of (phone, seed, day, round)."""

    availability: str
    deadline: float
    faults: Faults
    seed: int

    def roll(self, ids: NDArray[np.uint64], tiers: NDArray[np.int8], round_: int) -> Roll:
        """First reached, then lost, then late, then judged; in chunks that stay in cache."""
        starts = range(0, max(len(ids), 1), PHONES_A_CHUNK)
        parts = [self._roll(ids[at : at + PHONES_A_CHUNK], tiers[at : at + PHONES_A_CHUNK], round_) for at in starts]
        fates, twice, answers = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Roll(fates, twice, answers)

    def _roll(
        self, ids: NDArray[np.uint64], tiers: NDArray[np.int8], round_: int
    ) -> tuple[NDArray[np.int8], NDArray[np.bool_], NDArray[np.float64]]:
        fault = self.faults.drawn(ids, self.seed, round_)
        when = arrivals(self.availability, ids, tiers, self.seed, round_, self.deadline, slowness(fault))
        fate = np.full(len(ids), COUNTED, dtype=np.int8)
        fate[fault == HOSTILE] = REFUSED
        fate[when.answer > self.deadline] = LATE
        fate[fault == DROP] = DROPPED
        fate[~np.isfinite(when.start)] = OFFLINE
        return fate, (fate == COUNTED) & (fault == DUPLICATE), when.answer

    def response(self, rounds: int) -> float:
        """The share of phones asked that is expected to be counted in rounds 1 … `rounds`: a public constant.

        Measured on made-up ids at public shares of handsets, so it says nothing about any phone of a run.
        """
        ids = mix(np.arange(PANEL, dtype=np.uint64), PANEL_SEED)
        tiers = drawn_tiers(ids)
        panel = Virtual(self.availability, self.deadline, self.faults, PANEL_SEED)
        shares = [panel.roll(ids, tiers, number).counted.mean() for number in range(1, min(rounds, MOST_ROUNDS) + 1)]
        return max(math.floor(1000 * float(np.mean(shares))), 1) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Virtual:
        """Inverse of `to_dict`."""
        return cls(raw["availability"], raw["deadline"], Faults(**raw["faults"]), raw["seed"])
