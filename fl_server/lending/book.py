"""The lender's book: consents, scores, decisions, refusals; SQLite or any SQLAlchemy URL (spec 10.4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Engine,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
    create_engine,
    func,
    select,
)
from sqlalchemy import event as events
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from model.errors import InputError


class Base(DeclarativeBase):
    """The tables of one book; times are unix seconds, digests and keys hex."""


class Consent(Base):
    """One consent receipt of one pairwise key; `device_key` is null until an envelope by that key has verified it."""

    __tablename__ = "consents"
    keyid: Mapped[str] = mapped_column(String(32), primary_key=True)
    consent_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    device_key: Mapped[str | None] = mapped_column(String(64), index=True)
    purpose: Mapped[str] = mapped_column(String(128))
    expires_at: Mapped[int] = mapped_column(BigInteger)
    withdrawn_at: Mapped[int | None] = mapped_column(BigInteger)
    receipt: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[int] = mapped_column(BigInteger)


class Score(Base):
    """One accepted envelope. A counter or a nonce stands once for each device."""

    __tablename__ = "scores"
    __table_args__ = (UniqueConstraint("device_key", "nonce"), UniqueConstraint("device_key", "ref", "explains"))
    device_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    counter: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    nonce: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(64))
    ref: Mapped[str] = mapped_column(String(128), index=True)
    explains: Mapped[bool] = mapped_column(Boolean)
    purpose: Mapped[str] = mapped_column(String(128))
    consent_id: Mapped[str] = mapped_column(String(128))
    score: Mapped[int] = mapped_column(Integer)
    band: Mapped[str] = mapped_column(String(8))
    model_digest: Mapped[str] = mapped_column(String(64))
    policy_pack: Mapped[str] = mapped_column(String(64))
    issued_at: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[int] = mapped_column(BigInteger)
    reasons: Mapped[list[str]] = mapped_column(JSON)


class Verdict(Base):
    """The decision on one application of one device."""

    __tablename__ = "decisions"
    device_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    ref: Mapped[str] = mapped_column(String(128), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(String(32))
    limit: Mapped[int] = mapped_column(Integer)
    decided_at: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class Refusal(Base):
    """One envelope that was not taken: when, which bytes, which error, which sentence."""

    __tablename__ = "refusals"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    error: Mapped[str] = mapped_column(String(64))
    sentence: Mapped[str] = mapped_column(String(512))


class Book:
    """Opens (and creates) the database of `url`; InputError where it cannot be opened."""

    def __init__(self, url: str) -> None:
        try:
            self.engine: Engine = create_engine(url)
            if self.engine.dialect.name == "sqlite":
                _serialise(self.engine)
            Base.metadata.create_all(self.engine)
        except (SQLAlchemyError, ImportError) as error:
            raise InputError(f"the lender's book {url!r} cannot be opened; check the database URL") from error

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: committed at the end, or nothing of it on any error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def find(self, ref: str) -> Verdict | None:
        """The latest decision under an application's reference."""
        query = select(Verdict).where(Verdict.ref == ref).order_by(Verdict.decided_at.desc())
        with self.writing() as session:
            return session.scalars(query).first()

    def summary(self) -> dict[str, Any]:
        """Counts for a report: devices, envelopes, refusals by error, decisions by outcome."""
        with self.writing() as session:
            refusals = session.execute(select(Refusal.error, func.count()).group_by(Refusal.error)).tuples()
            outcomes = session.execute(select(Verdict.outcome, func.count()).group_by(Verdict.outcome)).tuples()
            withdrawn = select(func.count()).select_from(Consent).where(Consent.withdrawn_at.is_not(None))
            return {
                "devices": session.scalar(select(func.count(Consent.device_key.distinct()))) or 0,
                "consents": session.scalar(select(func.count()).select_from(Consent)) or 0,
                "withdrawn": session.scalar(withdrawn) or 0,
                "envelopes_opened": session.scalar(select(func.count()).select_from(Score)) or 0,
                "refused": dict(refusals.all()),
                "decisions": dict(outcomes.all()),
            }

    def close(self) -> None:
        """Release the database."""
        self.engine.dispose()


def _serialise(engine: Engine) -> None:
    """Writers of an SQLite book stand in line, so that a check and its insert are one step."""

    @events.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    @events.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
