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

Ints = NDArray[np.int64]
Matrix = NDArray[np.float64]
ROUNDING = 2.0**-24  # half a unit in the last place of float32, relative
FOLD = 8  # squares added up in float32
SHORTER = 1 - 7 * ROUNDING  # FOLD / 2 of the norm, divisor and quotient one each; the rest is float64's, with room
GROUP, SMALLEST_GROUP = 32, 8  # phones added up in float32 before float64 takes over
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

    def encode(self, norm: float, scale: int) -> NDArray[np.float64]:
        """See `Updates.encode`."""
        return encode_parts(self.parts, norm, scale)

    def sum(self) -> NDArray[np.float64]:
        """See `Updates.sum`."""
        return torch.cat([column_sums(part, self.group) for part in self.parts]).numpy()[self.place]


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


def column_sums(part: Tensor, group: int) -> Tensor:
    """Sum over the rows of (P, k), float64: float32 inside groups of rows."""
    if group < SMALLEST_GROUP:
        return part.sum(0, dtype=torch.float64)
    whole = len(part) // group * group
    sums = part[:whole].view(-1, group, part.shape[1]).sum(1).sum(0, dtype=torch.float64)
    return sums + part[whole:].sum(0) if whole < len(part) else sums


def encode_parts(parts: list[Tensor], norm: float, scale: int) -> NDArray[np.float64]:
    """Parts (P, k) float32 become grid units in place; norms before clipping (P,) come back.

    The units' norm never exceeds norm · scale. A norm is first taken as float32 finds it; only where it may reach the
    bound is it taken again. UpdateError if a value is not finite.
    """
    rough = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts])
    norms = torch.linalg.vector_norm(rough.double(), dim=0)
    if norm < TINY or not bool(torch.isfinite(norms).all()):
        return _exactly(parts, norm, scale)
    bound = norm * SHORTER
    near = torch.nonzero(norms > bound * (1 - ROUNDING * sum(part.shape[1] for part in parts)))[:, 0]
    if len(near):
        norms[near] = torch.stack([_squares(part.index_select(0, near)) for part in parts]).sum(0).sqrt_()
    divisor = (torch.clamp(norms / bound, min=1.0) / scale).float()[:, None]
    for part in parts:
        torch.div(part, divisor, rounding_mode="trunc", out=part)
    return np.asarray(norms.numpy())


def _squares(part: Tensor) -> Tensor:
    """Sums of squares of the rows of (P, k), float64; FOLD at a time are added in float32."""
    fold = FOLD if part.shape[1] % FOLD == 0 else 1
    folded = part.numpy().reshape(len(part), fold, -1)
    few = np.einsum("pij,pij->pj", folded, folded)  # torch takes a hundred times as long
    return torch.from_numpy(few.sum(1, dtype=np.float64))


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
