"""The server's side of one circle, from deals to the sum (spec 13.9.7).

Phones are positions. A phone whose message does not follow the contract is left out and named in `reports`; where too
few are left, RoundError ends the circle's round before anything is asked that could not be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from model.errors import ContractError, RoundError
from model.secagg.circle import Circle, Flags, pack, unpack
from model.secagg.complaints import uncover
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring, Units
from model.secagg.messages import (
    BOX,
    CHECKS,
    COMMITMENT,
    HASH,
    SIGNATURE,
    TAG,
    Agreement,
    Certificate,
    Deal,
    Delivery,
    Reveal,
    Survivors,
    Upload,
    Wire,
)
from model.secagg.pairwise_steps import slots
from model.secagg.shares import SHARE
from model.secagg.terms import SurvivorList, Terms
from model.secagg.unmasking import Secrets, settle
from model.secagg.witness import Witness

W = TypeVar("W", bound=Wire)


class CircleServer:
    """One circle, number `group`, of a roster of `phones` with the given root; `entries` by position."""

    def __init__(
        self,
        context: Context,
        terms: Terms,
        circle: Circle,
        group: int,
        root: bytes,
        phones: int,
        entries: Mapping[int, bytes],
    ) -> None:
        self.context, self.terms, self.circle, self.phones = context, terms, circle, phones
        self.group, self.root, self.entries = group, root, entries
        self.reports: dict[int, str] = {}
        self.deals: dict[int, Deal] = {}
        self.uploads: dict[int, Upload] = {}
        self.kept: dict[int, Flags] = {}
        self._near = (np.arange(circle.size)[:, None] + np.array(circle.offsets, np.intp)) % circle.size
        self._who_dealt = np.zeros(circle.size, np.bool_)
        self.list = self._list(())

    def deliver(self, deals: Mapping[int, bytes]) -> dict[int, bytes]:
        """Deals → Deliveries: to each who dealt, what its neighbours dealt to it."""
        degree = self.circle.degree
        for position, deal in self._parsed(deals, Deal):
            sound = (len(deal.boxes), len(deal.commitments)) == (degree * BOX, degree * COMMITMENT)
            if self._fits(position, sound and len(deal.seed_hash) == HASH, "its deal has cut parts"):
                self.deals[position] = deal
        self._who_dealt[list(self.deals)] = True
        self._require_left(len(self.deals))
        return {position: self._delivery(position).to_bytes() for position in self.deals}

    def survivors(self, uploads: Mapping[int, bytes]) -> dict[int, bytes]:
        """Uploads → Survivors: the one list, and each neighbour's word on whom it masked with."""
        for position, upload in self._parsed(uploads, Upload, Upload.cap(self.context.dim)):
            kept = self._flags(upload.kept)
            sound = len(upload.vector) == 4 * (self.context.dim + CHECKS) and len(upload.tags) == TAG * int(kept.sum())
            possible = position in self.deals and not (kept & ~self._dealt(position)).any()
            if self._fits(position, sound and possible, "its upload does not fit its deal"):
                self.uploads[position], self.kept[position] = upload, kept
        self.list = self._list(self.uploads.keys() - self._excluded())
        self.list.require_sound(self.circle, self.terms, self.phones)
        self._require_answers(slots(self.list.active))
        places = {position: _places(kept) for position, kept in self.kept.items()}
        return {position: self._listing(position, places).to_bytes() for position in slots(self.list.active)}

    def certify(self, agreements: Mapping[int, bytes], witness: Witness) -> dict[int, bytes]:
        """Agreements → Certificates: the witness's signature, and who else agreed."""
        signed: dict[int, Agreement] = {}
        for position, agreement in self._parsed(agreements, Agreement):
            told = int(self.list.active[self._near[position]].sum())
            sound = len(agreement.signature) == SIGNATURE and len(agreement.tags) == TAG * told
            if self._fits(position, sound and bool(self.list.active[position]), "its agreement has cut parts"):
                signed[position] = agreement
        self._require_answers(signed)
        signature = witness.sign_list(self.list, {position: a.signature for position, a in signed.items()})
        places = {position: _places(self.list.active[self._near[position]]) for position in signed}
        return {position: self._certificate(position, signature, signed, places).to_bytes() for position in signed}

    def unmask(self, reveals: Mapping[int, bytes]) -> Units:
        """Reveals → the sum of the active phones' units, (dim,) int64. RoundError if a secret cannot be had or the
        sum's checks do not count the phones: masks that do not cancel, as from differing models (case 40)."""
        secrets = Secrets(self.circle, self.deals, self.list.dead, self.terms.neighbours.threshold, self.reports)
        for position, reveal in self._parsed(reveals, Reveal):
            given = self._flags(reveal.given)
            if self._fits(position, len(reveal.shares) == SHARE * int(given.sum()), "its reveal has cut parts"):
                secrets.take(position, slots(given), reveal.shares)
        total: Ring = np.zeros(self.context.dim + CHECKS, np.uint32)
        for position in slots(self.list.active):
            total += np.frombuffer(self.uploads[position].vector, "<u4")
        return settle(total, self.list, self.circle, self.entries, self.kept, secrets)

    @property
    def active(self) -> list[int]:
        """Positions in the sum."""
        return slots(self.list.active)

    def _delivery(self, position: int) -> Delivery:
        last, near, present = self.circle.degree - 1, self._near[position].tolist(), self._dealt(position)
        boxes, promised = [], []
        for slot in slots(present):
            deal, back = self.deals[near[slot]], last - slot
            boxes.append(deal.boxes[back * BOX : (back + 1) * BOX])
            promised.append(deal.commitments[back * COMMITMENT : (back + 1) * COMMITMENT])
        return Delivery(pack(present), b"".join(boxes), b"".join(promised))

    def _listing(self, position: int, places: Mapping[int, list[int]]) -> Survivors:
        last, near = self.circle.degree - 1, self._near[position].tolist()
        rows = []
        for slot in slots(self.list.active[near]):
            upload, at = self.uploads[near[slot]], places[near[slot]][last - slot]
            rows += [upload.kept, upload.tags[at : at + TAG]]
        return Survivors(pack(self.list.active), pack(self.list.dead), b"".join(rows))

    def _certificate(
        self, position: int, signature: bytes, signed: Mapping[int, Agreement], places: Mapping[int, list[int]]
    ) -> Certificate:
        last, near = self.circle.degree - 1, self._near[position].tolist()
        present = np.array([n in signed for n in near], np.bool_)
        starts = [(near[slot], places[near[slot]][last - slot]) for slot in slots(present)]
        return Certificate(signature, pack(present), b"".join(signed[n].tags[at : at + TAG] for n, at in starts))

    def _excluded(self) -> set[int]:
        """Uploads left out so that everyone left masked with all active neighbours (case 38)."""
        pairs = set()
        for position, kept in self.kept.items():
            senders = self._near[position][self._dealt(position) & ~kept].tolist()
            pairs |= {(sender, position) for sender in senders if sender in self.uploads}
        excluded = uncover(pairs)
        self.reports |= dict.fromkeys(excluded, "boxes between it and neighbours did not open as committed; it is out")
        return excluded

    def _list(self, active: Iterable[int]) -> SurvivorList:
        flags = np.zeros(self.circle.size, np.bool_)
        flags[list(active)] = True
        return SurvivorList(self.context, self.root, self.group, flags, self._who_dealt & ~flags)

    def _require_answers(self, answering: Iterable[int]) -> None:
        """RoundError unless, for every phone whose secret is needed, enough hold a share and answer."""
        holders = np.zeros(self.circle.size, np.int64)
        for position in answering:
            holders[self._near[position][self.kept[position]]] += 1
        needed = self.list.active.copy()
        for position in slots(self.list.active):
            needed[self._near[position][self.kept[position]]] = True
        fewest = int(holders[needed].min(initial=self.circle.degree))
        if fewest < self.terms.neighbours.threshold:
            raise RoundError(f"a phone has {fewest} neighbours left, below the threshold; nothing is revealed")

    def _require_left(self, left: int) -> None:
        smallest = self.terms.smallest(self.circle, self.phones)
        if left < smallest:
            raise RoundError(f"{left} phones dealt, fewer than the {smallest} a sum needs; nothing is uploaded")

    def _fits(self, position: int, sound: bool, why: str) -> bool:
        if not sound:
            self.reports[position] = f"{why}; it is left out"
        return sound

    def _dealt(self, position: int) -> Flags:
        """(degree,) neighbours who dealt."""
        flags: Flags = self._who_dealt[self._near[position]]
        return flags

    def _flags(self, bits: bytes) -> Flags:
        """Slots of a message; none for a list that is not of this degree."""
        try:
            return unpack(bits, self.circle.degree)
        except ContractError:
            return np.zeros(self.circle.degree, np.bool_)

    def _parsed(self, inbox: Mapping[int, bytes], kind: type[W], cap: int | None = None) -> Iterator[tuple[int, W]]:
        """What of an inbox parses; senders of anything else are named."""
        for position, data in inbox.items():
            try:
                yield position, kind.from_bytes(data, cap)
            except ContractError as error:
                self.reports[position] = str(error)


def _places(flags: Flags) -> list[int]:
    """Where each slot's tag begins, among tags for the slots set in `flags`."""
    starts: list[int] = (TAG * (np.cumsum(flags) - 1)).tolist()
    return starts
