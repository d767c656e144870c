"""Private keys and phone stores where a run is published: by name, by form, by the key they make (spec 11.4)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from model.contract.envelope import SigningKey

NAMES = re.compile(r".*\.key|.*\.pem|store\.sqlite|device\.toml|key", re.IGNORECASE)
FORMS = (b"PRIVATE KEY-----", b"ed25519-private-key/")
HEX64 = re.compile(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
MAX_SCAN = 1 << 20
MAX_TOKENS = 20_000


def find(folder: Path, keys: Mapping[str, bytes]) -> list[str]:
    """One sentence part for each file that is, or holds, a secret. `keys` are the run's public keys by role."""
    found = []
    for path in sorted(_files(folder)):
        name = path.relative_to(folder).as_posix()
        why = _why(path, {key: role for role, key in keys.items()})
        if why:
            found.append(f"{name} {why}; move it out and replace the key")
    return found


def _why(path: Path, roles: Mapping[bytes, str]) -> str:
    if NAMES.fullmatch(path.name):
        return "has the name of a private key or a phone's store"
    data = path.read_bytes() if path.stat().st_size <= MAX_SCAN else b""
    if any(form in data for form in FORMS):
        return "has the form of a private key"
    for secret in _candidates(data):
        role = roles.get(SigningKey.from_private_bytes(secret).public_bytes)
        if role:
            return f"holds the private {role} key"
    return ""


def _candidates(data: bytes) -> Iterator[bytes]:
    """32 bytes that could be a private key: a whole file, or hexadecimal text within one."""
    if len(data) == 32:
        yield data
    for number, match in enumerate(HEX64.finditer(data)):
        if number == MAX_TOKENS:
            return
        yield bytes.fromhex(match.group().decode())


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path
