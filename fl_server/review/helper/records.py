"""What a helper keeps, and how it is read and checked, also beside the process that writes it (spec 13.6.4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.canonical import decode, sha256_hex
from model.contract.envelope import Signed, keyid, verify
from model.errors import RunError
from model.privacy.mechanism import GaussianRelease

HEAD = "helper-head/1"
GENESIS = "0" * 64
COLUMNS = (
    "plan_digest",
    "plan_name",
    "delta",
    "budget",
    "kind",
    "round",
    "model_digest",
    "dim",
    "batch_digest",
    "phones",
    "charge",
    "reserved_at",
)


@dataclass(frozen=True)
class Kept:
    """One release: what was asked, under which charge (count 1), and how it stands. `answer` is the signed share."""

    plan_digest: str
    plan_name: str
    delta: float
    budget: float
    kind: str
    round: int
    model_digest: str
    dim: int
    batch_digest: str
    phones: int
    charge: GaussianRelease
    reserved_at: int
    state: str = "reserved"
    answer: bytes = b""


def read_log(path: Path, public: bytes) -> list[dict[str, Any]]:
    """Every log entry, oldest first, after checking chain and signed head; reads beside a running helper."""
    with reading(path) as db:
        return check_log(db, public)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One state of the store, read-only, beside a running helper; RunError where it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("BEGIN")  # one state of the store, however many statements read it
            yield db
    except sqlite3.Error as error:
        raise RunError(f"the helper's store {path} cannot be read ({error}); serve once, then read") from error


def select(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> list[Kept]:
    """Releases in order of reservation; `where` is SQL of this package's own, `values` fill its marks."""
    rows = db.execute(f"SELECT {', '.join(COLUMNS)}, state, answer FROM releases {where} ORDER BY id", values)
    return [_kept(dict(zip((*COLUMNS, "state", "answer"), row, strict=True))) for row in rows]


def _kept(row: dict[str, Any]) -> Kept:
    charge = GaussianRelease.from_dict(decode(row.pop("charge")))
    return Kept(**{**row, "charge": charge, "answer": row["answer"] or b""})


def check_log(db: sqlite3.Connection, public: bytes) -> list[dict[str, Any]]:
    """Every log entry, oldest first; RunError unless the chain is whole and ends at the head signed by `public`."""
    previous = GENESIS
    entries: list[dict[str, Any]] = []
    for place, body, digest in db.execute("SELECT place, entry, digest FROM log ORDER BY place"):
        entry = decode(body)
        due = len(entries)
        if sha256_hex(body) != digest or (place, entry["index"], entry["previous"]) != (due, due, previous):
            raise RunError(f"the helper's log was edited at entry {due}; serve no more from it, make a new home")
        entries.append(entry)
        previous = digest
    row = db.execute("SELECT signed FROM head").fetchone()
    head = {"size": 0, "digest": GENESIS}
    if row is not None:
        head = verify(Signed.from_bytes(row[0]), HEAD, {keyid(public): public})
    if head != {"size": len(entries), "digest": previous}:
        raise RunError("the helper's log does not end at its signed head; serve no more from it, make a new home")
    return entries


def check_releases(db: sqlite3.Connection, entries: Iterable[dict[str, Any]]) -> None:
    """RunError unless releases and opened messages are just those that the log says were reserved."""
    names = ("plan_digest", "kind", "round", "batch_digest", "phones")
    logged = [tuple(each[name] for name in names) for each in entries if each["event"] == "reserved"]
    held = db.execute(f"SELECT {', '.join(names)} FROM releases ORDER BY id").fetchall()
    count = db.execute("SELECT count(*) FROM messages").fetchone()[0]
    if held != logged or count != sum(each[-1] for each in logged):
        raise RunError("the helper's releases are not those of its log; serve no more from it, make a new home")
