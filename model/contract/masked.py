"""The messages of mode `helper`: a masked sum's header, the batch asked about, and the helper's answers (spec 13.5)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.canonical import decode, encode
from model.contract.record import Record, require
from model.contract.sealed import OVERHEAD
from model.contract.update import KINDS, MAX_DIM, MAX_PHONES, PartialHeader
from model.errors import ContractError, UpdateError

MASKED_SCHEMA = "pocketscore.masked/1"
BATCH_SCHEMA = "pocketscore.batch/1"
SHARE_DOMAIN, REFUSAL_DOMAIN = "share/1", "refusal/1"
SEED_BYTES = OVERHEAD + 32
MAX_BATCH_BYTES = 1 << 24
MAX_NAMED = 1000
_HEX64 = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[a-z]{1,32}")


@dataclass(frozen=True)
class MaskedHeader(Record):
    """What a node answers under masks: `phones` (1 in the field) summed into `dim` residues, and the digest of the
    model it was sent."""

    schema: str
    plan_digest: str
    round: int
    kind: str
    phones: int
    dim: int
    model_digest: str

    def check(self) -> None:
        """ContractError for a value out of its range."""
        require(self.schema == MASKED_SCHEMA, f"a masked sum has schema {self.schema!r}; use {MASKED_SCHEMA!r}")
        _check_place(self.plan_digest, self.round, self.kind, self.model_digest, self.dim)
        require(0 <= self.phones <= MAX_PHONES, f"a masked sum counts {self.phones} phones; send 0 or more")

    def counted(self) -> PartialHeader:
        """The same answer as an unmasked one would be headed, for the checks that both share."""
        return PartialHeader("pocketscore.partial/1", self.plan_digest, self.round, self.kind, self.phones, self.dim)


@dataclass(frozen=True)
class BatchRequest(Record):
    """Coordinator → helper: the signed `plan` (envelope bytes), the sum's place, and its messages' sealed seeds."""

    schema: str
    plan: bytes
    round: int
    kind: str
    model_digest: str
    dim: int
    seeds: bytes

    def check(self) -> None:
        """ContractError for a value out of its range."""
        require(self.schema == BATCH_SCHEMA, f"a batch has schema {self.schema!r}; use {BATCH_SCHEMA!r}")
        _check_place("0" * 64, self.round, self.kind, self.model_digest, self.dim)
        split_seeds(self.seeds)

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return encode(self.to_dict())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`; ContractError for another form or more than MAX_BATCH_BYTES."""
        return cls.from_dict(_map(decode(data, max_bytes=MAX_BATCH_BYTES, max_depth=1, max_items=32), "batch"))


@dataclass(frozen=True)
class Share(Record):
    """Helper → coordinator, signed in SHARE_DOMAIN: the masks of `phones` messages, under noise of `sigma` grid units.

    `batch_digest` names the messages; `share` is `dim` little-endian 32-bit residues.
    """

    plan_digest: str
    round: int
    kind: str
    model_digest: str
    dim: int
    batch_digest: str
    phones: int
    noise_multiplier: float
    sigma: int
    share: bytes

    def check(self) -> None:
        """ContractError for a value out of its range."""
        _check_place(self.plan_digest, self.round, self.kind, self.model_digest, self.dim)
        require(bool(_HEX64.fullmatch(self.batch_digest)), "a share's batch digest is not 64 hex characters; ask again")
        require(len(self.share) == 4 * self.dim, f"a share of {len(self.share)} bytes is not {self.dim} numbers")
        fits = 0 <= self.phones <= MAX_PHONES and self.noise_multiplier >= 0 and 0 <= self.sigma <= 1 << 40
        require(fits, "a share's phones or noise are outside their range; ask the helper again")

    def residues(self) -> NDArray[np.uint32]:
        """The share as numbers, (dim,) uint32."""
        return np.frombuffer(self.share, dtype="<u4").astype(np.uint32, copy=False)


@dataclass(frozen=True)
class Refusal(Record):
    """Helper → coordinator, signed in REFUSAL_DOMAIN: why there is no share. `code` is for machines, `when` Unix
    seconds; `messages` are the ids of sealed seeds to leave out, where those are the reason (at most MAX_NAMED)."""

    plan_digest: str
    round: int
    kind: str
    batch_digest: str
    code: str
    sentence: str
    when: int
    messages: tuple[str, ...] = ()

    def check(self) -> None:
        """ContractError for a value out of its range."""
        hexes = [self.plan_digest, self.batch_digest, *self.messages]
        require(all(map(_HEX64.fullmatch, hexes)), "a refusal's digests are 64 hex characters each; ask again")
        require(bool(_CODE.fullmatch(self.code)), f"a refusal's code is {self.code!r}, not a short word; ask again")
        require(0 < len(self.sentence) <= 1000 and self.sentence.isprintable(), "a refusal says why in one sentence")
        require(self.when >= 0 and len(self.messages) <= MAX_NAMED, "a refusal's time or messages are out of range")


def split_seeds(data: bytes) -> list[bytes]:
    """Sealed seeds that stand one after the other; ContractError unless they are whole."""
    if len(data) % SEED_BYTES:
        raise ContractError(f"{len(data)} bytes are no whole number of sealed seeds of {SEED_BYTES}; send them again")
    return [data[at : at + SEED_BYTES] for at in range(0, len(data), SEED_BYTES)]


def batch_digest(seeds: Iterable[bytes]) -> str:
    """Name of a set of messages: SHA-256 (hex) of their ids, sorted and joined; the order they come in is no part."""
    ids = sorted(hashlib.sha256(seed).digest() for seed in seeds)
    return hashlib.sha256(b"".join(ids)).hexdigest()


def read_residues(data: bytes, dim: int) -> NDArray[np.uint32]:
    """`dim` little-endian 32-bit residues from exactly 4·dim bytes, (dim,) uint32; UpdateError otherwise."""
    if not 1 <= dim <= MAX_DIM or len(data) != 4 * dim:
        raise UpdateError(f"a masked sum of {len(data)} bytes is not {dim} 32-bit residues; send it again")
    return np.frombuffer(data, dtype="<u4").astype(np.uint32, copy=False)


def _map(raw: Any, what: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ContractError(f"a {what} is not a map; ask its sender for it again")
    return raw


def _check_place(plan_digest: str, round_: int, kind: str, model_digest: str, dim: int) -> None:
    hexes = bool(_HEX64.fullmatch(plan_digest) and _HEX64.fullmatch(model_digest))
    require(hexes, "a masked sum's plan and model digests are 64 hex characters each; send it again")
    require(0 <= round_ < 1 << 31, f"round {round_} is outside its range; send it again")
    require(kind in KINDS, f"the kind {kind!r} is none of {', '.join(KINDS)}; update one side")
    require(1 <= dim <= MAX_DIM, f"a masked sum has dimension {dim}, outside 1 to {MAX_DIM}; send it again")
