"""The field of 2^64 - 2^32 + 1 elements on uint64 arrays: sums, products, NTT, and elements from a key stream.

2^64 = 2^32 - 1 and 2^96 = -1 in it, so a product is reduced by shifts; it has 2^32-th roots of unity. For measuring
(benchmarks/pine.py): NumPy takes some 20 ns a product, compiled code about one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
PRIME = 2**64 - 2**32 + 1
GENERATOR = 7
_P, _E, _LOW, _HALF = np.uint64(PRIME), np.uint64(2**32 - 1), np.uint64(2**32 - 1), np.uint64(32)


def element(values: Any) -> U64:
    """Whole numbers, negative ones too, as elements."""
    found = np.asarray(values)
    if found.dtype == np.uint64:
        return np.where(found >= _P, found - _P, found)
    return np.asarray(np.where(found < 0, _P - (-found).astype(np.uint64), found.astype(np.uint64)))


@np.errstate(over="ignore")
def add(a: U64, b: U64) -> U64:
    """a + b."""
    total = a + b
    total = np.where(total < a, total + _E, total)
    return np.where(total >= _P, total - _P, total)


@np.errstate(over="ignore")
def sub(a: U64, b: U64) -> U64:
    """a - b."""
    return np.where(a < b, a - b - _E, a - b)


@np.errstate(over="ignore")
def mul(a: U64, b: U64) -> U64:
    """a · b."""
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    low = a0 * b0
    one = a1 * b0 + (low >> _HALF)
    two = a0 * b1 + (one & _LOW)
    high = a1 * b1 + (one >> _HALF) + (two >> _HALF)
    low = (two << _HALF) | (low & _LOW)
    top, mid = high >> _HALF, high & _LOW
    found = np.where(low < top, low - top - _E, low - top)
    more = mid * _E
    total = found + more
    total = np.where(total < more, total + _E, total)
    return np.where(total >= _P, total - _P, total)


def total(a: U64, axis: int = -1) -> U64:
    """Sum along an axis of fewer than 2^32 elements."""
    low, high = (a & _LOW).sum(axis=axis, dtype=np.uint64), (a >> _HALF).sum(axis=axis, dtype=np.uint64)
    return add(element(low), mul(element(high), np.uint64(2**32)))


def power(base: int, count: int) -> U64:
    """1, base, base², …: `count` of them."""
    found = np.ones(1, dtype=np.uint64)
    while len(found) < count:
        found = np.concatenate([found, mul(found, np.uint64(pow(base, len(found), PRIME)))])
    return found[:count]


def root(size: int) -> int:
    """A primitive root of unity of order `size`, a power of two."""
    return pow(GENERATOR, (PRIME - 1) // size, PRIME)


def ntt(values: U64) -> U64:
    """Values along the last axis, whose length is a power of two, at 1, ω, ω², …"""
    size = values.shape[-1]
    found = values[..., _reversal(size)]
    width = 1
    while width < size:
        parts = found.reshape(*values.shape[:-1], size // (2 * width), 2, width)
        even, odd = parts[..., 0, :], mul(parts[..., 1, :], _twiddles(2 * width))
        found = np.stack([add(even, odd), sub(even, odd)], axis=-2).reshape(values.shape)
        width *= 2
    return found


def intt(values: U64) -> U64:
    """Inverse of `ntt`."""
    found = ntt(values)
    turned = np.concatenate([found[..., :1], found[..., :0:-1]], axis=-1)
    return mul(turned, np.uint64(pow(values.shape[-1], -1, PRIME)))


def stream(seed: bytes, count: int) -> bytes:
    """AES-256-CTR key stream of a 32-byte seed."""
    return Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(count))


def expand(seed: bytes, count: int) -> U64:
    """`count` uniform elements from a seed; words that are no elements, one in 2^32, are left out."""
    words = np.frombuffer(stream(seed, 8 * (count + 16)), dtype="<u8")
    kept = words[words < _P]
    if len(kept) < count:
        raise ArithmeticError("sixteen words of a key stream were no field elements; that does not happen")
    return kept[:count]


@lru_cache(maxsize=32)
def _twiddles(size: int) -> U64:
    return power(root(size), size // 2)


@lru_cache(maxsize=32)
def _reversal(size: int) -> NDArray[np.int64]:
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order
