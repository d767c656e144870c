"""The run on disk: one small file a release, each appearing at once, none ever changed (spec 7.10).

Order of writes in a phase: ε is reserved (budget); answers are collected, in memory only; `drawing` is written;
noise is drawn; the release appears by rename. So after a kill there is either the one release, or a phase that never
drew noise and is collected again under its reservation, or one that may have drawn and is void. There is never a
second draw on the same sum (cases 23, 24). In mode helper the masked answers are kept before the helper is asked, so
that after a kill it is asked for the same batch again and gives the same share. A folder serves one coordinator at a
time (case 27).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fl_server.rounds import Phase, Release
from model.canonical import decode, encode
from model.errors import ContractError, RunError

_FIELDS = ("kind", "round", "phones", "asked", "replied", "refused", "void")
MAX_RELEASE_BYTES = 1 << 26


class Checkpoint:
    """Releases of one plan in one folder. RunError where another plan's lie or another run works."""

    def __init__(self, folder: Path, plan_digest: str) -> None:
        self._folder, self._plan_digest = folder, plan_digest
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Take the folder, or RunError in one sentence."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise RunError(f"another run works in {self._folder}; wait for it or choose another folder") from error
        self._lock = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def releases(self) -> list[Release]:
        """Every release so far, in order. RunError for a gap, a damaged file or another plan's file."""
        found = [self._read(path) for path in sorted(self._folder.glob("release-*.cbor"))]
        rounds = [release.round for release in found]
        if rounds != sorted(set(rounds)):
            raise RunError(f"{self._folder} holds two releases of one round; restore it from its backup")
        return found

    def when(self, release: Release) -> float:
        """When a release became durable, in Unix seconds by the folder's clock."""
        return self._path(release.round).stat().st_mtime

    def drawing(self, phase: Phase) -> None:
        """Durably note that noise for this phase is about to be drawn."""
        _write(self._folder / f"drawing-{phase.round:05d}", phase.name.encode())

    def may_have_drawn(self, phase: Phase) -> bool:
        """Whether a run ended between `drawing` and its release."""
        return (self._folder / f"drawing-{phase.round:05d}").exists() and not self._path(phase.round).exists()

    def attempt(self, phase: Phase) -> int:
        """The number of the next attempt at a phase of mode pairwise, from 0; durably taken when this returns."""
        path = self._folder / f"attempt-{phase.round:05d}"
        number = int(path.read_text("ascii")) + 1 if path.exists() else 0
        _write(path, str(number).encode())
        return number

    def collected(self, phase: Phase, batch: bytes) -> None:
        """Durably keep the masked answers of this phase before the helper is asked: a second try asks the same."""
        _write(self._batch(phase.round), batch)

    def batch(self, phase: Phase) -> bytes | None:
        """What `collected` kept; None where there is nothing."""
        try:
            return self._batch(phase.round).read_bytes()
        except FileNotFoundError:
            return None

    def forget(self, round_: int) -> None:
        """Drop what `collected` kept, once it is released or will never be."""
        self._batch(round_).unlink(missing_ok=True)

    def commit(self, release: Release) -> None:
        """Make a release durable; only now does it exist. RunError if this round has one already."""
        path = self._path(release.round)
        if path.exists():
            raise RunError(f"{path.name} exists already; a round is released once, so resume the run instead")
        head: dict[str, Any] = {name: getattr(release, name) for name in _FIELDS}
        head["refused"] = list(release.refused)
        vector = np.ascontiguousarray(release.noised, dtype="<i8").tobytes()
        _write(path, encode({**head, "plan_digest": self._plan_digest, "noised": vector}))
        self.forget(release.round)

    def _path(self, round_: int) -> Path:
        return self._folder / f"release-{round_:05d}.cbor"

    def _batch(self, round_: int) -> Path:
        return self._folder / f"batch-{round_:05d}.cbor"

    def _read(self, path: Path) -> Release:
        try:
            raw = decode(path.read_bytes(), max_bytes=MAX_RELEASE_BYTES)
            if raw["plan_digest"] != self._plan_digest:
                raise RunError(f"{path} belongs to another plan; choose another folder")
            vector = np.frombuffer(raw["noised"], dtype="<i8").astype(np.int64)
            head = {name: raw[name] for name in _FIELDS}
            return Release(noised=vector, **{**head, "refused": tuple(head["refused"])})
        except (ContractError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error}); restore it from its backup") from error


def _write(path: Path, data: bytes) -> None:
    """Write, sync and rename, then sync the folder: the file is whole and durable, or absent (case 25)."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written ({error.strerror}); free space or choose another folder") from error
