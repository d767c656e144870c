"""Shamir's sharing: any threshold of shares, no fewer, and uniform where there are fewer."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ContractError, RoundError
from model.privacy.noise import SeededSource
from model.secagg.shares import PRIME, combine, deal, evaluate, interpolate

secrets32 = st.binary(min_size=32, max_size=32)


def test_the_prime_is_the_least_above_2_256() -> None:
    assert PRIME > 2**256
    assert pow(2, PRIME - 1, PRIME) == 1
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (3, 5, 7, 11))
    assert not any(pow(3, q - 1, q) == 1 for q in range(2**256 + 1, PRIME, 2))  # 2 would take the Fermat number


@settings(max_examples=40, deadline=None)
@given(secrets32, secrets32, st.integers(1, 60), st.data())
def test_any_threshold_of_holders_have_both_secrets(one: bytes, two: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, count))
    holders = data.draw(st.permutations(range(1, count + 1)))[:threshold]
    dealt = deal((one, two), threshold, count, SeededSource(count))
    for i, secret in enumerate((one, two)):
        assert combine({x: dealt[x - 1][i] for x in holders}, threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_extreme_secrets(secret: bytes) -> None:
    dealt = deal((secret,), 3, 5, SeededSource(1))
    assert combine({x: dealt[x - 1][0] for x in (2, 4, 5)}, 3) == secret


def test_fewer_shares_say_nothing_counted_over_every_polynomial() -> None:
    """Over the field of 7 and threshold 3: two shares are any pair, equally often, whatever the secret."""
    for secret in range(7):
        seen = Counter(
            evaluate([[secret, a, b]], 4, 7)[1] + evaluate([[secret, a, b]], 4, 7)[3]
            for a, b in itertools.product(range(7), repeat=2)
        )
        assert len(seen) == 49
        assert set(seen.values()) == {1}


def test_a_threshold_of_shares_does_say_it() -> None:
    """The control: three shares of the same field fix the secret."""
    for secret, a, b in itertools.product(range(7), repeat=3):
        rows = evaluate([[secret, a, b]], 4, 7)
        assert interpolate((1, 3, 4), [rows[0][0], rows[2][0], rows[3][0]], 7) == secret


def test_coefficients_spread_over_the_field() -> None:
    """A share of a fixed secret is uniform: chi-square over 16 cells of the field, 4,800 draws."""
    source = SeededSource(3)
    cells = Counter(int.from_bytes(deal((bytes(32),), 2, 3, source)[2][0], "big") * 16 // PRIME for _ in range(4800))
    chi = sum((cells[i] - 300) ** 2 / 300 for i in range(16))
    assert chi < 44.3  # 15 degrees of freedom, P < 10^-4


def test_too_few_or_foreign_shares_are_refused() -> None:
    dealt = deal((b"s" * 32,), 3, 5, SeededSource(1))
    with pytest.raises(RoundError, match="fewer than the threshold"):
        combine({1: dealt[0][0], 2: dealt[1][0]}, 3)
    with pytest.raises(RoundError, match="do not belong together"):
        combine({1: (PRIME - 1).to_bytes(33, "big")}, 1)
    with pytest.raises(ContractError):
        deal((b"short",), 2, 3, SeededSource(1))
    with pytest.raises(ContractError):
        deal((bytes(32),), 4, 3, SeededSource(1))
