"""What the lender takes: opened, verified, consented, never twice; what it refuses, with one log entry (spec 10.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fl_server.lending.book import Book, Consent, Refusal, Score, Verdict
from fl_server.lending.notice import reason_sentences
from model.canonical import decode, sha256_hex
from model.contract.consent import DOMAIN as CONSENT
from model.contract.consent import ConsentReceipt
from model.contract.envelope import Signed, keyid, verify
from model.contract.release import ReleaseManifest
from model.contract.score import CLOCK_SKEW_S, ScoreEnvelope, open_score
from model.contract.sealed import RecipientKey, check_suite, open_sealed
from model.errors import AudienceError, ConsentError, ContractError, IntakeError, PocketScoreError, ReplayError
from model.risk.scorecard import band

MAX_ENVELOPE = 16_384
DAY = 86_400


@dataclass(frozen=True)
class Taken:
    """The answer to one envelope: `status` is accepted, duplicate, consent or refused; `error` names the refusal."""

    status: str
    ref: str = ""
    error: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Opened:
    """What lay in an envelope: a consent receipt (signed by a key known only by its id so far), or a score."""

    digest: str
    receipt: Signed | None = None
    envelope: ScoreEnvelope | None = None


class Intake:
    """The door of one lender: its audience, purposes and key, the releases it trusts, its book."""

    def __init__(
        self,
        audience: str,
        purposes: Sequence[str],
        key: RecipientKey,
        releases: Mapping[str, ReleaseManifest],
        book: Book,
    ) -> None:
        self.audience, self.purposes, self.key = audience, tuple(purposes), key
        self.releases, self.book = releases, book

    def take(self, data: bytes, now: int) -> Taken:
        """Take one envelope at `now` (unix s), or raise; nothing is stored of one that raises.

        ContractError (malformed, other suite), AudienceError, IntakeError (time, model, grid, reasons),
        ConsentError, ReplayError (same counter or nonce with other content). An identical retry is a duplicate.
        """
        opened = self.open(data, now)
        with self.book.writing() as session:
            return self._store(session, opened, now)

    def take_all(self, batch: Sequence[bytes], now: int) -> list[Taken]:
        """Take many in one transaction: consents before scores, answers in the order given, one log entry a refusal."""
        try:
            return self._take_all(batch, now)
        except IntegrityError:  # on a server database another writer was first with a counter: look again
            return self._take_all(batch, now)

    def _take_all(self, batch: Sequence[bytes], now: int) -> list[Taken]:
        answers: dict[int, Taken] = {}
        opened: dict[int, Opened] = {}
        with self.book.writing() as session:
            for place, data in enumerate(batch):
                try:
                    opened[place] = self.open(data, now)
                except PocketScoreError as error:
                    answers[place] = _refused(session, data, now, error)
            for place, each in sorted(opened.items(), key=lambda item: item[1].envelope is not None):
                try:
                    answers[place] = self._store(session, each, now)
                except PocketScoreError as error:
                    answers[place] = _refused(session, batch[place], now, error)
        return [answers[place] for place in range(len(batch))]

    def open(self, data: bytes, now: int) -> Opened:
        """Open and verify without storing: suite, recipient, signature, audience, time, model, scale."""
        if len(data) > MAX_ENVELOPE:
            raise ContractError(f"an envelope of {len(data)} bytes is over {MAX_ENVELOPE}; send a smaller one")
        check_suite(data)
        purpose, plain = self._unseal(data)
        signed = Signed.from_bytes(plain)
        if signed.domain == CONSENT:
            return Opened(sha256_hex(plain), receipt=signed)
        envelope = open_score(data, self.key, purpose=purpose, audience=self.audience, now=now)
        self._check_model(envelope)
        return Opened(sha256_hex(plain), envelope=envelope)

    def _unseal(self, data: bytes) -> tuple[str, bytes]:
        """The purpose an envelope is bound to, and its content; only this lender's few purposes are tried."""
        for purpose in self.purposes:
            try:
                return purpose, open_sealed(data, self.key, {"purpose": purpose, "audience": self.audience})
            except ContractError:
                continue
        raise AudienceError(f"an envelope was not sealed to {self.audience} for its purposes; ask for one that is")

    def _check_model(self, envelope: ScoreEnvelope) -> None:
        release = self.releases.get(envelope.model_digest)
        if release is None:
            raise IntakeError(f"model {envelope.model_digest[:12]} is no release this lender trusts; update the phone")
        if envelope.issued_at >= release.expires_at + CLOCK_SKEW_S:
            raise IntakeError(f"release {release.name} had expired when it scored; update the phone and score again")
        if envelope.expires_at - envelope.issued_at > release.score.days * DAY:
            raise IntakeError(f"an envelope claims more than the {release.score.days} days a score lives; score again")
        on_grid = envelope.score % release.score.grid == 0 and envelope.band == band(envelope.score)
        if not on_grid or envelope.policy_pack != release.policy_pack:
            raise IntakeError("an envelope's score, band or policy pack is not its release's; score again")
        reason_sentences(envelope.reasons, release)

    def _store(self, session: Session, opened: Opened, now: int) -> Taken:
        """Every check comes before the first write, so one refusal leaves the rest of a batch whole."""
        if opened.receipt is not None:
            return _take_receipt(session, opened.receipt, self.audience, now)
        if opened.envelope is None:
            raise ContractError("an envelope holds neither a consent nor a score; ask for a new one")
        return _take_score(session, opened.envelope, opened.digest, now)


def _refused(session: Session, data: bytes, now: int, error: PocketScoreError) -> Taken:
    kind = type(error).__name__
    session.add(Refusal(at=now, digest=sha256_hex(data), error=kind, sentence=str(error)[:512]))
    return Taken("refused", error=kind, sentence=str(error))


def _take_receipt(session: Session, signed: Signed, audience: str, now: int) -> Taken:
    """Keep a receipt. Its key is verified at once if known here, else by the first envelope that encloses it."""
    if len(signed.signatures) != 1:
        raise ContractError("a consent receipt needs one signature, by the pairwise key; ask for a new one")
    signer = signed.signatures[0][0]
    known = session.scalar(select(Consent.device_key).where(Consent.keyid == signer, Consent.device_key.is_not(None)))
    receipt = _receipt(signed, known)
    if receipt.audience != audience:
        raise AudienceError(f"a consent receipt is for {receipt.audience}, not {audience}; ask for a new one")
    if receipt.given_at > now + CLOCK_SKEW_S:
        raise IntakeError("a consent receipt is given in the future; correct the clocks and ask for a new one")
    held = session.get(Consent, (signer, receipt.consent_id))
    if held is not None and held.withdrawn_at is not None:  # final: a late copy of the first receipt undoes nothing
        return Taken("consent", receipt.consent_id)
    if held is None:
        held = Consent(keyid=signer, consent_id=receipt.consent_id)
        session.add(held)
    held.device_key, held.received_at, held.receipt = known, now, signed.to_bytes()
    held.purpose, held.expires_at, held.withdrawn_at = receipt.purpose, receipt.expires_at, receipt.withdrawn_at
    return Taken("consent", receipt.consent_id)


def _receipt(signed: Signed, device_key: str | None) -> ConsentReceipt:
    if device_key is None:
        return ConsentReceipt.from_dict(decode(signed.payload))
    public = bytes.fromhex(device_key)
    return ConsentReceipt.from_dict(verify(signed, CONSENT, {keyid(public): public}))


def _take_score(session: Session, envelope: ScoreEnvelope, digest: str, now: int) -> Taken:
    """Check consent and replay, and insert, in one transaction."""
    consent = _consent(session, envelope, now)
    alike = (Score.counter == envelope.counter) | (Score.nonce == envelope.nonce) | (Score.ref == envelope.ref)
    near = session.scalars(select(Score).where(Score.device_key == envelope.device_key, alike)).all()
    held = [row for row in near if row.counter == envelope.counter or row.nonce == envelope.nonce]
    if held and all(row.digest == digest for row in held):
        return Taken("duplicate", envelope.ref)
    if held:
        raise ReplayError(f"counter {envelope.counter} or its nonce was used for another envelope; issue a new one")
    _require_application(session, envelope, near)
    raw = envelope.to_dict()
    kept = {name: raw[name] for name in raw if hasattr(Score, name)}
    session.add(Score(**kept, digest=digest, explains=bool(envelope.reasons), received_at=now))
    consent.device_key = envelope.device_key
    return Taken("accepted", envelope.ref)


def _consent(session: Session, envelope: ScoreEnvelope, now: int) -> Consent:
    """The receipt an envelope names, once it is verified by the enclosed key and found to hold now."""
    public = bytes.fromhex(envelope.device_key)
    held = session.get(Consent, (keyid(public), envelope.consent_id))
    if held is None:
        raise ConsentError(f"there is no consent receipt for {envelope.ref}; send the receipt before the score")
    receipt = _receipt(Signed.from_bytes(held.receipt), envelope.device_key)
    # A receipt was refused at its arrival if it was given beyond the clock skew, so `given_at` may lie a little ahead.
    receipt.require(envelope.purpose, envelope.audience, max(now, receipt.given_at))
    if receipt.policy_pack != envelope.policy_pack:
        raise ConsentError(f"consent was given under {receipt.policy_pack}, not {envelope.policy_pack}; ask again")
    return held


def _require_application(session: Session, envelope: ScoreEnvelope, near: Sequence[Score]) -> None:
    """One score for an application; reasons only after its decline, and only those of the score declined."""
    mine = [row for row in near if row.ref == envelope.ref]
    first = next((row for row in mine if not row.explains), None)
    if not envelope.reasons:
        if first is not None:
            raise IntakeError(f"application {envelope.ref} has its score already; start a new application")
        return
    verdict = session.get(Verdict, (envelope.device_key, envelope.ref))
    if first is None or verdict is None or verdict.outcome != "decline":
        raise IntakeError(f"reasons for {envelope.ref} came without a decline; send them only after one")
    if (first.score, first.band, first.model_digest) != (envelope.score, envelope.band, envelope.model_digest):
        raise IntakeError(f"reasons for {envelope.ref} belong to another score; send those of the declined one")
    if any(row.explains for row in mine):
        raise IntakeError(f"application {envelope.ref} has its reasons already; nothing more is needed")
