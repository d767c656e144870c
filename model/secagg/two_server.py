"""Two servers that do not collude, in their own verbs (spec 13.4): Prio's split of a sum, one message a phone.

A phone sends its vector under a mask and the mask's seed sealed to the helper. The coordinator adds vectors and
learns nothing from them; the helper adds masks and sees no vector. What the coordinator subtracts carries the helper's
noise; what leaves the coordinator carries its own as well. So the noise of either holds against the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.canonical import sha256_hex
from model.contract.masked import SEED_BYTES
from model.contract.sealed import RecipientKey, open_sealed, seal
from model.errors import ContractError, UpdateError
from model.privacy.noise import ByteSource, OsSource, discrete_gaussian
from model.secagg.context import Context
from model.secagg.fixedpoint import Ring, Units, from_ring, to_ring
from model.secagg.masks import SEED, mask_sum


@dataclass(frozen=True)
class Shielded:
    """What leaves: `vector` (d,) uint32, uniform to whoever lacks the seeds, and the sealed seeds, SEED_BYTES each."""

    vector: Ring
    seed: bytes


class Unopened(UpdateError):
    """Sealed seeds that do not open; `messages` are their ids."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__(
            f"{len(messages)} sealed seeds do not open for this sum, the first {messages[0]}; leave them out"
        )
        self.messages = messages


def shield(units: Units, helper_public: bytes, context: Context, entropy: ByteSource) -> Shielded:
    """Phone: `units` (d,) int64 under a fresh mask, and its seed sealed to the helper for this context alone."""
    return shield_sum(units, 1, helper_public, context, entropy)


def shield_sum(units: Units, phones: int, helper_public: bytes, context: Context, entropy: ByteSource) -> Shielded:
    """Farm: the sum (d,) of `phones` phones under the sum of their masks, with the seed of each.

    Adding up units and masks apart is adding up what each phone would have sent. UpdateError where `units` is not
    one int64 vector of the context's length; ContractError for an unusable public key.
    """
    if units.shape != (context.dim,):
        raise UpdateError(f"a vector of shape {units.shape} cannot be masked as {context.dim} numbers; check the task")
    seeds = [entropy.take(SEED) for _ in range(phones)]
    info = context.info()
    sealed = b"".join(seal(seed, helper_public, info) for seed in seeds)
    return Shielded(to_ring(units) + mask_sum(seeds, context), sealed)


def message_id(seed: bytes) -> str:
    """Name of a phone's message: SHA-256 (hex) of its sealed seed."""
    return sha256_hex(seed)


def add(vectors: Iterable[Ring], dim: int) -> Ring:
    """Coordinator: the sum modulo 2³², (dim,) uint32."""
    total = np.zeros(dim, dtype=np.uint32)
    for vector in vectors:
        total += vector
    return total


def open_seeds(seeds: Sequence[bytes], key: RecipientKey, context: Context) -> Ring:
    """Helper: open each sealed seed once and add their masks, (d,) uint32.

    UpdateError where a message comes twice; `Unopened`, naming all that do not open, where one was sealed for another
    model, round, plan or key.
    """
    if len(set(seeds)) != len(seeds):
        raise UpdateError("a batch names one message twice; ask with each message once")
    info = context.info()
    opened, odd = list[bytes](), list[str]()
    for seed in seeds:
        try:
            opened.append(_open(seed, key, info))
        except ContractError:  # one phone's bad seed must not cost the others their round
            odd.append(message_id(seed))
    if odd:
        raise Unopened(tuple(odd))
    return mask_sum(opened, context)


def share_of(masks: Ring, noise: Units) -> Ring:
    """Helper: its share, the masks' sum under its own noise, both (d,)."""
    return masks + to_ring(noise)


def unshield(vector: Ring, share: Ring) -> Units:
    """Coordinator: masked sum − share, lifted: the sum of updates minus the helper's noise, (d,) int64."""
    if vector.shape != share.shape:
        raise UpdateError(f"a share of {share.size} numbers does not fit a sum of {vector.size}; ask the helper again")
    return from_ring(vector - share)


def run_round(
    updates: Sequence[Units],
    helper_key: RecipientKey,
    context: Context,
    sigma: float,
    noise_c: ByteSource,
    noise_h: ByteSource,
    entropy: ByteSource | None = None,
) -> Units:
    """One round in full: the sum of `updates` (each (d,) int64) plus both servers' noise of `sigma` grid units."""
    source = entropy or OsSource()
    messages = [shield(update, helper_key.public_bytes, context, source) for update in updates]
    masks = open_seeds([message.seed for message in messages], helper_key, context)
    share = share_of(masks, discrete_gaussian(sigma, context.dim, noise_h))
    seen = unshield(add([message.vector for message in messages], context.dim), share)
    return seen + discrete_gaussian(sigma, context.dim, noise_c)


def _open(seed: bytes, key: RecipientKey, info: dict[str, str]) -> bytes:
    if len(seed) != SEED_BYTES:
        raise ContractError(f"a sealed seed is {SEED_BYTES} bytes, not {len(seed)}; send it again")
    return open_sealed(seed, key, info)
