"""An append-only JSON-lines file: chained by hash, locked, on disk before `append` returns (spec 6.7).

Each line is one JSON object with sorted keys and no spaces: `index` from 0, `previous` (digest of the line before,
64 zeros at first), the caller's own keys, and `digest`, the SHA-256 of the line without that key. Beside the file,
`<file>.head` holds index and digest of the last line. It is replaced after the line is on disk, so a crash leaves
it at most one line behind; a file that ends before its head was cut, and is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from model.errors import BudgetError

GENESIS = "0" * 64
RESERVED = frozenset({"index", "previous", "digest"})
MAX_BYTES = 256 * 2**20
Write = Callable[[int, bytes], int]
Entry = dict[str, Any]


class Journal:
    """The one writer of a file; a second, in this process or another, gets a BudgetError.

    `write` stands for os.write, so that a full disk can be tested. After any failed write this object takes no
    more lines: what is on disk is then known only by opening the file again.
    """

    def __init__(self, path: str | os.PathLike[str], *, write: Write = os.write) -> None:
        """Open or create `path`, lock it, and check every line; BudgetError if it is in use, cut or edited."""
        self.path = Path(path)
        self._write = write
        self._broken = False
        self._fd = _open_locked(self.path)
        try:
            self._entries = list(read_journal(self.path))
            if self._entries:
                self._replace_head(self._entries[-1])
        except OSError as error:
            self.close()
            raise BudgetError(f"the head of {self.path} cannot be written ({error.strerror}); free space") from error
        except BudgetError:
            self.close()
            raise

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every line so far, oldest first."""
        return tuple(self._entries)

    def append(self, body: Mapping[str, Any]) -> Entry:
        """Write one line and its head through to the disk, then return it; BudgetError if that fails."""
        if self._broken or self._fd < 0:
            raise BudgetError(f"{self.path} takes no more lines after a failed write; open it again")
        if RESERVED & set(body):
            raise BudgetError(f"a line for {self.path} names a reserved key; rename {sorted(RESERVED & set(body))[0]}")
        previous = self._entries[-1]["digest"] if self._entries else GENESIS
        entry = {**body, "index": len(self._entries), "previous": previous}
        entry["digest"] = _digest(entry)
        try:
            self._append_line(_line(entry))
            self._replace_head(entry)
        except OSError as error:
            self._broken = True
            raise BudgetError(
                f"{self.path} cannot be written ({error.strerror}), so nothing may be released; free space and resume"
            ) from error
        self._entries.append(entry)
        return entry

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _append_line(self, line: bytes) -> None:
        start = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            self._write_all(self._fd, line)
            os.fsync(self._fd)
        except OSError:
            # Half a line would make the file unreadable. What was never acknowledged charges nobody.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
                os.fsync(self._fd)
            raise

    def _replace_head(self, entry: Entry) -> None:
        head = _head_path(self.path)
        fresh = head.with_name(head.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self._write_all(fd, _head_text(entry))
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(head)
        _sync_folder(self.path.parent)

    def _write_all(self, fd: int, data: bytes) -> None:
        while data:
            data = data[self._write(fd, data) :]


def read_journal(path: str | os.PathLike[str]) -> tuple[Entry, ...]:
    """Every line of a file after checking chain and head, without locking it; BudgetError if cut or edited."""
    file = Path(path)
    try:
        data = file.read_bytes() if file.stat().st_size <= MAX_BYTES else b"?"
        head = _head_path(file).read_text() if _head_path(file).exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise BudgetError(f"{file} or its head cannot be read ({error}); restore both from a copy") from error
    if data and not data.endswith(b"\n"):
        raise BudgetError(f"{file} ends within a line: it was cut; restore it from a copy, nothing was appended")
    entries: list[Entry] = []
    for line in data.splitlines(keepends=True):
        entries.append(_parse(file, line, len(entries), entries[-1]["digest"] if entries else GENESIS))
    _check_head(file, entries, head)
    return tuple(entries)


def _parse(file: Path, line: bytes, index: int, previous: str) -> Entry:
    """One line, which must be the very bytes `append` would have written at this place."""
    try:
        entry = json.loads(line)
        good = entry["index"] == index and entry["previous"] == previous
        good = good and entry["digest"] == _digest(entry) and _line(entry) == line
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise BudgetError(f"line {index + 1} of {file} was edited or moved; restore the file from a copy")
    return dict(entry)


def _check_head(file: Path, entries: list[Entry], head: str | None) -> None:
    """The head names the last line, or the one before it when a crash came between the two writes."""
    known = [_head_text(entry) for entry in entries[-2:]]
    if (head or "").encode() in known or (head is None and len(entries) <= 1):
        return
    raise BudgetError(f"{file} does not reach its head: lines were cut off or the head was removed; restore both")


def _open_locked(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BudgetError(f"{path} cannot be opened ({error.strerror}); choose a folder you can write to") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise BudgetError(f"{path} is in use by another process; stop that one first") from error
    return fd


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line({k: v for k, v in entry.items() if k != "digest"})[:-1]).hexdigest()


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _head_text(entry: Entry) -> bytes:
    return f"{entry['index']} {entry['digest']}\n".encode()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
