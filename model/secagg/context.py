"""What every mask is bound to, so that it fits one sum of one model under one plan and no other (spec 13.3)."""

from __future__ import annotations

import builtins
import re
from dataclasses import dataclass

from model.canonical import encode, sha256_hex
from model.contract.record import Record, require
from model.contract.update import KINDS, MAX_DIM

_DOMAIN = b"pocketscore/mask/1\0"
_MODEL = b"pocketscore/model/1\0"
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Context(Record):
    """The sum a mask is for: plan, `kind`, `round`, the model as the phone received it, and `dim` numbers."""

    plan_digest: str
    kind: str
    round: int
    model_digest: str
    dim: int

    def check(self) -> None:
        """ContractError for a value out of its range."""
        hexes = bool(_HEX64.fullmatch(self.plan_digest) and _HEX64.fullmatch(self.model_digest))
        require(hexes, "a mask's plan and model digests are 64 hex characters each; fetch the current task")
        require(self.kind in KINDS, f"the kind {self.kind!r} is none of {', '.join(KINDS)}; update one side")
        require(0 <= self.round < 1 << 31, f"round {self.round} is outside its range; fetch the current task")
        require(1 <= self.dim <= MAX_DIM, f"a mask of {self.dim} numbers is outside 1 to {MAX_DIM}; use the plan's")

    def info(self) -> dict[str, str]:
        """What a sealed seed is bound to (HPKE info)."""
        return {"purpose": "mask", **{name: str(value) for name, value in self.to_dict().items()}}

    def bytes(self) -> builtins.bytes:
        """Domain and canonical form: what a mask's key is derived for (HKDF info)."""
        return _DOMAIN + encode(self.to_dict())


def model_digest(flat: builtins.bytes, knots: builtins.bytes) -> str:
    """SHA-256 (hex) of a model as received: the little-endian float32 bytes and the canonical knots, empty before
    they exist. The knots' length stands before them, so no two models share their bytes."""
    return sha256_hex(_MODEL + len(knots).to_bytes(8, "big") + knots + flat)
