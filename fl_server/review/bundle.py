"""The signed list of a run's files: one flipped byte, one file too many or too few, is found (spec 11.2)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_server.review.durable import replace_file
from model.contract.envelope import Signed, SigningKey, sign, verify
from model.errors import ContractError, InputError

DOMAIN = "bundle/1"
SCHEMA = "pocketscore.bundle/1"
NAME = "bundle.cbor"
UNCOVERED = ("lender", "logs")  # the lender's book and the processes' logs go on changing after a run
MAX_FILES = 100_000


@dataclass(frozen=True)
class Bundle:
    """What was signed: when (unix s), and size and SHA-256 (hex) of each file by its path within the run."""

    created_at: int
    files: dict[str, tuple[int, str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for canonical encoding."""
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        return {"schema": SCHEMA, "created_at": self.created_at, "uncovered": list(UNCOVERED), "files": files}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Bundle:
        """Inverse of `to_dict`; ContractError where it is another form, or leaves out other folders."""
        try:
            if raw["schema"] != SCHEMA or tuple(raw["uncovered"]) != UNCOVERED:
                raise ContractError("the bundle leaves out other files than spec 11.2 allows; ask for a whole one")
            files = {str(name): (int(row["bytes"]), str(row["sha256"])) for name, row in raw["files"].items()}
            return cls(int(raw["created_at"]), files)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ContractError(f"the bundle is malformed ({error}); ask for it again") from error


def write(folder: Path, key: SigningKey, now: int) -> Signed:
    """Sign the files of `folder` as they are now (unix s) into `bundle.cbor`; write the page before this.

    InputError for a link or a special file, which have no bytes of their own.
    """
    listed = Bundle(now, {name: _fingerprint(folder / name) for name in covered(folder)})
    signed = sign(DOMAIN, listed.to_dict(), [key])
    replace(folder / NAME, signed.to_bytes())
    return signed


def read(folder: Path, keyring: dict[str, bytes]) -> Bundle:
    """The bundle of a run, verified by one key of `keyring`; InputError where there is none."""
    try:
        data = (folder / NAME).read_bytes()
    except OSError as error:
        raise InputError(f"{folder} has no readable {NAME}; name the folder of a whole run") from error
    return Bundle.from_dict(verify(Signed.from_bytes(data), DOMAIN, keyring))


def differences(folder: Path, bundle: Bundle) -> list[str]:
    """One sentence part for each file that is changed, missing or not listed; empty when all is as signed."""
    here = set(covered(folder))
    found = [f"{name} is missing" for name in sorted(set(bundle.files) - here)]
    found += [f"{name} is not in the bundle" for name in sorted(here - set(bundle.files))]
    for name in sorted(here & set(bundle.files)):
        if _fingerprint(folder / name) != bundle.files[name]:
            found.append(f"{name} was changed")
    return found


def covered(folder: Path) -> list[str]:
    """Paths (with /) of every file but the bundle itself and the folders `lender/` and `logs/`, sorted."""
    names: list[str] = []
    for root, folders, files in os.walk(folder):
        place = Path(root).relative_to(folder)
        folders[:] = [name for name in folders if place != Path() or name not in UNCOVERED]
        for name in [*files, *(inner for inner in folders if (Path(root) / inner).is_symlink())]:
            path = Path(root) / name
            if path.is_symlink() or not path.is_file():
                raise InputError(f"{path} is a link or no plain file; remove it, a run holds plain files only")
            names.append((place / name).as_posix())
        if len(names) > MAX_FILES:
            raise InputError(f"{folder} holds over {MAX_FILES} files; name the folder of one run")
    return sorted(name for name in names if name != NAME)


def replace(path: Path, data: bytes) -> None:
    """Write by atomic rename; InputError where that cannot be done."""
    try:
        replace_file(path, data, 0o644)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose a folder you may write to") from error


def _fingerprint(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return os.fstat(file.fileno()).st_size, digest
