"""Many phones' MLP training at once, forward and backward by hand on stacked weights (spec 7.8).

A chunk's phones stand sorted by length, so those that still train are a prefix. All leave from the weights sent: the
first step needs none of their own, one product serves every row. From then on a phone's weights are its change so far
plus the weights sent; the change itself is what is added up, so no digits cancel in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulation.engine.problem import Columns, Dense, Problem
from simulation.engine.schedule import Schedule
from simulation.engine.space import Space

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Mlp:
    """One round's MLP: `sent` per layer (matrix (in, out), bias (1, out)), as the phones receive it."""

    problem: Problem
    sent: Layers

    @classmethod
    def of(cls, problem: Problem) -> Mlp:
        """Views of the problem's flat model."""
        return cls(problem, _views(torch.from_numpy(problem.flat.copy()), problem.shapes))

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """Where in the flat model the parts of `deltas`, laid end to end, belong; (d,)."""
        places = _views(torch.arange(self.problem.dimension), self.problem.shapes)
        big, small = self._split([part.flatten() for layer in places for part in layer])
        return np.asarray(torch.cat([*big, *small]).numpy())

    def _split(self, parts: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Parts handled one by one, and those so small that they are put together."""
        least = self.problem.dimension // 8
        return [p for p in parts if p.shape[-1] > least], [p for p in parts if p.shape[-1] <= least]

    def deltas(self, phones: NDArray[np.int64], space: Space) -> list[Tensor]:
        """Raw updates of labelled phones sorted by falling length: float32 parts (P, k), see `columns`."""
        schedule, local = Schedule(self.problem, phones), self.problem.local
        keep, change = 1 - local.learning_rate * local.prox, self._stack("change", len(phones), space)
        own = self._stack("own", schedule.active(1), space)
        for step in range(schedule.length):
            rows, weights = schedule.at(step)
            active = len(rows)
            now = [(m[:active], b[:active]) for m, b in change]
            if step:
                here = [(m[:active], b[:active]) for m, b in own]
                for (m, b), (dm, db), (m0, b0) in zip(here, now, self.sent, strict=True):
                    torch.add(dm, m0, out=m)
                    torch.add(db, b0, out=b)
            else:
                here = self.sent
            x = inputs(self.problem, rows, space)
            seen = forward(here, x, space)
            slope = seen.pop().sigmoid_().sub_(torch.from_numpy(self.problem.y[rows])[:, :, None])
            slope.mul_(torch.from_numpy(weights * np.float32(-local.learning_rate))[:, :, None])
            backward(here, now, seen, slope, keep if step else 0.0, space)
        big, small = self._split([part.flatten(1) for layer in change for part in layer])
        return [*big, torch.cat(small, dim=1)]

    def _stack(self, name: str, phones: int, space: Space) -> Layers:
        return [
            (space.take(f"{name}{i}", phones, *matrix.shape), space.take(f"{name}{i}b", phones, *bias.shape))
            for i, (matrix, bias) in enumerate(self.sent)
        ]


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
        out = space.take(f"seen{i}", *x.shape[:2], matrix.shape[-1])
        if matrix.dim() == 2:
            torch.addmm(bias, seen[-1].flatten(0, 1), matrix, out=out.flatten(0, 1))
        else:
            torch.baddbmm(bias, seen[-1], matrix, out=out)
        seen.append(out.tanh_() if i + 1 < len(layers) else out)
    return seen


def backward(layers: Layers, change: Layers, seen: list[Tensor], slope: Tensor, keep: float, space: Space) -> None:
    """change := keep · change + Σ rows' slopes, layer by layer; `slope` (A, L, 1) is by the logits, length included.

    keep 0 is the first step: what `change` held does not matter.
    """
    ones = torch.ones(1, 1, slope.shape[1]).expand(len(slope), -1, -1)
    for i in reversed(range(len(layers))):
        for total, left in zip(change[i], (seen[i].transpose(1, 2), ones), strict=True):
            total.baddbmm_(left, slope, beta=keep)
        if i == 0:
            return
        matrix, below = layers[i][0], space.take(f"slope{i}", *seen[i].shape)
        if matrix.dim() == 2:
            torch.mm(slope.flatten(0, 1), matrix.T, out=below.flatten(0, 1))
        else:
            torch.bmm(slope, matrix.transpose(1, 2), out=below)
        slope = torch.ops.aten.tanh_backward.grad_input(below, seen[i], grad_input=below)


def inputs(problem: Problem, rows: NDArray[np.int64], space: Space) -> Tensor:
    """The rows' (A, L) inputs (A, L, width) float32, plain or looked up."""
    of, place = problem.rows, rows.reshape(-1)
    x = space.take("x", *rows.shape, of.width)
    out = x.numpy().reshape(len(place), of.width)
    if isinstance(of, Dense):
        np.take(of.x, place, axis=0, out=out, mode="clip")
    elif isinstance(of, Columns):
        np.take(of.values, of.codes[place][:, of.feature] + of.table, out=out, mode="clip")
    return x
