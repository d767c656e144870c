"""Many phones' MLP training at once, forward and backward by hand on stacked weights (spec 7.8).

A chunk's phones stand sorted by length, so those that still train are a prefix. All leave from the weights sent: the
first step needs none of their own, one product serves every row. From then on a phone's weights are its change so far
plus the weights sent; the change itself is what is added up, so no digits cancel in the end. What rows and the weights
sent feed into the first layer never changes: it is one product for all steps, and a step adds what the change feeds in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulation.engine import layers
from simulation.engine.chunks import Limits, Updates
from simulation.engine.problem import Columns, Dense, Problem
from simulation.engine.schedule import Part, Schedule, windows
from simulation.engine.space import Space
from simulation.engine.tally import BLOCK, StackedUpdates, exact_group, no_records, one_thread_an_operation

Layers = list[tuple[Tensor, Tensor]]
Ints = NDArray[np.int64]
LEAST = -1e38  # what float32 holds
ROWS = 1 << 13  # trained on at a time
NUMBERS, MOST = 1_000_000, 4096  # weights of a chunk's phones, and phones


@dataclass(frozen=True)
class Mlp:
    """One round's MLP."""

    problem: Problem

    @cached_property
    def sent(self) -> Layers:
        """The model received: per layer matrix (in, out) and bias (1, out)."""
        return views(torch.from_numpy(self.problem.flat.copy()), self.problem.shapes)

    @property
    def place(self) -> Ints:
        """Where each number of the flat model lies among the parts laid end to end, (d,)."""
        return _places(self.problem.shapes)

    @property
    def size(self) -> int:
        """Numbers of an update."""
        return self.problem.dimension

    @property
    def limits(self) -> Limits:
        """How large a chunk may be."""
        return Limits(min(max(NUMBERS // self.size, 16), MOST), ROWS, MOST, ROWS // 2)

    @contextmanager
    def threads(self) -> Iterator[int]:
        """torch's number of threads; each trains chunks of its own, so an operation has one (OpenMP barriers wait)."""
        with one_thread_an_operation() as granted:
            yield granted

    def working(self) -> AbstractContextManager[None]:
        """One thread an operation."""
        return no_records()

    def updates(self, phones: Ints, space: Space) -> Iterator[tuple[slice, Updates]]:
        """Raw updates of labelled phones sorted by falling length."""
        schedule = Schedule(self.problem, phones)
        if schedule.length == 1 and len(phones) * schedule.batch <= ROWS:
            yield from self._single(schedule, space)
        else:
            yield slice(None), self._several(schedule, space)

    def _single(self, schedule: Schedule, space: Space) -> Iterator[tuple[slice, Updates]]:
        """One step each: all rows go through the weights sent at once, and updates exist a cacheful at a time."""
        parts = list(schedule.alike(BLOCK))
        x, y, w = self._batch(parts, space)
        seen, slopes = layers.single(x, y, w, self.sent, _room(space, "room", len(x) * self._numbers_a_row))
        change, at = self._stack("change", min(len(schedule.phones), BLOCK), space), 0
        for part in parts:
            phones, length = part.rows.shape
            now = first(change, phones)
            layers.formed(now, x, seen, slopes, at, length)
            yield slice(part.at, part.at + phones), self._stacked(now)
            at += part.rows.size

    def _several(self, schedule: Schedule, space: Space) -> StackedUpdates:
        """Any number of steps."""
        change = self._stack("change", len(schedule.phones), space)
        own = self._stack("own", schedule.active(1), space)
        for window in windows(schedule.parts(ROWS), ROWS):
            x, y, w = self._batch(window, space)
            parts = [(part.step, *part.rows.shape, part.first, part.whole) for part in window]
            most = max(part.rows.size for part in window) * self._numbers_a_row
            room, z = _room(space, "room", most), _room(space, "z", len(x), self.sent[0][0].shape[1])
            layers.several(x, y, w, parts, self.sent, change, own, self.keep, z, room)
        return self._stacked(change)

    @property
    def _numbers_a_row(self) -> int:
        """Of a row's way forward and back."""
        return 2 * sum(self.problem.hidden) + 1

    @cached_property
    def keep(self) -> float:
        """What the proximal term leaves of a change at each step."""
        return max(1 - self.problem.local.learning_rate * self.problem.local.prox, LEAST)

    def _batch(self, parts: list[Part], space: Space) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of these parts one after the other: inputs (N, width), labels (N, 1), weights by -rate (N, 1)."""
        rows = np.concatenate([part.rows.reshape(-1) for part in parts])
        weights = np.concatenate([part.weights.reshape(-1) for part in parts])
        weights *= np.float32(-self.problem.local.learning_rate)
        y = torch.from_numpy(self.problem.y.take(rows)[:, None])
        return inputs(self.problem, rows, space), y, torch.from_numpy(weights[:, None])

    def _stack(self, name: str, phones: int, space: Space) -> Layers:
        """Uninitialised weights of `phones` phones."""

        def new(like: Tensor, key: str) -> Tensor:
            return torch.from_numpy(space.take(key, phones, *like.shape))

        return [(new(m, f"{name}{i}"), new(b, f"{name}{i}b")) for i, (m, b) in enumerate(self.sent)]

    def _stacked(self, change: Layers) -> StackedUpdates:
        big, small = _split([part.flatten(1) for layer in change for part in layer], self.size)
        return StackedUpdates([*big, torch.cat(small, dim=1)], self.place, exact_group(self.problem))


def _split(parts: list[Tensor], dimension: int) -> tuple[list[Tensor], list[Tensor]]:
    """Parts handled one by one, and those so small that they are put together."""
    least = dimension // 8
    return [p for p in parts if p.shape[-1] > least], [p for p in parts if p.shape[-1] <= least]


@lru_cache(maxsize=16)
def _places(shapes: tuple[tuple[int, int], ...]) -> Ints:
    """See `Mlp.place`: a round of a hundred phones would spend a quarter of its time on it."""
    dimension = sum(inside * outside + outside for inside, outside in shapes)
    big, small = _split(
        [part.flatten() for layer in views(torch.arange(dimension), shapes) for part in layer], dimension
    )
    return np.argsort(torch.cat([*big, *small]).numpy())


def _room(space: Space, name: str, *shape: int) -> Tensor:
    return torch.from_numpy(space.take(name, *shape))


def inputs(problem: Problem, rows: Ints, space: Space) -> Tensor:
    """The rows' (N,) inputs (N, width) float32, plain or looked up."""
    of = problem.rows
    x = space.take("x", len(rows), of.width)
    if isinstance(of, Dense):
        np.take(of.x, rows, axis=0, out=x, mode="clip")
    elif isinstance(of, Columns):
        np.take(of.values, of.codes[rows][:, of.feature] + of.table, out=x, mode="clip")
    return torch.from_numpy(x)


def first(layers_: Layers, phones: int) -> Layers:
    """The first phones' weights."""
    return [(matrix[:phones], bias[:phones]) for matrix, bias in layers_]


def views(flat: Tensor, shapes: tuple[tuple[int, int], ...]) -> Layers:
    """Per layer (matrix (in, out), bias (1, out)) of a flat model."""
    found, at = [], 0
    for inside, outside in shapes:
        end = at + inside * outside
        found.append((flat[at:end].view(inside, outside), flat[end : end + outside].view(1, outside)))
        at = end + outside
    return found
