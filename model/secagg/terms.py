"""What the signed plan fixes for pairwise masking, and the rule every survivor list must meet (spec 13.9.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from model.canonical import encode
from model.contract.envelope import signing_input
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.contract.record import Record, require
from model.errors import RoundError
from model.secagg.circle import Circle, Flags, pack
from model.secagg.context import Context
from model.secagg.graph import most_corrupt, window_floor

LIST_DOMAIN, CERTIFICATE_DOMAIN = "survivors/1", "certificate/1"
ATTEMPTS = 8  # each shuffles anew: a server that gives up seven orders gains three bits against the graph's bound


@lru_cache(maxsize=64)
def bound(context: Context) -> bytes:
    """The context's bytes, encoded once: everything signed or derived in a round begins with them."""
    return context.bytes()


@dataclass(frozen=True)
class Terms(Record):
    """The graph, the smallest sum that may be opened, `honest` phones whose noise must suffice, the witness's key."""

    neighbours: Neighbours
    min_cohort: int
    honest: int
    witness: bytes

    def check(self) -> None:
        """ContractError for numbers out of their range."""
        require(self.min_cohort >= 1 and self.honest >= 1, "a cohort has at least one phone, honest; set both again")
        require(len(self.witness) == 32, "the witness's key is 32 bytes; take it from the plan's signers")

    @classmethod
    def of(cls, plan: TrainingPlan, witness: bytes) -> Self:
        """The terms of a plan in mode pairwise whose reviewer has the public key `witness`."""
        return cls(plan.privacy.neighbours, plan.min_cohort, plan.privacy.honest, witness)

    def smallest(self, circle: Circle, phones: int) -> int:
        """Survivors below which a list is refused: the minimum cohort, and enough that `honest` are honest."""
        return max(self.min_cohort, self.honest + most_corrupt(circle.size, phones, self.neighbours.corrupt))


@dataclass(frozen=True)
class SurvivorList:
    """Who of circle `group` of a roster is added up (`active`) and who dealt but is not (`dead`), (size,) bool each."""

    context: Context
    root: bytes
    group: int
    active: Flags
    dead: Flags

    def signed_bytes(self, domain: str = LIST_DOMAIN) -> bytes:
        """What phones sign, and under another domain the witness."""
        bits = {"active": pack(self.active), "dead": pack(self.dead)}
        return signing_input(domain, bound(self.context) + encode({"root": self.root, "group": self.group, **bits}))

    def require_sound(self, circle: Circle, terms: Terms, phones: int) -> None:
        """RoundError for a list that asks for both kinds of share, is too short, or could leave honest phones apart."""
        if (self.active & self.dead).any():
            raise RoundError(
                "a list calls one phone active and dead, for both kinds of its shares; nothing is revealed"
            )
        left, smallest = int(self.active.sum()), terms.smallest(circle, phones)
        if left < smallest:
            raise RoundError(f"{left} phones are left, fewer than the {smallest} a sum needs; nothing is revealed")
        if not circle.complete and circle.windows(self.active) < window_floor(phones, terms.neighbours):
            raise RoundError("too many phones in a row are lost for the rest to stay connected; nothing is revealed")
