"""From revealed shares to the sum: each secret checked, masks taken off, the count verified (spec 13.9.7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from model.errors import RoundError
from model.secagg.circle import Circle, Flags
from model.secagg.fixedpoint import Ring, Units, from_ring
from model.secagg.masks import mask_sum
from model.secagg.messages import CHECKS, COMMITMENT, KEY, Deal
from model.secagg.pairs import commitment, mask_seed, seed_hash
from model.secagg.pairwise_steps import slots, wide
from model.secagg.shares import SHARE, combine
from model.secagg.terms import SurvivorList


class Secrets:
    """Shares as they come in: of the mask keys of the `dead`, of the seeds of the others; each used by its commitment.

    Who revealed a share that was not dealt to it is named in `reports` (case 39).
    """

    def __init__(
        self, circle: Circle, deals: Mapping[int, Deal], dead: Flags, threshold: int, reports: dict[int, str]
    ) -> None:
        self.circle, self.deals, self.dead, self.threshold, self.reports = circle, deals, dead, threshold, reports
        self._shares: dict[int, dict[int, bytes]] = defaultdict(dict)

    def take(self, holder: int, given: list[int], shares: bytes) -> None:
        """Sort in one phone's shares for the slots `given`."""
        near, degree = self.circle.neighbours(holder), self.circle.degree
        for i, slot in enumerate(given):
            self._shares[near[slot]][degree - slot] = shares[i * SHARE : (i + 1) * SHARE]

    def _combined(self, dealer: int) -> bytes:
        """The secret of the lowest places whose shares fit their commitments."""
        half, good = COMMITMENT // 2, dict[int, bytes]()
        promised, key = self.deals[dealer].commitments, half * bool(self.dead[dealer])
        for place, share in sorted(self._shares[dealer].items()):
            at = (place - 1) * COMMITMENT + key
            if commitment(share) == promised[at : at + half]:
                good[place] = share
            else:
                holder = self.circle.neighbours(dealer)[place - 1]
                self.reports[holder] = "it revealed a share that was not dealt to it; the share is not used"
            if len(good) == self.threshold:
                break
        return combine(good, self.threshold)

    def seed(self, position: int) -> bytes:
        """An active phone's seed; RoundError if too few shares came or they are not of its seed."""
        secret = self._combined(position)
        if seed_hash(secret) != self.deals[position].seed_hash:
            raise RoundError(
                f"phone {position} of the circle dealt shares of something else than its seed; start again"
            )
        return secret

    def mask_key(self, position: int, public: bytes) -> X25519PrivateKey:
        """A dead phone's mask key; RoundError if too few shares came or they are not of its key."""
        private = X25519PrivateKey.from_private_bytes(self._combined(position))
        if private.public_key().public_bytes_raw() != public:
            raise RoundError(f"phone {position} of the circle dealt shares of something else than its key; start again")
        return private


def settle(
    total: Ring,
    survivors: SurvivorList,
    circle: Circle,
    entries: Mapping[int, bytes],
    kept: Mapping[int, Flags],
    secrets: Secrets,
) -> Units:
    """The active phones' sum (dim,) int64 from the `total` of their vectors; RoundError as `CircleServer.unmask`."""
    context, active = wide(survivors.context), slots(survivors.active)
    total -= mask_sum((secrets.seed(position) for position in active), context)
    plus, minus = list[bytes](), list[bytes]()
    for dead in slots(survivors.dead):
        near, last = circle.neighbours(dead), circle.degree - 1
        others = [n for slot, n in enumerate(near) if survivors.active[n] and kept[n][last - slot]]
        if not others:
            continue
        public = entries[dead][2 * KEY :]
        private = secrets.mask_key(dead, public)
        for other in others:
            seed = mask_seed(private, public, entries[other][2 * KEY :], survivors.root)
            (plus if other < dead else minus).append(seed)
    total -= mask_sum(plus, context)
    total += mask_sum(minus, context)
    units = from_ring(total)
    if (units[-CHECKS:] != len(active)).any():
        raise RoundError("the masks did not cancel: some phones saw another task or model; nothing is released")
    return units[:-CHECKS]
