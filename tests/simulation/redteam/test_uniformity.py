"""Masked vectors look like chance; what is not masked, or not afresh, does not."""

from __future__ import annotations

import numpy as np
import pytest

from fl_client.update import Delta
from model.contract.envelope import SigningKey
from model.contract.promise import Neighbours
from model.contract.sealed import RecipientKey
from model.errors import InputError
from model.privacy.noise import SeededSource
from model.secagg import pairwise
from model.secagg.context import Context
from model.secagg.messages import CHECKS, Upload
from model.secagg.pairwise_phone import PairwisePhone
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.terms import Terms
from model.secagg.two_server import shield
from model.secagg.witness import LocalWitness
from simulation.redteam.uniformity import LEAST, Ring, Uniformity, look

DIM, PHONES, ROUNDS = 8192, 4, 2
Units = list[np.ndarray[tuple[int], np.dtype[np.int64]]]


def updates(seed: int = 1) -> Units:
    """Clipped updates of PHONES phones in ROUNDS rounds; a phone's rounds are alike, as they are near the end."""
    random = np.random.default_rng(seed)
    each = [random.normal(size=DIM) for _ in range(PHONES)]
    deltas = [base + 0.1 * random.normal(size=DIM) for _ in range(ROUNDS) for base in each]
    return [Delta(delta).clip(1.0).encode(1 << 20).units for delta in deltas]


def helper_masked(raw: Units) -> list[Ring]:
    """The vectors that phones send. Seeds come from a seeded source, so that the test has one outcome."""
    public, source = RecipientKey.generate().public_bytes, SeededSource(11, "masks")
    contexts = [Context("cd" * 32, "train", i // PHONES + 1, "ab" * 32, DIM) for i in range(len(raw))]
    return [shield(units, public, context, source).vector for units, context in zip(raw, contexts, strict=True)]


def key(index: int) -> SigningKey:
    return SigningKey.from_private_bytes(bytes([index]) * 32)


class Heard(PairwisePhone):
    """A phone whose upload is kept."""

    sent: Ring

    def upload(self, data: bytes, units: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bytes:
        answer = super().upload(data, units)
        self.sent = np.frombuffer(Upload.from_bytes(answer).vector, "<u4")[:-CHECKS].astype(np.uint32)
        return answer


def pairwise_masked(raw: Units) -> list[Ring]:
    """The vectors that the server receives in ROUNDS whole rounds, all keys and seeds from a seeded source."""
    found, witness = list[Ring](), key(200)
    terms = Terms(Neighbours(PHONES - 1, PHONES - 1, 0.5, 0.0), PHONES, 2, witness.public_bytes)
    for round_ in range(ROUNDS):
        context = Context("cd" * 32, "train", round_ + 1, "ab" * 32, DIM)
        phones = {f"{i}": Heard(key(i), context, terms, source=SeededSource(3, f"{round_} {i}")) for i in range(PHONES)}
        updates = dict(zip(phones, raw[round_ * PHONES :], strict=False))
        server = PairwiseServer(context, terms, LocalWitness(witness, terms))
        # The masks cancel: so what is judged is what phones send, and not something else.
        assert (pairwise.run_round(phones, updates, server) == np.sum(list(updates.values()), axis=0)).all()
        found += [phone.sent for phone in phones.values()]
    return found


def test_what_a_phone_sends_to_two_servers_is_uniform_and_unrelated() -> None:
    raw = updates()
    found = look(raw, helper_masked(raw))
    assert found.numbers == DIM * PHONES * ROUNDS
    assert found.passed, found
    assert len(found.correlations) == 8 + 28


def test_what_a_phone_sends_in_pairwise_masking_is_uniform_and_unrelated() -> None:
    raw = updates()
    found = look(raw, pairwise_masked(raw))
    assert found.numbers == DIM * PHONES * ROUNDS
    assert found.passed, found


@pytest.mark.parametrize("constant", [0, 0x1234_5678], ids=["unmasked", "constant"])
def test_no_mask_and_a_constant_mask_fail_both(constant: int) -> None:
    raw = updates()
    found = look(raw, [units.astype(np.uint32) + np.uint32(constant) for units in raw])
    assert not found.uniform and not found.unrelated


def test_a_mask_used_in_two_rounds_is_uniform_and_still_fails() -> None:
    raw = updates()
    masks = [mask - units.astype(np.uint32) for mask, units in zip(helper_masked(raw), raw, strict=True)]
    again = [units.astype(np.uint32) + masks[i % PHONES] for i, units in enumerate(raw)]
    found = look(raw, again)
    assert not found.unrelated
    assert abs(found.correlations[f"masked 0 and masked {PHONES}"]) > 0.99


def test_a_mask_of_half_a_word_fails() -> None:
    raw = updates()
    short = [(mask & np.uint32(0xFFFF)) for mask in helper_masked(raw)]
    assert not look(raw, short).uniform


def test_true_chance_passes_and_a_bias_of_one_byte_does_not() -> None:
    random = np.random.default_rng(5)
    raw = [np.zeros(LEAST, dtype=np.int64)]
    chance = random.integers(1 << 32, size=LEAST, dtype=np.uint64).astype(np.uint32)
    assert look(raw, [chance]).passed
    biased = np.where(random.random(LEAST) < 0.02, chance & np.uint32(0xFFFFFF00), chance)
    assert not look(raw, [biased]).uniform


def test_too_few_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="uniformity needs"):
        look([np.zeros(9, np.int64)], [np.zeros(9, np.uint32)])
    with pytest.raises(InputError, match="uniformity needs"):
        look([], [])


def test_limits_are_those_stated() -> None:
    found: Uniformity = look(updates(), helper_masked(updates()))
    assert found.most_correlation == pytest.approx(4 / DIM**0.5)
    assert found.most_bytes == pytest.approx(374, abs=5) and found.most_words == pytest.approx(4533, abs=10)
