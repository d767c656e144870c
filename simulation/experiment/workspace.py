"""The folders of a run: DIR appears whole, by one rename; DIR.private holds keys and phones (spec 11.1).

While a run works it writes to DIR.partial under a lock, so two runs cannot share a folder and an interrupted run
is resumed by the same command.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.contract.canonical import encode
from model.errors import InputError, RunError

REQUEST = "request.cbor"


@dataclass(frozen=True)
class Workspace:
    """`out` is what a person asked for; work happens in `partial`; nothing in `private` is ever published."""

    out: Path

    @property
    def partial(self) -> Path:
        """Where the run is until it is whole."""
        return self.out.with_name(self.out.name + ".partial")

    @property
    def private(self) -> Path:
        """Keys, phones and lender's home: mode 0700, beside the run and never inside it."""
        return self.out.with_name(self.out.name + ".private")

    @property
    def rounds(self) -> Path:
        """Released, noised sums, one file a phase."""
        return self.partial / "rounds"

    @property
    def data(self) -> Path:
        """The phones' rows while the run needs them."""
        return self.private / "data"

    def finish(self) -> None:
        """Make the run visible under its name; an earlier run there, which was to be replaced, goes last."""
        (self.private / REQUEST).unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)
        older = self.out.with_name(f".{self.out.name}.old.{os.getpid()}")
        if self.out.exists():
            os.replace(self.out, older)
        os.replace(self.partial, self.out)
        shutil.rmtree(older, ignore_errors=True)


@contextmanager
def opened(out: Path, request: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[Workspace]:
    """The workspace of a run, locked while it works.

    InputError where `out` exists (unless `overwrite`) or cannot be written; RunError where another run works there,
    or an interrupted run with another request waits.
    """
    place = Workspace(out.absolute())
    if place.out.exists() and not overwrite and not _empty(place.out):
        raise InputError(f"{out} exists already; choose another folder, or pass --overwrite to replace it")
    if place.out.exists() and not (_empty(place.out) or (place.out / "summary.json").exists()):
        raise InputError(f"{out} exists and is no run of PocketScore; choose another folder")
    try:
        place.out.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(place.out.with_name(f".{place.out.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose a folder you may write to") from error
    try:
        _lock(lock, out)
        _prepare(place, encode(request), out)
        yield place
    finally:
        os.close(lock)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RunError(f"another run is writing {out}; wait for it or choose another folder") from error


def _prepare(place: Workspace, request: bytes, out: Path) -> None:
    """Fresh folders, or those of the interrupted run that asked for the very same."""
    note = place.private / REQUEST
    waiting = note.exists() and place.partial.exists()
    if waiting and note.read_bytes() != request:
        raise RunError(
            f"{place.partial.name} holds an interrupted run with other options; give those again, or remove it"
        )
    try:
        if not waiting:
            shutil.rmtree(place.partial, ignore_errors=True)
            shutil.rmtree(place.private, ignore_errors=True)
            place.partial.mkdir()
            place.private.mkdir(mode=0o700)
            note.write_bytes(request)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose a folder you may write to") from error


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
