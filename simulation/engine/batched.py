"""Many phones at once: the same numbers as the phone loop, in segments instead of objects (spec 7.8).

Additive: with the rows' preconditioned inputs phi' = [1 | phi] P kept between rounds, a step is one product, one
sigmoid and one segment sum, in NumPy: a farm whose inputs are kept never loads torch. MLP: see `padded`. Clip and
encode are `fl_client.update.encode_rows`, so nothing about privacy is written twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_client.answers import knots_of
from fl_client.batches import batch_weights, steps_of
from fl_client.phones import Task
from fl_client.update import encode_rows
from simulation.engine.inputs import problem_of
from simulation.engine.problem import Columns, Hats, Problem
from simulation.engine.protocol import Crowd, Trained, rows_of

# Chunks stay small enough to live on the heap: fresh pages cost more than the arithmetic on them.
NUMBERS_A_CHUNK = 1 << 17
Rows = NDArray[np.float32]


class BatchedEngine:
    """Chunks of phones, one vector of integer sums."""

    name = "batched"

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Sum of encoded updates; see `Engine.train`."""
        local, scale = task.plan.local, task.plan.privacy.grid_scale
        problem = problem_of(crowd, task)
        total = np.zeros(len(task.flat), dtype=np.int64)
        norms = np.zeros(crowd.phones)
        shape = (min(sample, crowd.phones), len(task.flat))
        raw, units = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        size = max(NUMBERS_A_CHUNK // max(len(task.flat), 1), 16)
        for phones in _chunks(crowd, size, by_length=bool(task.plan.model.hidden)):
            deltas = _deltas(problem, task, phones)
            kept = phones < sample
            raw[phones[kept]] = deltas[kept]
            encoded, norms[phones] = encode_rows(deltas, local.clip_norm, scale)
            units[phones[kept]] = encoded[kept]
            total += encoded.sum(axis=0).astype(np.int64)
        return Trained(total, norms, raw, units)


def _chunks(crowd: Crowd, size: int, *, by_length: bool) -> list[NDArray[np.int64]]:
    """Labelled phones in chunks. Unlabelled ones add zeros, so nothing is computed for them."""
    counts = crowd.counts
    labelled = np.flatnonzero(counts > 0)
    if by_length:
        labelled = labelled[np.argsort(counts[labelled], kind="stable")]
    return [labelled[at : at + size] for at in range(0, len(labelled), size)]


def _deltas(problem: Problem, task: Task, phones: NDArray[np.int64]) -> NDArray[np.float64]:
    """The raw updates (len(phones), d) of labelled phones, float64."""
    counts, ids, local = problem.counts[phones], problem.ids[phones], problem.local
    rows, offsets = rows_of(problem.first[phones], counts)
    steps = steps_of(local, counts)
    weights = [
        batch_weights(ids, offsets, problem.seed, problem.round, step, local.batch_size)
        * np.repeat(step < steps, counts)
        for step in range(int(steps.max()))
    ]
    taken, y = _inputs(problem, rows), np.asarray(problem.y[rows])
    if problem.hidden:
        from simulation.engine.padded import mlp_deltas

        return mlp_deltas(task, knots_of(task), taken, y, offsets, weights)
    return _additive(task, taken, y, offsets, weights)


def _inputs(problem: Problem, rows: NDArray[np.int64]) -> Rows:
    """Rows' inputs looked up: additive (n, d) in training coordinates, MLP (n, width)."""
    of = problem.rows
    if isinstance(of, Columns):
        return np.asarray(of.values[of.table + of.codes[rows][:, of.feature]])
    if not isinstance(of, Hats):
        return np.asarray(of.x[rows])
    codes = of.codes[rows]
    parts = [np.full((len(rows), 1), of.bias, dtype=np.float32)]
    at, ends = 0, [*of.start[1:].tolist(), len(of.hat)]
    for j, (size, block) in enumerate(zip(of.sizes.tolist(), of.blocks, strict=True)):
        level = slice(int(of.start[j]), ends[j])
        phi = np.zeros((ends[j] - int(of.start[j]), size + 1))
        place = np.arange(len(phi))
        phi[place, np.minimum(of.hat[level] + 1, size - 1)] = of.high[level]
        phi[place, of.hat[level]] = of.low[level]
        phi[:, size] = of.flag[level]
        table = ((phi - of.centre[at : at + size + 1]) @ block).astype(np.float32)
        parts.append(table[codes[:, j]])
        at += size + 1
    return np.concatenate(parts, axis=1)


def _additive(
    task: Task, inputs: Rows, y: Rows, offsets: NDArray[np.int64], weights: list[Rows]
) -> NDArray[np.float64]:
    """Deltas (P, d) by E steps; they are kept apart from the sent model, so no digits cancel."""
    rate, prox = task.plan.local.learning_rate, task.plan.local.prox
    sent = (inputs @ task.flat).astype(np.float64)
    deltas = _segment_sums(_errors(sent, y, weights[0]) * -rate, inputs, offsets)
    owner = np.repeat(np.arange(len(deltas)), np.diff(offsets))
    for weight in weights[1:]:
        logits = sent + np.einsum("ij,ij->i", inputs, deltas.astype(np.float32)[owner])
        deltas *= 1 - rate * prox
        deltas += _segment_sums(_errors(logits, y, weight) * -rate, inputs, offsets)
    return deltas


def _errors(logits: NDArray[np.float64], y: Rows, weight: Rows) -> NDArray[np.float64]:
    """Slope of each row's weighted loss by its logit, (R,)."""
    return np.asarray((0.5 * (1 + np.tanh(logits / 2)) - y) * weight)


def _segment_sums(values: NDArray[np.float64], inputs: Rows, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Row i: Σ values_r · inputs_r over the rows r of phone i, (P, d) float64. Every phone has a row."""
    products = inputs * values.astype(np.float32)[:, None]
    first, counts = offsets[:-1], np.diff(offsets)
    sums = products[first].astype(np.float64)
    # Row by row over the few phones that have so many: np.add.reduceat walks columns and is five times slower.
    for turn in range(1, int(counts.max())):
        longer = np.flatnonzero(counts > turn)
        sums[longer] += products[first[longer] + turn]
    return sums
