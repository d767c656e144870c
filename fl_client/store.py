"""What the phone keeps: raw events, rows and its own records, encrypted at rest, with retention (spec 9.3)."""

from __future__ import annotations

import hmac
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fl_client.keystore import derive
from model.canonical import decode, encode
from model.errors import InputError, SchemaError

Columns = dict[str, np.ndarray[Any, Any]]
MAX_RECORD_BYTES = 1 << 24
_COLUMN_KINDS = "biuf"
_TABLES = """
CREATE TABLE IF NOT EXISTS record (seq INTEGER PRIMARY KEY AUTOINCREMENT, place BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_place ON record (place, seq);
CREATE TABLE IF NOT EXISTS value (place BLOB PRIMARY KEY, body BLOB NOT NULL);
"""


class PhoneStore(Protocol):
    """What scoring, training and consent need of a store."""

    def append_events(self, kind: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep events of one type: equally long numeric columns, one of them `day`."""
        ...

    def events(self, without: Collection[str] = ()) -> dict[str, Columns]:
        """Events by type, columns joined in order of arrival; types in `without` are not even decrypted."""
        ...

    def retain(self, first_day: int) -> int:
        """Drop events before `first_day`; the number dropped."""
        ...

    def put_row(self, row: Mapping[str, float]) -> None:
        """Keep ready-made features by name (NaN = missing); the last row put is the one read."""
        ...

    def row(self) -> dict[str, float] | None:
        """The last row put, or None."""
        ...

    def append(self, table: str, entry: Mapping[str, Any]) -> None:
        """Keep one entry of an append-only table, durably."""
        ...

    def entries(self, table: str) -> list[dict[str, Any]]:
        """All entries of a table, in order."""
        ...

    def swap(self, table: str, entry: Mapping[str, Any]) -> None:
        """Keep this entry of a table and drop all before it, in one step."""
        ...

    def next_number(self, name: str) -> int:
        """1, 2, 3 … for `name`; durable before it is returned."""
        ...


class Cipher(Protocol):
    """Turns a record into stored bytes and back, bound to the place it is kept."""

    def seal(self, plaintext: bytes, context: bytes) -> bytes: ...
    def open(self, body: bytes, context: bytes) -> bytes: ...


class RecordCipher:
    """AES-256-GCM with a random 96-bit nonce a record; the place is associated data."""

    def __init__(self, root: bytes) -> None:
        self._aead = AESGCM(derive(root, "store/records"))

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """nonce || ciphertext || tag."""
        nonce = secrets.token_bytes(12)
        return nonce + self._aead.encrypt(nonce, plaintext, context)

    def open(self, body: bytes, context: bytes) -> bytes:
        """The plaintext; InputError if the bytes were changed, moved, or kept under another key."""
        try:
            return self._aead.decrypt(body[:12], body[12:], context)
        except (InvalidTag, ValueError) as error:
            raise InputError("the phone's store does not open with this key; restore the key or the store") from error


class SqliteStore:
    """One SQLite file (or `:memory:`); names and contents of records are encrypted, only sizes show."""

    def __init__(self, path: Path | str, root: bytes, *, cipher: Cipher | None = None) -> None:
        self._cipher = cipher or RecordCipher(root)
        self._names = derive(root, "store/names")
        self._path = path
        try:
            if path != ":memory:":
                Path(path).touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            # secure_delete: what retention drops is overwritten, not only unlinked from its page.
            self._db.executescript("PRAGMA secure_delete=ON; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            self._db.executescript(_TABLES)
            self._check_whole()
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"the phone's store {path} cannot be used ({error}); restore it from its copy") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def append_events(self, kind: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep a batch of one event type; SchemaError for uneven, non-numeric or undated columns."""
        packed = _pack(kind, columns)
        with self._transaction():
            self._insert(f"event/{kind}", packed)
            self._note_kind(kind)

    def events(self, without: Collection[str] = ()) -> dict[str, Columns]:
        """Events by type, but those in `without`."""
        kinds = [kind for kind in self._kinds() if kind not in without]
        found = {kind: [_unpack(body) for _, body in self._records(f"event/{kind}")] for kind in kinds}
        return {
            kind: {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            for kind, batches in found.items()
            if batches
        }

    def retain(self, first_day: int) -> int:
        """Drop events before `first_day`, rewriting the batches that straddle it."""
        dropped = 0
        with self._transaction():
            for kind in self._kinds():
                for seq, body in list(self._records(f"event/{kind}")):
                    columns = _unpack(body)
                    keep = columns["day"] >= first_day
                    if keep.all():
                        continue
                    dropped += int((~keep).sum())
                    self._delete(seq)
                    if keep.any():
                        self._insert(f"event/{kind}", _pack(kind, {n: c[keep] for n, c in columns.items()}))
        if dropped and self._path != ":memory:":
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the log would still hold the old pages
        return dropped

    def put_row(self, row: Mapping[str, float]) -> None:
        """Keep features by name; NaN is kept as missing."""
        plain = {name: None if np.isnan(value) else float(value) for name, value in row.items()}
        with self._transaction():
            self._insert("row", encode(plain))

    def row(self) -> dict[str, float] | None:
        """The last row, missing as NaN."""
        rows = [body for _, body in self._records("row")]
        if not rows:
            return None
        plain: dict[str, float | None] = decode(rows[-1], max_bytes=MAX_RECORD_BYTES)
        return {name: float("nan") if value is None else float(value) for name, value in plain.items()}

    def append(self, table: str, entry: Mapping[str, Any]) -> None:
        """Keep one entry; on disk when this returns."""
        with self._transaction():
            self._insert(f"entry/{table}", encode(entry))

    def entries(self, table: str) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        return [decode(body, max_bytes=MAX_RECORD_BYTES) for _, body in self._records(f"entry/{table}")]

    def swap(self, table: str, entry: Mapping[str, Any]) -> None:
        """Replace a table by one entry; what it held is overwritten. On disk when this returns."""
        with self._transaction():
            for seq in [seq for seq, _ in self._records(f"entry/{table}")]:
                self._delete(seq)
            self._insert(f"entry/{table}", encode(entry))

    def next_number(self, name: str) -> int:
        """Count up; on disk when this returns."""
        with self._transaction():
            number = int(self._value(f"number/{name}", 0)) + 1
            self._set_value(f"number/{name}", number)
        return number

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise InputError(f"the phone's store {self._path} cannot be written ({error}); try again") from error

    def _place(self, name: str) -> bytes:
        return hmac.digest(self._names, name.encode(), "sha256")[:16]

    def _insert(self, name: str, plaintext: bytes) -> None:
        last, count = self._head()
        body = self._cipher.seal(plaintext, f"record/{name}/{last + 1}".encode())
        self._db.execute("INSERT INTO record VALUES (?, ?, ?)", (last + 1, self._place(name), body))
        self._set_value("head", [last + 1, count + 1])

    def _delete(self, seq: int) -> None:
        last, count = self._head()
        self._db.execute("DELETE FROM record WHERE seq = ?", (seq,))
        self._set_value("head", [last, count - 1])

    def _records(self, name: str) -> Iterator[tuple[int, bytes]]:
        rows = self._db.execute("SELECT seq, body FROM record WHERE place = ? ORDER BY seq", (self._place(name),))
        for seq, body in rows.fetchall():
            yield seq, self._cipher.open(body, f"record/{name}/{seq}".encode())

    def _value(self, name: str, default: Any) -> Any:
        row = self._db.execute("SELECT body FROM value WHERE place = ?", (self._place(name),)).fetchone()
        return decode(self._cipher.open(row[0], f"value/{name}".encode())) if row else default

    def _set_value(self, name: str, value: Any) -> None:
        body = self._cipher.seal(encode(value), f"value/{name}".encode())
        self._db.execute("INSERT OR REPLACE INTO value VALUES (?, ?)", (self._place(name), body))

    def _kinds(self) -> list[str]:
        return list(self._value("kinds", []))

    def _note_kind(self, kind: str) -> None:
        kinds = self._kinds()
        if kind not in kinds:
            self._set_value("kinds", [*kinds, kind])

    def _head(self) -> tuple[int, int]:
        last, count = self._value("head", [0, 0])
        return last, count

    def _check_whole(self) -> None:
        """Refuse a store from which records were cut or added (the head is sealed with the last sequence)."""
        self._db.execute("BEGIN")  # one snapshot: another process may be appending
        last, count = self._db.execute("SELECT coalesce(max(seq), 0), count(*) FROM record").fetchone()
        known_last, known_count = self._head()
        self._db.execute("COMMIT")
        # After retention the highest sequence may itself be gone; it can never be ahead of the head.
        if count != known_count or last > known_last:
            raise InputError(f"the phone's store {self._path} was cut or added to; restore it from its copy")


def _pack(kind: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    if "day" not in columns or len({len(column) for column in columns.values()}) != 1:
        raise SchemaError(f"events of type {kind!r} need equally long columns with 'day' among them; correct them")
    wrong = [name for name, column in columns.items() if column.ndim != 1 or column.dtype.kind not in _COLUMN_KINDS]
    if wrong:
        raise SchemaError(f"column {wrong[0]!r} of event type {kind!r} is not a list of numbers; encode it first")
    return encode({n: {"dtype": c.dtype.str, "data": np.ascontiguousarray(c).tobytes()} for n, c in columns.items()})


def _unpack(body: bytes) -> Columns:
    raw = decode(body, max_bytes=MAX_RECORD_BYTES)
    return {name: np.frombuffer(part["data"], np.dtype(part["dtype"])) for name, part in raw.items()}
