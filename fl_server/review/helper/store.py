"""The helper's memory: releases, opened messages and a chained log in one SQLite file, for one process (spec 13.6.4).

A release goes reserved → answered, or reserved → void. What is reserved is spent and its messages are used up, whatever
happens next: a store that is opened with a reservation still standing voids it, for nobody can tell whether its noise
was drawn. Every change and its log entry are one transaction, on disk before the method returns.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fl_server.review.helper.mark import HEAD, damaged, keep_mark, read_mark
from fl_server.review.helper.records import COLUMNS, GENESIS, Kept, check_store, row_digest, select
from model.canonical import encode, sha256_hex
from model.contract.envelope import SigningKey, sign
from model.errors import ContractError, RunError
from model.privacy.mechanism import GaussianRelease

CHUNK = 500  # variables in one statement, below the 999 of old SQLite
_TABLES = """
CREATE TABLE IF NOT EXISTS releases (
  id INTEGER PRIMARY KEY, plan_digest TEXT NOT NULL, plan_name TEXT NOT NULL, delta REAL NOT NULL, budget REAL NOT NULL,
  kind TEXT NOT NULL, round INTEGER NOT NULL, model_digest TEXT NOT NULL, dim INTEGER NOT NULL,
  batch_digest TEXT NOT NULL, phones INTEGER NOT NULL, charge BLOB NOT NULL, reserved_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('reserved', 'answered', 'void')),
  answer BLOB, CHECK ((answer IS NOT NULL) = (state = 'answered')), UNIQUE (plan_digest, kind, round));
CREATE TABLE IF NOT EXISTS messages (
  id BLOB PRIMARY KEY, release INTEGER NOT NULL REFERENCES releases (id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (place INTEGER PRIMARY KEY, entry BLOB NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), signed BLOB NOT NULL);
"""


class Store:
    """The one writer of `path`. RunError where another process holds it, or it was cut, edited or cannot be written.

    An older copy put back would answer again what it forgot, so nothing here advises that: a lost store is a new home.
    """

    def __init__(self, path: Path, key: SigningKey, now: int) -> None:
        self._path, self._key = path, key
        self._guard = threading.Lock()
        self._lock = _locked(path.with_name(path.name + ".lock"))
        try:
            path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_TABLES)
            entries = check_store(self._db, path, key.public_bytes, read_mark(path, key.public_bytes))
            self._head = b""
            self._size, self._last = len(entries), sha256_hex(encode(entries[-1])) if entries else GENESIS
            self._void_what_stands(now)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise damaged(path, f"cannot be opened ({error})") from error
        except (ContractError, RunError):
            self.close()
            raise

    def find(self, plan_digest: str, kind: str, round_: int) -> Kept | None:
        """The release of a plan's kind and round, if any was ever reserved."""
        found = self._select("plan_digest = ? AND kind = ? AND round = ?", (plan_digest, kind, round_))
        return found[0] if found else None

    def spent(self, plan_digest: str) -> list[GaussianRelease]:
        """Every charge under a plan, void ones too."""
        return [kept.charge for kept in self._select("plan_digest = ?", (plan_digest,))]

    def spent_since(self, plan_name: str, since: int) -> list[GaussianRelease]:
        """Every charge under plans of a name since a moment (unix s)."""
        return [kept.charge for kept in self._select("plan_name = ? AND reserved_at >= ?", (plan_name, since))]

    def opened_before(self, ids: Sequence[bytes]) -> list[bytes]:
        """Those of `ids` (32 bytes each) that some batch already opened."""
        found: list[bytes] = []
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            marks = ",".join("?" * len(part))
            found += [row[0] for row in self._db.execute(f"SELECT id FROM messages WHERE id IN ({marks})", part)]
        return found

    def reserve(self, kept: Kept, ids: Sequence[bytes], entry: Mapping[str, Any]) -> None:
        """Charge a release and use up its messages, before a byte of noise is drawn for it."""
        row = {**{name: getattr(kept, name) for name in COLUMNS}, "charge": encode(kept.charge.to_dict())}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        with self._writing() as db:
            made = db.execute(f"INSERT INTO releases ({names}, state) VALUES ({marks}, 'reserved')", [*row.values()])
            # In order of key a B-tree is filled page by page.
            db.executemany("INSERT INTO messages VALUES (?, ?)", ((each, made.lastrowid) for each in sorted(ids)))
            self._append(db, {**entry, "release": row_digest(row)})

    def answered(self, kept: Kept, answer: bytes, entry: Mapping[str, Any]) -> None:
        """Keep the signed share of a reserved release; RunError where it is not reserved."""
        with self._writing() as db:
            done = db.execute(
                "UPDATE releases SET state = 'answered', answer = ? WHERE plan_digest = ? AND kind = ? AND round = ? "
                "AND state = 'reserved'",
                (answer, kept.plan_digest, kept.kind, kept.round),
            )
            if done.rowcount != 1:
                raise RunError(f"{kept.kind} round {kept.round} is not reserved; start the helper again")
            self._append(db, entry)

    def note(self, entry: Mapping[str, Any]) -> None:
        """Write one log entry, such as a refusal."""
        with self._writing() as db:
            self._append(db, entry)

    def head(self) -> bytes:
        """The signed head of the log (size, digest of the last entry), or nothing before its first entry."""
        with self._guard:
            row = self._db.execute("SELECT signed FROM head").fetchone()
        return row[0] if row else b""

    def close(self) -> None:
        """Close the file and release the lock; a second call does nothing."""
        if hasattr(self, "_db"):
            self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _select(self, where: str, values: tuple[Any, ...]) -> list[Kept]:
        return select(self._db, f"WHERE {where}", values)

    def _void_what_stands(self, now: int) -> None:
        for kept in self._select("state = 'reserved'", ()):
            with self._writing() as db:
                place = (kept.plan_digest, kept.kind, kept.round)
                db.execute("UPDATE releases SET state = 'void' WHERE plan_digest = ? AND kind = ? AND round = ?", place)
                self._append(db, _void_entry(kept, now))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it durable at the end, or nothing of it; RunError where the disk refuses."""
        with self._guard:
            size, last, done = self._size, self._last, False
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
                done = True
                keep_mark(self._path, self._head)
            except (sqlite3.Error, OSError) as error:
                raise RunError(f"the helper's store cannot be written ({error}); free space, then ask") from error
            finally:
                if not done:
                    self._size, self._last = size, last
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _append(self, db: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
        body = encode({**entry, "index": self._size, "previous": self._last})
        digest = sha256_hex(body)
        db.execute("INSERT INTO log VALUES (?, ?, ?)", (self._size, body, digest))
        head = sign(HEAD, {"size": self._size + 1, "digest": digest}, [self._key]).to_bytes()
        db.execute("INSERT INTO head VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET signed = excluded.signed", (head,))
        self._size, self._last, self._head = self._size + 1, digest, head


def _void_entry(kept: Kept, now: int) -> dict[str, Any]:
    place = {"plan_digest": kept.plan_digest, "kind": kept.kind, "round": kept.round}
    batch = {"batch_digest": kept.batch_digest, "phones": kept.phones}
    return {"event": "void", "when": now, **place, **batch, "code": "", "sentence": "", "answer": "", "release": ""}


def _locked(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise RunError("another process serves this helper's home; stop it, or make another home") from error
    return handle
