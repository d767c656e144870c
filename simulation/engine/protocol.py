"""What an engine is: many phones in, one integer sum out, the same numbers at any speed (spec 7.8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import Task, segments


@dataclass(frozen=True)
class Crowd:
    """Phones as segments: rows of phone i are x[offsets[i]:offsets[i+1]]; ids (P,) key shuffles and coins.

    `cache`, and `store` on disk, keep what an engine computed once per knots. A crowd taken from another (`base`) finds
    its rows there.
    """

    ids: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    store: Path | None = None
    base: Crowd | None = None
    base_rows: NDArray[np.int64] | None = None

    @property
    def phones(self) -> int:
        """Number of phones, with or without rows."""
        return len(self.ids)

    def take(self, chosen: NDArray[np.int64]) -> Crowd:
        """These phones, in this order, with their rows."""
        rows, offsets = segments(self.offsets, chosen)
        return Crowd(self.ids[chosen], offsets, self.x[rows], self.y[rows], base=self, base_rows=rows)


@dataclass(frozen=True)
class Trained:
    """A round over a crowd. `sum` (d,) int64 is the answer; the rest is simulation_only and stays on the farm.

    norms (P,) before clipping; raw (S, d) and units (S, d) are the first S phones' updates before and after
    clip and encode.
    """

    sum: NDArray[np.int64]
    norms: NDArray[np.float64]
    raw: NDArray[np.float64]
    units: NDArray[np.int64]


class Engine(Protocol):
    """Interchangeable by test: one round agrees to 1e-5 relative, unlabelled phones contribute zeros."""

    name: str

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Every phone of the crowd trains from task.flat; the first `sample` phones' stages are kept."""
        ...
