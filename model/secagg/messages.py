"""What phones and server say to each other in pairwise masking, each with its bound (spec 13.9.2).

Lists of phones are bits (circle.pack) over the circle's positions or over a phone's slots; where a message carries one
block for each of several neighbours, they stand in the order of slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from model.canonical import decode, encode
from model.contract.record import Record, require
from model.secagg.shares import SHARE

KEY, HASH, SIGNATURE, TAG = 32, 32, 64, 16
ENTRY = 3 * KEY  # identity, channel key, mask key
BOX = 2 * SHARE + 16  # both shares, sealed
COMMITMENT = 2 * 16  # one for each share
CHECKS = 2  # numbers at the end of a vector that count its phones
MAX_NEIGHBOURS = 1000
_SLACK = 512
_ITEMS = 32  # names and values of one message, with room


@dataclass(frozen=True)
class Wire(Record):
    """Base: canonical CBOR under a schema name, with a bound on its size."""

    SCHEMA: ClassVar[str] = ""
    MAX: ClassVar[int] = _SLACK

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return encode({"schema": self.SCHEMA, **self.to_dict()})

    @classmethod
    def from_bytes(cls, data: bytes, max_bytes: int | None = None) -> Self:
        """Inverse of `to_bytes`; ContractError for another schema or form, or above `max_bytes` (default MAX)."""
        raw = decode(data, max_bytes=max_bytes or cls.MAX, max_depth=1, max_items=_ITEMS)
        require(isinstance(raw, dict), "a message of secure aggregation is no map; send it again")
        schema = raw.pop("schema", None)
        require(schema == cls.SCHEMA, f"a message has schema {schema!r} where {cls.SCHEMA!r} belongs; send that")
        return cls.from_dict(raw)


@dataclass(frozen=True)
class Advert(Wire):
    """Phone → server, `advertise`: its identity, its two keys of this attempt, and its signature over them."""

    SCHEMA: ClassVar[str] = "pocketscore.advert/1"
    identity: bytes
    channel: bytes
    mask: bytes
    signature: bytes

    def check(self) -> None:
        """ContractError for parts of another length."""
        keys = len(self.identity) == len(self.channel) == len(self.mask) == KEY
        require(keys and len(self.signature) == SIGNATURE, "an advert is three keys and a signature; send it again")

    @property
    def entry(self) -> bytes:
        """Its line in the roster."""
        return self.identity + self.channel + self.mask


@dataclass(frozen=True)
class Place(Wire):
    """Server → phone: the roster's head and the witness's signature, and the phone's neighbours shown to be in it."""

    SCHEMA: ClassVar[str] = "pocketscore.place/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * (ENTRY + 4 * HASH) + _SLACK
    phones: int
    root: bytes
    signature: bytes
    index: int
    neighbours: bytes
    proof: bytes

    def check(self) -> None:
        """ContractError for parts of another length."""
        head = len(self.root) == HASH and len(self.signature) == SIGNATURE and 0 <= self.index < self.phones < 1 << 31
        require(head, "a place in the roster has no sound head; send it again")
        whole = len(self.neighbours) % ENTRY == 0 and len(self.proof) % HASH == 0
        require(whole, "a place in the roster has cut keys or hashes; send it again")


@dataclass(frozen=True)
class Deal(Wire):
    """Phone → server, `share`: both its secrets' shares for every neighbour, sealed, and commitments to all."""

    SCHEMA: ClassVar[str] = "pocketscore.deal/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * (BOX + COMMITMENT) + _SLACK
    boxes: bytes
    commitments: bytes
    seed_hash: bytes


@dataclass(frozen=True)
class Delivery(Wire):
    """Server → phone: the boxes for it from the neighbours `present`, and the commitments to what is in them."""

    SCHEMA: ClassVar[str] = "pocketscore.delivery/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * (BOX + COMMITMENT) + _SLACK
    present: bytes
    boxes: bytes
    commitments: bytes


@dataclass(frozen=True)
class Upload(Wire):
    """Phone → server, `upload`: its masked vector, with whom it masked (`kept` slots), and to each a tag over that."""

    SCHEMA: ClassVar[str] = "pocketscore.upload/1"
    MAX: ClassVar[int] = 1 << 24
    vector: bytes
    kept: bytes
    tags: bytes

    @staticmethod
    def cap(dim: int) -> int:
        """Most bytes an upload of `dim` numbers has."""
        return 4 * (dim + CHECKS) + MAX_NEIGHBOURS * (TAG + 1) + _SLACK


@dataclass(frozen=True)
class Survivors(Wire):
    """Server → phone: the one list, and what each active neighbour says it masked with, with its tag."""

    SCHEMA: ClassVar[str] = "pocketscore.survivors/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * (MAX_NEIGHBOURS // 8 + TAG + 1) + _SLACK
    active: bytes
    dead: bytes
    statements: bytes


@dataclass(frozen=True)
class Agreement(Wire):
    """Phone → server, `agree`: its signature over the list, and to each active neighbour a tag over it."""

    SCHEMA: ClassVar[str] = "pocketscore.agreement/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * TAG + _SLACK
    signature: bytes
    tags: bytes


@dataclass(frozen=True)
class Certificate(Wire):
    """Server → phone: the witness's signature over the list, and the tags of the neighbours who agreed (`present`)."""

    SCHEMA: ClassVar[str] = "pocketscore.certificate/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * (TAG + 1) + _SLACK
    signature: bytes
    present: bytes
    tags: bytes


@dataclass(frozen=True)
class Reveal(Wire):
    """Phone → server, `unmask`: one share for each of the slots `given`, by the list of one kind or of the other."""

    SCHEMA: ClassVar[str] = "pocketscore.reveal/1"
    MAX: ClassVar[int] = MAX_NEIGHBOURS * (SHARE + 1) + _SLACK
    given: bytes
    shares: bytes


def blocks(data: bytes, width: int, count: int) -> list[bytes]:
    """`data` cut into `count` blocks; ContractError for another length."""
    require(
        len(data) == width * count, f"{len(data)} bytes stand where {count} blocks of {width} belong; send it again"
    )
    return [data[i : i + width] for i in range(0, len(data), width)]
