"""Sealing: an RFC 9180 vector opens, and every other suite, key, info and byte is refused."""

from __future__ import annotations

import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from model.canonical import encode
from model.contract.sealed import OVERHEAD, SUITE, RecipientKey, _suite, check_suite, open_sealed, seal
from model.errors import ContractError

KEY = RecipientKey.from_private_bytes(bytes([7]) * 32)
OTHER = RecipientKey.from_private_bytes(bytes([8]) * 32)
INFO = {"purpose": "loan", "audience": "lender-a"}


SUITE_ID = b"HPKE" + bytes.fromhex("002000010001")
KEM_ID = b"KEM" + bytes.fromhex("0020")


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    body = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, body + b"\x01", "sha256")[:size]


def _reference_open(enc: bytes, ciphertext: bytes, private: bytes, info: bytes, aad: bytes) -> bytes:
    """RFC 9180 §4.1 and §5.1, base mode, written from the RFC with HMAC, X25519 and AES-GCM alone."""
    secret = X25519PrivateKey.from_private_bytes(private)
    shared = secret.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + secret.public_key().public_bytes_raw()
    kem = _expand(KEM_ID, _extract(KEM_ID, b"", b"eae_prk", shared), b"shared_secret", context, 32)
    id_hash, info_hash = (_extract(SUITE_ID, b"", *p) for p in ((b"psk_id_hash", b""), (b"info_hash", info)))
    prk = _extract(SUITE_ID, kem, b"secret", b"")
    schedule = b"\x00" + id_hash + info_hash
    key, nonce = _expand(SUITE_ID, prk, b"key", schedule, 16), _expand(SUITE_ID, prk, b"base_nonce", schedule, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, aad)


def test_the_reference_opens_rfc_9180_a_1_1() -> None:
    opened = _reference_open(
        bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"),
        bytes.fromhex("f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"),
        bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"),
        b"Ode on a Grecian Urn",
        b"Count-0",
    )
    assert opened == b"Beauty is truth, truth beauty"


def test_the_reference_opens_what_we_seal() -> None:
    body = seal(b"x", KEY.public_bytes, INFO)[len(SUITE) :]
    bound = SUITE + encode(INFO)
    assert _reference_open(body[:32], body[32:], KEY.private_bytes(), bound, b"") == b"x"
    with pytest.raises(InvalidTag):
        _reference_open(body[:32], body[32:], KEY.private_bytes(), bound + b"x", b"")


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_round_trip(plaintext: bytes, info: dict[str, str]) -> None:
    data = seal(plaintext, KEY.public_bytes, info)
    assert len(data) == len(plaintext) + OVERHEAD and data.startswith(SUITE)
    assert open_sealed(data, KEY, info) == plaintext


def test_two_seals_of_one_message_differ() -> None:
    assert seal(b"x", KEY.public_bytes, INFO) != seal(b"x", KEY.public_bytes, INFO)


def test_case_56_wrong_recipient_purpose_or_audience() -> None:
    data = seal(b"x", KEY.public_bytes, INFO)
    assert open_sealed(data, KEY, INFO) == b"x"
    for key, info in (
        (OTHER, INFO),
        (KEY, {**INFO, "audience": "lender-b"}),
        (KEY, {**INFO, "purpose": "ads"}),
        (KEY, {}),
    ):
        with pytest.raises(ContractError, match="does not open"):
            open_sealed(data, key, info)


def test_case_57_suite_downgrade() -> None:
    data = seal(b"x", KEY.public_bytes, INFO)
    check_suite(data)
    body = data[len(SUITE) :]
    for suite in (b"002000010003", b"001000010001", b"002000010000", b""):
        with pytest.raises(ContractError, match="suite"):
            open_sealed(SUITE[:-6] + bytes.fromhex(suite.decode()) + body, KEY, INFO)
    # The suite is bound into the key schedule too: a body of the same algorithms under other bytes does not open.
    public = X25519PrivateKey.from_private_bytes(KEY.private_bytes()).public_key()
    for foreign in (Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305), _suite()):
        with pytest.raises(ContractError, match="does not open"):
            open_sealed(SUITE + foreign.encrypt(b"x", public, info=b""), KEY, INFO)


@given(st.integers(0, 8 * (OVERHEAD + 1) - 1))
def test_one_flipped_bit_is_found(bit: int) -> None:
    raw = bytearray(seal(b"x", KEY.public_bytes, INFO))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ContractError):
        # X25519 ignores the top bit of the encapsulated key; HPKE binds its bytes, so that flip is found too.
        open_sealed(bytes(raw), KEY, INFO)


@pytest.mark.parametrize("size", [0, 10, len(SUITE), len(SUITE) + 31, OVERHEAD - 1])
def test_cut_messages_are_refused(size: int) -> None:
    with pytest.raises(ContractError):
        open_sealed(seal(b"x", KEY.public_bytes, INFO)[:size], KEY, INFO)


def test_case_37_low_order_and_malformed_keys_are_refused() -> None:
    order_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    for public in (bytes(32), b"\x01" + bytes(31), order_8, b"", bytes(31)):
        with pytest.raises(ContractError, match="public key"):
            seal(b"x", public, INFO)
    with pytest.raises(ContractError):
        open_sealed(SUITE + bytes(32 + 17), KEY, INFO)


def test_oversize_is_refused_and_keys_have_32_bytes() -> None:
    with pytest.raises(ContractError, match="over"):
        open_sealed(SUITE + bytes(1 << 20), KEY, INFO)
    with pytest.raises(ContractError, match="32 bytes"):
        RecipientKey.from_private_bytes(b"")
    assert RecipientKey.generate().keyid != RecipientKey.generate().keyid
