"""Who agreed to what: receipts signed by the pairwise key, withdrawal as an entry, refusal per source (spec 9.5)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from fl_client.egress import Egress, Recipient
from fl_client.identity import LenderCard, Pairwise
from fl_client.store import PhoneStore
from model.contract.consent import DOMAIN, ConsentReceipt
from model.contract.envelope import Signed, keyid, sign, verify
from model.errors import ConsentError, InputError
from model.risk.schema import Schema

if TYPE_CHECKING:  # scoring needs no plan
    from model.contract.plan import TrainingPlan

DAY_SECONDS = 86_400
CONSENT_DAYS = 365  # asked again every year; no pack names a shorter period
CONTROLLER = "the borrower's own phone"
FEDERATION = "the federation"
_TRAINING = "training-consent"


class Consents:
    """The receipts of one pair (phone, lender), append-only in the encrypted store."""

    def __init__(self, store: PhoneStore, identity: Pairwise) -> None:
        self._store, self._identity = store, identity
        self._table = f"consent/{identity.label}"

    def receipts(self) -> list[ConsentReceipt]:
        """All entries, oldest first; SignatureError if one was not made by this phone."""
        public = self._identity.key.public_bytes
        ring = {keyid(public): public}
        signed = (Signed.from_bytes(entry["signed"]) for entry in self._store.entries(self._table))
        return [ConsentReceipt.from_dict(verify(one, DOMAIN, ring)) for one in signed]

    def give(
        self,
        schema: Schema,
        card: LenderCard,
        *,
        purpose: str,
        policy_pack: str,
        now: int,
        denied: Collection[str] = (),
        language: str = "en",
    ) -> ConsentReceipt:
        """Record consent to `purpose` over every source the schema reads, but those `denied`.

        InputError for a purpose the lender does not name or a source the schema does not read.
        """
        sources = {feature.source for feature in schema.features}
        _require_known("purpose", {purpose}, set(card.purposes))
        _require_known("source", set(denied), sources)
        number = sum(receipt.withdrawn_at is None for receipt in self.receipts()) + 1
        return self._keep(
            ConsentReceipt(
                consent_id=self._identity.consent_id(number),
                purpose=purpose,
                audience=self._identity.audience,
                data_categories=tuple(sorted({f.profile for f in schema.features if f.source not in denied})),
                sources_allowed=tuple(sorted(sources - set(denied))),
                sources_denied=tuple(sorted(denied)),
                policy_pack=policy_pack,
                given_at=now,
                expires_at=now + CONSENT_DAYS * DAY_SECONDS,
                withdrawn_at=None,
                language=language,
                controller=CONTROLLER,
            )
        )

    def withdraw(self, purpose: str, now: int) -> ConsentReceipt:
        """Add the withdrawal; one command, as giving was. ConsentError if there is nothing to withdraw."""
        return self._keep(self.current(purpose, now).withdrawn(now))

    def current(self, purpose: str, now: int) -> ConsentReceipt:
        """The receipt in force; ConsentError if none was given, or the last was withdrawn or has expired."""
        given = [receipt for receipt in self.receipts() if receipt.purpose == purpose]
        if not given:
            raise ConsentError(f"there is no consent to {purpose} for {self._identity.audience}; give it first")
        given[-1].require(purpose, self._identity.audience, now)
        return given[-1]

    def release(self, receipt: ConsentReceipt, card: LenderCard, egress: Egress) -> bytes:
        """The lender's copy, signed and sealed. It names no sources: which were refused is not the lender's to know."""
        copy = replace(receipt, data_categories=("score",), sources_allowed=(), sources_denied=())
        to = Recipient(card.hpke_public, {"purpose": receipt.purpose, "audience": card.audience})
        return egress.release(DOMAIN, copy.to_dict(), consent_id=copy.consent_id, key=self._identity.key, to=to)

    def _keep(self, receipt: ConsentReceipt) -> ConsentReceipt:
        signed = sign(DOMAIN, receipt.to_dict(), [self._identity.key])
        self._store.append(self._table, {"signed": signed.to_bytes()})
        return receipt


def _require_known(what: str, asked: set[str], known: set[str]) -> None:
    odd = sorted(asked - known)
    if odd:
        raise InputError(f"{odd[0]!r} is no {what} here; choose from {', '.join(sorted(known))}")


def _in_force(receipt: ConsentReceipt, now: int) -> bool:
    return receipt.withdrawn_at is None and receipt.given_at <= now < receipt.expires_at


class TrainingConsent:
    """Whether the owner lets this phone take part in training for a purpose: no, until they say so. Never sent."""

    def __init__(self, store: PhoneStore) -> None:
        self._store = store

    def give(self, purpose: str, policy_pack: str, now: int, language: str = "en") -> ConsentReceipt:
        """Agree to train for `purpose`, the plan's own word, under one pack, for a year. Agreed already, it stays."""
        standing = self.last().get(purpose)
        if standing is not None and standing.policy_pack == policy_pack and _in_force(standing, now):
            return standing
        return self._keep(
            ConsentReceipt(
                consent_id=f"training-{len(self.receipts()) + 1}",
                purpose=purpose,
                audience=FEDERATION,
                data_categories=(),
                sources_allowed=(),
                sources_denied=(),
                policy_pack=policy_pack,
                given_at=now,
                expires_at=now + CONSENT_DAYS * DAY_SECONDS,
                withdrawn_at=None,
                language=language,
                controller=CONTROLLER,
            )
        )

    def withdraw(self, purpose: str, now: int) -> ConsentReceipt:
        """Stop taking part. ConsentError if this phone never joined, or has left already."""
        standing = self.last().get(purpose)
        if standing is None:
            raise ConsentError(f"this phone never joined training for {purpose!r}; there is nothing to leave")
        if standing.withdrawn_at is not None:
            raise ConsentError(f"this phone has already left training for {purpose!r}; nothing more is needed")
        return self._keep(standing.withdrawn(now))

    def require(self, plan: TrainingPlan, now: int) -> None:
        """ConsentError unless the owner agreed to this plan's purpose under its policy pack, and still does."""
        agreed = self._current(plan.purpose, now).policy_pack
        if agreed != plan.policy_pack:
            raise ConsentError(
                f"consent to train was given under {agreed} and this plan is under {plan.policy_pack}; ask again"
            )

    def last(self) -> dict[str, ConsentReceipt]:
        """The latest entry of each purpose."""
        return {receipt.purpose: receipt for receipt in self.receipts()}

    def receipts(self) -> list[ConsentReceipt]:
        """All entries, oldest first."""
        return [ConsentReceipt.from_dict(entry) for entry in self._store.entries(_TRAINING)]

    def _current(self, purpose: str, now: int) -> ConsentReceipt:
        standing = self.last().get(purpose)
        if standing is None:
            raise ConsentError(f"there is no consent to train for {purpose!r}; give it first")
        standing.require(purpose, FEDERATION, now)
        return standing

    def _keep(self, receipt: ConsentReceipt) -> ConsentReceipt:
        self._store.append(_TRAINING, receipt.to_dict())
        return receipt
