"""What a phone computes and checks in the steps of pairwise masking, without any state (spec 13.9.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from model.contract.record import require
from model.errors import RoundError
from model.secagg.circle import Flags, unpack
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring, Units, to_ring
from model.secagg.masks import mask_sum
from model.secagg.messages import BOX, CHECKS, COMMITMENT, KEY, TAG, Certificate, Delivery, blocks
from model.secagg.pairs import Channel, commitment, mask_seed
from model.secagg.roster import Standing
from model.secagg.shares import SHARE

KEPT, LIST = b"kept\0", b"list\0"
Slots = list[int]


def slots(flags: Flags) -> Slots:
    """The slots or positions that are set."""
    return np.flatnonzero(flags).tolist()


def wide(context: Context) -> Context:
    """The context of a vector with its CHECKS: numbers at the end that are 1 for each phone, so that a sum whose masks
    do not cancel shows it, but with probability 2^-64."""
    return replace(context, dim=context.dim + CHECKS)


def open_boxes(delivery: Delivery, channels: Sequence[Channel]) -> tuple[Flags, bytes]:
    """(degree,) slots whose box opens to what was committed to; and both shares of every slot, zeros elsewhere."""
    present = unpack(delivery.present, len(channels))
    near = slots(present)
    boxes, promised = blocks(delivery.boxes, BOX, len(near)), blocks(delivery.commitments, COMMITMENT, len(near))
    held = [bytes(2 * SHARE)] * len(channels)
    for slot, box, promise in zip(near, boxes, promised, strict=True):
        both = channels[slot].open(box)
        if both is None or commitment(both[0]) + commitment(both[1]) != promise:
            present[slot] = False
        else:
            held[slot] = both[0] + both[1]
    return present, b"".join(held)


def masked(units: Units, seed: bytes, mask_key: bytes, standing: Standing, kept: Flags, context: Context) -> Ring:
    """`units` (dim,) and the checks, plus the own mask, plus the masks shared with later neighbours, minus earlier."""
    require(units.shape == (context.dim,), f"a vector of shape {units.shape} is not the task's ({context.dim},)")
    private = X25519PrivateKey.from_private_bytes(mask_key)
    own = private.public_key().public_bytes_raw()
    plus, minus = [seed], list[bytes]()
    near = standing.circle.neighbours(standing.position)
    for slot in slots(kept):
        pair = mask_seed(private, own, standing.entries[slot][2 * KEY :], standing.root)
        (plus if standing.position < near[slot] else minus).append(pair)
    vector = to_ring(np.concatenate([units, np.ones(CHECKS, np.int64)]))
    vector += mask_sum(plus, wide(context))
    vector -= mask_sum(minus, wide(context))
    return vector


def require_mine(active: Flags, dead: Flags, kept: Flags, threshold: int) -> None:
    """RoundError unless the list, seen at this phone's slots, has `threshold` of its neighbours active, all of whom it
    masked with, and leaves nobody it masked with in between."""
    if int(active.sum()) < threshold:
        raise RoundError(f"only {active.sum()} neighbours are active, fewer than {threshold}; nothing is revealed")
    if (active & ~kept).any():
        raise RoundError("a list calls a phone active that this phone did not mask with; nothing is revealed")
    if (kept & ~active & ~dead).any():
        raise RoundError("a list leaves out a phone that this phone masked with; nothing is revealed")


def stated(active: Flags, standing: Standing, channels: Sequence[Channel], statements: bytes) -> Flags:
    """(degree,) active neighbours who are shown, under their tags, to have masked with all *their* active neighbours.

    The others' seeds stay closed: one whose masks all lead to the dead or the corrupt would stand naked without it.
    """
    circle, degree = standing.circle, len(channels)
    near = np.array(circle.neighbours(standing.position), np.intp)
    told = slots(active[near])
    width = -(-degree // 8)
    rows = blocks(statements, width + TAG, len(told))
    kept = np.unpackbits(np.frombuffer(b"".join(row[:width] for row in rows), np.uint8).reshape(-1, width), axis=1,
                         count=degree, bitorder="little").astype(np.bool_)  # fmt: skip
    theirs = active[(near[told][:, None] + np.array(circle.offsets, np.intp)) % circle.size]
    whole: list[bool] = np.logical_and.reduce(kept | ~theirs, axis=1).tolist()
    trusted = np.zeros(degree, np.bool_)
    for slot, row, fine in zip(told, rows, whole, strict=True):
        sender = standing.entries[slot][:KEY]
        trusted[slot] = fine and channels[slot].says(row[width:], KEPT, sender, row[:width])
    return trusted


def agreeing(message: Certificate, active: Flags, standing: Standing, channels: Sequence[Channel], data: bytes) -> int:
    """Active neighbours whose tag shows that they signed `data`, the bytes of this phone's own list."""
    present = unpack(message.present, len(channels))
    told = slots(present)
    tags = blocks(message.tags, TAG, len(told))
    pairs = [(slot, tag) for slot, tag in zip(told, tags, strict=True) if active[slot]]
    return sum(channels[slot].says(tag, LIST, standing.entries[slot][:KEY], data) for slot, tag in pairs)


def tags(flags: Flags, channels: Sequence[Channel], word: bytes, sender: bytes, data: bytes) -> bytes:
    """One tag over `data` for each slot that is set."""
    return b"".join(channels[slot].tag(word, sender, data) for slot in slots(flags))
