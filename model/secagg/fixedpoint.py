"""Grid units as residues modulo 2³², and the proof that a sum never leaves their range (spec 13.2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.errors import RoundError, UpdateError

Ring = NDArray[np.uint32]
Units = NDArray[np.int64]
HALF = 1 << 31
MAX_WRAP = 2.0**-40  # over all numbers of all releases of a plan


def to_ring(units: Units) -> Ring:
    """Units (d,) int64 modulo 2³², (d,) uint32; any int64 is taken, for a mask hides its size anyway.

    UpdateError for another dtype: a float would be cut without a word.
    """
    if units.dtype != np.int64:
        raise UpdateError(f"a vector of {units.dtype} cannot be masked; encode it on the plan's grid first")
    return units.astype(np.uint32)


def from_ring(residues: Ring) -> Units:
    """The centred lift of residues (d,): the one integer of −2³¹ … 2³¹ − 1 that each can stand for, int64."""
    return residues.view(np.int32).astype(np.int64)


def wrap_probability(population: int, reach: float, sigma: float, scale: int, dim: int, releases: int = 1) -> float:
    """A bound on the probability that any of `dim` numbers of any of `releases` sums wraps.

    A sum of `population` vectors of L2 norm ≤ `reach` has no number beyond population·reach·scale grid units.
    `sigma`, in grid units, is that of all the noise in the ring together: a discrete Gaussian's moment generating
    function is at most the continuous one's (Canonne, Kamath & Steinke 2020), so a sum of them with the variance σ²
    has P(|noise| ≥ t) ≤ 2·exp(−t²/2σ²).
    """
    room = HALF - 1 - population * reach * scale
    if room <= 0:
        return 1.0
    if sigma == 0:
        return 0.0
    away = min(room / sigma, 1e3)  # beyond it the exponential is 0 anyway
    return min(1.0, 2.0 * dim * releases * math.exp(-0.5 * away * away))


def require_room(population: int, reach: float, sigma: float, scale: int, dim: int, releases: int = 1) -> None:
    """RoundError unless a sum stays in the ring but with probability 2⁻⁴⁰; arguments of `wrap_probability`."""
    chance = wrap_probability(population, reach, sigma, scale, dim, releases)
    if not chance <= MAX_WRAP:
        raise RoundError(
            f"a sum of {population} phones on a grid of {scale} could wrap modulo 2^32 with probability "
            f"up to {chance:.2g}; plan a smaller grid scale"
        )
