"""The roster of one attempt: who takes part with which keys, and a phone's check of its own place (spec 13.9.1).

Its order of leaves is that of the identities' bytes, so nobody chooses it. The witness, who is the plan's reviewer,
signs one roster an attempt; the order of the circles is drawn from that signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from model.canonical import encode
from model.contract.envelope import SigningKey, signing_input
from model.contract.merkle import leaf_hash
from model.contract.record import require
from model.errors import ContractError, RoundError, SignatureError
from model.secagg.circle import Circle, circles, order_seed
from model.secagg.context import Context
from model.secagg.graph import require_private
from model.secagg.messages import ENTRY, HASH, KEY, Advert, Place, blocks
from model.secagg.openings import Levels, levels, opening, root_of
from model.secagg.pairs import low_order
from model.secagg.terms import Terms, bound

ADVERT_DOMAIN, ROSTER_DOMAIN = "advert/1", "roster/1"


def signed_advert(identity: SigningKey, context: Context, attempt: int, channel: bytes, mask: bytes) -> Advert:
    """A phone's entry under its signature, for this attempt at this sum only."""
    entry = identity.public_bytes + channel + mask
    return Advert(identity.public_bytes, channel, mask, identity.sign(_advert_bytes(context, attempt, entry)))


def verify_advert(advert: Advert, context: Context, attempt: int) -> None:
    """SignatureError unless its identity signed it for this attempt."""
    check_signature(advert.identity, advert.signature, _advert_bytes(context, attempt, advert.entry))


def head_bytes(context: Context, attempt: int, phones: int, root: bytes) -> bytes:
    """What the witness signs of a roster."""
    head = {"attempt": attempt, "phones": phones, "root": root}
    return signing_input(ROSTER_DOMAIN, bound(context) + encode(head))


def check_signature(public: bytes, signature: bytes, data: bytes) -> None:
    """SignatureError unless the Ed25519 signature fits."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("a signature does not fit what it is under; ask its signer for it again") from error


@dataclass(frozen=True)
class Roster:
    """Entries (96 bytes: identity, channel key, mask key) in the order of their bytes."""

    entries: tuple[bytes, ...]

    @classmethod
    def of(cls, adverts: Iterable[Advert]) -> Roster:
        """The roster of adverts whose signatures were verified.

        ContractError for a key that stands twice, whosever it is, or is of low order (case 37).
        """
        entries = tuple(sorted(advert.entry for advert in adverts))
        keys = {key for entry in entries for key in blocks(entry, KEY, 3)}
        require(len(keys) == 3 * len(entries), "a key stands twice in the roster; leave out whoever sent it second")
        weak = any(low_order(key) for entry in entries for key in blocks(entry, KEY, 3)[1:])
        require(not weak, "a key in the roster is of low order; leave out whoever sent it")
        require(len(entries) > 0, "a roster has no phones; wait for some to answer")
        return cls(entries)

    @cached_property
    def tree(self) -> Levels:
        """Merkle hashes, leaves first."""
        return levels([leaf_hash(entry) for entry in self.entries])

    @property
    def root(self) -> bytes:
        """Merkle root of the entries."""
        return self.tree[-1][0]

    def head(self, context: Context, attempt: int) -> bytes:
        """What the witness signs."""
        return head_bytes(context, attempt, len(self.entries), self.root)

    def place(self, circle: Circle, position: int, signature: bytes) -> Place:
        """What the phone at `position` of `circle` is shown."""
        index, near = circle.members[position], [circle.members[p] for p in circle.neighbours(position)]
        proof = b"".join(opening(self.tree, [index, *near]))
        shown = b"".join(self.entries[i] for i in near)
        return Place(len(self.entries), self.root, signature, index, shown, proof)


@dataclass(frozen=True)
class Standing:
    """Where a phone stands, once checked: its circle (number `group`), its position, its neighbours' entries."""

    root: bytes
    phones: int
    group: int
    circle: Circle
    position: int
    entries: tuple[bytes, ...]


def find_place(place: Place, own: bytes, context: Context, attempt: int, terms: Terms) -> Standing:
    """A phone's check of its place: the witness's one signature, the graph's bound for a roster of this size, that it
    stands in the order where the roster says, and that the shown neighbours are those the order gives it.

    SignatureError, ContractError, or RoundError for keys that stand twice or are its own (case 37).
    """
    head = head_bytes(context, attempt, place.phones, place.root)
    check_signature(terms.witness, place.signature, head)
    require_private(place.phones, terms.neighbours)
    group, circle, position = _position(place, terms)
    near = [circle.members[p] for p in circle.neighbours(position)]
    entries = blocks(place.neighbours, ENTRY, len(near))
    leaves = {place.index: leaf_hash(own)} | {i: leaf_hash(entry) for i, entry in zip(near, entries, strict=True)}
    if root_of(leaves, place.phones, blocks(place.proof, HASH, len(place.proof) // HASH)) != place.root:
        raise ContractError("the neighbours shown are not those of the signed roster; start another attempt")
    keys = [key for entry in (own, *entries) for key in blocks(entry, KEY, 3)]
    if len(set(keys)) != len(keys):
        raise RoundError("a neighbour shows a key that is another's or this phone's own; nothing is shared")
    return Standing(place.root, place.phones, group, circle, position, tuple(entries))


def _position(place: Place, terms: Terms) -> tuple[int, Circle, int]:
    seed = order_seed(place.root, place.signature)
    for group, circle in enumerate(circles(seed, place.phones, terms.neighbours.degree)):
        if place.index in circle.members:
            return group, circle, circle.members.index(place.index)
    raise ContractError("the roster's order lacks this phone; start another attempt")


def _advert_bytes(context: Context, attempt: int, entry: bytes) -> bytes:
    return signing_input(ADVERT_DOMAIN, bound(context) + encode({"attempt": attempt, "entry": entry}))


def entries_of(circle: Circle, roster: Roster) -> Mapping[int, bytes]:
    """Roster entries by position."""
    return {p: roster.entries[i] for p, i in enumerate(circle.members)}
