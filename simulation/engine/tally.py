"""Clip, encode and add up a chunk's updates where they lie, in float32 and still within the bound (spec 7.5, 7.8).

The road is that of `fl_client.update`: scale to the clip norm, round toward zero, add whole numbers. What differs is
the number type, so the bound is drawn in by every rounding float32 may make; whatever that does not cover goes
through `encode_rows` itself.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_client.update import encode_rows
from simulation.engine.space import Space

BLOCK = 16  # squares added in float32 before float64 takes over
ROUNDING = 2.0**-24  # half a unit in the last place of float32, relative
# Norms err by half of BLOCK roundings; divisor and quotient by one each; two more for what float64 does.
SHORTER = 1 - (BLOCK / 2 + 4) * ROUNDING
GROUP, SMALLEST_GROUP = 32, 8  # phones added up in float32 before float64 takes over
TINY = 1e-12  # clip norms whose squares float32 cannot hold


def column_sums(part: Tensor, group: int) -> Tensor:
    """Sum over the rows of (P, k), float64: float32 inside groups of rows."""
    if group < SMALLEST_GROUP:
        return part.sum(0, dtype=torch.float64)
    whole = len(part) // group * group
    sums = part[:whole].view(-1, group, part.shape[1]).sum(1).sum(0, dtype=torch.float64)
    return sums + part[whole:].sum(0) if whole < len(part) else sums


def encode_parts(parts: list[Tensor], norm: float, scale: int, space: Space) -> NDArray[np.float64]:
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
        chosen = parts if len(near) == len(norms) else [part[near] for part in parts]
        norms[near] = torch.stack([_squares(part, space) for part in chosen]).sum(0).sqrt_()
    divisor = (torch.clamp(norms / bound, min=1.0) / scale).float()[:, None]
    for part in parts:
        torch.div(part, divisor, rounding_mode="trunc", out=part)
    return np.asarray(norms.numpy())


def _squares(part: Tensor, space: Space) -> Tensor:
    """Sum of squares of each row, (P,) float64: at most BLOCK of them are added in float32."""
    phones, width = part.shape
    square = torch.mul(part, part, out=torch.from_numpy(space.take("square", phones, width)))
    long = width // BLOCK
    blocks = square.as_strided((phones, BLOCK, long), (width, long, 1))
    rest = square[:, BLOCK * long :]
    return blocks.sum(1).sum(1, dtype=torch.float64) + rest.sum(1, dtype=torch.float64)


def _exactly(parts: list[Tensor], norm: float, scale: int) -> NDArray[np.float64]:
    joined = torch.cat(parts, dim=1).double().numpy()
    units, norms = encode_rows(joined, norm, scale)
    at = 0
    for part in parts:
        part.copy_(torch.from_numpy(units[:, at : at + part.shape[1]]))
        at += part.shape[1]
    return norms
