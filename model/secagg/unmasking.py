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
    """Shares as they come in: of the mask keys of the `dead`, of the seeds of the others; each by its commitment."""

    def __init__(self, circle: Circle, deals: Mapping[int, Deal], dead: Flags, threshold: int) -> None:
        self.circle, self.deals, self.dead, self.threshold = circle, deals, dead, threshold
        self._shares: dict[int, dict[int, bytes]] = defaultdict(dict)

    def take(self, holder: int, given: list[int], shares: bytes) -> dict[int, str]:
        """Sort in one phone's shares for the slots `given`; a report on it if one is not what was dealt (case 39)."""
        near, half, report = self.circle.neighbours(holder), COMMITMENT // 2, {}
        for i, slot in enumerate(given):
            dealer, back = near[slot], self.circle.degree - 1 - slot
            known, share = self._shares[dealer], shares[i * SHARE : (i + 1) * SHARE]
            if dealer not in self.deals or len(known) >= self.threshold:
                continue
            at = back * COMMITMENT + half * bool(self.dead[dealer])
            if commitment(share) == self.deals[dealer].commitments[at : at + half]:
                known[back + 1] = share
            else:
                report[holder] = "it revealed a share that was not dealt to it; the share is not used"
        return report

    def seed(self, position: int) -> bytes:
        """An active phone's seed; RoundError if too few shares came or they are not of its seed."""
        secret = combine(self._shares[position], self.threshold)
        if seed_hash(secret) != self.deals[position].seed_hash:
            raise RoundError(
                f"phone {position} of the circle dealt shares of something else than its seed; start again"
            )
        return secret

    def mask_key(self, position: int, public: bytes) -> X25519PrivateKey:
        """A dead phone's mask key; RoundError if too few shares came or they are not of its key."""
        private = X25519PrivateKey.from_private_bytes(combine(self._shares[position], self.threshold))
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
