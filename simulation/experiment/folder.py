"""The folders of a run: DIR appears whole, by one rename; DIR.private holds keys and phones (spec 11.1).

While a run works it writes to DIR.partial and DIR.partial.private under a lock, so two runs cannot share a folder, an
interrupted run is resumed by the same command, and an earlier run stays whole until the next one is.
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

from model.canonical import encode
from model.errors import InputError, PocketScoreError, RunError

REQUEST = "request.cbor"
LEDGER = "ledger.jsonl"
BLOCKS = "blocks"


@dataclass(frozen=True)
class RunFolder:
    """`out` is what a person asked for; work happens in `partial`; nothing in `private` is ever published."""

    out: Path

    @property
    def partial(self) -> Path:
        """Where the run is until it is whole."""
        return self.out.with_name(self.out.name + ".partial")

    @property
    def private(self) -> Path:
        """Keys, phones and lender's home until the run is whole: mode 0700, beside it and never inside it."""
        return self.out.with_name(self.out.name + ".partial.private")

    @property
    def kept(self) -> Path:
        """Where `private` is found once the run is whole."""
        return self.out.with_name(self.out.name + ".private")

    @property
    def lock(self) -> Path:
        """Held while a run works here."""
        return self.out.with_name(f".{self.out.name}.lock")

    @property
    def rounds(self) -> Path:
        """Released, noised sums, one file a phase."""
        return self.partial / "rounds"

    @property
    def federation(self) -> Path:
        """What server and farms share while they train; gone once the run is whole."""
        return self.private / "federation"

    @property
    def data(self) -> Path:
        """The phones' rows while the run needs them."""
        return self.federation / "data"

    def finish(self) -> None:
        """Make the run visible under its name; an earlier run there, which was to be replaced, goes last."""
        (self.private / REQUEST).unlink(missing_ok=True)
        shutil.rmtree(self.federation, ignore_errors=True)
        older = [_replace(self.private, self.kept), _replace(self.partial, self.out)]
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def opened(out: Path, request: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[RunFolder]:
    """The folders of a run, locked while it works. What a refused run leaves before its first charge is removed, but
    not what it found: phones that an interrupted run has made stay, whatever is refused later.

    InputError where `out` exists (unless `overwrite`) or cannot be written; RunError where another run works there,
    or an interrupted run with another request waits.
    """
    place = RunFolder(out.absolute())
    try:
        _refuse_occupied(place.out, out, overwrite)
        _refuse_strangers(place, overwrite)
        place.out.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(place.lock, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose a folder you may write to") from error
    resumed = True  # until it is known: what another command made is not this one's to remove
    try:
        resumed = _prepare(place, encode(request), out)
        yield place
        _leave(place, interrupted=resumed)
    except PocketScoreError:
        _leave(place, interrupted=resumed)
        raise
    except BaseException:
        _leave(place, interrupted=True)
        raise
    finally:
        place.lock.unlink(missing_ok=True)
        os.close(lock)


def _refuse_occupied(target: Path, out: Path, overwrite: bool) -> None:
    if not os.path.lexists(target) or _empty(target):
        return
    if not overwrite:
        raise InputError(f"{out} exists already; choose another folder, or pass --overwrite to replace it")
    if not (target / "summary.json").exists():
        raise InputError(f"{out} exists and is no run of PocketScore; choose another folder")


def _refuse_strangers(place: RunFolder, overwrite: bool) -> None:
    """What lies beside the run under the names we use, and is not ours or not to be replaced, is never removed."""
    ours = (place.private / REQUEST).exists()
    for folder in (place.partial, place.private):
        if os.path.lexists(folder) and not ours and not _empty(folder):
            raise InputError(
                f"{folder.name} beside the run is not an interrupted run's; move it or choose another --out"
            )
    if os.path.lexists(place.kept) and not _empty(place.kept):
        if not overwrite:
            raise InputError(
                f"{place.kept.name} holds an earlier run's keys; move it, or pass --overwrite to replace it"
            )
        if not (place.kept / "keys").is_dir():
            raise InputError(f"{place.kept.name} is no run's private folder; move it or choose another --out")


def _lock(path: Path, out: Path) -> int:
    """The descriptor of the held lock; where a holder has just removed the file, the next one is taken."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise RunError(f"another run is writing {out}; wait for it or choose another folder") from error
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _leave(place: RunFolder, *, interrupted: bool = False) -> None:
    """Nothing to resume and nothing spent: a refused run leaves no folder, so a mended command starts afresh.

    An interrupted one keeps the phones it has made: all of them, or the blocks that are there.
    """
    if interrupted and (place.data.exists() or any((place.federation / BLOCKS).glob("*.npz"))):
        return
    if place.partial.exists() and not (place.federation / LEDGER).exists():
        shutil.rmtree(place.partial, ignore_errors=True)
        shutil.rmtree(place.private, ignore_errors=True)


def _prepare(place: RunFolder, request: bytes, out: Path) -> bool:
    """Fresh folders (False), or those of the interrupted run that asked for the very same (True)."""
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
    return waiting


def _replace(source: Path, target: Path) -> Path:
    """`source` under the name `target`; returns where the folder that bore it before went, if there was one."""
    older = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        os.replace(target, older)
    os.replace(source, target)
    return older


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
