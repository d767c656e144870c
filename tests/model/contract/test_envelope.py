"""Signatures: RFC 8032 vector, thresholds, domains, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.canonical import encode
from model.contract.envelope import Signed, SigningKey, keyid, sign, signing_input, verify
from model.errors import ContractError, SignatureError

A, B, C = (SigningKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
RING = {key.keyid: key.public_bytes for key in (A, B)}
PAYLOAD = {"x": 1}


def test_rfc_8032_test_1() -> None:
    key = SigningKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert key.public_bytes.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def test_a_key_survives_its_bytes_and_two_keys_differ() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_private_bytes(key.private_bytes()).keyid == key.keyid == keyid(key.public_bytes)
    assert len(key.keyid) == 32 and key.keyid != SigningKey.generate().keyid
    with pytest.raises(ContractError, match="32 bytes"):
        SigningKey.from_private_bytes(b"short")


def test_two_of_two_round_trip() -> None:
    signed = Signed.from_bytes(sign("plan/1", PAYLOAD, [B, A, A]).to_bytes())
    assert signed == sign("plan/1", PAYLOAD, [A, B])
    assert verify(signed, "plan/1", RING, threshold=2, required=[A.keyid, B.keyid]) == PAYLOAD
    assert signed.payload == encode(PAYLOAD)


def test_case_47_threshold_not_met() -> None:
    one = sign("plan/1", PAYLOAD, [A])
    assert verify(one, "plan/1", RING) == PAYLOAD
    with pytest.raises(SignatureError, match="1 of 2"):
        verify(one, "plan/1", RING, threshold=2)
    twice = replace(one, signatures=one.signatures * 2)
    with pytest.raises(SignatureError, match="1 of 2"):
        verify(twice, "plan/1", RING, threshold=2)


def test_a_stranger_does_not_count_and_a_required_key_must_sign() -> None:
    signed = sign("plan/1", PAYLOAD, [A, C])
    with pytest.raises(SignatureError, match="1 of 2"):
        verify(signed, "plan/1", RING, threshold=2)
    assert verify(signed, "plan/1", RING, required=[A.keyid]) == PAYLOAD
    with pytest.raises(SignatureError, match=B.keyid):
        verify(signed, "plan/1", RING, required=[B.keyid])
    with pytest.raises(SignatureError, match=C.keyid):
        verify(signed, "plan/1", RING, required=[C.keyid])


@pytest.mark.parametrize("threshold", [0, -1])
def test_an_empty_threshold_proves_nothing(threshold: int) -> None:
    with pytest.raises(SignatureError, match="threshold"):
        verify(Signed("plan/1", encode(PAYLOAD), ()), "plan/1", RING, threshold=threshold)


def test_a_key_under_two_names_counts_once() -> None:
    signed = sign("plan/1", PAYLOAD, [A])
    alias = replace(signed, signatures=(*signed.signatures, ("f" * 32, signed.signatures[0][1])))
    with pytest.raises(SignatureError, match="key ring"):
        verify(alias, "plan/1", {**RING, "f" * 32: A.public_bytes}, threshold=2)


def test_a_message_of_one_kind_does_not_pass_for_another() -> None:
    signed = sign("plan/1", PAYLOAD, [A])
    with pytest.raises(SignatureError, match="release/1"):
        verify(signed, "release/1", RING)
    with pytest.raises(SignatureError, match="does not fit"):
        verify(replace(signed, domain="release/1"), "release/1", RING)
    assert signing_input("plan/1", b"x") == b"pocketscore/plan/1\0x"
    for domain in ("plan", "plan/1\0", "", "Plan/1"):
        with pytest.raises(ContractError, match="domain"):
            signing_input(domain, b"")


@given(st.integers(0, 8 * 67 - 1))
def test_one_flipped_bit_is_found(bit: int) -> None:
    signed = sign("plan/1", PAYLOAD, [A])
    raw = bytearray(signed.payload[:3] + signed.signatures[0][1])
    raw[bit // 8] ^= 1 << bit % 8
    changed = Signed("plan/1", bytes(raw[:3]) + signed.payload[3:], ((A.keyid, bytes(raw[3:])),))
    with pytest.raises(SignatureError):
        verify(changed, "plan/1", RING)


GOOD: dict[str, object] = {"domain": "a/1", "payload": b"", "signatures": [{"keyid": "a", "signature": bytes(64)}]}
OTHER_FORMS: list[object] = [
    [],
    3,
    {},
    {**GOOD, "more": 1},
    {**GOOD, "domain": 1},
    {**GOOD, "payload": ""},
    {**GOOD, "signatures": 1},
    {**GOOD, "signatures": [1]},
    {**GOOD, "signatures": [{"keyid": "a"}]},
    {**GOOD, "signatures": [{"keyid": "a", "signature": b"short"}]},
    {**GOOD, "signatures": [{"keyid": "a", "signature": bytes(64)}] * 65},
]


@pytest.mark.parametrize("raw", OTHER_FORMS)
def test_other_forms_are_refused(raw: object) -> None:
    assert Signed.from_bytes(encode(GOOD)).domain == "a/1"
    with pytest.raises(ContractError):
        Signed.from_bytes(encode(raw))


def test_a_signed_list_is_no_payload() -> None:
    body = encode([1])
    signed = Signed("plan/1", body, ((A.keyid, A.sign(signing_input("plan/1", body))),))
    with pytest.raises(ContractError, match="no map"):
        verify(signed, "plan/1", RING)
