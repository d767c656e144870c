"""What phones answer besides updates: integer histograms, over segments; one phone is K = 1 (spec 7.5).

A phone weighs one in total however many rows it has: each row adds ⌊scale/n⌋ grid units, so a phone's answer to one
question has an L1 (hence L2) norm of at most one per feature. Phone and farm call the same functions, so their sums
are equal to the last unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import Task
from model.errors import RoundError
from model.risk.calibration import CELLS, logit_histogram
from model.risk.knots import Knots, histogram_layout, rows_histogram

if TYPE_CHECKING:
    from model.risk.network import RiskNetwork

Floats = NDArray[np.float64]
ROWS_A_CHUNK = 1 << 13  # the network's inputs are some 650 numbers a row


def histogram(
    task: Task, x: NDArray[np.float32], y: NDArray[np.float32], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The summed answer of the phones in `offsets` to a "knots", "calibrate" or "evaluate" task, int64.

    x (R, F), y (R,), offsets (P+1,). RoundError for another kind or a model that does not fit the plan.
    """
    weights = row_units(offsets, task.plan.privacy.grid_scale)
    if task.kind == "knots":
        total = np.zeros(histogram_layout(task.plan.schema).total)
        for rows in _slices(len(y)):
            total += rows_histogram(x[rows], weights[rows], task.plan.schema)
        return total.astype(np.int64)
    if task.kind not in ("calibrate", "evaluate"):
        raise RoundError(f"a {task.kind!r} task asks for no histogram; send it to training")
    network, edges = scored_by(task)
    return logit_answer(task.kind, score_rows(network, x), y, weights, edges)


def logit_answer(
    kind: str, logits: NDArray[np.float64], y: NDArray[np.float32], weights: NDArray[np.float64], edges: Floats
) -> NDArray[np.int64]:
    """The "calibrate" or "evaluate" histogram of rows (R,) with these raw logits, labels and weights, int64."""
    if kind == "calibrate":
        return logit_histogram(logits, y, weights).astype(np.int64)
    cells = np.searchsorted(edges, logits, side="right") + (len(edges) + 1) * y.astype(np.int64)
    return np.bincount(cells, weights, 2 * (len(edges) + 1)).astype(np.int64)


def answer_size(task: Task) -> int:
    """Length of the integer vector that answers `task`."""
    if task.kind == "knots":
        return histogram_layout(task.plan.schema).total
    if task.kind == "train":
        return len(task.flat)
    if task.kind == "calibrate":
        return 2 * CELLS
    return 2 * (len(scored_by(task)[1]) + 1)


def scored_by(task: Task) -> tuple[RiskNetwork, NDArray[np.float64]]:
    """The network of the task's theta, and what follows theta in the array: the inner borders of evaluation cells."""
    from model.risk.network import RiskNetwork  # torch: a farm that only adds up never loads it

    network = RiskNetwork(task.plan.schema, knots_of(task), task.plan.model.hidden)
    if len(task.flat) < network.dimension:
        raise RoundError(f"a model of {len(task.flat)} numbers came where the plan has {network.dimension}; ask again")
    network.load_flat(task.flat[: network.dimension])
    edges = task.flat[network.dimension :].astype(np.float64)
    if not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
        raise RoundError("the borders of evaluation cells are not ascending numbers; ask again")
    return network, edges


def knots_of(task: Task) -> Knots:
    """The task's knots; RoundError where it came before they were released."""
    if task.knots is None:
        raise RoundError(f"a {task.kind} task carries no knots; release the knots first")
    return task.knots


def row_units(offsets: NDArray[np.int64], scale: int) -> NDArray[np.float64]:
    """Grid units each row adds, (R,): ⌊scale / rows of its phone⌋, whole numbers held exactly in float64."""
    counts = np.diff(offsets)
    return np.repeat(scale // np.maximum(counts, 1), counts).astype(np.float64)


def score_rows(network: RiskNetwork, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Raw logits (R,) of rows x (R, F)."""
    parts = [np.zeros(0)]
    for rows in _slices(len(x)):
        part = np.asarray(x[rows])
        if network.hidden:
            parts.append(_mlp_logits(network, part))
        else:
            parts.append(additive_logits(shares(network, part), network.flat()[0], len(part)))
    return np.concatenate(parts)


def additive_logits(parts: Iterable[Floats], bias: float, rows: int) -> Floats:
    """bias + the features' shares (R,), added in float64 and in the order of the schema, (R,).

    A matrix product may add in another order for one row than for many. Here phone, farm and table of levels agree
    to the last bit, so no row falls into another cell for being counted among others.
    """
    total = np.full(rows, float(bias))
    for part in parts:
        total += part
    return total


def shares(network: RiskNetwork, x: NDArray[np.float32]) -> Iterator[Floats]:
    """What each feature adds to an additive network's logit at rows x (R, F): (R,) float64 a feature, in order."""
    import torch

    with torch.no_grad():
        phi = network.inputs(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    theta = network.flat()[1:].astype(np.float64)
    for span in network.encoding.spans:
        share = np.zeros(len(x))
        for at in range(span.start, span.stop):
            share += phi[:, at] * theta[at]
        yield share


def _mlp_logits(network: RiskNetwork, x: NDArray[np.float32]) -> Floats:
    import torch

    with torch.no_grad():
        found: Floats = network(torch.from_numpy(np.array(x))).double().numpy()
    return found


def _slices(count: int) -> list[slice]:
    return [slice(at, at + ROWS_A_CHUNK) for at in range(0, count, ROWS_A_CHUNK)]
