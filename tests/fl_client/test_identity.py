"""Two lenders of one person share nothing; a card speaks for the key that signed it and no other."""

import json

import pytest

from fl_client.identity import LenderCard, Pairwise
from model.canonical import encode
from model.contract.envelope import Signed, SigningKey, keyid, sign
from model.errors import ContractError, SignatureError, TrustError

NOW = 1_900_000_000
ROOT = b"r" * 32


def identifiers(identity: Pairwise) -> set[str]:
    """Everything about the phone that a lender could keep."""
    key = identity.key.public_bytes
    return {identity.device_key, keyid(key), *(identity.consent_id(n) for n in range(1, 20))}


def test_two_lenders_share_no_identifier(lenders):
    first, second = (Pairwise.towards(ROOT, lenders(name).card) for name in ("lender-one", "lender-two"))
    assert identifiers(first).isdisjoint(identifiers(second))
    assert len(identifiers(first)) == 21


def test_the_same_lender_sees_the_same_phone(lender):
    """The control: the comparison above would find a shared identifier."""
    again = Pairwise.towards(ROOT, lender.card)
    assert identifiers(Pairwise.towards(ROOT, lender.card)) == identifiers(again)


def test_another_phone_is_another_identity(lender):
    assert identifiers(Pairwise.towards(b"x" * 32, lender.card)).isdisjoint(
        identifiers(Pairwise.towards(ROOT, lender.card))
    )


def test_a_borrowed_audience_id_does_not_link(lenders):
    honest, impostor = lenders("lender-one"), lenders("lender-one")
    assert identifiers(Pairwise.towards(ROOT, honest.card)).isdisjoint(
        identifiers(Pairwise.towards(ROOT, impostor.card))
    )


def test_a_card_reads_back(lender):
    card = LenderCard.read(lender.card_bytes, NOW)
    assert (card.audience, card.purposes, card.name) == ("lender-one", ("personal loan",), "Test Lender")
    assert card.hpke_public == lender.hpke.public_bytes


def test_a_card_of_another_signer_is_refused(lender):
    signed = Signed.from_bytes(lender.card_bytes)
    forged = Signed(signed.domain, signed.payload.replace(b"Test Lender", b"Best Lender"), signed.signatures)
    with pytest.raises(SignatureError):
        LenderCard.read(forged.to_bytes(), NOW)
    stranger = SigningKey.generate()
    body = {"signing_public": lender.signing.public_bytes.hex(), "name": "x"}
    with pytest.raises(SignatureError):
        LenderCard.read(sign("lender/1", body, [stranger]).to_bytes(), NOW)


def test_an_expired_card_is_refused(lenders):
    late = lenders("late", expires_at=NOW)
    with pytest.raises(TrustError, match="expired"):
        LenderCard.read(late.card_bytes, NOW)
    assert LenderCard.read(late.card_bytes, NOW - 1).audience == "late"


@pytest.mark.parametrize(
    "change",
    [
        {"audience": "../../key"},
        {"audience": 7},
        {"purposes": []},
        {"purposes": "loan"},
        {"hpke_public": "zz"},
        {"expires_at": "soon"},
        {"name": None},
    ],
    ids=json.dumps,
)
def test_a_malformed_card_is_refused(lenders, change):
    with pytest.raises(ContractError):
        lenders("lender-one", **change) if "audience" not in change else lenders(change["audience"])


def test_bytes_that_are_no_card_are_refused():
    for data in (b"", b"\x00", encode([1]), encode({"a": 1})):
        with pytest.raises(ContractError):
            LenderCard.read(data, NOW)
