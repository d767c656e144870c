"""Counter-based randomness: 64 bits from (seed, phone, stream, counter), so a phone is the same alone or in a chunk.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) read at any position: draw i of a key is
mix(key + i·GOLDEN). One 64-bit draw is split into the few small fields an event needs.
"""

from __future__ import annotations

from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S1, _S2, _S3 = np.uint64(30), np.uint64(27), np.uint64(31)
NORMAL_BITS = 14
_BLOCK = 1 << 14
_EXACT_BELOW = 10.0


def mix(x: U64) -> U64:
    """The SplitMix64 finaliser of each element of x, in place: a bijection of 64-bit words.

    Long arrays go in blocks that stay in the first levels of cache.
    """
    flat = x.reshape(-1)
    shifted = np.empty(min(len(flat), _BLOCK), dtype=np.uint64)
    for first in range(0, len(flat), _BLOCK):
        part = flat[first : first + _BLOCK]
        _mix(part, shifted[: len(part)])
    return x


def _mix(x: U64, shifted: U64) -> None:
    np.right_shift(x, _S1, out=shifted)
    x ^= shifted
    x *= _M1
    np.right_shift(x, _S2, out=shifted)
    x ^= shifted
    x *= _M2
    np.right_shift(x, _S3, out=shifted)
    x ^= shifted


def keys(seed: int, phones: npt.ArrayLike, stream: int) -> U64:
    """(K,) one key for each phone number in `phones`, for one stream of one seed."""
    whole = mix(np.array([seed % (1 << 64), stream], dtype=np.uint64))
    start = mix(whole[:1] ^ (whole[1:] * GOLDEN))
    return mix(mix(np.array(phones, dtype=np.uint64, ndmin=1) * GOLDEN + start))


def draws(key: U64, count: int) -> U64:
    """(count, K) words: draws 1 … count of each key (K,)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    return mix(key[None, :] + steps[:, None])


def counted(key: U64, counts: Ints) -> U64:
    """(sum of counts,) words: draws 1 … counts[k] of key k, phone after phone."""
    first = np.cumsum(counts) - counts
    start = key - first.astype(np.uint64) * GOLDEN
    word = np.repeat(start, counts)
    word += _steps(1 << max(len(word).bit_length(), 16))[: len(word)]
    return mix(word)


@lru_cache(maxsize=4)
def _steps(size: int) -> U64:
    """(size,) the multiples 1, 2, … of the golden step, kept between chunks."""
    return np.arange(1, size + 1, dtype=np.uint64) * GOLDEN


def field(word: U64, low: int, bits: int) -> U64:
    """`bits` bits of each word, starting at bit `low`."""
    return (word >> np.uint64(low)) & np.uint64((1 << bits) - 1)


def uniform(word: U64) -> Floats:
    """Uniform on the open interval (0, 1), from the high 53 bits."""
    return ((word >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


@cache
def quantiles(bits: int) -> Floats:
    """(2**bits,) standard normal quantiles at the midpoints, scaled to variance 1."""
    inverse = NormalDist().inv_cdf
    size = 1 << bits
    half = np.array([inverse((i + 0.5) / size) for i in range(size // 2, size)])
    table: Floats = np.concatenate([-half[::-1], half])
    scale = float(np.sqrt(np.mean(table**2)))
    return table / scale


def normal(word: U64) -> Floats:
    """Standard normal from the high 14 bits, by table (largest value 4.0)."""
    return quantiles(NORMAL_BITS).take((word >> np.uint64(64 - NORMAL_BITS)).astype(np.int64))


def lognormal(word: U64, sd: float) -> Floats:
    """Log-normal person effect with mean 1 and log-scale `sd`."""
    return np.exp(sd * normal(word) - sd * sd / 2)


def poisson(word: U64, mean: Floats) -> Ints:
    """Poisson counts: exact inversion below mean 10, else rounded Cornish-Fisher (Johnson, Kemp and Kotz, 4.5)."""
    small = np.minimum(mean, _EXACT_BELOW)
    u = uniform(word)
    term = np.exp(-small)
    tail = u - term
    count = np.zeros(mean.shape, dtype=np.int64)
    for k in range(1, 64):
        more = tail > 0
        if not more.any():
            break
        count += more
        term = term * (small / k)
        tail = tail - term
    z = normal(word)
    large = np.floor(mean + np.sqrt(mean) * z + (z * z - 1) / 6 + 0.5)
    return np.where(mean < _EXACT_BELOW, count, np.maximum(large, 0).astype(np.int64))


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))
