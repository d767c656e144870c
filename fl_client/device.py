"""One phone's score, from what it keeps to sealed bytes: the same code for a device and a thousand (spec 9.9)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.consent import DAY_SECONDS, Consents
from fl_client.egress import Egress, Recipient
from fl_client.events import COLUMNS, SEALED, EventBatch, from_columns
from fl_client.features import EXTRACTORS, extract
from fl_client.identity import LenderCard, Pairwise
from fl_client.keystore import ROOT_BYTES
from fl_client.scoring import Assessment, Scorer
from fl_client.store import Columns, PhoneStore, SqliteStore
from model.contract.consent import ConsentReceipt
from model.contract.score import DOMAIN, ScoreEnvelope
from model.errors import InputError, NoScore
from model.risk.schema import Schema


@dataclass(frozen=True)
class Phone:
    """What a phone is made of: its store and its root secret."""

    store: PhoneStore
    root: bytes

    @classmethod
    def in_memory(cls, *, row: Mapping[str, float] | None = None, events: Mapping[str, Columns] | None = None) -> Phone:
        """A phone without a folder, with a key of its own, holding a ready row or events by type."""
        root = secrets.token_bytes(ROOT_BYTES)
        store = SqliteStore(":memory:", root)
        if row is not None:
            store.put_row(row)
        for kind, columns in (events or {}).items():
            store.append_events(kind, columns)
        return cls(store, root)

    def consents(self, card: LenderCard) -> Consents:
        """Its receipts towards one lender."""
        return Consents(self.store, Pairwise.towards(self.root, card))


@dataclass(frozen=True)
class OwnCopy:
    """What the borrower keeps: more than the lender gets. `reasons` are ordered, strongest first, with sentences."""

    ref: str
    lender: str
    purpose: str
    score: int
    band: str
    pd: float
    reasons: tuple[tuple[str, str], ...]
    neutral: tuple[str, ...]
    model_digest: str
    policy_pack: str
    issued_at: int
    expires_at: int

    @property
    def lender_reasons(self) -> tuple[str, ...]:
        """What the lender would get after a decline: at most four ids, sorted, so that their order tells nothing."""
        return tuple(sorted(name for name, _ in self.reasons))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; JSON of it is the borrower's file."""
        ordered = [{"id": name, "text": sentence} for name, sentence in self.reasons]
        return {**vars(self), "reasons": ordered, "neutral": list(self.neutral)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> OwnCopy:
        """Inverse of `to_dict`."""
        reasons = tuple((reason["id"], reason["text"]) for reason in raw["reasons"])
        return cls(**{**raw, "reasons": reasons, "neutral": tuple(raw["neutral"])})


@dataclass(frozen=True)
class Scored:
    """The bytes for the lender, the borrower's copy, and how long it took: all of it, and the model alone (µs)."""

    sealed: bytes
    own_copy: OwnCopy
    total_us: float
    model_us: float


def features_of(
    store: PhoneStore, schema: Schema, start_day: int, refused: Collection[str] = ()
) -> NDArray[np.float32]:
    """(F,) float32 from the row the phone keeps, or from its events before `start_day`; refused sources stay unread."""
    row = store.row()
    if row is not None:
        values = [np.nan if f.source in refused else row.get(f.name, np.nan) for f in schema.features]
        return np.array(values, dtype=np.float32)
    batch = _consented(store.events(without=refused), refused)
    return np.asarray(extract(batch, schema, [start_day])[0], dtype=np.float32)


def preview(
    phone: Phone,
    scorer: Scorer,
    card: LenderCard,
    *,
    now: int,
    purpose: str = "",
    ref: str = "",
    start_day: int | None = None,
) -> OwnCopy:
    """The borrower's copy; nothing leaves. ConsentError, NoScore or SchemaError as the case is."""
    return _assess(phone, scorer, card, now, purpose, ref, start_day)[0]


def score_phone(
    phone: Phone,
    scorer: Scorer,
    card: LenderCard,
    egress: Egress,
    *,
    now: int,
    purpose: str = "",
    ref: str = "",
    start_day: int | None = None,
    deliver: Callable[[bytes], object] | None = None,
) -> Scored:
    """Score one phone for one lender at Unix second `now`.

    `purpose` defaults to the card's first, `ref` (the application) to a fresh one, `start_day` to the Unix day.
    `deliver` takes the bytes; if it raises, the application stays open and the score can be made again.
    The counter, the egress line and the own copy are durable before the bytes are returned. ConsentError
    without consent in force (case 58), NoScore (case 54, thin file), EgressError.
    """
    begun = time.perf_counter()
    own, receipt, model_us = _assess(phone, scorer, card, now, purpose, ref, start_day)
    identity = Pairwise.towards(phone.root, card)
    if any(OwnCopy.from_dict(raw).ref == own.ref for raw in phone.store.entries(_table(identity))):
        raise InputError(f"application {own.ref!r} has its score already; name a new one or leave --ref out")
    sealed = _release(phone, identity, card, egress, own, receipt, now, ())
    if deliver is not None:
        deliver(sealed)
    phone.store.append(_table(identity), own.to_dict())
    return Scored(sealed, own, (time.perf_counter() - begun) * 1e6, model_us)


def explain_phone(phone: Phone, card: LenderCard, egress: Egress, *, now: int, ref: str = "") -> Scored:
    """After a decline of `ref` (default: the last score): the same score again, with the set of reasons.

    InputError if there was no such score or it has no reasons; ConsentError if consent no longer holds.
    """
    begun = time.perf_counter()
    identity = Pairwise.towards(phone.root, card)
    own = own_copy(phone, card, ref)
    receipt = phone.consents(card).current(own.purpose, now)
    if not own.reasons:
        raise InputError(f"nothing raised the risk in score {own.ref!r}, so there is no reason to send")
    if now >= own.expires_at:
        raise InputError(f"the score of application {own.ref!r} has expired; make a new one")
    sealed = _release(phone, identity, card, egress, own, receipt, now, own.lender_reasons)
    return Scored(sealed, own, (time.perf_counter() - begun) * 1e6, 0.0)


def own_copy(phone: Phone, card: LenderCard, ref: str = "") -> OwnCopy:
    """The borrower's copy of application `ref`, or the last one; InputError if there is none."""
    kept = phone.store.entries(_table(Pairwise.towards(phone.root, card)))
    found = [raw for raw in kept if not ref or raw["ref"] == ref]
    if not found:
        which = f"of application {ref!r} " if ref else ""
        raise InputError(f"this phone keeps no score {which}for {card.name}; make one with score first")
    return OwnCopy.from_dict(found[-1])


def _assess(
    phone: Phone, scorer: Scorer, card: LenderCard, now: int, purpose: str, ref: str, start_day: int | None
) -> tuple[OwnCopy, ConsentReceipt, float]:
    purpose = purpose or card.purposes[0]
    receipt = phone.consents(card).current(purpose, now)  # before anything is read
    refused = receipt.sources_denied
    day = now // DAY_SECONDS if start_day is None else start_day
    features = features_of(phone.store, scorer.schema, day, refused)
    result = scorer.assess(features, refused)
    return _own(result, scorer, card, receipt, now, ref or secrets.token_hex(8)), receipt, result.model_us


def _own(result: Assessment, scorer: Scorer, card: LenderCard, receipt: ConsentReceipt, now: int, ref: str) -> OwnCopy:
    manifest = scorer.manifest
    sentence = dict(zip(manifest["features"], manifest["reasons"], strict=True))
    life = int(manifest["score"]["days"]) * DAY_SECONDS
    return OwnCopy(
        ref=ref,
        lender=card.name,
        purpose=receipt.purpose,
        score=result.score,
        band=result.band,
        pd=result.pd,
        reasons=tuple((name, sentence[name]) for name in result.reasons),
        neutral=result.neutral,
        model_digest=manifest["model_digest"],
        policy_pack=manifest["policy_pack"],
        issued_at=now,
        expires_at=now + life,
    )


def _release(
    phone: Phone,
    identity: Pairwise,
    card: LenderCard,
    egress: Egress,
    own: OwnCopy,
    receipt: ConsentReceipt,
    now: int,
    reasons: tuple[str, ...],
) -> bytes:
    envelope = ScoreEnvelope(
        ref=own.ref,
        purpose=own.purpose,
        consent_id=receipt.consent_id,
        score=own.score,
        band=own.band,
        model_digest=own.model_digest,
        policy_pack=own.policy_pack,
        nonce=secrets.token_hex(16),
        counter=phone.store.next_number(f"counter/{identity.label}"),
        issued_at=now,
        expires_at=own.expires_at,
        audience=card.audience,
        device_key=identity.device_key,
        reasons=reasons,
    )
    to = Recipient(card.hpke_public, {"purpose": own.purpose, "audience": card.audience})
    return egress.release(DOMAIN, envelope.to_dict(), consent_id=receipt.consent_id, key=identity.key, to=to)


def _table(identity: Pairwise) -> str:
    return f"own/{identity.label}"


def _consented(stored: Mapping[str, Columns], refused: Collection[str]) -> EventBatch:
    """Allowed types only. One without events is empty ("nothing happened"), a refused one is not there at all."""
    if not stored:
        raise NoScore("thin_file", "no score: this phone holds no activity yet; try again later")
    allowed = {kind for kind in EXTRACTORS if kind not in refused and kind not in SEALED}
    batch = {kind: stored.get(kind) or _nothing(kind) for kind in allowed}
    return from_columns(batch)


def _nothing(kind: str) -> Columns:
    return {name: np.empty(0, dtype=dtype) for name, dtype in COLUMNS[kind].items()}
