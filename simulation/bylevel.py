"""Sums over coded rows by level: what a row's features add up to, and what rows add to each level (spec 7.2, 7.5).

An additive function of coded rows needs its value at each level only, and a sum over rows of an additive function
needs each level's total only: a look-up a cell forward, a count a cell back, and no float32 matrix at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fl_client.answers import (
    additive_logits,
    answer_size,
    histogram,
    logit_answer,
    row_units,
    score_rows,
    scored_by,
    shares,
)
from fl_client.phones import Task
from model.risk.knots import rows_histogram
from model.risk.schema import Schema
from simulation.coded import Coded
from simulation.engine.protocol import Crowd

if TYPE_CHECKING:
    from model.risk.network import RiskNetwork

ROWS_A_CHUNK = 1 << 14  # so many rows' codes lie in a core's cache
PHONES_A_CHUNK = 1 << 15
Floats = NDArray[np.float64]


def chunks(count: int, size: int = ROWS_A_CHUNK) -> Iterator[slice]:
    """Slices of so many rows that cover `count` of them."""
    return (slice(at, min(at + size, count)) for at in range(0, count, size))


def summed(coded: Coded, tables: list[Floats], bias: float) -> Floats:
    """bias + Σ_j tables[j][code of feature j], (R,) float64, features added in order."""
    out = np.empty(len(coded))
    for rows in chunks(len(coded)):
        codes = coded.codes[rows]
        out[rows] = additive_logits((table[codes[:, j]] for j, table in enumerate(tables)), bias, len(codes))
    return out


def totals(coded: Coded, weights: Floats) -> list[Floats]:
    """Σ of the weights (R,) of the rows on each level: per feature (L_j,) float64, exact for whole numbers."""
    out = [np.zeros(size) for size in coded.sizes.tolist()]
    wide = int(coded.sizes.max()) > ROWS_A_CHUNK  # a table coded exactly: as many levels as rows
    for rows in [slice(None)] if wide else chunks(len(coded)):
        codes, mine = coded.codes[rows], weights[rows]
        for j, total in enumerate(out):
            total += np.bincount(codes[:, j], mine, len(total))
    return out


def histogram_by_level(coded: Coded, weights: Floats, schema: Schema) -> Floats:
    """`rows_histogram` of coded rows (R, F) with weights (R,): each level's total in the cell the level lies in."""
    parts = [
        rows_histogram(level[:, None], total, Schema(schema.name, schema.version, (feature,)))
        for feature, level, total in zip(schema.features, coded.levels, totals(coded, weights), strict=True)
    ]
    return np.concatenate(parts)


def logits_of(network: RiskNetwork, x: NDArray[np.float32] | Coded) -> Floats:
    """Raw logits (R,) of rows (R, F), plain or coded: to the last bit what a phone computes of its own rows."""
    if not isinstance(x, Coded):
        return score_rows(network, x)
    if network.hidden:
        return np.concatenate([np.zeros(0), *(score_rows(network, x[rows]) for rows in chunks(len(x)))])
    return summed(x, level_shares(network, x), network.flat()[0])


def level_shares(network: RiskNetwork, coded: Coded) -> list[Floats]:
    """What each level of each feature adds to an additive network's logit, per feature (L_j,)."""
    height = int(coded.sizes.max())
    x = np.full((height, len(coded.levels)), np.nan, np.float32)
    for j, level in enumerate(coded.levels):
        x[: len(level), j] = level
    found = [list(shares(network, x[rows])) for rows in chunks(height)]
    return [
        np.concatenate(parts)[: len(level)] for parts, level in zip(zip(*found, strict=True), coded.levels, strict=True)
    ]


def counted(task: Task, crowd: Crowd) -> NDArray[np.int64]:
    """`fl_client.answers.histogram` of the crowd's phones, to the last unit, so many phones at a time."""
    total = np.zeros(answer_size(task), dtype=np.int64)
    count = counter(task, crowd.x)
    for at in range(0, max(crowd.phones, 1), PHONES_A_CHUNK):
        rows, offsets = crowd.take(slice(at, at + PHONES_A_CHUNK)).rows()
        total += count(rows, offsets, crowd.y[rows])
    return total


def counter(
    task: Task, x: NDArray[np.float32] | Coded
) -> Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], NDArray[np.int64]]:
    """(rows, offsets, labels) → their histogram; what hangs on the task alone is computed once."""
    if not isinstance(x, Coded) or task.plan.model.hidden:
        return lambda rows, offsets, y: histogram(task, x[rows], y, offsets)
    coded, scale = x, task.plan.privacy.grid_scale
    if task.kind == "knots":
        return lambda rows, offsets, y: histogram_by_level(
            coded.take(rows), row_units(offsets, scale), task.plan.schema
        ).astype(np.int64)
    network, edges = scored_by(task)
    tables, bias = level_shares(network, coded), network.flat()[0]
    return lambda rows, offsets, y: logit_answer(
        task.kind, summed(coded.take(rows), tables, bias), y, row_units(offsets, scale), edges
    )
