"""Who the phone is towards whom: one unlinkable identity a lender, and the lender's signed card (spec 9.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fl_client.keystore import derive
from model.canonical import decode
from model.contract.envelope import Signed, SigningKey, keyid, verify
from model.errors import ContractError, TrustError

LENDER_DOMAIN = "lender/1"
_AUDIENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEX32 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LenderCard:
    """What a lender publishes of itself, signed by the key it names; `expires_at` in Unix seconds."""

    name: str
    audience: str
    hpke_public: bytes
    signing_public: bytes
    purposes: tuple[str, ...]
    expires_at: int

    @classmethod
    def read(cls, data: bytes, now: int) -> LenderCard:
        """The card in signed bytes; SignatureError, ContractError, or TrustError once it has expired.

        The card vouches for itself only: which lender to trust is the person's choice at `init`, after which the
        signing key is pinned by the folder the card lies in.
        """
        signed = Signed.from_bytes(data)
        claimed = decode(signed.payload)
        public = _bytes32(claimed, "signing_public")
        raw = verify(signed, LENDER_DOMAIN, {keyid(public): public}, required=(keyid(public),))
        card = cls._parse(raw, public)
        if now >= card.expires_at:
            raise TrustError(f"the card of lender {card.name!r} has expired; ask the lender for a new one")
        return card

    @classmethod
    def _parse(cls, raw: Mapping[str, Any], public: bytes) -> LenderCard:
        name, audience, purposes, expires = (raw.get(k) for k in ("name", "audience", "purposes", "expires_at"))
        if not isinstance(name, str) or not isinstance(audience, str) or not _AUDIENCE.fullmatch(audience):
            raise ContractError("a lender's card lacks its name or a plain audience id; ask the lender for a new one")
        if not isinstance(purposes, list) or not purposes or not all(isinstance(p, str) for p in purposes):
            raise ContractError(f"the card of lender {name!r} lists no purposes; ask the lender for a new one")
        if type(expires) is not int:
            raise ContractError(f"the card of lender {name!r} has no end date; ask the lender for a new one")
        return cls(name, audience, _bytes32(raw, "hpke_public"), public, tuple(purposes), expires)


@dataclass(frozen=True)
class Pairwise:
    """The phone as one lender knows it. Keys come from the root secret, the audience and the lender's own key.

    The lender's key is part of the label so that a second lender cannot borrow an audience id to link a person.
    """

    root: bytes
    audience: str
    lender_public: bytes

    @classmethod
    def towards(cls, root: bytes, card: LenderCard) -> Pairwise:
        """The identity for the lender of `card`."""
        return cls(root, card.audience, card.signing_public)

    @property
    def label(self) -> str:
        """Names this pair in the phone's own store; never leaves the phone."""
        return f"{self.audience}/{self.lender_public.hex()}"

    @cached_property
    def key(self) -> SigningKey:
        """The Ed25519 key that signs for this lender alone."""
        return SigningKey.from_private_bytes(derive(self.root, f"pairwise/key/{self.label}"))

    @property
    def device_key(self) -> str:
        """The public half, 64 hex characters."""
        return self.key.public_bytes.hex()

    def consent_id(self, number: int) -> str:
        """Id of the `number`-th consent to this lender, 32 hex characters."""
        return derive(self.root, f"pairwise/consent/{self.label}/{number}", 16).hex()


def _bytes32(raw: Any, name: str) -> bytes:
    value = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(value, str) or not _HEX32.fullmatch(value):
        raise ContractError(f"a lender's card has no usable {name} (64 hex characters); ask the lender for a new one")
    return bytes.fromhex(value)
