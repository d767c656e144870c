"""A phone in pairwise masking: five steps over bytes, each once and in order (spec 13.9.6).

`advertise → share → upload → agree → unmask`. A step that refuses ends the attempt for this phone: RoundError,
ContractError or SignatureError with the reason, and no answer to anything after, so that a server cannot try twice.
Sources: Bonawitz et al., CCS 2017 (double masking; never both kinds of share of one phone), Bell et al., CCS 2020
(neighbours only). Beyond them, a phone reveals a survivor's seed only if that survivor is shown to have masked with all
its surviving neighbours, and the one list is the whole circle's, so that every phone sees whether it stays connected.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from model.contract.envelope import SigningKey
from model.errors import RoundError
from model.privacy.noise import ByteSource, OsSource
from model.secagg.circle import Flags, pack, unpack
from model.secagg.context import Context
from model.secagg.fixedpoint import Units
from model.secagg.messages import (
    Agreement,
    Certificate,
    Deal,
    Delivery,
    Place,
    Reveal,
    Survivors,
    Upload,
    blocks,
)
from model.secagg.pairs import KEYS, Channel, channel, commitment, seed_hash
from model.secagg.pairwise_steps import KEPT, LIST, agreeing, masked, open_boxes, require_mine, slots, stated, tags
from model.secagg.phone_state import OVER, PhoneState
from model.secagg.roster import Standing, check_signature, find_place, signed_advert
from model.secagg.shares import SHARE, deal
from model.secagg.terms import CERTIFICATE_DOMAIN, SurvivorList, Terms, bound


class PairwisePhone:
    """One phone in one attempt at one sum. `source` gives its secrets: the operating system's, outside of tests.

    `phone.state.to_bytes()` keeps it between messages, and `PhoneState.from_bytes` handed in as `state` goes on.
    """

    def __init__(
        self,
        identity: SigningKey,
        context: Context,
        terms: Terms,
        attempt: int = 0,
        source: ByteSource | None = None,
        state: PhoneState | None = None,
    ) -> None:
        self.identity, self.context, self.terms, self.attempt = identity, context, terms, attempt
        self.source = source or OsSource()
        self.state = state or PhoneState("advertise", *(self.source.take(32) for _ in range(3)))

    def advertise(self) -> bytes:
        """Advert: identity and two fresh X25519 keys under its signature."""
        self._enter("advertise")
        advert = signed_advert(self.identity, self.context, self.attempt, *self._publics)
        return self._leave("share", advert.to_bytes())

    def share(self, data: bytes) -> bytes:
        """Place → Deal: its place is checked, then its seed and mask key are dealt to its neighbours."""
        self._enter("share")
        self.state.place = data
        attempt, own = bound(self.context) + self.standing.root, self._publics[0]
        private = X25519PrivateKey.from_private_bytes(self.state.channel_key)
        found = [channel(private, own, entry[32:64], attempt) for entry in self.standing.entries]
        shares = deal((self.state.seed, self.state.mask_key), self.threshold, len(found), self.source)
        boxes = b"".join(pair.seal(both) for pair, both in zip(found, shares, strict=True))
        promised = b"".join(commitment(one) for both in shares for one in both)
        self.state.channels = b"".join(pair.to_bytes() for pair in found)
        return self._leave("upload", Deal(boxes, promised, seed_hash(self.state.seed)).to_bytes())

    def upload(self, data: bytes, units: Units) -> bytes:
        """Delivery → Upload: `units` (dim,) int64, already noised, under its own mask and its neighbours'.

        Neighbours whose box does not open, or holds other shares than committed to, are left out (cases 38, 39).
        """
        self._enter("upload")
        kept, shares = open_boxes(Delivery.from_bytes(data), self.channels)
        if kept.sum() < self.threshold:
            raise RoundError(f"only {kept.sum()} neighbours dealt shares that open; nothing is uploaded")
        vector = masked(units, self.state.seed, self.state.mask_key, self.standing, kept, self.context)
        bits, me = pack(kept), self.identity.public_bytes
        self.state.kept, self.state.shares = bits, shares
        answer = Upload(vector.astype("<u4").tobytes(), bits, tags(kept, self.channels, KEPT, me, bits))
        return self._leave("agree", answer.to_bytes())

    def agree(self, data: bytes) -> bytes:
        """Survivors → Agreement: the one list is checked, signed, and told to each active neighbour."""
        self._enter("agree")
        message = Survivors.from_bytes(data)
        self.state.active, self.state.dead = message.active, message.dead
        survivors, standing = self.survivors, self.standing
        survivors.require_sound(standing.circle, self.terms, standing.phones)
        if not survivors.active[standing.position]:
            raise RoundError("the list lacks this phone, which uploaded; nothing is revealed")
        active, dead = survivors.active[self.near], survivors.dead[self.near]
        require_mine(active, dead, self.kept, self.threshold)
        self.state.trusted = pack(stated(survivors.active, standing, self.channels, message.statements))
        signed, me = survivors.signed_bytes(), self.identity.public_bytes
        answer = Agreement(self.identity.sign(signed), tags(active, self.channels, LIST, me, signed))
        return self._leave("unmask", answer.to_bytes())

    def unmask(self, data: bytes) -> bytes:
        """Certificate → Reveal: a seed's share of each active neighbour, a mask key's of each dead one.

        SignatureError unless the witness signed this phone's very list; RoundError if fewer than `threshold` active
        neighbours prove that they signed it too (case 36).
        """
        self._enter("unmask")
        message, survivors = Certificate.from_bytes(data), self.survivors
        check_signature(self.terms.witness, message.signature, survivors.signed_bytes(CERTIFICATE_DOMAIN))
        active, dead = survivors.active[self.near], survivors.dead[self.near]
        agreed = agreeing(message, active, self.standing, self.channels, survivors.signed_bytes())
        if agreed < self.threshold:
            raise RoundError(f"only {agreed} neighbours signed this phone's list; nothing is revealed")
        given = self.kept & ((active & unpack(self.state.trusted, self.near.size)) | dead)
        held = blocks(self.state.shares, 2 * SHARE, self.near.size)
        shares = b"".join(held[s][SHARE:] if dead[s] else held[s][:SHARE] for s in slots(given))
        self.state = PhoneState(OVER)
        return Reveal(pack(given), shares).to_bytes()

    @cached_property
    def standing(self) -> Standing:
        """Its place, checked."""
        own = self.identity.public_bytes + b"".join(self._publics)
        return find_place(Place.from_bytes(self.state.place), own, self.context, self.attempt, self.terms)

    @cached_property
    def near(self) -> npt.NDArray[np.intp]:
        """Its neighbours' positions, (degree,)."""
        return np.array(self.standing.circle.neighbours(self.standing.position), np.intp)

    @cached_property
    def channels(self) -> list[Channel]:
        """Its channels, slot by slot."""
        return [Channel.from_bytes(keys) for keys in blocks(self.state.channels, KEYS, self.near.size)]

    @property
    def kept(self) -> Flags:
        """Slots it masked with, (degree,) bool."""
        return unpack(self.state.kept, self.near.size)

    @property
    def survivors(self) -> SurvivorList:
        """The list it was given."""
        size = self.standing.circle.size
        lists = unpack(self.state.active, size), unpack(self.state.dead, size)
        return SurvivorList(self.context, self.standing.root, self.standing.group, *lists)

    @property
    def threshold(self) -> int:
        """Neighbours who must answer."""
        return self.terms.neighbours.threshold

    @cached_property
    def _publics(self) -> tuple[bytes, bytes]:
        keys = (X25519PrivateKey.from_private_bytes(key) for key in (self.state.channel_key, self.state.mask_key))
        channel_public, mask_public = (key.public_key().public_bytes_raw() for key in keys)
        return channel_public, mask_public

    def _enter(self, step: str) -> None:
        expected = self.state.step
        self.state.step = OVER
        if expected != step:
            raise RoundError(f"a phone was asked to {step} when its next step is {expected}; it does none twice")

    def _leave(self, following: str, answer: bytes) -> bytes:
        self.state.step = following
        return answer
