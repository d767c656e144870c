"""Shamir's secret sharing of 32-byte secrets over a prime above 2²⁵⁶, several secrets at once (spec 13.8.1).

A. Shamir, "How to share a secret", CACM 1979. Holders stand at x = 1, 2, … count; a polynomial has degree threshold − 1
and the secret at 0. Small primes serve tests that count every polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from model.errors import ContractError, RoundError
from model.privacy.noise import ByteSource

PRIME = 2**256 + 297  # the least prime above 2^256, so that every 32-byte string is one element
SHARE = 33  # bytes of one share
SECRET = 32
_DRAW = 48  # bytes of randomness a coefficient: 128 bits more than an element has, so it is uniform within 2^-127

Polynomial = list[int]


def deal(secrets: Sequence[bytes], threshold: int, count: int, source: ByteSource) -> list[tuple[bytes, ...]]:
    """For each of `count` holders its share of every secret, 33 bytes each; any `threshold` holders have them all.

    ContractError for a secret that is not 32 bytes, or a threshold that does not fit the count.
    """
    if not 1 <= threshold <= count or any(len(secret) != SECRET for secret in secrets):
        raise ContractError("secrets of 32 bytes are shared among at least their threshold of holders; correct these")
    polynomials = [polynomial(int.from_bytes(secret, "big"), threshold, source) for secret in secrets]
    return [tuple(y.to_bytes(SHARE, "big") for y in row) for row in evaluate(polynomials, count)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret of `threshold` of the shares {x: 33 bytes}, those of the lowest x.

    RoundError for fewer than `threshold`, and for shares of no 32-byte secret: some were not dealt together.
    """
    if len(shares) < threshold:
        raise RoundError(f"{len(shares)} shares are fewer than the threshold of {threshold}; the round ends here")
    chosen = tuple(sorted(shares)[:threshold])
    secret = interpolate(chosen, [int.from_bytes(shares[x], "big") for x in chosen])
    if secret >> (8 * SECRET):
        raise RoundError("the shares of one secret do not belong together; leave their dealer out of the next attempt")
    return secret.to_bytes(SECRET, "big")


def polynomial(secret: int, threshold: int, source: ByteSource, prime: int = PRIME) -> Polynomial:
    """Coefficients, lowest first: the secret, then threshold − 1 uniform elements."""
    draws = source.take(_DRAW * (threshold - 1))
    coefficients = [int.from_bytes(draws[i : i + _DRAW], "big") % prime for i in range(0, len(draws), _DRAW)]
    return [secret, *coefficients]


def evaluate(polynomials: Sequence[Polynomial], count: int, prime: int = PRIME) -> list[tuple[int, ...]]:
    """The values of polynomials of one degree at x = 1 … count, a tuple for each x.

    Horner's rule on one long integer that carries all polynomials side by side, each in a lane wide enough for its
    value before any reduction: an x is small, so one multiplication serves all, and only the end is reduced.
    """
    terms = len(polynomials[0])
    lane = prime.bit_length() + terms * count.bit_length() + 1
    packed = [sum(c << (lane * i) for i, c in enumerate(row)) for row in zip(*polynomials, strict=True)]
    mask = (1 << lane) - 1
    rows = []
    for x in range(1, count + 1):
        value = 0
        for coefficient in reversed(packed):
            value = value * x + coefficient
        rows.append(tuple(((value >> (lane * i)) & mask) % prime for i in range(len(polynomials))))
    return rows


def interpolate(places: tuple[int, ...], values: Sequence[int], prime: int = PRIME) -> int:
    """The value at 0 of the polynomial of degree len(places) − 1 through (place, value)."""
    factor, weights = _weights(places, prime)
    return factor * sum(weight * value for weight, value in zip(weights, values, strict=True)) % prime


@lru_cache(maxsize=2048)
def _weights(places: tuple[int, ...], prime: int) -> tuple[int, tuple[int, ...]]:
    """Lagrange's coefficients at 0 as one common factor modulo `prime` and a small integer for each place.

    The coefficient of x is ∏y / ∏(y − x) over the other places y. With every place up to the last, m, it would be
    ±m!/(x!·(m − x)!); so only the differences to places missing below m are multiplied, and only m! is inverted.
    """
    top = max(places)
    missing = sorted(set(range(1, top)).difference(places))
    weights = tuple((-1) ** (x - 1) * math.comb(top, x) * math.prod([y - x for y in missing]) for x in places)
    return math.prod(places) * _inverse_factorial(top, prime) % prime, weights


@lru_cache(maxsize=1024)
def _inverse_factorial(top: int, prime: int) -> int:
    return pow(math.factorial(top), -1, prime)
