"""Many phones' additive training at once, in NumPy alone: a farm that only adds up never loads torch (spec 7.8).

A row's inputs are looked up level by level from a table computed once a round, for one chunk at a time; a gradient is
a product of its rows and their slopes. Rows stand in pieces of few, so that each product stays in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.batches import steps_of
from fl_client.update import encode_rows
from model.errors import RoundError
from simulation.engine.chunks import Limits, Updates
from simulation.engine.problem import Hats, Problem
from simulation.engine.schedule import Schedule
from simulation.engine.space import Space
from simulation.processors import default_threads

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
PIECE = 8  # rows
MANY_ROWS = 4096  # from here on torch's bags train a round sooner than it takes to look rows up
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

    def encode(self, norm: float, scale: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Updates.encode`."""
        return encode_rows(self.values, norm, scale)[1], self.sum()

    def sum(self) -> NDArray[np.float64]:
        """See `Updates.sum`."""
        return np.asarray(self.values.sum(axis=0))


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

    @property
    def fits_bags(self) -> bool:
        """Whether `bags` may train it: one step a phone, a table of all levels, rows enough to be worth torch."""
        counts = self.problem.counts
        return self._small and int(counts.sum()) >= MANY_ROWS and int(steps_of(self.problem.local, counts).max()) == 1

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

    @cached_property
    def _scores(self) -> Floats:
        """What each level adds to a logit by the model received, the intercept spread over the features; (L,)."""
        features = len(self.hats.sizes)
        weights = self.sent[:-1].reshape(features, self.width).astype(np.float64)
        ends = [*self.hats.start.tolist(), len(self.hats.hat)]
        parts = [self.hats.inputs[a:b] @ w for a, b, w in zip(ends, ends[1:], weights, strict=False)]
        return np.asarray(np.concatenate(parts) + self.sent[-1] * self.hats.bias / features, dtype=np.float32)

    @property
    def size(self) -> int:
        """Numbers of an update, padding included."""
        return len(self.sent)

    @property
    def limits(self) -> Limits:
        """How large a chunk may be."""
        phones = min(max(NUMBERS // self.size, 16), MOST)
        return Limits(phones, ROWS, phones, ROWS)

    @contextmanager
    def threads(self) -> Iterator[int]:
        """What OMP_NUM_THREADS grants, or every processor."""
        _ = self._scores if self._small else None  # once, before the threads ask for it
        yield default_threads()

    def working(self) -> AbstractContextManager[None]:
        """Around all that one thread trains."""
        return np.errstate(over="ignore", invalid="ignore")  # `encode_rows` refuses what comes of it

    def updates(self, phones: Ints, space: Space) -> Iterator[tuple[slice, Updates]]:
        """Raw updates of labelled phones sorted by falling length. The change is kept apart, so no digits cancel."""
        yield slice(None), self._trained(phones, space)

    def _trained(self, phones: Ints, space: Space) -> AdditiveUpdates:
        schedule, local = Schedule(self.problem, phones), self.problem.local
        keep, change = 1 - local.learning_rate * local.prox, np.empty((len(phones), len(self.sent)))
        for step in range(schedule.length):
            rows, weights = schedule.at(step)
            now = change[: len(rows)]
            here = (self.sent + now).astype(np.float32) if step else None
            weights, parts = weights * np.float32(-local.learning_rate), _parts(rows.shape)
            for i, part in enumerate(parts):
                cut = _pieces(rows[:, part])
                if step == 0 or schedule.shuffled or len(parts) > 1:
                    levels, x = self._inputs(cut, space)
                mine = x[: len(cut)]
                logits = self._sent_logits(levels, x) if here is None else _own_logits(here, mine, self.hats.bias)
                slope = (0.5 * (1 + np.tanh(logits / 2)) - self.problem.y[cut]) * _pieces(weights[:, part], 0)
                self._add(now, slope, mine, 1.0 if i else keep if step else 0.0)
        return AdditiveUpdates(change, self.place)

    def _add(self, now: Matrix, slope: Floats, x: Floats, keep: float) -> None:
        """now := keep · now + each phone's Σ slope · input; slope (A, Q, S), x (A, Q, S, F·K). 0 overwrites."""
        sums = np.matmul(slope[:, :, None, :], x)[:, :, 0]
        inner = sums[:, 0] if sums.shape[1] == 1 else sums.sum(axis=1, dtype=np.float64)
        bias = slope.sum(axis=(1, 2), dtype=np.float64) * self.hats.bias
        if keep == 0:
            now[:, :-1], now[:, -1] = inner, bias
            return
        if keep != 1:
            now *= keep
        now[:, :-1] += inner
        now[:, -1] += bias

    def _sent_logits(self, levels: Ints, x: Floats) -> Floats:
        """Logits (A, Q, S) by the model received."""
        if not self._small:
            return np.asarray(np.matmul(x, self.sent[:-1, None])[..., 0] + self.sent[-1] * np.float32(self.hats.bias))
        return np.asarray(self._scores.take(levels).sum(axis=1).reshape(x.shape[:3]))

    def _inputs(self, rows: Ints, space: Space) -> tuple[Ints, Floats]:
        """(levels (A·Q·S, F), inputs (A, Q, S, F·K)) of rows (A, Q, S), without the bias."""
        levels = self.hats.codes[rows.reshape(-1)] + self.hats.start
        x = space.take("x", levels.size, self.width)
        if self._small:
            np.take(self.hats.inputs, levels.reshape(-1), axis=0, out=x, mode="clip")
        else:
            some, which = np.unique(levels, return_inverse=True)
            np.take(self.hats.inputs_of(some), which.reshape(-1), axis=0, out=x, mode="clip")
        return levels, x.reshape(*rows.shape, -1)


def _own_logits(here: Floats, x: Floats, bias: float) -> Floats:
    """Logits (A, Q, S) by each phone's own weights (A, F·K + 1)."""
    return np.asarray(np.matmul(x, here[:, None, :-1, None])[..., 0] + here[:, None, -1:] * np.float32(bias))


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
