"""Ed25519 signatures, k of n, over canonical payloads, each with its own domain (RFC 8032, spec 2.2)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from model.canonical import decode, encode, sha256_hex
from model.errors import ContractError, SignatureError

MAX_SIGNED_BYTES = 1 << 22
MAX_SIGNATURES = 64
_DOMAIN = re.compile(r"[a-z0-9._/-]{1,60}/[0-9]{1,4}")


def keyid(public: bytes) -> str:
    """Name of a public key: the first 32 hex characters of its SHA-256."""
    return sha256_hex(public)[:32]


class SigningKey:
    """An Ed25519 private key (32 bytes)."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, private: bytes) -> SigningKey:
        """The key of 32 raw private bytes; ContractError for another length."""
        if len(private) != 32:
            raise ContractError(f"a signing key is 32 bytes, not {len(private)}; restore it or make a new one")
        return cls(Ed25519PrivateKey.from_private_bytes(private))

    def private_bytes(self) -> bytes:
        """32 raw private bytes; whoever holds them can sign."""
        return self._private.private_bytes_raw()

    @cached_property
    def public_bytes(self) -> bytes:
        """32 raw public bytes."""
        return self._private.public_key().public_bytes_raw()

    @cached_property
    def keyid(self) -> str:
        """32 hex characters that name the public key."""
        return keyid(self.public_bytes)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 signature of `data`, 64 bytes, deterministic."""
        return self._private.sign(data)


@dataclass(frozen=True)
class Signed:
    """A canonical payload with the (keyid, signature) pairs made over it in one domain."""

    domain: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def payload_digest(self) -> str:
        """SHA-256 (hex) of the payload bytes; for a plan this is `plan.digest`."""
        return sha256_hex(self.payload)

    def to_bytes(self) -> bytes:
        """Canonical bytes of the whole envelope."""
        pairs = [{"keyid": key, "signature": value} for key, value in self.signatures]
        return encode({"domain": self.domain, "payload": self.payload, "signatures": pairs})

    @classmethod
    def from_bytes(cls, data: bytes, *, max_bytes: int = MAX_SIGNED_BYTES) -> Signed:
        """Inverse of `to_bytes`. Nothing is verified yet; ContractError if the form is wrong."""
        raw = decode(data, max_bytes=max_bytes, max_depth=3, max_items=8 * MAX_SIGNATURES)
        try:
            if set(raw) != {"domain", "payload", "signatures"} or len(raw["signatures"]) > MAX_SIGNATURES:
                raise ContractError("a signed message has other parts than spec 2.2 names; ask for it again")
            pairs = tuple(_pair(pair) for pair in raw["signatures"])
        except TypeError as error:
            raise ContractError("this is not a signed message (spec 2.2); ask its sender for it again") from error
        if not isinstance(raw["domain"], str) or not isinstance(raw["payload"], bytes):
            raise ContractError("a signed message needs a text domain and a byte payload; ask for it again")
        return cls(raw["domain"], raw["payload"], pairs)


def sign(domain: str, payload: Mapping[str, Any], keys: Sequence[SigningKey]) -> Signed:
    """Sign `payload` (canonically encoded) once with each key; signatures stand in order of key id."""
    body = encode(payload)
    signed = {key.keyid: key.sign(signing_input(domain, body)) for key in keys}
    return Signed(domain, body, tuple(sorted(signed.items())))


def verify(
    signed: Signed,
    domain: str,
    keyring: Mapping[str, bytes],
    *,
    threshold: int = 1,
    required: Collection[str] = (),
) -> dict[str, Any]:
    """The payload, once `threshold` distinct keys of `keyring` (key id → 32 public bytes) have signed it.

    `required` key ids must be among them. Signatures of unknown keys are ignored, a wrong one of a known
    key is refused. SignatureError on any failing; ContractError if the payload is not a canonical map.
    """
    if threshold < 1:
        raise SignatureError(f"a threshold of {threshold} signatures proves nothing; ask for at least 1")
    if signed.domain != domain:
        raise SignatureError(f"a message of kind {signed.domain!r} came where {domain!r} belongs; send the right one")
    data = signing_input(domain, signed.payload)
    valid = {key for key, value in signed.signatures if key in keyring and _check(key, keyring[key], value, data)}
    missing = sorted(set(required) - valid)
    if missing:
        raise SignatureError(f"a {domain} message lacks the signature of key {missing[0]}; ask its holder to sign it")
    if len(valid) < threshold:
        raise SignatureError(f"a {domain} message has {len(valid)} of {threshold} trusted signatures; have it signed")
    payload = decode(signed.payload, max_bytes=MAX_SIGNED_BYTES)
    if not isinstance(payload, dict):
        raise ContractError(f"a {domain} message carries no map; ask its signer for a new one")
    return payload


def signing_input(domain: str, payload: bytes) -> bytes:
    """What is signed: `pocketscore/` + domain + NUL + payload, so no message passes for another kind."""
    if not _DOMAIN.fullmatch(domain):
        raise ContractError(f"the domain {domain!r} is not of the form name/version; see spec 2.2")
    return b"pocketscore/" + domain.encode() + b"\0" + payload


def _pair(raw: Any) -> tuple[str, bytes]:
    if not isinstance(raw, dict) or set(raw) != {"keyid", "signature"}:
        raise ContractError("a signature needs exactly a key id and its bytes (spec 2.2); ask for it again")
    if not isinstance(raw["keyid"], str) or not isinstance(raw["signature"], bytes) or len(raw["signature"]) != 64:
        raise ContractError("a signature is a text key id and 64 bytes (spec 2.2); ask for it again")
    return raw["keyid"], raw["signature"]


def _check(key: str, public: bytes, signature: bytes, data: bytes) -> bool:
    # A key under two names would count twice towards a threshold.
    if keyid(public) != key:
        raise SignatureError(f"key {key} in the key ring does not match its public bytes; correct the key ring")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"the signature of key {key} does not fit the message; fetch it again") from error
    return True
