"""The witness: one roster an attempt, one survivor list a sum (spec 13.9.4).

It is the plan's reviewer, sees keys and lists but no vector, and keeps the server from shuffling until it likes an
order, from giving regions of the graph different lists, and from opening one sum twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from model.contract.envelope import SigningKey
from model.errors import RoundError, SignatureError
from model.secagg.circle import circles, order_seed
from model.secagg.context import Context
from model.secagg.graph import quorum, require_private
from model.secagg.messages import Advert
from model.secagg.roster import Roster, check_signature, verify_advert
from model.secagg.terms import ATTEMPTS, CERTIFICATE_DOMAIN, SurvivorList, Terms

Sum = tuple[str, str, int]


class Witness(Protocol):
    """The server's view of it; behind it may stand a connection."""

    def sign_roster(self, context: Context, attempt: int, adverts: Sequence[Advert]) -> bytes:
        """Signature over the roster's head."""
        ...

    def sign_list(self, survivors: SurvivorList, signatures: Mapping[int, bytes]) -> bytes:
        """Signature over a list that the phones at these positions have signed."""
        ...


class LocalWitness:
    """A witness with its key at hand. What it signed is kept in memory; whoever runs it as a service keeps it on disk.

    `enrolled`, if given, are the identities that may take part: without such a list anyone can enrol phones.
    """

    def __init__(self, key: SigningKey, terms: Terms, enrolled: Collection[bytes] | None = None) -> None:
        self.key, self.terms, self.enrolled = key, terms, enrolled
        self._rosters: dict[Sum, dict[int, tuple[Roster, bytes]]] = {}
        self._lists: dict[tuple[Sum, int], bytes] = {}

    def sign_roster(self, context: Context, attempt: int, adverts: Sequence[Advert]) -> bytes:
        """Signature over the roster of `adverts`, each verified; RoundError or SignatureError otherwise."""
        for advert in adverts:
            verify_advert(advert, context, attempt)
            if self.enrolled is not None and advert.identity not in self.enrolled:
                raise RoundError("a phone in the roster is not enrolled; leave it out")
        roster, place = Roster.of(adverts), (context.plan_digest, context.kind, context.round)
        require_private(len(roster.entries), self.terms.neighbours)
        signed = self._rosters.setdefault(place, {})
        if attempt not in signed:
            self._require_next(place, attempt, max(signed, default=-1))
            signed[attempt] = roster, self.key.sign(roster.head(context, attempt))
        known, signature = signed[attempt]
        if known.head(context, attempt) != roster.head(context, attempt):
            raise RoundError("another roster was signed for this attempt; start the next one")
        check_signature(self.key.public_bytes, signature, roster.head(context, attempt))
        return signature

    def sign_list(self, survivors: SurvivorList, signatures: Mapping[int, bytes]) -> bytes:
        """Signature over the one list of a circle, once a quorum of its active phones has signed it."""
        context = survivors.context
        place = (context.plan_digest, context.kind, context.round)
        roster, signature = self._latest(place, survivors.root)
        phones = len(roster.entries)
        seed = order_seed(roster.root, signature)
        circle = circles(seed, phones, self.terms.neighbours.degree)[survivors.group]
        survivors.require_sound(circle, self.terms, phones)
        data, needed = survivors.signed_bytes(), quorum(circle.size, phones, self.terms.neighbours.corrupt)
        keys = {position: roster.entries[member][:32] for position, member in enumerate(circle.members)}
        signers = sum(_fits(keys[p], given, data) for p, given in signatures.items() if survivors.active[p])
        if signers < needed:
            raise RoundError(f"{signers} phones signed the list, fewer than {needed}; nothing is revealed")
        if self._lists.setdefault((place, survivors.group), data) != data:
            raise RoundError("another list was signed for this sum; it is spent")
        return self.key.sign(survivors.signed_bytes(CERTIFICATE_DOMAIN))

    def _require_next(self, place: Sum, attempt: int, latest: int) -> None:
        if any(opened == place for opened, _ in self._lists):
            raise RoundError("a list of this sum was signed already; it is spent, whatever came of it")
        # Numbers may be left out: an attempt that no phone came to has no roster to sign.
        if not latest < attempt < ATTEMPTS:
            raise RoundError(f"attempt {attempt} is not the next of at most {ATTEMPTS}; skip this sum")

    def _latest(self, place: Sum, root: bytes) -> tuple[Roster, bytes]:
        signed = self._rosters.get(place, {})
        if not signed or signed[max(signed)][0].root != root:
            raise RoundError("a list belongs to another roster than the last one signed; start another attempt")
        return signed[max(signed)]


def _fits(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        check_signature(public, signature, data)
    except SignatureError:
        return False
    return True
