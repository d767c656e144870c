"""The phone's one secret: where it is kept, and every key derived from it (spec 9.2)."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from model.canonical import decode, encode
from model.errors import ContractError, InputError

ROOT_BYTES = 32
# OWASP Password Storage Cheat Sheet: scrypt N=2^14, r=8, p=5 needs 16 MiB, which a phone has to spare.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5
_WRAP = b"pocketscore/key/1"


class KeyStore(Protocol):
    """Keeps the phone's root secret; a hardware-backed keystore would be another one of these."""

    def create(self) -> bytes:
        """A new 32-byte root secret, kept durably; InputError if one exists."""
        ...

    def load(self) -> bytes:
        """The root secret; InputError if it is missing, unreadable or kept carelessly."""
        ...


def derive(root: bytes, label: str, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of the root secret for one use; labels never overlap (spec 9.2)."""
    return HKDF(SHA256(), length, salt=b"pocketscore/device/1", info=label.encode()).derive(root)


class FileKeyStore:
    """The root secret in a file that only its owner can read (mode 0600)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> bytes:
        """Write 32 bytes from the operating system's randomness."""
        root = secrets.token_bytes(ROOT_BYTES)
        write_private(self.path, root)
        return root

    def load(self) -> bytes:
        """Read them back; InputError for a link, a looser mode, another owner or another length."""
        root = read_private(self.path)
        if len(root) != ROOT_BYTES:
            raise InputError(f"the key file {self.path} holds {len(root)} bytes, not {ROOT_BYTES}; restore it")
        return root


class PassphraseKeyStore:
    """The root secret wrapped with AES-256-GCM under a passphrase (scrypt, RFC 7914)."""

    def __init__(self, path: Path, passphrase: Callable[[], str]) -> None:
        self.path, self._passphrase = path, passphrase

    def create(self) -> bytes:
        """Wrap 32 new bytes and write them (mode 0600)."""
        root, salt, nonce = secrets.token_bytes(ROOT_BYTES), secrets.token_bytes(16), secrets.token_bytes(12)
        wrapped = AESGCM(self._key(salt)).encrypt(nonce, root, _WRAP)
        write_private(self.path, encode({"kdf": "scrypt", "salt": salt, "nonce": nonce, "wrapped": wrapped}))
        return root

    def load(self) -> bytes:
        """Unwrap them; InputError for a wrong passphrase or a damaged file."""
        try:
            raw: dict[str, Any] = decode(read_private(self.path), max_bytes=4096)
            salt, nonce, wrapped = raw["salt"], raw["nonce"], raw["wrapped"]
            return AESGCM(self._key(salt)).decrypt(nonce, wrapped, _WRAP)
        except InvalidTag as error:
            raise InputError(f"the passphrase does not open {self.path}; try it again") from error
        except (ContractError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"the key file {self.path} is not a passphrase key; restore it from its copy") from error

    def _key(self, salt: bytes) -> bytes:
        phrase = self._passphrase()
        if not phrase:
            raise InputError("the passphrase is empty; give one, or choose the key file instead")
        return Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(phrase.encode())


def write_private(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600 at once: whole or not at all, never over another."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike rename, link never replaces a key
    except FileExistsError as error:
        raise InputError(f"{path} exists already; choose another folder or keep that key") from error
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose a folder you may write to") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_private(path: Path) -> bytes:
    """The bytes of a regular file that is ours alone; InputError otherwise."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise InputError(f"the key file {path} cannot be read ({error.strerror}); run init or restore it") from error
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid():
            raise InputError(f"the key file {path} is not a plain file of yours; restore it from its copy")
        if stat.S_IMODE(seen.st_mode) & 0o077:
            raise InputError(f"the key file {path} can be read by others; run chmod 600 on it")
        return os.read(handle, 4097)
    finally:
        os.close(handle)
