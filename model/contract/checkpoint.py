"""Log heads as C2SP checkpoints in signed notes, Ed25519 (c2sp.org/tlog-checkpoint, /signed-note, spec 2.5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from model.contract.envelope import SigningKey
from model.contract.merkle import HASH_BYTES
from model.errors import ContractError, SignatureError

MAX_NOTE_BYTES = 16_384
MAX_SIGNATURES = 16
_ED25519 = b"\x01"
_NAME = re.compile(r"[^\s+]{1,128}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """The head of an append-only log: its `origin` (name), number of entries, and 32-byte root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines of a checkpoint, each ended by a newline."""
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Inverse of `text`; ContractError for any other form, and for extension lines, which this log has not."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise ContractError("a checkpoint is not origin, size and root, a line each; fetch it again")
        root = _unb64(lines[2])
        if len(root) != HASH_BYTES:
            raise ContractError(f"a checkpoint's root is {len(root)} bytes, not {HASH_BYTES}; fetch it again")
        return cls(lines[0], int(lines[1]), root)


def key_hash(name: str, public: bytes) -> bytes:
    """4 bytes that tell a signer's keys apart: SHA-256(name ‖ newline ‖ 0x01 ‖ public), cut."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """The note key text `name+hash+base64`, to hand to a witness or a reviewer."""
    return f"{name}+{key_hash(name, public).hex()}+{_b64(_ED25519 + public)}"


def sign_note(checkpoint: Checkpoint, signers: Iterable[tuple[str, SigningKey]]) -> bytes:
    """The signed note of `checkpoint`, one signature line for each (name, key)."""
    text = checkpoint.text()
    lines = [_signature_line(name, key, text.encode()) for name, key in signers]
    return (text + "\n" + "".join(lines)).encode()


def open_note(note: bytes, verifiers: Mapping[str, bytes], *, threshold: int = 1) -> Checkpoint:
    """The checkpoint of `note`, once `threshold` distinct names of `verifiers` (name → 32 public bytes) signed it.

    Lines of unknown signers are ignored; a wrong signature of a known one is refused. SignatureError or ContractError.
    """
    text, lines = _split(note)
    valid = {name for name, raw in map(_parse_line, lines) if _signed_by(name, raw, text.encode(), verifiers)}
    if threshold < 1 or len(valid) < threshold:
        raise SignatureError(f"a checkpoint has {len(valid)} of {max(threshold, 1)} trusted signatures; fetch it again")
    return Checkpoint.from_text(text)


def _signature_line(name: str, key: SigningKey, text: bytes) -> str:
    if not _NAME.fullmatch(name):
        raise ContractError(f"the signer name {name!r} has a space or plus, or is empty; rename it")
    return f"— {name} {_b64(key_hash(name, key.public_bytes) + key.sign(text))}\n"


def _split(note: bytes) -> tuple[str, list[str]]:
    if len(note) > MAX_NOTE_BYTES:
        raise ContractError(f"a checkpoint of {len(note)} bytes is over {MAX_NOTE_BYTES}; fetch it again")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError("a checkpoint is not UTF-8 text; fetch it again") from error
    text, gap, tail = whole.rpartition("\n\n")
    lines = tail.split("\n")
    if not gap or lines.pop() or not lines or any(ord(c) < 32 and c != "\n" for c in whole):
        raise ContractError("a checkpoint lacks its signature lines; fetch it again")
    if len(lines) > MAX_SIGNATURES:
        raise ContractError(f"a checkpoint has {len(lines)} signatures, over {MAX_SIGNATURES}; fetch it again")
    return text + "\n", lines


def _parse_line(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _NAME.fullmatch(parts[1]):
        raise ContractError("a checkpoint has a malformed signature line; fetch it again")
    return parts[1], _unb64(parts[2])


def _signed_by(name: str, raw: bytes, text: bytes, verifiers: Mapping[str, bytes]) -> bool:
    public = verifiers.get(name)
    if public is None or raw[:4] != key_hash(name, public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"the checkpoint signature of {name} does not fit its text; fetch it again") from error
    return True


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContractError("a checkpoint has text that is not base64; fetch it again") from error
    if _b64(raw) != text:  # one text, one meaning
        raise ContractError("a checkpoint has base64 with stray bits; fetch it again")
    return raw
