"""What a lender gets: a score envelope, signed by a pairwise device key and sealed to one audience (spec 3.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.canonical import decode
from model.contract.envelope import MAX_SIGNED_BYTES, Signed, SigningKey, keyid, sign, verify
from model.contract.record import Record, require
from model.contract.sealed import RecipientKey, check_suite, open_sealed, seal
from model.errors import AudienceError, ContractError, IntakeError

DOMAIN = "score/1"
BANDS = ("A", "B", "C", "D", "E")
SCORE_MIN, SCORE_MAX = 300, 900
MAX_REASONS = 4
CLOCK_SKEW_S = 600
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ScoreEnvelope(Record):
    """One score for one audience. Times are Unix seconds.

    `device_key` (32 public bytes in hex), `consent_id` and `counter` are pairwise: one per lender, unlinkable to
    the training identity. `reasons` are at most 4 ids, sorted, so their order says nothing, and stay empty unless
    a decline asks for them.
    """

    ref: str
    purpose: str
    consent_id: str
    score: int
    band: str
    model_digest: str
    policy_pack: str
    nonce: str
    counter: int
    issued_at: int
    expires_at: int
    audience: str
    device_key: str
    reasons: tuple[str, ...] = ()

    def check(self) -> None:
        """ContractError for a field out of its range."""
        texts = (self.ref, self.purpose, self.consent_id, self.nonce, self.audience, self.policy_pack)
        require(all(0 < len(t) <= 256 for t in texts), "a score envelope has an empty or overlong text; issue it again")
        require(SCORE_MIN <= self.score <= SCORE_MAX, f"the score {self.score} is outside 300 to 900; issue it again")
        require(self.band in BANDS, f"the band {self.band!r} is none of A to E; issue it again")
        for text in (self.model_digest, self.device_key):
            require(bool(_HEX64.fullmatch(text)), "a score envelope has a key or digest not of 64 hex characters")
        require(self.counter >= 0 and self.issued_at >= 0, "a score envelope has a negative counter or time")
        require(self.issued_at < self.expires_at, "a score envelope expires before it is issued; issue it again")
        ordered = tuple(sorted(set(self.reasons)))
        require(self.reasons == ordered and len(ordered) <= MAX_REASONS, "reasons must be a sorted set of at most 4")


def seal_score(envelope: ScoreEnvelope, device: SigningKey, lender_public: bytes) -> bytes:
    """Sign with the pairwise `device` key and seal to the lender's 32 public bytes, bound to purpose and audience."""
    require(envelope.device_key == device.public_bytes.hex(), "the envelope names another device key; issue it again")
    signed = sign(DOMAIN, envelope.to_dict(), [device])
    return seal(signed.to_bytes(), lender_public, _info(envelope.purpose, envelope.audience))


def open_score(data: bytes, lender: RecipientKey, *, purpose: str, audience: str, now: int) -> ScoreEnvelope:
    """Open and verify what `seal_score` made: suite, recipient, signature, audience, purpose and time (± 10 min).

    AudienceError if it is sealed or addressed to another; IntakeError if it is out of its time; ContractError
    for another suite or a malformed envelope. Replay and the device key's registration are the book's to check.
    """
    check_suite(data)
    try:
        plain = open_sealed(data, lender, _info(purpose, audience))
    except ContractError as error:
        raise AudienceError(f"an envelope was not sealed to {audience} for {purpose}; ask for one that is") from error
    envelope = _verified(Signed.from_bytes(plain))
    if (envelope.audience, envelope.purpose) != (audience, purpose):
        raise AudienceError(f"an envelope is addressed to {envelope.audience}, not {audience}; ask for a new one")
    if envelope.issued_at > now + CLOCK_SKEW_S:
        raise IntakeError("an envelope is issued in the future; correct the clocks and ask for a new one")
    if now >= envelope.expires_at:
        raise IntakeError("an envelope has expired; ask the borrower for a new score")
    return envelope


def _verified(signed: Signed) -> ScoreEnvelope:
    """The envelope carries its own pairwise key: what counts is that one key speaks, from one score to the next."""
    claimed = ScoreEnvelope.from_dict(decode(signed.payload, max_bytes=MAX_SIGNED_BYTES))
    public = bytes.fromhex(claimed.device_key)
    return ScoreEnvelope.from_dict(verify(signed, DOMAIN, {keyid(public): public}))


def _info(purpose: str, audience: str) -> dict[str, str]:
    return {"purpose": purpose, "audience": audience}
