"""Public grids: the cells that numbers and codes are counted in, the same for every phone (spec 5.2).

A grid is a pure function of the schema, so counting on it looks at no phone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import SchemaError
from model.risk.schema import Feature, Schema

Floats = npt.NDArray[np.float64]

BINS = 128
FRACTIONS = (0.001, 0.003, 0.01, 0.02, 0.03, *(round(0.05 * i, 2) for i in range(1, 21)), 1.25, 1.5, 1.75)
LADDER = (*FRACTIONS, *(float(i) for i in range(2, 21)))  # near zero: shares, then one cell an integer


@dataclass(frozen=True)
class Layout:
    """Where each feature's cells lie in the one histogram vector; the last cell of a feature counts the missing."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        """Length of the histogram vector."""
        return sum(self.sizes)


def grid_centers(feature: Feature, bins: int = BINS) -> Floats:
    """Cell representatives of a number, ascending float64, distinct as float32; codes 0 … buckets-1 of a category.

    "linear": up to `bins` even steps that hit the integers where the bounds are integers. "signed_log": 0, the fixed
    ladder up to 20, then `bins`/2 geometric steps a side.
    """
    return np.asarray(_centers(feature, bins), np.float64)


@lru_cache(maxsize=16384)
def _centers(feature: Feature, bins: int) -> tuple[float, ...]:
    if feature.kind == "category":
        return tuple(float(code) for code in range(feature.buckets))
    raw = _linear(feature, bins) if feature.grid == "linear" else _signed_log(feature, bins)
    inside = raw[(raw >= feature.lower) & (raw <= feature.upper)]
    ends = np.array([feature.lower, feature.upper])
    return tuple(np.unique(np.concatenate([inside, ends]).astype(np.float32)).astype(np.float64).tolist())


def _linear(feature: Feature, bins: int) -> Floats:
    span = feature.upper - feature.lower
    steps = bins - 1
    if float(feature.lower).is_integer() and float(span).is_integer() and span <= steps:
        steps = int(steps // span * span)
    return np.linspace(feature.lower, feature.upper, steps + 1)


def _signed_log(feature: Feature, bins: int) -> Floats:
    sides = []
    for sign, bound in ((-1.0, -feature.lower), (1.0, feature.upper)):
        beyond = np.geomspace(LADDER[-1], bound, bins // 2 + 1)[1:] if bound > LADDER[-1] else np.empty(0)
        sides.append(sign * np.concatenate([LADDER, np.round(beyond)]))
    return np.concatenate([sides[0], [0.0], sides[1]])


def grid_edges(feature: Feature, bins: int = BINS) -> Floats:
    """Cell borders, float64 (cells+1,): midway between representatives, closed by the public bounds."""
    centers = grid_centers(feature, bins)
    middle = (centers[1:] + centers[:-1]) / 2
    if feature.kind == "category":
        return np.concatenate([[-0.5], middle, [feature.buckets - 0.5]])
    return np.concatenate([[feature.lower], middle, [feature.upper]])


def histogram_layout(schema: Schema, bins: int = BINS) -> Layout:
    """Public layout of the histogram vector: per feature its cells, then one cell for missing."""
    sizes = [len(_centers(feature, bins)) + 1 for feature in schema.features]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return Layout(tuple(int(o) for o in offsets), tuple(sizes))


def histogram_sensitivity(schema: Schema) -> float:
    """L2 reach of one phone whose row weights sum to at most 1: sqrt(F), one unit of mass a feature."""
    return float(np.sqrt(len(schema.features)))


def rows_histogram(x: npt.NDArray[Any], weights: npt.NDArray[Any], schema: Schema, bins: int = BINS) -> Floats:
    """Weighted cell counts, float64 (layout.total,), of rows x (R, F) with NaN = missing and weights (R,).

    Numbers are clipped to their bounds. A category code outside 0 … buckets-1 is "other" and counted nowhere.
    Raises SchemaError where the shapes do not fit the schema.
    """
    x, weights = np.asarray(x, np.float64), np.asarray(weights, np.float64)
    if x.ndim != 2 or x.shape[1] != len(schema.features) or weights.shape != (x.shape[0],):
        raise SchemaError(f"rows of shape {x.shape} do not fit {len(schema.features)} features; pass (rows, features)")
    layout = histogram_layout(schema, bins)
    out = np.zeros(layout.total)
    for j, feature in enumerate(schema.features):
        cells, kept = _cells(x[:, j], feature, bins)
        start, size = layout.offsets[j], layout.sizes[j]
        out[start : start + size] = np.bincount(cells[kept], weights[kept], size)
    return out


def _cells(column: Floats, feature: Feature, bins: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    missing = np.isnan(column)
    filled = np.where(missing, 0.0, column)
    kept = np.ones(len(column), bool)
    if feature.kind == "category":
        codes = np.clip(np.round(filled), -1, feature.buckets)
        kept = missing | ((codes >= 0) & (codes < feature.buckets))
        cells = np.clip(codes, 0, feature.buckets - 1).astype(np.int64)
    else:
        inner = grid_edges(feature, bins)[1:-1]
        cells = np.searchsorted(inner, np.clip(filled, feature.lower, feature.upper), side="right").astype(np.int64)
    return np.where(missing, len(_centers(feature, bins)), cells), kept
