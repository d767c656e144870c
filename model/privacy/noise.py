"""Exact discrete Gaussian noise on the integers, vectorised, from bytes alone (spec 6.4, ADR 45).

A draw is a uniform point under bars that cover the curve exp(-v²/2σ²); the points under the curve are kept. One
64-bit word chooses slot and place. All but a few slots lie wholly under the curve, so most words are a draw at
once; for the others a second word places the point in its slot. Float64 decides where it provably cannot be wrong and
fractions where it could be (bars.py), the tails are drawn block by block without an end, and what is drawn has exactly
the stated law when the bytes are uniform: nothing need be charged to δ for the sampler. Its running time depends on
what it draws; it is meant for a server or a phone alone with its noise, not for a shared core.
"""

from __future__ import annotations

import hashlib
import math
import os
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from model.errors import BudgetError
from model.privacy.bars import BITS, MARGIN, Bars, bars, below_curve
from model.privacy.mechanism import GaussianRelease

MAX_SIGMA = 2**40
LANES = 1 << 15
DIRECT = 64  # bytes; above it a key from the operating system is stretched
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class ByteSource(Protocol):
    """Uniform random bytes. `name` is what the plan calls it: "os" or "test-seeded"."""

    name: str

    def take(self, count: int) -> bytes:
        """The next `count` bytes; never the same bytes twice."""
        ...


class OsSource:
    """The operating system's generator, the only source that protects anyone.

    Up to DIRECT bytes are os.urandom's own. Longer requests are the AES-256-CTR key stream of a 256-bit key that
    os.urandom gives for this one request; they are indistinguishable from uniform as long as AES is a pseudorandom
    permutation (at the sampler's 2¹⁸ bytes a request the mode itself costs below 2⁻¹⁰⁰). No state is kept between
    requests, so a forked process cannot repeat its parent's noise.
    """

    name = "os"

    def take(self, count: int) -> bytes:
        """`count` fresh bytes."""
        return os.urandom(count) if count <= DIRECT else _key_stream(os.urandom(32)).update(bytes(count))


class SeededSource:
    """AES-256-CTR under a key derived from (seed, label, counter). For tests: it protects nobody.

    Two sources with the same three values give the same bytes; change one and they are unrelated. A run that
    uses it is marked in its plan (`noise_source`) and shown in red.
    """

    name = "test-seeded"

    def __init__(self, seed: int, label: str = "noise", counter: int = 0) -> None:
        material = f"pocketscore/test-seeded\0{seed}\0{counter}\0{label}".encode()
        self._stream = _key_stream(hashlib.sha256(material).digest())

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the key stream."""
        return self._stream.update(bytes(count))


def _key_stream(key: bytes) -> CipherContext:
    """AES-256-CTR from counter zero; a key is used for one stream only."""
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()


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
    BudgetError unless 0 < sigma ≤ 2**40 (int64 then overflows with probability below exp(-2**21), as an error).
    """
    if not 0 < sigma <= MAX_SIGMA:
        raise BudgetError(f"noise of {sigma!r} grid units cannot protect a release; use more than 0, up to {MAX_SIGMA}")
    table = bars(math.ceil(sigma))
    parts = [np.zeros(0, np.int64)]
    missing = size
    while missing > 0:
        tries = math.ceil(missing / table.rate + math.sqrt(missing)) + 8
        kept = _candidates(table, min(LANES, tries), source)[:missing]
        parts.append(kept)
        missing -= kept.size
    return np.concatenate(parts)


def _candidates(table: Bars, lanes: int, source: ByteSource) -> I64:
    """The points under the curve among `lanes` points under the bars."""
    word = _words(lanes, source)
    slot = (word >> np.uint64(64 - BITS)).view(np.int64)
    value: I64 = table.start.take(slot, mode="clip")
    value += (word & np.uint64((1 << table.shift) - 1)).view(np.int64)
    kept: Flags = slot < table.sure
    spots = np.flatnonzero(~kept)
    value[spots], kept[spots] = _unsure(table, value[spots], table.level[slot[spots] - table.sure], source)
    return value[kept]


def _unsure(table: Bars, value: I64, level: npt.NDArray[np.float64], source: ByteSource) -> tuple[I64, Flags]:
    """Values of the lanes whose slot is not sure (those of the tails are drawn here), and which are kept."""
    word = _words(value.size, source)
    height = level + word * 2.0**-64
    slack = np.ones(value.size)
    shares = {}
    for lane in np.flatnonzero(level < 0).tolist():
        value[lane], shares[lane] = _tail(table, source)
        slack[lane] = float(shares[lane])
        height[lane] = float(int(word[lane]) * shares[lane] / 2**64)
    curve = table.curve(value)
    kept: Flags = height < curve
    for lane in np.flatnonzero(np.abs(height - curve) <= MARGIN * (curve + slack)).tolist():
        share = shares.get(lane, Fraction(1))
        low = Fraction(max(0, int(level[lane]))) + int(word[lane]) * share / 2**64
        kept[lane] = below_curve(table, int(value[lane]), low, share / 2**64, lambda: int(_words(1, source)[0]))
    return value, kept


def _tail(table: Bars, source: ByteSource) -> tuple[int, Fraction]:
    """A place in the tails, block b with probability 2^-(b+1) and both sides alike; and the height of its bar."""
    block = 0
    while source.take(1)[0] & 1:
        block += 1
    wide = table.sigma.bit_length()
    word = int(_words(1, source)[0])
    far = table.reach + (block << wide) + (word >> 1) % (1 << wide)
    return (~far if word & 1 else far), table.tail_share(block)


def _words(count: int, source: ByteSource) -> U64:
    return np.frombuffer(source.take(8 * count), dtype="<u8").astype(np.uint64, copy=False)
