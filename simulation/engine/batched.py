"""Many phones at once in torch: the same numbers as the phone loop, in segments instead of objects (spec 7.8).

Additive: with the rows' preconditioned inputs phi' = [1 | phi] P kept between rounds, a step is one product, one
sigmoid and one segment sum. MLP: `vmap` of the gradient over phones padded to equal length. Clip and encode are
`fl_client.update.encode_rows`, so nothing about privacy is written twice.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from fl_client.answers import knots_of
from fl_client.phones import Task, segments
from fl_client.training import Learner, batch_weights
from fl_client.update import encode_rows
from simulation.engine.protocol import Crowd, Trained

PHONES_A_CHUNK = 1024
MLP_PHONES_A_CHUNK = 256
CACHE_BYTES = 1 << 30


class BatchedEngine:
    """Chunks of phones, longest together, one vector of integer sums."""

    name = "batched"

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Sum of encoded updates; see `Engine.train`."""
        learner = Learner.of(task.plan, knots_of(task))
        local, scale = task.plan.local, task.plan.privacy.grid_scale
        total = np.zeros(len(task.flat), dtype=np.int64)
        norms = np.zeros(crowd.phones)
        shape = (min(sample, crowd.phones), len(task.flat))
        raw, units = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        for phones in _chunks(crowd, learner):
            deltas = _deltas(crowd, task, learner, phones).astype(np.float64)
            encoded = encode_rows(deltas, local.clip_norm, scale)
            total += encoded.sum(axis=0)
            norms[phones] = np.sqrt(np.einsum("ij,ij->i", deltas, deltas))
            kept = phones < sample
            raw[phones[kept]], units[phones[kept]] = deltas[kept], encoded[kept]
        return Trained(total, norms, raw, units)


def _chunks(crowd: Crowd, learner: Learner) -> list[NDArray[np.int64]]:
    """Labelled phones in chunks. Unlabelled ones add zeros, so nothing is computed for them."""
    counts = np.diff(crowd.offsets)
    labelled = np.flatnonzero(counts > 0)
    size = PHONES_A_CHUNK
    if learner.network.hidden:
        labelled, size = labelled[np.argsort(counts[labelled], kind="stable")], MLP_PHONES_A_CHUNK
    return [labelled[at : at + size] for at in range(0, len(labelled), size)]


def _deltas(crowd: Crowd, task: Task, learner: Learner, phones: NDArray[np.int64]) -> NDArray[np.float32]:
    """The raw updates (len(phones), d) of labelled phones."""
    rows, offsets = segments(crowd.offsets, phones)
    inputs = _inputs(crowd, learner, rows)
    y = torch.from_numpy(np.ascontiguousarray(crowd.y[rows]))
    weights = [
        torch.from_numpy(
            batch_weights(crowd.ids[phones], offsets, task.plan.seed, task.round, step, task.plan.local.batch_size)
        )
        for step in range(task.plan.local.local_steps)
    ]
    run = _mlp if learner.network.hidden else _additive
    deltas: NDArray[np.float32] = run(learner, task.flat, inputs, y, torch.from_numpy(offsets), weights).numpy()
    return deltas


def _inputs(crowd: Crowd, learner: Learner, rows: NDArray[np.int64]) -> Tensor:
    """Fixed inputs of the rows; kept for the whole crowd between rounds while they fit `CACHE_BYTES`."""
    width = learner.network.width + (not learner.network.hidden)
    if len(crowd.y) * width * 4 > CACHE_BYTES:
        return _prepare(learner, crowd.x[rows])
    key = f"{learner.network.knots.digest}/{learner.network.hidden}"
    if key not in crowd.cache:
        crowd.cache.clear()
        parts = [_prepare(learner, crowd.x[at : at + 8192]) for at in range(0, len(crowd.y), 8192)]
        crowd.cache[key] = torch.cat(parts) if parts else torch.zeros((0, width))
    kept: Tensor = crowd.cache[key]
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return kept[int(rows[0]) : int(rows[-1]) + 1]
    return kept[torch.from_numpy(rows)]


def _prepare(learner: Learner, x: NDArray[np.float32]) -> Tensor:
    inputs = learner.inputs(np.asarray(x))
    if learner.network.hidden:
        return torch.from_numpy(inputs)
    widened = np.concatenate([np.ones((len(inputs), 1), dtype=np.float32), inputs], axis=1)
    # z = [1 | phi] P v, so each row is pulled back once instead of the model being pushed forward every step.
    return torch.from_numpy(learner.precondition.pull_back(widened))


def _additive(
    learner: Learner, flat: NDArray[np.float32], inputs: Tensor, y: Tensor, offsets: Tensor, weights: list[Tensor]
) -> Tensor:
    """Deltas (P, d) by E steps; `deltas` is kept apart from the sent model, so no digits cancel."""
    local, phones = learner.plan.local, len(offsets) - 1
    sent = inputs @ torch.from_numpy(flat)
    deltas = torch.zeros((phones, len(flat)))
    owner = torch.repeat_interleave(torch.arange(phones), offsets.diff())
    for step, weight in enumerate(weights):
        logits = sent if step == 0 else sent + (inputs * deltas[owner]).sum(dim=1)
        error = (torch.sigmoid(logits) - y) * weight
        slope = _segment_sums(error, inputs, offsets)
        if local.prox:
            slope = slope + local.prox * deltas
        deltas = deltas - local.learning_rate * slope
    return deltas


def _segment_sums(values: Tensor, inputs: Tensor, offsets: Tensor) -> Tensor:
    """Row i: Σ values_r · inputs_r over the rows r of phone i, (P, d)."""
    if len(values) == len(offsets) - 1:
        return values[:, None] * inputs
    picked = torch.sparse_csr_tensor(
        offsets, torch.arange(len(values)), values, (len(offsets) - 1, len(values)), check_invariants=False
    )
    return picked @ inputs


def _mlp(
    learner: Learner, flat: NDArray[np.float32], inputs: Tensor, y: Tensor, offsets: Tensor, weights: list[Tensor]
) -> Tensor:
    """Deltas (P, d) by E steps of per-phone gradients over rows padded with weight 0."""
    local, counts = learner.plan.local, offsets.diff()
    longest = int(counts.max())
    place = offsets[:-1, None] + torch.arange(longest)
    real = torch.arange(longest) < counts[:, None]
    place = torch.where(real, place, 0)
    start = torch.from_numpy(flat).clone()
    deltas = torch.zeros((len(counts), len(flat)))

    def loss(delta: Tensor, rows: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        logits = learner.network.logits(start + delta, rows)
        return functional.binary_cross_entropy_with_logits(logits, labels, weight=weight, reduction="sum")

    slopes = vmap(grad(loss))
    for weight in weights:
        slope = slopes(deltas, inputs[place], y[place], weight[place] * real)
        if local.prox:
            slope = slope + local.prox * deltas
        deltas = deltas - local.learning_rate * slope
    return deltas
