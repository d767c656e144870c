"""What goes wrong with phones that were reached: lost, slow, doubled and hostile ones, drawn by hash (spec 7.13)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import mix
from model.errors import InputError
from simulation.population.hash import uniform

SLOWER = 10.0
_FAULT, _HOW = 0xFA17, 0x405
NONE, DROP, SLOW, DUPLICATE, HOSTILE = range(5)
TRICKS = ("nan", "length", "beyond", "stale")
"""What a hostile phone sends: numbers that are none, a vector too short, one far beyond the clip, another round's."""


@dataclass(frozen=True)
class Faults:
    """Shares of phones in a round: at most one fault each. InputError for a share outside 0 … 1 or a sum above 1.

    drop: starts and never answers; slow: takes ten times as long; duplicate: its answer arrives twice; hostile: sends
    what is no valid answer.
    """

    drop: float = 0.0
    slow: float = 0.0
    duplicate: float = 0.0
    hostile: float = 0.0

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise InputError(f"--faults {name}={share:g} is outside 0 to 1; give a share such as .05")
        total = sum(asdict(self).values())
        if total > 1 + 1e-9:
            raise InputError(f"--faults add up to {total:g} of the phones, above 1; lower a share")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """From `drop=.05,slow=.1`; InputError for an unknown fault, one named twice, or a share that is no number."""
        known = [f.name for f in fields(cls)]
        shares: dict[str, float] = {}
        for part in (part.strip() for part in text.split(",") if part.strip()):
            name, _, share = (piece.strip() for piece in part.partition("="))
            if name not in known:
                raise InputError(f"--faults names {name!r}, which is unknown; use {', '.join(known)}")
            if name in shares:
                raise InputError(f"--faults names {name} twice; give it once")
            try:
                shares[name] = float(share)
            except ValueError:
                raise InputError(f"--faults {name}={share} is no number; write a share such as {name}=.05") from None
        return cls(**shares)

    @property
    def any(self) -> bool:
        """Whether anything goes wrong at all."""
        return any(asdict(self).values())

    def drawn(self, ids: NDArray[np.uint64], seed: int, round_: int) -> NDArray[np.int8]:
        """(P,) the fault of each phone in this round, NONE … HOSTILE; a phone alone draws as in a crowd."""
        until = np.cumsum([self.drop, self.slow, self.duplicate, self.hostile])
        found = np.searchsorted(until, uniform(mix(ids, seed, _FAULT, round_)), side="right")
        return np.where(found < 4, found + 1, NONE).astype(np.int8)


def slowness(faults: NDArray[np.int8]) -> NDArray[np.float64]:
    """(P,) by what the fault multiplies the time of a task."""
    return np.where(faults == SLOW, SLOWER, 1.0)


def trick(id_: int, seed: int, round_: int) -> str:
    """Which of TRICKS a hostile phone plays in this round."""
    return TRICKS[int(mix(np.uint64(id_), seed, _HOW, round_)[0]) % len(TRICKS)]
