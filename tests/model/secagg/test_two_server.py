"""Two servers: the sum comes out exactly, under both noises, and nothing but the sum fits together."""

from __future__ import annotations

import hmac
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from model.contract.masked import SEED_BYTES, batch_digest, split_seeds
from model.contract.sealed import RecipientKey
from model.errors import ContractError, UpdateError
from model.privacy.noise import OsSource, SeededSource, discrete_gaussian
from model.secagg.context import Context, model_digest
from model.secagg.fixedpoint import Units
from model.secagg.masks import expand, mask_sum
from model.secagg.two_server import (
    Unopened,
    add,
    message_id,
    open_seeds,
    run_round,
    share_of,
    shield,
    shield_sum,
    unshield,
)

KEY = RecipientKey.from_private_bytes(bytes([7]) * 32)
HERE = Context("ab" * 32, "train", 3, "cd" * 32, 6)
NONE = np.zeros(HERE.dim, dtype=np.int64)


def vectors(count: int, seed: int = 0) -> list[Units]:
    random = np.random.Generator(np.random.Philox(seed))
    return list(random.integers(-(2**20), 2**20, size=(count, HERE.dim)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32))
def test_a_round_is_the_sum_and_two_noises(count: int, seed: int) -> None:
    updates = vectors(count, seed)
    out = run_round(updates, KEY, HERE, 50.0, SeededSource(seed, "c"), SeededSource(seed, "h"))
    both = [discrete_gaussian(50.0, HERE.dim, SeededSource(seed, name)) for name in "ch"]
    assert np.array_equal(out, sum(updates) - both[1] + both[0])


def test_a_farm_sends_what_its_phones_would_together() -> None:
    updates = vectors(5)
    farm = shield_sum(np.sum(updates, axis=0), 5, KEY.public_bytes, HERE, SeededSource(1, "farm"))
    source = SeededSource(1, "farm")
    singles = [shield(update, KEY.public_bytes, HERE, source) for update in updates]
    assert np.array_equal(farm.vector, add([s.vector for s in singles], HERE.dim))
    masks = open_seeds(split_seeds(farm.seed), KEY, HERE)
    assert np.array_equal(masks, open_seeds([s.seed for s in singles], KEY, HERE))
    assert np.array_equal(unshield(farm.vector, share_of(masks, NONE)), np.sum(updates, axis=0))


def test_zeros_look_like_anything_else() -> None:
    here = replace(HERE, dim=4096)
    zeros = shield(np.zeros(4096, dtype=np.int64), KEY.public_bytes, here, OsSource())
    again = shield(np.zeros(4096, dtype=np.int64), KEY.public_bytes, here, OsSource())
    assert len(zeros.seed) == SEED_BYTES
    assert not np.array_equal(zeros.vector, again.vector)
    share = np.mean(zeros.vector.view(np.uint8) < 128)
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(4 * 4096)


CHANGES = [
    {"plan_digest": "ac" * 32},
    {"kind": "knots"},
    {"round": 4},
    {"model_digest": "ce" * 32},
    {"dim": 7},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_case_40_another_context_gives_another_mask_and_opens_no_seed(change: dict[str, object]) -> None:
    other = replace(HERE, **change)  # type: ignore[arg-type]
    seed = bytes(32)
    assert not np.array_equal(expand(seed, HERE, HERE.dim)[:6], expand(seed, other, other.dim)[:6])
    sent = shield(NONE, KEY.public_bytes, HERE, OsSource())
    assert open_seeds([sent.seed], KEY, HERE).shape == (HERE.dim,)
    with pytest.raises(Unopened) as refused:
        open_seeds([sent.seed], KEY, other)
    assert refused.value.messages == (message_id(sent.seed),)


def test_all_bad_seeds_are_named_and_the_rest_still_opens() -> None:
    good = [shield(v, KEY.public_bytes, HERE, OsSource()).seed for v in vectors(3)]
    bad = [shield(NONE, RecipientKey.generate().public_bytes, HERE, OsSource()).seed, bytes(SEED_BYTES), b"short"]
    with pytest.raises(Unopened) as refused:
        open_seeds([bad[0], *good, *bad[1:]], KEY, HERE)
    assert refused.value.messages == tuple(map(message_id, bad))
    open_seeds(good, KEY, HERE)


def test_one_message_twice_is_refused() -> None:
    seed = shield(NONE, KEY.public_bytes, HERE, OsSource()).seed
    with pytest.raises(UpdateError, match="twice"):
        open_seeds([seed, seed], KEY, HERE)


def test_a_message_left_out_leaves_garbage() -> None:
    sent = [shield(v, KEY.public_bytes, HERE, OsSource()) for v in vectors(3)]
    masks = open_seeds([s.seed for s in sent[:2]], KEY, HERE)
    garbage = unshield(add([s.vector for s in sent], HERE.dim), share_of(masks, NONE))
    assert np.abs(garbage).max() > 2**26  # control: the numbers themselves are below 3·2^20


def test_a_mask_is_what_the_rfcs_say() -> None:
    """HKDF (RFC 5869) by HMAC alone and counter mode by single AES blocks, for a context of two and a half blocks."""
    here, seed = replace(HERE, dim=10), bytes(range(32))
    prk = hmac.digest(bytes(32), seed, "sha256")
    key = hmac.digest(prk, here.bytes() + b"\x01", "sha256")
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    stream = b"".join(block.update(count.to_bytes(16, "big")) for count in range(3))
    assert expand(seed, here, 10).astype("<u4").tobytes() == stream[:40]


def test_masks_add_up_and_a_wrong_length_is_refused() -> None:
    seeds = [bytes([n]) * 32 for n in range(4)]
    total = add([expand(seed, HERE, HERE.dim) for seed in seeds], HERE.dim)
    assert np.array_equal(mask_sum(seeds, HERE), total)
    with pytest.raises(ContractError, match="32 bytes"):
        mask_sum([b"short"], HERE)
    with pytest.raises(ContractError, match="context"):
        expand(seeds[0], HERE, HERE.dim + 1)
    with pytest.raises(UpdateError, match="shape"):
        shield(np.zeros(HERE.dim + 1, dtype=np.int64), KEY.public_bytes, HERE, OsSource())
    with pytest.raises(UpdateError, match="does not fit"):
        unshield(np.zeros(3, dtype=np.uint32), np.zeros(1, dtype=np.uint32))


def test_a_models_digest_knows_where_its_knots_end() -> None:
    assert model_digest(b"ab", b"c") != model_digest(b"b", b"ca") != model_digest(b"", b"cab")


def test_a_batch_is_a_set() -> None:
    assert batch_digest([b"a", b"b"]) == batch_digest([b"b", b"a"]) != batch_digest([b"a"])


def test_a_context_refuses_what_is_no_place() -> None:
    for change in ({"kind": "tea"}, {"round": -1}, {"dim": 0}, {"plan_digest": "AB" * 32}, {"model_digest": ""}):
        with pytest.raises(ContractError):
            replace(HERE, **change)  # type: ignore[arg-type]
