"""What a phone's messages of pairwise masking travel in: one small envelope a step, bound to its sum (spec 13.15)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from model.canonical import decode, encode
from model.contract.record import Record, require
from model.contract.update import KINDS, MAX_DIM

STEPS = ("advertise", "share", "upload", "agree", "unmask")
PAIRING_SCHEMA = "pocketscore.pairing/1"
MAX_ATTEMPT = 1 << 16
ENVELOPE = 512  # bytes around a body
# Bodies of spec 13.9.2 at their largest: 1,000 neighbours, and for an upload 2^20 numbers and two checks.
BODY = {
    "advertise": 512,
    "share": 114_512,
    "upload": 4 * (MAX_DIM + 2) + 17_512,
    "agree": 16_512,
    "unmask": 34_512,
}
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PairingMessage(Record):
    """One phone's answer in one step of one attempt at one sum; `body` is the step's own message."""

    schema: str
    plan_digest: str
    round: int
    kind: str
    attempt: int
    step: str
    body: bytes

    def check(self) -> None:
        """ContractError for a value out of its range."""
        require(self.schema == PAIRING_SCHEMA, f"a message has schema {self.schema!r}, not {PAIRING_SCHEMA!r}")
        require(bool(_HEX64.fullmatch(self.plan_digest)), "a plan's digest is 64 hex characters; send it again")
        sound = self.kind in KINDS and self.step in STEPS and 0 <= self.round < 1 << 31
        require(sound, "a message is of no known kind, step or round; use the same release on both sides")
        require(0 <= self.attempt < MAX_ATTEMPT, f"attempt {self.attempt} is outside its range; start another run")
        require(len(self.body) <= BODY[self.step], f"a body of {len(self.body)} bytes is too long to {self.step}")

    @classmethod
    def from_bytes(cls, data: bytes, step: str) -> Self:
        """Inverse of `encode(to_dict())`; ContractError for another form, or one too long for `step`."""
        return cls.from_dict(decode(data, max_bytes=BODY[step] + ENVELOPE, max_depth=1, max_items=32))

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return encode(self.to_dict())
