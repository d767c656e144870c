"""Bytes that one phone sends for a sum of mode pairwise, by message type (spec 13.15.2)."""

from __future__ import annotations

from model.contract.pairing import PAIRING_SCHEMA, PairingMessage
from model.contract.plan import TrainingPlan
from model.secagg.circle import degree_of, sizes
from model.secagg.messages import (
    BOX,
    CHECKS,
    COMMITMENT,
    HASH,
    KEY,
    SIGNATURE,
    TAG,
    Advert,
    Agreement,
    Deal,
    Reveal,
    Upload,
)
from model.secagg.shares import SHARE


def pairing_bytes(plan: TrainingPlan, kind: str, round_: int, size: int, phones: int) -> dict[str, int]:
    """Type → bytes, for a sum of `size` numbers over `phones` phones of whom none is lost."""
    degree = degree_of(min(sizes(phones)), plan.privacy.neighbours.degree)
    bits = bytes(-(-degree // 8))
    bodies = {
        "advertise": Advert(bytes(KEY), bytes(KEY), bytes(KEY), bytes(SIGNATURE)),
        "share": Deal(bytes(degree * BOX), bytes(degree * COMMITMENT), bytes(HASH)),
        "upload": Upload(bytes(4 * (size + CHECKS)), bits, bytes(degree * TAG)),
        "agree": Agreement(bytes(SIGNATURE), bytes(degree * TAG)),
        "unmask": Reveal(bits, bytes(degree * SHARE)),
    }
    found = {}
    for step, body in bodies.items():
        told = PairingMessage(PAIRING_SCHEMA, plan.digest, round_, kind, 0, step, body.to_bytes())
        found[f"pairing-{step}/1"] = len(told.to_bytes())
    return found
