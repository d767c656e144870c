"""What an engine is: many phones in, one integer sum out, the same numbers at any speed (spec 7.8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import Task, rows_of
from simulation.coded import Coded

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Crowd:
    """Phones over rows they may share with others: phone i owns rows first[i] … first[i]+counts[i]-1 of x and y.

    ids (P,) key shuffles and coins; x (R, F) float32 or coded, y (R,). `cache` keeps what an engine computed once a
    run; a crowd taken from another has it too, and copies no rows.
    """

    ids: NDArray[np.uint64]
    first: Ints
    counts: Ints
    x: NDArray[np.float32] | Coded
    y: NDArray[np.float32]
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, ids: NDArray[np.uint64], offsets: Ints, x: NDArray[np.float32] | Coded, y: NDArray[np.float32]
    ) -> Crowd:
        """Phone i owns rows offsets[i] … offsets[i+1]-1; offsets (P+1,)."""
        return cls(ids, np.asarray(offsets[:-1], np.int64), np.diff(offsets), x, y)

    @property
    def phones(self) -> int:
        """Number of phones, with or without rows."""
        return len(self.ids)

    def take(self, chosen: NDArray[Any] | slice) -> Crowd:
        """These phones (a slice, indices or a mask), in this order, over the same rows."""
        return Crowd(self.ids[chosen], self.first[chosen], self.counts[chosen], self.x, self.y, self.cache)

    def rows(self) -> tuple[Ints, Ints]:
        """(row numbers (n,) phone after phone, offsets (P+1,) into them)."""
        return rows_of(self.first, self.counts)


@dataclass(frozen=True)
class Trained:
    """A round over a crowd. `sum` (d,) int64 is the answer; the rest is simulation_only and stays on the farm.

    norms (P,) before clipping; raw (S, d) and units (S, d) are the first S phones' updates before and after
    clip and encode.
    """

    sum: Ints
    norms: NDArray[np.float64]
    raw: NDArray[np.float64]
    units: Ints


class Engine(Protocol):
    """Interchangeable by test: one round agrees to 2e-6 relative, unlabelled phones contribute zeros."""

    @property
    def name(self) -> str:
        """How a run asks for it."""
        ...

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Every phone of the crowd trains from task.flat; the first `sample` phones' stages are kept."""
        ...
