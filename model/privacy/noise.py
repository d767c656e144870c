"""Exact discrete Gaussian noise on the integers, vectorised, from bytes alone (spec 6.4).

The sampler is Karney's Algorithm D ("Sampling exactly from the normal distribution", ACM TOMS 42(1), 2016, §5)
for mean 0 and a whole σ, run on many lanes at once. Every integer v is written v = s·(kσ + j) with s = ±1,
k ≥ 0 and 0 ≤ j < σ; with x = j/σ its weight factors as

    exp(-v²/2σ²) = exp(-k²/2) · exp(-x(2k+x)/2),

so k is drawn with weight exp(-k²/2), s and j uniformly, and the triple is kept with the second factor as its
probability ((s, v) = (-1, 0) is dropped, or zero would count twice). The only random decisions are Bernoulli(p)
with p = exp(-a/b), decided by von Neumann's alternating series over exact fractions (Canonne, Kamath and Steinke,
"The discrete Gaussian for differential privacy", NeurIPS 2020, Algorithm 1), that is by comparing uniform integers.
No floating point takes part, no tail is cut and no table is rounded: the output has exactly the stated law when
the bytes are uniform, and nothing need be charged to δ for the sampler. Like the reference, its running time
depends on what it draws; it is meant for a server or a phone alone with its noise, not for a shared core.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from model.errors import BudgetError
from model.privacy.mechanism import GaussianRelease

MAX_SIGMA = 2**40
LANES = 1 << 15
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Fractions = Sequence[tuple[U64, U64]]


class ByteSource(Protocol):
    """Uniform random bytes. `name` is what the plan calls it: "os" or "test-seeded"."""

    name: str

    def take(self, count: int) -> bytes:
        """The next `count` bytes; never the same bytes twice."""
        ...


class OsSource:
    """The operating system's generator, the only source that protects anyone.

    It keeps no state, so a forked process cannot repeat its parent's noise.
    """

    name = "os"

    def take(self, count: int) -> bytes:
        """`count` fresh bytes from os.urandom."""
        return os.urandom(count)


class SeededSource:
    """AES-256-CTR under a key derived from (seed, label, counter). For tests: it protects nobody.

    Two sources with the same three values give the same bytes; change one and they are unrelated. A run that
    uses it is marked in its plan (`noise_source`) and shown in red.
    """

    name = "test-seeded"

    def __init__(self, seed: int, label: str = "noise", counter: int = 0) -> None:
        material = f"pocketscore/test-seeded\0{seed}\0{counter}\0{label}".encode()
        key = hashlib.sha256(material).digest()
        self._stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the key stream."""
        return self._stream.update(bytes(count))


def grid_sigma(release: GaussianRelease, scale: int) -> int:
    """Whole standard deviation, in grid units, with which one release is noised: ⌈σ·scale⌉ + 1.

    Rounding up and the one unit more pay for the grid: discrete noise of this σ is, within a factor of
    exp(±2⁻¹¹⁰) a coordinate, continuous Gaussian noise of the plan's σ followed by randomised rounding, which is
    post-processing (spec 6.5). BudgetError when σ·scale < 2, where that argument does not hold.
    """
    sigma = release.sigma * scale
    if not 2 <= sigma < MAX_SIGMA:
        raise BudgetError(f"release {release.name!r} has noise of {sigma:g} grid units; use 2 to {MAX_SIGMA} of them")
    return math.ceil(sigma) + 1


def discrete_gaussian(sigma: float, size: int, source: ByteSource) -> I64:
    """`size` independent draws with P(v) ∝ exp(-v²/2σ²) on the integers, as int64 (size,).

    `sigma` is in grid units and is rounded *up* to a whole number, so the noise is never less than asked for.
    BudgetError unless 0 < sigma ≤ 2**40 (int64 then overflows with probability below exp(-2**42)).
    """
    if not 0 < sigma <= MAX_SIGMA:
        raise BudgetError(f"noise of {sigma!r} grid units cannot protect a release; use more than 0, up to {MAX_SIGMA}")
    whole = math.ceil(sigma)
    parts = [np.zeros(0, np.int64)]
    missing = size
    while missing > 0:
        kept = _candidates(whole, min(LANES, 9 * missing // 4 + 16), source)[:missing]
        parts.append(kept)
        missing -= kept.size
    return np.concatenate(parts)


def _candidates(sigma: int, lanes: int, source: ByteSource) -> I64:
    """The draws that survive rejection among `lanes` tries."""
    k = _whole_part(lanes, source)
    width = np.full(k.size, sigma, np.uint64)
    j = _below(width, source)
    two = np.uint64(2)
    x = [(j, width), (two * k * width + j, (two * k + two) * width)]
    kept = _exp_power(k + np.uint64(1), x, source)
    magnitude = (k * width + j)[kept].astype(np.int64)
    negative = (_words(magnitude.size, source) & np.uint64(1)).astype(np.bool_)
    once = ~(negative & (magnitude == 0))
    signed: I64 = np.where(negative, -magnitude, magnitude)[once]
    return signed


def _whole_part(lanes: int, source: ByteSource) -> U64:
    """Draws of k ≥ 0 with weight exp(-k²/2) = exp(-½)^k · exp(-1)^(k(k-1)/2); at most `lanes` of them."""
    k = np.zeros(lanes, np.uint64)
    alive = np.arange(lanes)
    one = np.uint64(1)
    while alive.size:
        half = (np.ones(alive.size, np.uint64), np.full(alive.size, 2, np.uint64))
        alive = alive[_exp_trial(alive.size, [half], source)]
        k[alive] += one
    pairs: U64 = (k * (k - one)) >> one
    return k[_exp_power(pairs, [], source)]


def _exp_power(times: U64, fractions: Fractions, source: ByteSource) -> Flags:
    """Bernoulli(exp(-times · ∏ fractions)) a lane: `times` trials, all of which must succeed."""
    verdict = np.ones(times.size, np.bool_)
    alive = np.flatnonzero(times)
    done = 0
    while alive.size:
        success = _exp_trial(alive.size, [(n[alive], d[alive]) for n, d in fractions], source)
        verdict[alive[~success]] = False
        done += 1
        alive = alive[success & (times[alive] > done)]
    return verdict


def _exp_trial(lanes: int, fractions: Fractions, source: ByteSource) -> Flags:
    """Bernoulli(exp(-γ)) a lane with γ = ∏ fractions in [0, 1]: the first i whose Bernoulli(γ/i) fails is odd."""
    verdict = np.zeros(lanes, np.bool_)
    alive = np.arange(lanes)
    i = 0
    while alive.size:
        i += 1
        heads: Flags = np.ones(alive.size, np.bool_)
        if i > 1:
            heads = _below(np.full(alive.size, i, np.uint64), source) == 0
        for numerator, denominator in fractions:
            heads &= _below(denominator, source) < numerator
        verdict[alive[~heads]] = i % 2 == 1
        alive = alive[heads]
        fractions = [(n[heads], d[heads]) for n, d in fractions]
    return verdict


def _below(bound: U64, source: ByteSource) -> U64:
    """Uniform integers in [0, bound), exactly: words of the last incomplete stretch of `bound` are drawn again."""
    word = _words(bound.size, source)
    top = ~np.uint64(0) - (~bound + np.uint64(1)) % bound
    late = np.flatnonzero(word > top)
    while late.size:
        word[late] = _words(late.size, source)
        late = late[word[late] > top[late]]
    result: U64 = word % bound
    return result


def _words(count: int, source: ByteSource) -> U64:
    return np.frombuffer(source.take(8 * count), dtype="<u8").astype(np.uint64)
