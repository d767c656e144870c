"""Quantile knots from noisy histograms on public grids (spec 5.2).

A grid is a pure function of the schema, so counting on it looks at no phone. Everything after the noise (simplex
projection, quantiles, masses) is post-processing and costs no further privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from model.contract.canonical import digest
from model.errors import SchemaError
from model.risk.schema import Feature, Schema

Floats = npt.NDArray[np.float64]

BINS = 128
TINY = 1e-37  # a smaller gap between knots has no finite float32 reciprocal
TAIL = 0.02  # the end knots stand at these quantiles: beyond them the shape is mostly noise
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


def hats(values: npt.ArrayLike, x: npt.ArrayLike) -> Floats:
    """Hat basis (len(x), len(values)) of numbers on ascending knots, clamped at both ends; rows sum to 1."""
    knots, points = np.asarray(values, np.float64), np.asarray(x, np.float64)[:, None]
    ramps = np.clip((points - knots[:-1]) / np.diff(knots), 0, 1)
    ones, zeros = np.ones((len(points), 1)), np.zeros((len(points), 1))
    basis: Floats = np.hstack([ones, ramps]) - np.hstack([ramps, zeros])
    return basis


def project_simplex(counts: Floats, total: float) -> Floats:
    """Nearest nonnegative vector with sum `total` (least squares): the likeliest counts behind Gaussian noise.

    Held, Wolfe, Crowder 1974; as in Duchi et al. 2008, fig. 1.
    """
    ordered = np.sort(counts)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(counts) + 1)
    cut = float(excess[np.flatnonzero(ordered > excess)[-1]])
    return np.asarray(np.maximum(counts - cut, 0.0))


@dataclass(frozen=True)
class Knots:
    """Knots of every feature in schema order, and the share of rows near each.

    `values[j]` ascends and is distinct as float32 (a category: its kept codes). `mass[j]` has one entry more: the last
    is the share missing. Masses are nonnegative and sum to 1; a category's may sum to less (codes not kept).
    """

    values: tuple[tuple[float, ...], ...]
    mass: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for values, mass in zip(self.values, self.mass, strict=True):
            steps = np.diff(np.asarray(values, np.float32))
            if not values or len(mass) != len(values) + 1 or not np.all(steps > TINY):
                raise SchemaError("knots must be ascending, with one mass each and one for missing; derive them again")
            if not np.all(np.isfinite(values)) or not np.all(np.asarray(mass) >= 0) or sum(mass) > 1 + 1e-6:
                raise SchemaError(
                    "knots must be finite, with masses of at least 0 that sum to at most 1; derive them again"
                )

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for canonical encoding."""
        return {"values": [list(v) for v in self.values], "mass": [list(m) for m in self.mass]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Knots:
        """Inverse of `to_dict`; SchemaError on anything malformed."""
        try:
            values, mass = (tuple(tuple(float(e) for e in row) for row in raw[key]) for key in ("values", "mass"))
            return cls(values, mass)
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"knots are malformed ({error}); derive them again") from error

    @classmethod
    def from_histogram(
        cls,
        counts: npt.NDArray[Any],
        schema: Schema,
        max_knots: int,
        *,
        noise_sd: float = 0.0,
        threshold: float = 3.0,
        bins: int = BINS,
    ) -> Knots:
        """Knots from (noisy) counts of `rows_histogram`, at most `max_knots` a feature, at least one.

        `noise_sd` is the noise per cell. Codes are kept, and light cells given a knot of their own, above
        `threshold` · `noise_sd`. Raises SchemaError on a wrong length, a non-finite count or max_knots < 1.
        """
        layout, counts = histogram_layout(schema, bins), np.asarray(counts, np.float64)
        if counts.shape != (layout.total,) or not np.all(np.isfinite(counts)) or max_knots < 1:
            raise SchemaError(f"a histogram of {counts.shape} does not fit {layout.total} finite cells; count again")
        blocks = [counts[o : o + s] for o, s in zip(layout.offsets, layout.sizes, strict=True)]
        shared = _shared_total(blocks) if noise_sd > 0 else None
        rows = []
        for feature, block in zip(schema.features, blocks, strict=True):
            total = shared if shared is not None else float(np.maximum(block, 0).sum())
            share = project_simplex(block, max(total, 1e-9)) / max(total, 1e-9)
            floor = threshold * noise_sd / max(total, 1e-9)
            pick = _code_knots if feature.kind == "category" else _number_knots
            rows.append(pick(grid_centers(feature, bins), share, max_knots, floor))
        return cls(tuple(v for v, _ in rows), tuple(m for _, m in rows))


def _shared_total(blocks: list[Floats]) -> float:
    """Every feature counts the same rows: pool their noisy sums, each weighted by its inverse variance."""
    weights = np.array([1 / len(block) for block in blocks])
    return max(float(weights @ [block.sum() for block in blocks] / weights.sum()), 1.0)


def _number_knots(
    centers: Floats, share: Floats, max_knots: int, floor: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    cells, missing = share[:-1], share[-1]
    if cells.sum() <= 0:
        return (float(centers[np.argmin(np.abs(centers))]),), (0.0, float(min(missing, 1.0)))
    chosen = _quantile_cells(cells / cells.sum(), max_knots)
    for cell in np.argsort(-cells, kind="stable"):
        if len(chosen) >= max_knots or cells[cell] <= floor:
            break
        chosen.add(int(cell))
    values = centers[sorted(chosen)]
    mass = np.append(cells @ hats(values, centers), missing)
    return tuple(values.tolist()), tuple((mass / mass.sum()).tolist())


def _quantile_cells(share: Floats, max_knots: int) -> set[int]:
    """Cells at evenly spaced quantiles; where heavy cells swallow several, more levels until max_knots differ."""
    upto = np.cumsum(share)
    chosen: set[int] = set()
    for levels in range(max_knots, 4 * max_knots + 1):
        marks = np.linspace(TAIL, 1 - TAIL, levels) if levels > 1 else np.array([0.5])
        found = set(np.minimum(np.searchsorted(upto, marks), len(share) - 1).tolist())
        if len(found) > max_knots:
            break
        chosen = found
    return chosen


def _code_knots(
    centers: Floats, share: Floats, max_knots: int, floor: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    cells, missing = share[:-1], float(share[-1])
    order = np.argsort(-cells, kind="stable")[:max_knots]
    kept = sorted(int(code) for code in order if cells[code] > floor) or [int(order[0])]
    return tuple(centers[kept].tolist()), (*cells[kept].tolist(), missing)
