"""Release manifests, score envelopes and consent receipts: round trips and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model.canonical import decode, encode
from model.contract.consent import ConsentReceipt
from model.contract.envelope import SigningKey, sign
from model.contract.release import EpsilonCard, GateFigures, ReleaseManifest, ScoreScale
from model.contract.score import DOMAIN, ScoreEnvelope, open_score, seal_score
from model.contract.sealed import SUITE, RecipientKey, seal
from model.errors import AudienceError, ConsentError, ContractError, IntakeError, SignatureError

NOW = 1_770_000_000
DEVICE = SigningKey.from_private_bytes(bytes([21]) * 32)
LENDER = RecipientKey.from_private_bytes(bytes([22]) * 32)
CARD = EpsilonCard(1.5, 1.5, None, "central mode: the coordinator sees clear sums", 1e-5, "zero-out", "phone")
GATE = GateFigures(0.76, 0.01, 0.015, True, ())
SCALE = ScoreScale(10, 30)
MANIFEST = ReleaseManifest(
    "demo",
    1,
    "aa" * 32,
    "bb" * 32,
    "cc" * 32,
    21_000,
    CARD,
    GATE,
    "in-rbi-2025",
    SCALE,
    ("Few days observed.", ""),
    ("observed_days", "other"),
    NOW,
    NOW + 86_400,
)
ENVELOPE = ScoreEnvelope(
    ref="r-1",
    purpose="loan",
    consent_id="c-1",
    score=640,
    band="B",
    model_digest="cc" * 32,
    policy_pack="in-rbi-2025",
    nonce="00ff",
    counter=1,
    issued_at=NOW,
    expires_at=NOW + 30 * 86_400,
    audience="lender-a",
    device_key=DEVICE.public_bytes.hex(),
)
RECEIPT = ConsentReceipt(
    "c-1",
    "loan",
    "lender-a",
    ("payments",),
    ("upi", "bill"),
    ("sms",),
    "in-rbi-2025",
    NOW,
    NOW + 1000,
    None,
    "en",
    "PocketScore",
)


@pytest.mark.parametrize("message", [MANIFEST, ENVELOPE, RECEIPT, replace(RECEIPT, withdrawn_at=NOW + 1)])
def test_round_trip(message: Any) -> None:
    again = type(message).from_dict(decode(encode(message.to_dict())))
    assert again == message and again.digest == message.digest
    with pytest.raises(ContractError, match="more"):
        type(message).from_dict({**message.to_dict(), "more": 1})


BAD_PARTS: list[tuple[Any, dict[str, Any]]] = [
    (CARD, {"coordinator_reason": ""}),
    (CARD, {"helper_reason": ""}),
    (CARD, {"helper": -1.0}),
    (CARD, {"released_models": -1.0}),
    (CARD, {"delta": 0.0}),
    (GATE, {"passed": False}),
    (GATE, {"reasons": ("too few phones",)}),
    (SCALE, {"pdo": 0}),
    (MANIFEST, {"name": "../demo"}),
    (MANIFEST, {"version": 0}),
    (MANIFEST, {"onnx_bytes": 0}),
    (MANIFEST, {"model_digest": "cc"}),
    (MANIFEST, {"reasons": ("one",)}),
    (MANIFEST, {"features": (), "reasons": ()}),
    (MANIFEST, {"expires_at": NOW}),
    (ENVELOPE, {"ref": ""}),
    (ENVELOPE, {"nonce": "x" * 257}),
    (ENVELOPE, {"score": 299}),
    (ENVELOPE, {"score": 901}),
    (ENVELOPE, {"score": 640.5}),
    (ENVELOPE, {"band": "F"}),
    (ENVELOPE, {"device_key": "zz" * 32}),
    (ENVELOPE, {"counter": -1}),
    (ENVELOPE, {"expires_at": NOW}),
    (ENVELOPE, {"reasons": ("b", "a")}),
    (ENVELOPE, {"reasons": ("a", "a")}),
    (ENVELOPE, {"reasons": ("a", "b", "c", "d", "e")}),
    (RECEIPT, {"purpose": ""}),
    (RECEIPT, {"sources_denied": ("upi",)}),
    (RECEIPT, {"expires_at": NOW}),
    (RECEIPT, {"withdrawn_at": NOW - 1}),
]


@pytest.mark.parametrize(("good", "change"), BAD_PARTS)
def test_ranges(good: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        replace(good, **change)


def _open(data: bytes, *, purpose: str = "loan", audience: str = "lender-a", now: int = NOW + 1) -> ScoreEnvelope:
    return open_score(data, LENDER, purpose=purpose, audience=audience, now=now)


def test_a_score_is_sealed_opened_and_verified() -> None:
    data = seal_score(ENVELOPE, DEVICE, LENDER.public_bytes)
    assert _open(data) == ENVELOPE and data.startswith(SUITE)
    assert b"lender-a" not in data


def test_case_55_replayed_score_is_the_same_envelope() -> None:
    """A replay opens to the same device key and counter, by which the lender's book refuses it."""
    data = seal_score(ENVELOPE, DEVICE, LENDER.public_bytes)
    first, again = _open(data), _open(data)
    assert (first.device_key, first.counter, first.digest) == (again.device_key, again.counter, again.digest)
    later = _open(seal_score(replace(ENVELOPE, counter=2), DEVICE, LENDER.public_bytes))
    assert later.counter != first.counter and later.digest != first.digest


def test_case_56_wrong_audience() -> None:
    data = seal_score(ENVELOPE, DEVICE, LENDER.public_bytes)
    assert _open(data) == ENVELOPE
    for change in ({"audience": "lender-b"}, {"purpose": "marketing"}):
        with pytest.raises(AudienceError):
            _open(data, **change)  # type: ignore[arg-type]
    with pytest.raises(AudienceError):
        open_score(data, RecipientKey.generate(), purpose="loan", audience="lender-a", now=NOW)
    # Sealed for one audience, signed for another: the seal alone is not believed.
    inner = sign(DOMAIN, replace(ENVELOPE, audience="lender-b").to_dict(), [DEVICE]).to_bytes()
    with pytest.raises(AudienceError, match="addressed"):
        _open(seal(inner, LENDER.public_bytes, {"purpose": "loan", "audience": "lender-a"}))


def test_case_57_suite_downgrade() -> None:
    data = seal_score(ENVELOPE, DEVICE, LENDER.public_bytes)
    weaker = data[: len(SUITE) - 1] + b"\x00" + data[len(SUITE) :]
    assert _open(data) == ENVELOPE
    with pytest.raises(ContractError, match="suite"):
        _open(weaker)


def test_case_29_clock_skew_and_expiry() -> None:
    data = seal_score(ENVELOPE, DEVICE, LENDER.public_bytes)
    assert _open(data, now=NOW - 600) == ENVELOPE
    with pytest.raises(IntakeError, match="future"):
        _open(data, now=NOW - 601)
    assert _open(data, now=ENVELOPE.expires_at - 1) == ENVELOPE
    with pytest.raises(IntakeError, match="expired"):
        _open(data, now=ENVELOPE.expires_at)


def test_an_envelope_speaks_with_the_key_it_names() -> None:
    other = SigningKey.generate()
    with pytest.raises(ContractError, match="another device key"):
        seal_score(ENVELOPE, other, LENDER.public_bytes)
    info = {"purpose": "loan", "audience": "lender-a"}
    forged = seal(sign(DOMAIN, ENVELOPE.to_dict(), [other]).to_bytes(), LENDER.public_bytes, info)
    with pytest.raises(SignatureError):
        _open(forged)
    foreign = seal(sign("plan/1", ENVELOPE.to_dict(), [DEVICE]).to_bytes(), LENDER.public_bytes, info)
    with pytest.raises(SignatureError):
        _open(foreign)
    for plain in (b"", encode([1]), encode(ENVELOPE.to_dict())):
        with pytest.raises(ContractError):
            _open(seal(plain, LENDER.public_bytes, info))


def test_case_58_consent_withdrawn() -> None:
    RECEIPT.require("loan", "lender-a", NOW)
    gone = RECEIPT.withdrawn(NOW + 5)
    with pytest.raises(ConsentError, match="withdrawn"):
        gone.require("loan", "lender-a", NOW + 6)
    assert gone.withdrawn(NOW + 9) == gone
    assert RECEIPT.withdrawn(NOW - 9).withdrawn_at == NOW


def test_consent_covers_its_purpose_audience_and_time_alone() -> None:
    for purpose, audience, now in (("ads", "lender-a", NOW), ("loan", "lender-b", NOW), ("loan", "lender-a", NOW - 1),
                                   ("loan", "lender-a", NOW + 1000)):  # fmt: skip
        with pytest.raises(ConsentError):
            RECEIPT.require(purpose, audience, now)
