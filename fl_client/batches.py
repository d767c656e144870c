"""Which rows a local step looks at, from a counter hash alone (spec 7.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import mix
from model.contract.plan import LocalTraining


def steps_of(local: LocalTraining, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Local steps of phones with `counts` (P,) rows: the plan's, or whole passes over a phone's own batches; (P,)."""
    if local.local_steps:
        return np.full(len(counts), local.local_steps, dtype=np.int64)
    batches = -(-counts // local.batch_size) if local.batch_size else np.ones_like(counts)
    return np.asarray(local.local_epochs * batches, dtype=np.int64)


def batch_weights(
    ids: NDArray[np.uint64], offsets: NDArray[np.int64], seed: int, round_: int, step: int, batch_size: int
) -> NDArray[np.float32]:
    """Weight of each row in local step `step`, (R,) float32: 1/(rows in the batch) inside it, 0 outside.

    Written over segments of many phones; a phone alone is the case P = 1. `batch_size` 0 is all rows. Shuffles come
    from a counter hash of (seed, phone, round, epoch, row), so every engine and every retry walks the same batches.
    """
    counts = np.diff(offsets)
    owner = np.repeat(np.arange(len(ids)), counts)
    if batch_size == 0:
        return (1.0 / counts[owner]).astype(np.float32)
    batches = np.maximum(-(-counts // batch_size), 1)
    epoch, turn = step // batches, step % batches
    position = np.arange(len(owner)) - offsets[:-1][owner]
    order = np.lexsort((mix(ids[owner], seed, round_, epoch[owner], position), owner))
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = position
    inside = rank // batch_size == turn[owner]
    size = np.minimum(batch_size, counts - turn * batch_size)
    return np.where(inside, 1.0 / size[owner], 0.0).astype(np.float32)
