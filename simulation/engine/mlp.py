"""Many phones' MLP training at once, forward and backward by hand on stacked weights (spec 7.8).

A chunk's phones stand sorted by length, so those that still train are a prefix. All leave from the weights sent: the
first step needs none of their own, one product serves every row. From then on a phone's weights are its change so far
plus the weights sent; the change itself is what is added up, so no digits cancel in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulation.engine.problem import Columns, Dense, Problem
from simulation.engine.schedule import Schedule
from simulation.engine.space import Space
from simulation.engine.tally import StackedUpdates, exact_group, one_thread_an_operation

Layers = list[tuple[Tensor, Tensor]]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
LEAST = -1e38  # what float32 holds
ROWS = 1 << 14  # trained on at a time
NUMBERS, MOST = 1_000_000, 4096  # weights of a chunk's phones, and phones


@dataclass(frozen=True)
class Mlp:
    """One round's MLP."""

    problem: Problem

    @cached_property
    def sent(self) -> Layers:
        """The model received: per layer matrix (in, out) and bias (1, out)."""
        return _views(torch.from_numpy(self.problem.flat.copy()), self.problem.shapes)

    @cached_property
    def place(self) -> Ints:
        """Where each number of the flat model lies among the parts laid end to end, (d,)."""
        places = _views(torch.arange(self.problem.dimension), self.problem.shapes)
        big, small = self._split([part.flatten() for layer in places for part in layer])
        return np.argsort(torch.cat([*big, *small]).numpy())

    @property
    def phones(self) -> int:
        """Phones a chunk."""
        return min(max(NUMBERS // self.problem.dimension, 16), MOST)

    @property
    def rows(self) -> int:
        """Rows of one step a chunk."""
        return ROWS

    @contextmanager
    def threads(self) -> Iterator[int]:
        """torch's number of threads; each trains chunks of its own, so an operation has one (OpenMP barriers wait)."""
        with one_thread_an_operation() as granted:
            yield granted

    def begin(self) -> None:
        """One thread an operation."""
        torch.set_num_threads(1)

    def updates(self, phones: Ints, space: Space) -> StackedUpdates:
        """Raw updates of labelled phones sorted by falling length."""
        schedule, local = Schedule(self.problem, phones), self.problem.local
        keep, change = max(1 - local.learning_rate * local.prox, LEAST), self._stack("change", len(phones), space)
        own = self._stack("own", schedule.active(1), space)
        for step in range(schedule.length):
            rows, weights = schedule.at(step)
            weights = weights * np.float32(-local.learning_rate)
            now = _first(change, len(rows))
            here = self._moved(now, _first(own, len(rows))) if step else self.sent
            size = max(ROWS // len(rows), 1)
            for at in range(0, rows.shape[1], size):
                part = slice(at, at + size)
                seen = forward(here, inputs(self.problem, rows[:, part], space), space)
                slope = seen.pop().sigmoid_().sub_(_column(self.problem.y.take(rows[:, part])))
                slope.mul_(_column(weights[:, part]))
                backward(here, now, seen, slope, 1.0 if at else keep if step else 0.0, space)
        big, small = self._split([part.flatten(1) for layer in change for part in layer])
        return StackedUpdates([*big, torch.cat(small, dim=1)], self.place, exact_group(self.problem))

    def _stack(self, name: str, phones: int, space: Space) -> Layers:
        """Uninitialised weights of `phones` phones."""

        def new(like: Tensor, key: str) -> Tensor:
            return torch.from_numpy(space.take(key, phones, *like.shape))

        return [(new(m, f"{name}{i}"), new(b, f"{name}{i}b")) for i, (m, b) in enumerate(self.sent)]

    def _moved(self, now: Layers, own: Layers) -> Layers:
        """Phones' own weights: the change so far plus the weights sent."""
        for layer, change, sent in zip(own, now, self.sent, strict=True):
            for out, moved, start in zip(layer, change, sent, strict=True):
                torch.add(moved, start, out=out)
        return own

    def _split(self, parts: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Parts handled one by one, and those so small that they are put together."""
        least = self.problem.dimension // 8
        return [p for p in parts if p.shape[-1] > least], [p for p in parts if p.shape[-1] <= least]


def _first(layers: Layers, phones: int) -> Layers:
    return [(matrix[:phones], bias[:phones]) for matrix, bias in layers]


def _column(values: Floats) -> Tensor:
    return torch.from_numpy(values)[:, :, None]


def _views(flat: Tensor, shapes: tuple[tuple[int, int], ...]) -> Layers:
    """Per layer (matrix (in, out), bias (1, out)) of a flat model."""
    views, at = [], 0
    for inside, outside in shapes:
        end = at + inside * outside
        views.append((flat[at:end].view(inside, outside), flat[end : end + outside].view(1, outside)))
        at = end + outside
    return views


def forward(layers: Layers, x: Tensor, space: Space) -> list[Tensor]:
    """[x (A, L, width), outputs of the hidden layers, logits (A, L, 1)] for shared (in, out) or own (A, in, out)."""
    seen = [x]
    for i, (matrix, bias) in enumerate(layers):
        out = torch.from_numpy(space.take(f"seen{i}", *x.shape[:2], matrix.shape[-1]))
        if matrix.dim() == 2:
            torch.mm(seen[-1].flatten(0, 1), matrix, out=out.flatten(0, 1))
        else:
            torch.bmm(seen[-1], matrix, out=out)
        out.add_(bias)  # sooner than a product on top of the bias
        seen.append(out.tanh_() if i + 1 < len(layers) else out)
    return seen


def backward(layers: Layers, change: Layers, seen: list[Tensor], slope: Tensor, keep: float, space: Space) -> None:
    """change := keep · change + Σ rows' slopes, layer by layer; `slope` (A, L, 1) is by the logits, length included.

    keep 0 is the first step: what `change` held does not matter.
    """
    ones = torch.ones(1, 1, slope.shape[1]).expand(len(slope), -1, -1)
    for i in reversed(range(len(layers))):
        if keep == 0:
            _begin(change[i], seen[i], slope)
        else:
            _add(change[i], seen[i], slope, ones, keep)
        if i == 0:
            return
        matrix, below = layers[i][0], torch.from_numpy(space.take(f"slope{i}", *seen[i].shape))
        if slope.shape[2] == 1:
            torch.mul(slope, matrix.mT, out=below)
        elif matrix.dim() == 2:
            torch.mm(slope.flatten(0, 1), matrix.T, out=below.flatten(0, 1))
        else:
            torch.bmm(slope, matrix.mT, out=below)
        slope = torch.ops.aten.tanh_backward.grad_input(below, seen[i], grad_input=below)


def _add(change: tuple[Tensor, Tensor], below: Tensor, slope: Tensor, ones: Tensor, keep: float) -> None:
    """A layer's further change. One output is taken as a row: MKL is slow at a single column."""
    matrix, bias = change
    bias.baddbmm_(ones, slope, beta=keep)
    if slope.shape[2] == 1:
        matrix.mT.baddbmm_(slope.mT, below, beta=keep)
    else:
        matrix.baddbmm_(below.mT, slope, beta=keep)


def _begin(change: tuple[Tensor, Tensor], below: Tensor, slope: Tensor) -> None:
    """A layer's first change. torch multiplies very small matrices one number at a time, so those are sums here."""
    matrix, bias = change
    torch.sum(slope, 1, keepdim=True, out=bias)
    if slope.shape[2] == 1:
        torch.sum(below * slope, 1, out=matrix[:, :, 0])
    else:
        torch.bmm(below.transpose(1, 2), slope, out=matrix)


def inputs(problem: Problem, rows: Ints, space: Space) -> Tensor:
    """The rows' (A, L) inputs (A, L, width) float32, plain or looked up."""
    of, place = problem.rows, rows.reshape(-1)
    x = space.take("x", *rows.shape, of.width)
    out = x.reshape(len(place), of.width)
    if isinstance(of, Dense):
        np.take(of.x, place, axis=0, out=out, mode="clip")
    elif isinstance(of, Columns):
        np.take(of.values, of.codes[place][:, of.feature] + of.table, out=out, mode="clip")
    return torch.from_numpy(x)
