"""Bars over the discrete Gaussian: the table under its sampler, and the comparison with the curve (spec 6.4).

The curve is h(v) = peak·exp(-v²/2σ²). The integers from -reach to reach - 1 are cut into cells of 2^shift, and over
each cell stands a bar of whole height at least h. A bar of height q is q of the SLOTS; one more slot stands for both
tails; the rest are empty. A uniform slot and a uniform place in its cell are a uniform point under the bars, at
`level` + u with u uniform below 1, and the points under the curve have exactly the law of h.

What rounding may do. A bar may be higher than it need be, and fewer of its slots may be called sure; both cost speed
alone. So heights are taken from float64 with MARGIN to spare, and no weight is ever stored rounded. A slot that
is not sure is compared in float64 and, within MARGIN of the curve, by `below_curve` in fractions. With |v| below
6σ the exponent is at most 18 and wrong by at most 18·2⁻⁵¹; the margin is 2⁻⁴⁰, so any exp right to twelve digits does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

BITS = 14
SLOTS = 1 << BITS
MARGIN = 2.0**-40
SIGMAS = 5  # the cells reach this far; a bar is a slot at least, so further out they would only cost slots
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bars:
    """Slots of one whole σ, in this order: sure, unsure, the tails' one, empty."""

    sigma: int
    shift: int  # a cell holds 2^shift integers
    reach: int  # the cells hold -reach to reach - 1
    peak: int  # h(0), in slots
    sure: int  # slots below this number lie wholly under the curve
    start: I64  # (SLOTS,) first integer of a slot's cell
    level: F64  # (SLOTS - sure,) how many slots lie below an unsure one; -1 for the tails', SLOTS if empty
    rate: float  # share of points under the curve, for choosing how many to try

    def curve(self, value: I64) -> F64:
        """h in float64, within a relative error below 2⁻⁴⁴ for |value| ≤ 6σ; further out only smaller."""
        return np.asarray(self.peak * np.exp(-0.5 * np.square(value / self.sigma)))

    def tail_share(self, block: int) -> Fraction:
        """Height of the bar over each integer of tail block `block` of one side: 2^-(block+2) of a slot over all."""
        return Fraction(1 << self.shift, (1 << self.sigma.bit_length()) << (block + 2))


@lru_cache(maxsize=16)
def bars(sigma: int) -> Bars:
    """The table of `sigma` ≥ 1: 16 to 32 cells a σ, or one integer a cell where σ is smaller.

    Tail blocks are W = 2^bit_length(σ) wide, σ < W ≤ 2σ. Block b begins (5 + b)σ out or further, and its bar stands
    above h there: the area under the bars gives peak ≤ SLOTS·width/2.5σ, so peak·exp(-(5+b)²/2) ≤ 2^-(b+2)·width/W
    follows from SLOTS·exp(-(5+b)²/2)/2.5 ≤ 2^-(b+3), which is 0.025 ≤ 0.125 at b = 0 and easier at every later b.
    """
    shift = max(0, sigma.bit_length() - 5)
    width = 1 << shift
    count = -(-SIGMAS * sigma // width)
    first = np.arange(-count, count, dtype=np.int64) * width
    last = first + (width - 1)
    near = np.where(first >= 0, first, -last)
    far = np.where(first >= 0, last, -first)
    high = np.exp(-0.5 * np.square(near / sigma)) * (1 + MARGIN)
    low = np.exp(-0.5 * np.square(far / sigma)) * (1 - MARGIN)
    peak = int((SLOTS - 1 - first.size) / float(high.sum()))
    heights = np.ceil(peak * high).astype(np.int64)
    below = np.floor(peak * low).astype(np.int64)
    unsure = heights - below
    empty = SLOTS - 1 - int(heights.sum())
    start = np.concatenate([np.repeat(first, below), np.repeat(first, unsure), np.zeros(1 + empty, np.int64)])
    rank = np.arange(int(unsure.sum())) - np.repeat(np.cumsum(unsure) - unsure, unsure)
    level = np.concatenate([np.repeat(below, unsure) + rank, [-1], np.full(empty, SLOTS)]).astype(np.float64)
    rate = peak * sigma * math.sqrt(2 * math.pi) / (width * SLOTS)
    for array in (start, level):
        array.flags.writeable = False
    return Bars(sigma, shift, count * width, peak, int(below.sum()), start, level, rate)


def below_curve(table: Bars, value: int, low: Fraction, step: Fraction, more: Callable[[], int]) -> bool:
    """Whether a uniform real of [low, low + step) lies below h(value), in fractions alone.

    e^x, x = value²/2σ², is enclosed by its series: after more than 2x terms the rest is below the last one. While
    the answer is open, `more` gives 64 further bits of the uniform and the series gets as much longer. e^x is
    irrational unless x = 0, so it ends.
    """
    low, step = low / table.peak, step / table.peak
    x = Fraction(value * value, 2 * table.sigma * table.sigma)
    if low * 2 ** int(x) >= 1:  # e^x ≥ 2^x: no series where the curve is out of sight
        return False
    total = term = Fraction(1)
    n = 0
    while True:
        while n <= 2 * x or term * low > step * total:
            n += 1
            term *= x / n
            total += term
        if (low + step) * (total + term) <= 1:
            return True
        if low * total >= 1:
            return False
        step /= 1 << 64
        low += more() * step
