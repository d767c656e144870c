"""The lender's desk: decides what lies in the book, with key facts, all offers, and notices (spec 10.5–10.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fl_server.lending.book import Book, Score, Verdict
from fl_server.lending.card import LenderCard
from fl_server.lending.decision import Application, Decision, decide
from fl_server.lending.notice import adverse_action, key_facts, reason_sentences
from fl_server.lending.offers import loan_of, match
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.release import ReleaseManifest

DOMAIN = "decision/1"


class Desk:
    """Decides by the first of `cards` (the lender's own); shows the offers of all of them."""

    def __init__(self, cards: Sequence[LenderCard], releases: Mapping[str, ReleaseManifest], book: Book) -> None:
        self.card, self.cards, self.releases, self.book = cards[0], cards, releases, book

    def decide_all(self, applications: Mapping[str, Application], now: int) -> list[dict[str, Any]]:
        """Decide every undecided application, and complete the notices whose reasons have come.

        `applications` holds by reference what borrowers declared; one without any score is referred, never
        declined. Returns the new or completed documents.
        """
        with self.book.writing() as session:
            decided = select(Verdict.ref).where(Verdict.device_key == Score.device_key, Verdict.ref == Score.ref)
            waiting = session.scalars(select(Score).where(Score.explains.is_(False), ~decided.exists())).all()
            done = [self._decide(session, row, applications.get(row.ref, Application()), now) for row in waiting]
            done += [self._without_score(session, ref, each, now) for ref, each in applications.items()]
            done += [self._explain(session, row) for row in session.scalars(select(Score).where(Score.explains))]
        return [document for document in done if document]

    def _decide(self, session: Session, row: Score, application: Application, now: int) -> dict[str, Any]:
        mine = (Verdict.device_key == row.device_key) & (Verdict.outcome == "approve")
        latest = session.scalars(select(Verdict).where(mine).order_by(Verdict.decided_at.desc())).first()
        standing = Application(
            application.amount,
            application.monthly_income,
            latest.limit if latest is not None else application.current_limit,
            application.increase_requested,
        )
        decision = decide(row.band, self.card.rate_card, standing)
        document = self._document(row.ref, decision, now)
        document |= {"score": row.score, "band": row.band, "scored_at": row.issued_at}
        document["matching"] = match(self.cards, row.purpose, row.band, application.amount).to_dict()
        if decision.outcome == "approve":
            document["key_facts"] = key_facts(self.card, loan_of(self.card, row.band, decision.limit))
        if decision.outcome == "decline":
            document["notice"] = adverse_action(decision, self.card.name, row.score, row.issued_at, [])
        _enter(session, row.device_key, decision, document)
        return document

    def _without_score(self, session: Session, ref: str, application: Application, now: int) -> dict[str, Any]:
        known = session.scalars(select(Verdict).where(Verdict.ref == ref)).first()
        if known is not None:
            return {}
        decision = decide(None, self.card.rate_card, application)
        document = self._document(ref, decision, now)
        _enter(session, "", decision, document)
        return document

    def _explain(self, session: Session, row: Score) -> dict[str, Any]:
        verdict = session.get(Verdict, (row.device_key, row.ref))
        if verdict is None or verdict.document["notice"]["principal_reasons"]:
            return {}
        decision = Decision(verdict.outcome, verdict.code, verdict.document["sentence"])
        reasons = reason_sentences(row.reasons, self.releases[row.model_digest])
        scored_at = verdict.document["scored_at"]
        notice = adverse_action(decision, self.card.name, row.score, scored_at, reasons)
        verdict.document = {**verdict.document, "notice": notice}
        return verdict.document

    def _document(self, ref: str, decision: Decision, now: int) -> dict[str, Any]:
        return {
            "audience": self.card.audience,
            "ref": ref,
            "outcome": decision.outcome,
            "code": decision.code,
            "sentence": decision.sentence,
            "limit": decision.limit,
            "conditions": list(decision.conditions),
            "decided_at": now,
        }


def signed_decision(document: Mapping[str, Any], key: SigningKey) -> Signed:
    """A decision in domain `decision/1`, by the key on the lender's card, so that a phone can act on it."""
    return sign(DOMAIN, document, [key])


def _enter(session: Session, device_key: str, decision: Decision, document: dict[str, Any]) -> None:
    verdict = Verdict(
        device_key=device_key,
        ref=document["ref"],
        outcome=decision.outcome,
        code=decision.code,
        limit=decision.limit,
        decided_at=document["decided_at"],
        document=document,
    )
    session.add(verdict)
    session.flush()
