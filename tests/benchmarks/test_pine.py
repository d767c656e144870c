"""The prototype of a proof that a shared vector is short: true claims pass, each kind of lie fails."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import goldilocks as gf
import pine
from goldilocks import PRIME

from model.errors import UpdateError
from model.privacy.noise import SeededSource

SHAPE = pine.Shape(48, 1 << 12)
KEY = bytes(range(32))
ELEMENTS = st.one_of(st.integers(0, PRIME - 1), st.sampled_from([0, 1, PRIME - 1, 2**32 - 1, 2**32, PRIME - 2**32]))


def update(norm: float, seed: int = 0) -> np.ndarray:
    """A vector of this many norms of the bound."""
    raw = np.random.Generator(np.random.Philox(seed)).normal(size=SHAPE.dim)
    return np.trunc(raw / np.linalg.norm(raw) * SHAPE.bound * norm).astype(np.int64)


def accepted(sent: pine.Sent) -> bool:
    return pine.decide(pine.query(sent, SHAPE, False, KEY), pine.query(sent, SHAPE, True, KEY), sent)


@settings(max_examples=200, deadline=None)
@given(a=ELEMENTS, b=ELEMENTS)
def test_the_field_is_arithmetic_modulo_its_prime(a: int, b: int) -> None:
    x, y = np.array([a], dtype=np.uint64), np.array([b], dtype=np.uint64)
    assert int(gf.add(x, y)[0]) == (a + b) % PRIME
    assert int(gf.sub(x, y)[0]) == (a - b) % PRIME
    assert int(gf.mul(x, y)[0]) == a * b % PRIME
    assert int(gf.total(np.concatenate([x, y, y]))) == (a + 2 * b) % PRIME


def test_the_transform_evaluates_and_turns_back() -> None:
    values = gf.expand(bytes(32), 16)
    roots = gf.power(gf.root(16), 16)
    there = [sum(int(c) * pow(int(r), k, PRIME) for k, c in enumerate(values)) % PRIME for r in roots]
    assert gf.ntt(values).tolist() == there
    assert np.array_equal(gf.intt(gf.ntt(values.reshape(2, 8))), values.reshape(2, 8))
    assert pow(gf.root(2**32), 2**31, PRIME) == PRIME - 1


@settings(max_examples=10, deadline=None)
@given(norm=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_every_update_within_the_norm_is_accepted(norm: float, seed: int) -> None:
    assert accepted(pine.prove(update(norm, seed), SHAPE, SeededSource(seed, "pine")))


def test_an_update_of_exactly_the_norm_is_accepted_and_one_unit_more_is_not() -> None:
    edge = np.zeros(SHAPE.dim, dtype=np.int64)
    edge[3] = -SHAPE.bound
    assert accepted(pine.prove(edge, SHAPE, SeededSource(1, "pine")))
    edge[4] = 1
    with pytest.raises(UpdateError, match="clip it"):
        pine.prove(edge, SHAPE, SeededSource(1, "pine"))
    for said in (SHAPE.bound**2, SHAPE.bound**2 + 1):
        sent, _ = pine.claim(gf.element(edge), said, SHAPE, SeededSource(1, "pine"))
        assert not accepted(sent)


@pytest.mark.parametrize("norm", [1.01, 2.0, 1000.0])
def test_a_long_update_that_says_it_is_short_is_refused(norm: float) -> None:
    sent, _ = pine.claim(gf.element(update(norm)), SHAPE.bound**2, SHAPE, SeededSource(2, "pine"))
    assert not accepted(sent)


def wrapped() -> np.ndarray:
    """Huge numbers whose squares sum to zero in the field: 2^48 is a root of -1 there."""
    x = np.zeros(SHAPE.dim, dtype=np.uint64)
    x[:2] = [2**50, int(2**50 * 2**48 % PRIME)]
    return x


def test_an_update_that_wraps_round_the_field_is_refused() -> None:
    sent, passed = pine.claim(wrapped(), 0, SHAPE, SeededSource(3, "pine"))
    assert not passed and not accepted(sent)


def test_control_its_squares_alone_would_pass() -> None:
    sent, _ = pine.claim(wrapped(), 0, SHAPE, SeededSource(3, "pine"))
    leader, helper = (pine.query(sent, SHAPE, which, KEY) for which in (False, True))
    output, wires, gadget = (gf.add(a, b) for a, b in zip(leader.circuits[0], helper.circuits[0], strict=True))
    assert int(output) == 0 and int(gadget) == int(pine._gadget(wires[:, None], 0)[0])


@pytest.mark.parametrize("place", [0, 47, 48, 100, -1])
def test_a_share_changed_by_one_is_refused(place: int) -> None:
    sent = pine.prove(update(0.5), SHAPE, SeededSource(4, "pine"))
    share = sent.share.copy()
    share[place] = gf.add(share[place : place + 1] if place != -1 else share[-1:], np.uint64(1))[0]
    assert accepted(sent) and not accepted(replace(sent, share=share))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("place", [0, -1])
def test_a_proof_changed_by_one_is_refused(which: int, place: int) -> None:
    sent = pine.prove(update(0.5), SHAPE, SeededSource(5, "pine"))
    proofs = [proof.copy() for proof in sent.proofs]
    proofs[which][place] ^= np.uint64(1)
    assert not accepted(replace(sent, proofs=(proofs[0], proofs[1])))


@pytest.mark.parametrize("part", range(4))
def test_randomness_that_a_phone_would_choose_is_refused(part: int) -> None:
    sent = pine.prove(update(0.5), SHAPE, SeededSource(6, "pine"))
    parts = list(sent.parts)
    parts[part] = bytes(32)
    assert not accepted(replace(sent, parts=tuple(parts)))  # type: ignore[arg-type]


def test_the_two_shares_are_the_update_and_one_alone_is_noise() -> None:
    short = update(0.5)
    sent = pine.prove(short, SHAPE, SeededSource(7, "pine"))
    other, _, _ = pine._mine(sent, SHAPE, True)
    assert np.array_equal(gf.add(sent.share, other)[: SHAPE.dim], gf.element(short))
    assert int((sent.share > PRIME // 2).sum()) not in (0, len(sent.share))


def test_the_bytes_that_are_counted_are_those_that_are_sent() -> None:
    sent = pine.prove(update(0.5), SHAPE, SeededSource(8, "pine"))
    numbers = len(sent.share) + sum(map(len, sent.proofs))
    assert pine.upload(SHAPE)["to_coordinator"] == 8 * numbers + len(sent.blind) + sum(map(len, sent.parts))
    answer = pine.query(sent, SHAPE, True, KEY)
    said = sum(1 + len(wires) + 1 for _, wires, _ in answer.circuits)
    assert pine.upload(SHAPE)["between_servers"] == 8 * said + sum(map(len, answer.parts))
