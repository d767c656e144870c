"""Many phones' additive training at once, in NumPy alone: a farm that only adds up never loads torch (spec 7.8).

A row's inputs are looked up level by level from a table computed once a round, for one chunk at a time; a gradient is
a product of its rows and their slopes. Rows stand in pieces of few, so that each product stays in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.update import encode_rows
from model.errors import RoundError
from simulation.engine.chunks import processors
from simulation.engine.problem import Hats, Problem
from simulation.engine.schedule import Schedule
from simulation.engine.space import Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
PIECE = 8  # rows
ROWS = 1 << 10  # looked up at a time
NUMBERS, MOST = 200_000, 4096  # weights of a chunk's phones, and phones
TABLE = 1 << 24  # numbers of the table of all levels; beyond, a chunk looks up the levels it has


@dataclass(frozen=True)
class AdditiveUpdates:
    """values (P, F·K + 1) float64, features padded to one width, bias last; `place` (d,) finds the model's order."""

    values: Matrix
    place: Ints

    def rows(self, kept: Ints) -> Matrix:
        """See `Updates.rows`."""
        return self.values[kept[:, None], self.place]

    def encode(self, norm: float, scale: int) -> NDArray[np.float64]:
        """See `Updates.encode`."""
        return encode_rows(self.values, norm, scale)[1]

    def sum(self) -> NDArray[np.float64]:
        """See `Updates.sum`."""
        return np.asarray(self.values.sum(axis=0)[self.place])


@dataclass(frozen=True)
class Additive:
    """One round's additive model; rows must be `Hats`."""

    problem: Problem

    @cached_property
    def hats(self) -> Hats:
        """The rows' look-up tables."""
        if not isinstance(self.problem.rows, Hats):
            raise RoundError("an additive model needs its hats; prepare the rows again")
        return self.problem.rows

    @cached_property
    def width(self) -> int:
        """Numbers a feature, padding included."""
        return int(self.hats.sizes.max()) + 1

    @property
    def _small(self) -> bool:
        """Whether a table of all levels may be kept."""
        return len(self.hats.hat) * self.width <= TABLE

    @cached_property
    def place(self) -> Ints:
        """Where each number of the flat model lies among the padded ones, (d,)."""
        own = [j * self.width + np.arange(size + 1) for j, size in enumerate(self.hats.sizes.tolist())]
        return np.concatenate([[len(own) * self.width], *own])

    @cached_property
    def sent(self) -> Floats:
        """The model received, padded, (F·K + 1,)."""
        padded = np.zeros(len(self.hats.sizes) * self.width + 1, dtype=np.float32)
        padded[self.place] = self.problem.flat
        return padded

    @property
    def phones(self) -> int:
        """Phones a chunk."""
        return min(max(NUMBERS // len(self.sent), 16), MOST)

    @property
    def rows(self) -> int:
        """Rows of one step a chunk."""
        return ROWS

    @contextmanager
    def threads(self) -> Iterator[int]:
        """What OMP_NUM_THREADS grants, or every processor."""
        _ = self.hats.inputs if self._small else None  # once, before the threads ask for it
        yield processors()

    def begin(self) -> None:
        """Nothing to prepare."""

    def updates(self, phones: Ints, space: Space) -> AdditiveUpdates:
        """Raw updates of labelled phones sorted by falling length. The change is kept apart, so no digits cancel."""
        schedule, local = Schedule(self.problem, phones), self.problem.local
        keep, change = 1 - local.learning_rate * local.prox, np.zeros((len(phones), len(self.sent)))
        for step in range(schedule.length):
            rows, weights = schedule.at(step)
            now = change[: len(rows)]
            here = (self.sent + now).astype(np.float32)[:, None, :, None] if step else self.sent[:, None]
            if step:
                now *= keep
            weights *= np.float32(-local.learning_rate)
            parts = _parts(rows.shape)
            for part in parts:
                cut = rows[:, part]
                if step == 0 or schedule.shuffled or len(parts) > 1:
                    known = self._inputs(cut, space)
                self._add(now, here, known[: len(cut)], self.problem.y[_pieces(cut)], _pieces(weights[:, part], 0))
        return AdditiveUpdates(change, self.place)

    def _add(self, now: Matrix, here: Floats, x: Floats, y: Floats, weights: Floats) -> None:
        """now += Σ weights · slope of the loss, at the weights `here`; x (A, Q, S, F·K), y and weights (A, Q, S)."""
        bias = np.float32(self.hats.bias)
        logits = np.matmul(x, here[..., :-1, :])[..., 0] + here[..., -1:, 0] * bias
        slope = (0.5 * (1 + np.tanh(logits / 2)) - y) * weights
        sums = np.matmul(slope[:, :, None, :], x)[:, :, 0]
        now[:, :-1] += sums[:, 0] if sums.shape[1] == 1 else sums.sum(axis=1, dtype=np.float64)
        now[:, -1] += self.hats.bias * slope.sum(axis=(1, 2), dtype=np.float64)

    def _inputs(self, rows: Ints, space: Space) -> Floats:
        """Inputs (A, Q, S, F·K) of rows (A, L), without the bias."""
        pieces = _pieces(rows)
        levels = self.hats.codes[pieces.reshape(-1)] + self.hats.start
        x = space.take("x", levels.size, self.width)
        if self._small:
            np.take(self.hats.inputs, levels.reshape(-1), axis=0, out=x, mode="clip")
        else:
            some, which = np.unique(levels, return_inverse=True)
            np.take(self.hats.inputs_of(some), which.reshape(-1), axis=0, out=x, mode="clip")
        return x.reshape(*pieces.shape, -1)


def _parts(shape: tuple[int, ...]) -> list[slice]:
    """Columns of rows (A, L) in parts of at most ROWS rows or PIECE columns."""
    size = max(ROWS // shape[0], PIECE)
    return [slice(at, at + size) for at in range(0, shape[1], size)]


def _pieces(values: NDArray[Any], fill: int | None = None) -> NDArray[Any]:
    """(A, L) as (A, Q, S) with S ≤ PIECE; filled up with `fill`, or each phone's own first value."""
    active, length = values.shape
    size = min(length, PIECE)
    more = -length % size
    if more:
        own = values[:, :1] if fill is None else np.full((active, 1), fill, values.dtype)
        values = np.concatenate([values, np.broadcast_to(own, (active, more))], axis=1)
    return values.reshape(active, -1, size)
