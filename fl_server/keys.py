"""Signing keys as files of mode 0600, written by atomic rename: a run's private side (spec 8.2)."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

from model.contract.envelope import SigningKey
from model.errors import ContractError, InputError

_HEADER = "pocketscore-ed25519-private-key/1 "
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` so that `path` holds either all of it or what it held before, also after a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def save_key(path: Path, key: SigningKey) -> None:
    """Write `key` to `path`, readable by its owner alone."""
    replace_file(path, f"{_HEADER}{key.private_bytes().hex()}\n".encode(), mode=0o600)


def load_key(path: Path) -> SigningKey:
    """The key in `path`; InputError when it is missing, malformed, or readable by others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"the key file {path} cannot be read ({why}); restore it") from error
    if mode & 0o077:
        raise InputError(f"the key file {path} can be read by others; run chmod 600 on it, or replace the key")
    if not text.startswith(_HEADER):
        raise InputError(f"the file {path} is not a PocketScore key; restore it from its backup")
    try:
        return SigningKey.from_private_bytes(bytes.fromhex(text[len(_HEADER) :]))
    except (ValueError, ContractError) as error:
        raise InputError(f"the key file {path} is damaged; restore it from its backup") from error


class KeyRing:
    """A folder of named keys (`<folder>/<name>.key`), mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def names(self) -> tuple[str, ...]:
        """Names of the keys there, sorted."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.key")))

    def load(self, name: str) -> SigningKey:
        """The key `name`; InputError when there is none."""
        return load_key(self._path(name))

    def ensure(self, name: str) -> SigningKey:
        """The key `name`, made from the operating system's randomness the first time."""
        path = self._path(name)
        if not path.exists():
            self._make_folder()
            save_key(path, SigningKey.generate())
        return load_key(path)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise InputError(
                f"the key folder {self.folder} cannot be made ({error.strerror}); choose another"
            ) from error

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InputError(f"the key name {name!r} needs lower-case letters, digits and dashes; rename it")
        return self.folder / f"{name}.key"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
