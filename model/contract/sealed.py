"""Sealing to one recipient: HPKE base mode, X25519, HKDF-SHA256, AES-128-GCM (RFC 9180, spec 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from model.canonical import encode
from model.contract.envelope import keyid
from model.errors import ContractError

# RFC 9180 §7: KEM 0x0020, KDF 0x0001, AEAD 0x0001. There is one suite; another one is refused, not negotiated.
SUITE = b"pocketscore/seal/1:" + bytes.fromhex("002000010001")
OVERHEAD = len(SUITE) + 32 + 16
MAX_SEALED_BYTES = 1 << 20


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


class RecipientKey:
    """An X25519 private key (32 bytes) that opens what was sealed to it."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self.private = private

    @classmethod
    def generate(cls) -> RecipientKey:
        """A new key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, private: bytes) -> RecipientKey:
        """The key of 32 raw private bytes; ContractError for another length."""
        if len(private) != 32:
            raise ContractError(f"a recipient key is 32 bytes, not {len(private)}; restore it or make a new one")
        return cls(X25519PrivateKey.from_private_bytes(private))

    def private_bytes(self) -> bytes:
        """32 raw private bytes; whoever holds them can open."""
        return self.private.private_bytes_raw()

    @cached_property
    def public_bytes(self) -> bytes:
        """32 raw public bytes."""
        return self.private.public_key().public_bytes_raw()

    @cached_property
    def keyid(self) -> str:
        """32 hex characters that name the public key."""
        return keyid(self.public_bytes)


def seal(plaintext: bytes, recipient_public: bytes, info: Mapping[str, str]) -> bytes:
    """Seal `plaintext` to a recipient's 32 public bytes, bound to `info` (such as purpose and audience).

    Returns suite ‖ encapsulated key (32) ‖ ciphertext with tag (16). ContractError for a low-order or malformed key.
    """
    try:
        public = X25519PublicKey.from_public_bytes(recipient_public)
        return SUITE + _suite().encrypt(plaintext, public, info=_bind(info))
    except ValueError as error:
        raise ContractError("the recipient's public key is not a usable X25519 key; ask for it again") from error


def open_sealed(data: bytes, key: RecipientKey, info: Mapping[str, str]) -> bytes:
    """Inverse of `seal`; ContractError for another suite, key or info, and for any changed byte."""
    if len(data) > MAX_SEALED_BYTES:
        raise ContractError(f"a sealed message of {len(data)} bytes is over {MAX_SEALED_BYTES}; send a smaller one")
    check_suite(data)
    try:
        return _suite().decrypt(data[len(SUITE) :], key.private, info=_bind(info))
    except (InvalidTag, ValueError) as error:
        raise ContractError(
            "a sealed message does not open with this key, purpose and audience; have it sealed to this recipient"
        ) from error


def check_suite(data: bytes) -> None:
    """ContractError unless `data` names the one suite of spec 2.3; there is nothing to negotiate down to (case 57)."""
    if not data.startswith(SUITE):
        raise ContractError("a sealed message names another cipher suite than spec 2.3; have it sealed again")


def _bind(info: Mapping[str, str]) -> bytes:
    return _bound(tuple(sorted(info.items())))


@lru_cache(maxsize=64)
def _bound(items: tuple[tuple[str, str], ...]) -> bytes:
    # Thousands of seeds are sealed and opened under one info.
    return SUITE + encode(dict(items))
