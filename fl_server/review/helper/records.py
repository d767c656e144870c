"""What a helper keeps, and how it is read and checked, also beside the process that writes it (spec 13.6.4)."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_server.review.helper.mark import damaged, read_head, read_mark, require_mark
from model.canonical import decode, encode, sha256_hex
from model.contract.envelope import Signed
from model.errors import ContractError, RunError
from model.privacy.mechanism import GaussianRelease

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
    """Every log entry, oldest first, after checking the store; reads beside a running helper, [] before the first."""
    return read_all(path, public)[0]


def read_all(path: Path, public: bytes) -> tuple[list[dict[str, Any]], list[Kept]]:
    """Log and releases of the store at `path`, checked as when it is served; RunError where it does not hold."""
    mark = read_mark(path, public)  # before the store, which may move on meanwhile
    if not path.exists():
        require_mark(path, mark, [])
        return [], []
    with reading(path) as db:
        entries = check_store(db, path, public, mark)
        return entries, select(db, "", ())


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


def row_digest(row: Mapping[str, Any]) -> str:
    """What a log entry says of a release's row, all of it: SHA-256 (hex) of COLUMNS as a canonical map.

    `charge` is in canonical bytes. δ and budget are numbers that SQLite keeps as floats, whatever they came as.
    """
    return sha256_hex(encode({**row, "delta": float(row["delta"]), "budget": float(row["budget"])}))


def check_store(db: sqlite3.Connection, path: Path, public: bytes, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every log entry, oldest first; RunError unless log, head, mark, releases and messages all agree."""
    try:
        entries, digests = _chain(db, path)
        row = db.execute("SELECT signed FROM head").fetchone()
        head = read_head(row[0], public) if row is not None else {"size": 0, "digest": GENESIS}
        if head != {"size": len(entries), "digest": digests[-1] if digests else GENESIS}:
            raise damaged(path, "has a log that does not end at its signed head")
        require_mark(path, mark, digests)
        if _held(db) != _logged(entries):
            raise damaged(path, "has releases that are not those of its log")
        if _opened(db) != {each[0]: each[1] for each in db.execute("SELECT id, batch_digest FROM releases")}:
            raise damaged(path, "has opened messages that are not those of its log")
        return entries
    except (KeyError, TypeError, ValueError, AttributeError, ContractError) as error:
        raise damaged(path, f"holds a record that is damaged ({error})") from error


def _chain(db: sqlite3.Connection, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The log's entries and the digest of each; RunError unless each names the one before."""
    entries: list[dict[str, Any]] = []
    digests = [GENESIS]
    for place, body, digest in db.execute("SELECT place, entry, digest FROM log ORDER BY place"):
        entry, due = decode(body), len(entries)
        if not isinstance(entry, dict) or sha256_hex(body) != digest:
            raise damaged(path, f"has a log that was edited at entry {due}")
        if (place, entry["index"], entry["previous"]) != (due, due, digests[-1]):
            raise damaged(path, f"has a log that was edited at entry {due}")
        entries.append(entry)
        digests.append(digest)
    return entries, digests[1:]


def _logged(entries: Iterable[dict[str, Any]]) -> list[list[Any]]:
    """Each release as the log tells of it: [digest of its row, state, digest of what was signed]."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for each in entries:
        place = tuple(each.get(name) for name in ("plan_digest", "kind", "round"))
        if each["event"] == "reserved":
            found[place] = [each["release"], "reserved", ""]
        elif each["event"] in ("answered", "void"):
            found[place][1:] = [each["event"], each["answer"]]
    return list(found.values())


def _held(db: sqlite3.Connection) -> list[list[Any]]:
    """The same of the tables. A batch's messages are bound by its `batch_digest`."""
    rows = db.execute(f"SELECT {', '.join(COLUMNS)}, state, answer FROM releases ORDER BY id")
    return [
        [
            row_digest(dict(zip(COLUMNS, row, strict=True))),
            state,
            Signed.from_bytes(answer).payload_digest if answer else "",
        ]
        for *row, state, answer in rows
    ]


def _opened(db: sqlite3.Connection) -> dict[int, str]:
    """The batch digest of each release's messages, by the release's id; in order of message, as 13.5 names a batch."""
    batches: dict[int, Any] = {}
    for each, release in db.execute("SELECT id, release FROM messages ORDER BY id"):
        batches.setdefault(release, hashlib.sha256()).update(each)
    return {release: batch.hexdigest() for release, batch in batches.items()}
