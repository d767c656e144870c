"""Clip, encode and add up a chunk's updates where they lie, in float32 and still within the bound (spec 7.5, 7.8).

The road is that of `fl_client.update`: scale to the clip norm, round toward zero, add whole numbers. What differs is
the number type, so the bound is drawn in by every rounding float32 may make; what float32 cannot hold goes through
`encode_rows` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_client.update import encode_rows
from simulation.engine.problem import Problem
from simulation.engine.script import unlocked

Ints = NDArray[np.int64]
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
ROUNDING = 2.0**-24  # half a unit in the last place of float32, relative
FOLD = 8  # squares added up in float32
SHORTER = 1 - 7 * ROUNDING  # FOLD / 2 of the norm, factor and product one each; the rest is float64's, with room
GROUP, SMALLEST_GROUP = 64, 8  # phones added up in float32 before float64 takes over
BLOCK = 128  # phones whose updates fit into a core's cache
TINY = 1e-12  # clip norms whose squares float32 cannot hold


@dataclass(frozen=True)
class StackedUpdates:
    """float32 parts (P, k) of the model; `place` (d,) finds the model's order among them laid end to end."""

    parts: list[Tensor]
    place: Ints
    group: int

    def rows(self, kept: Ints) -> Matrix:
        """See `Updates.rows`."""
        joined = torch.cat([part[torch.from_numpy(kept)] for part in self.parts], dim=1)
        return joined.double().numpy()[:, self.place]

    def encode(self, norm: float, scale: int) -> tuple[NDArray[np.float64], Vector]:
        """See `Updates.encode`. A block is clipped, rounded and added up while it lies in the cache."""
        norms, sums = [], np.zeros(sum(part.shape[1] for part in self.parts))
        for at in range(0, len(self.parts[0]), BLOCK):
            block = [part[at : at + BLOCK] for part in self.parts]
            norms.append(encode_parts(block, norm, scale))
            sums += _added(block, self.group).numpy()
        return norms[0] if len(norms) == 1 else np.concatenate(norms), sums

    def sum(self) -> Vector:
        """See `Updates.sum`."""
        return np.asarray(_added(self.parts, self.group).numpy())


def exact_group(problem: Problem) -> int:
    """Phones whose grid units float32 adds up without rounding."""
    return min(GROUP, int(2**24 / (problem.local.clip_norm * problem.scale)))


@contextmanager
def one_thread_an_operation() -> Iterator[int]:
    """Yields torch's number of threads, for that many workers; each calls torch.set_num_threads(1) as it begins."""
    own = torch.get_num_threads()
    try:
        yield own
    finally:
        torch.set_num_threads(own)  # a worker also set what threads started later would have


@contextmanager
def no_records() -> Iterator[None]:
    """One thread an operation and nothing kept for gradients: half the cost of a view."""
    torch.set_num_threads(1)
    plain = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]  # else it compiles again for every shape
    with torch.inference_mode(), plain:
        yield


@unlocked
def column_sums(part: Tensor, group: int, least: int = SMALLEST_GROUP) -> Tensor:
    """Sum over the rows of (P, k), float64: float32 inside groups of rows."""
    if group < least:
        return part.sum(0, dtype=torch.float64)
    if len(part) <= group:
        return part.sum(0).double()
    whole = len(part) // group * group
    sums = part[:whole].view(-1, group, part.size(1)).sum(1).sum(0, dtype=torch.float64)
    return sums + part[whole:].sum(0) if whole < len(part) else sums


@unlocked
def _added(parts: list[Tensor], group: int) -> Tensor:
    """Sums over the rows of all parts, laid end to end."""
    return torch.cat([column_sums(part, group) for part in parts])


@unlocked
def _squares(part: Tensor, most: int = FOLD) -> Tensor:
    """Sums of squares of the rows of (P, k), float64; FOLD at a time are added in float32."""
    fold = most if part.size(1) % most == 0 else 1
    few = part.view(part.size(0), fold, -1)
    return (few * few).sum(1).sum(1, dtype=torch.float64)


@unlocked
def _clipped(
    parts: list[Tensor], norm: float, scale: float, shorter: float = SHORTER, half: float = ROUNDING
) -> Tensor | None:
    """`encode_parts` where all is finite; else None and the parts as they were.

    A norm is first taken as float32 finds it; only where it may reach the bound is it taken again.
    """
    norms = torch.zeros([parts[0].size(0)], dtype=torch.float64)
    width = 0
    for part in parts:
        norms += torch.linalg.vector_norm(part, dim=1).double().square_()
        width += part.size(1)
    norms.sqrt_()
    if not bool(torch.isfinite(norms).all()):
        return None
    near = torch.nonzero(norms > norm * shorter * (1 - half * width)).squeeze(1)
    if near.numel() > 0:
        squares = torch.zeros([near.numel()], dtype=torch.float64)
        for part in parts:
            squares += _squares(part if near.numel() == part.size(0) else part.index_select(0, near))
        norms.index_copy_(0, near, squares.sqrt_())
    factor = torch.div(scale, (norms / (norm * shorter)).clamp_(min=1.0)).float().unsqueeze(1)
    for part in parts:
        part.mul_(factor).trunc_()
    return norms


def encode_parts(parts: list[Tensor], norm: float, scale: int) -> NDArray[np.float64]:
    """Parts (P, k) float32 become grid units in place; norms before clipping (P,) come back.

    The units' norm never exceeds norm · scale. UpdateError if a value is not finite.
    """
    norms = _clipped(parts, norm, float(scale)) if norm >= TINY else None
    return _exactly(parts, norm, scale) if norms is None else np.asarray(norms.numpy())


def _exactly(parts: list[Tensor], norm: float, scale: int) -> NDArray[np.float64]:
    joined = torch.cat(parts, dim=1).double().numpy()
    units, norms = encode_rows(joined, norm, scale)
    at = 0
    for part in parts:
        whole = torch.from_numpy(units[:, at : at + part.shape[1]])
        part.copy_(whole)  # beyond 2^24 float32 lacks some whole numbers: then the next one toward zero
        part.copy_(torch.where(part.double().abs() > whole.abs(), torch.nextafter(part, torch.zeros(())), part))
        at += part.shape[1]
    return norms
