"""An append-only Merkle log in a folder: entries, a signed head, and proofs (RFC 6962, C2SP checkpoints, spec 8.3).

`entries` holds one frame an entry: length (4 bytes, big-endian), leaf hash (32 bytes), canonical CBOR of the entry.
`checkpoint` holds the newest signed head. A log that does not match its frames or its head takes no append.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fl_server.keys import replace_file
from model.canonical import decode, encode
from model.contract import merkle
from model.contract.checkpoint import Checkpoint, open_note, sign_note
from model.contract.envelope import SigningKey
from model.errors import ContractError, InputError, RunError

ORIGIN = "pocketscore/log"
MAX_ENTRY_BYTES = 1 << 16
_HEAD = struct.Struct(">I32s")


def read_frames(data: bytes) -> list[bytes]:
    """The entries of an `entries` file; ContractError when it was cut or edited without its frames."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _HEAD.size > len(data):
            raise _broken(f"is cut inside entry {len(entries)}")
        size, leaf = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if size > MAX_ENTRY_BYTES or at + size > len(data):
            raise _broken(f"is cut inside entry {len(entries)}")
        entry = data[at : at + size]
        if merkle.leaf_hash(entry) != leaf:
            raise _broken(f"was edited at entry {len(entries)}")
        entries.append(entry)
        at += size
    return entries


class Log:
    """The log in `folder`. `public` (32 bytes) is the key that heads are checked against; None checks their text alone.

    One writer at a time: every append holds a lock on the folder and first takes in what others appended.
    """

    def __init__(self, folder: Path, *, origin: str = ORIGIN, public: bytes | None = None) -> None:
        self.folder = Path(folder)
        self.origin = origin
        self._public = public
        self._seen = (0, 0)
        self._leaves: list[bytes] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the log folder {self.folder} cannot be made ({error.strerror}); choose another"
            ) from error
        self.verify()

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self._leaves)

    @property
    def root(self) -> bytes:
        """Merkle root of all entries, 32 bytes."""
        return merkle.root(self._leaves)

    def entries(self) -> list[dict[str, Any]]:
        """All entries, decoded, in order; ContractError when the file was cut or edited."""
        return [decode(entry) for entry in read_frames(self._read())]

    def append(self, entry: Mapping[str, Any]) -> int:
        """Add `entry` durably and return its index; ContractError, and no append, when the log is damaged."""
        body = encode(entry)
        if len(body) > MAX_ENTRY_BYTES:
            raise ContractError(f"a log entry of {len(body)} bytes is over {MAX_ENTRY_BYTES}; log its digest instead")
        leaf = merkle.leaf_hash(body)
        with self._locked():
            if self._state_on_disk() != self._seen:
                self.verify()
            self._write(_HEAD.pack(len(body), leaf) + body)
            self._seen = self._state_on_disk()
            self._leaves.append(leaf)
            return self.size - 1

    def checkpoint(self, key: SigningKey) -> bytes:
        """Sign the present head, keep it in `checkpoint`, and return the note; damaged logs are not signed."""
        with self._locked():
            self.verify()
            note = sign_note(Checkpoint(self.origin, self.size, self.root), [(self.origin, key)])
            replace_file(self._checkpoint, note)
            return note

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that entry `index` is in the tree of the first `size` entries (default: all)."""
        return merkle.inclusion_proof(self._leaves[: self.size if size is None else self._prefix(size)], index)

    def consistency(self, old_size: int, new_size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the first `old_size` entries are a prefix of the first `new_size` (default: all)."""
        return merkle.consistency_proof(
            self._leaves[: self.size if new_size is None else self._prefix(new_size)], old_size
        )

    def verify(self, remembered: Checkpoint | None = None) -> None:
        """Read everything again and hold it against the stored head and, if given, one a witness remembered.

        ContractError (SignatureError for a head that is not ours) when an entry was cut, edited or deleted, or when
        the log is a fork of the remembered one.
        """
        seen = self._state_on_disk()
        leaves = [merkle.leaf_hash(entry) for entry in read_frames(self._read())]
        for head in (self._stored_head(), remembered):
            if head is not None:
                _check_head(leaves, head, self.origin)
        self._leaves, self._seen = leaves, seen

    def _write(self, frame: bytes) -> None:
        """Append one whole frame durably, or, where the disk is full, nothing."""
        with open(self._entries, "ab", buffering=0) as file:
            start = file.tell()
            try:
                if file.write(frame) != len(frame):
                    raise OSError(errno.ENOSPC, "the disk is full")
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(start)
                raise RunError(f"the log {self._entries} cannot be written ({error.strerror}); free space") from error

    def _stored_head(self) -> Checkpoint | None:
        if not self._checkpoint.exists():
            return None
        note = self._checkpoint.read_bytes()
        if self._public is not None:
            return open_note(note, {self.origin: self._public})
        return Checkpoint.from_text(note.decode("utf-8", "replace").split("\n\n")[0] + "\n")

    @property
    def _entries(self) -> Path:
        return self.folder / "entries"

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def _read(self) -> bytes:
        return self._entries.read_bytes() if self._entries.exists() else b""

    def _state_on_disk(self) -> tuple[int, int]:
        """Size and time of change: what another writer, or an editor, leaves behind."""
        if not self._entries.exists():
            return (0, 0)
        found = self._entries.stat()
        return (found.st_size, found.st_mtime_ns)

    def _prefix(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise ContractError(f"the log has {self.size} entries, not {size}; ask for a smaller head")
        return size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _check_head(leaves: list[bytes], head: Checkpoint, origin: str) -> None:
    if head.origin != origin:
        raise _broken(f"has a head of another log, {head.origin!r}")
    if head.size > len(leaves):
        raise _broken(f"lacks entries: its head counts {head.size}, the file holds {len(leaves)}")
    if merkle.root(leaves[: head.size]) != head.root:
        raise _broken(f"does not match its head of {head.size} entries: one was edited or exchanged")


def _broken(what: str) -> ContractError:
    return ContractError(f"the log {what}; restore it from a copy, nothing is appended until then")
