"""What a node carries: one phone or many, asked one task and answering one partial sum (spec 7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.contract.plan import TrainingPlan
from model.risk.knots import Knots

Segments = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Phone:
    """One phone's labelled rows: x (n, F) float32 with NaN = missing, y (n,) float32 in {0, 1}; n may be 0.

    `id` keys the phone's shuffles and participation coins; it never leaves the phone.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    id: int = 0
    holdout: bool = False


@dataclass(frozen=True)
class Task:
    """One question of a signed plan. `flat` is the model asked about: empty for knots, v for train, then theta.

    `model_digest` (13.3) is of flat and knots as they were received; masks are bound to it.
    """

    kind: str
    round: int
    plan: TrainingPlan
    knots: Knots | None
    flat: NDArray[np.float32]
    model_digest: str = ""


@dataclass(frozen=True)
class Partial:
    """A node's answer: the int64 sum over `phones` phones that took part, on the plan's grid."""

    phones: int
    sum: NDArray[np.int64]


class Phones(Protocol):
    """The phones behind one node."""

    def partial(self, task: Task) -> Partial:
        """The sum of what each phone answers; phones without labels count and add zeros."""
        ...


def mix(ids: NDArray[Any] | np.uint64, *counters: NDArray[Any] | np.uint64 | int) -> NDArray[np.uint64]:
    """A 64-bit counter hash (SplitMix64 finaliser chained over the counters), vectorised; for shuffles, not secrets."""
    state = np.atleast_1d(np.asarray(ids, dtype=np.uint64))
    with np.errstate(over="ignore"):
        for counter in (np.uint64(0), *counters):
            word = np.asarray(counter, dtype=np.uint64)
            state = (state ^ word * np.uint64(0xD1342543DE82EF95)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def coins(ids: NDArray[np.uint64], key: int, round_: int, participation: float) -> NDArray[np.bool_]:
    """Poisson participation: one coin a (phone, round), the same when asked again. ids (P,) → (P,) bool."""
    if participation >= 1.0:
        return np.ones(len(ids), dtype=bool)
    uniform = (mix(ids, key, 0xC01, round_) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform < participation


def segments(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> Segments:
    """(row numbers, new offsets) of the chosen phones, in order."""
    return rows_of(offsets[chosen], offsets[chosen + 1] - offsets[chosen])


def rows_of(first: NDArray[np.int64], counts: NDArray[np.int64]) -> Segments:
    """(row numbers, new offsets) of phones that own `counts` rows from `first` on, in order."""
    fresh = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.repeat(first - fresh[:-1], counts) + np.arange(fresh[-1], dtype=np.int64)
    return rows, fresh
