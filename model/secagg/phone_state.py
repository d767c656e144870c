"""What a phone of pairwise masking keeps while it waits for the server (spec 13.9.6)."""

from __future__ import annotations

from dataclasses import dataclass

from model.canonical import decode, encode
from model.contract.record import require

OVER = "over"


@dataclass
class PhoneState:
    """What a phone keeps between steps: secrets, so it lies only in the phone's sealed store and only for the attempt.

    `step` is the next one. `shares` are its neighbours' for it, 66 bytes a slot; lists are bits.
    """

    step: str = "advertise"
    channel_key: bytes = b""
    mask_key: bytes = b""
    seed: bytes = b""
    place: bytes = b""
    channels: bytes = b""
    kept: bytes = b""
    shares: bytes = b""
    active: bytes = b""
    dead: bytes = b""
    trusted: bytes = b""

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return encode(vars(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> PhoneState:
        """Inverse of `to_bytes`; ContractError for anything else."""
        raw = decode(data)
        sound = isinstance(raw, dict) and raw.keys() == vars(cls()).keys()
        require(sound, "this is not the state of a phone between steps; start another attempt")
        return cls(**raw)
