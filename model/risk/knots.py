"""Quantile knots from noisy histograms on public grids (spec 5.2).

Everything after the noise (simplex projection, quantiles, masses) is post-processing and costs no further privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from model.canonical import digest
from model.errors import SchemaError
from model.risk.grid import (
    BINS,
    Floats,
    Layout,
    grid_centers,
    grid_edges,
    histogram_layout,
    histogram_sensitivity,
    rows_histogram,
)
from model.risk.schema import Schema

__all__ = [
    "BINS",
    "Floats",
    "Knots",
    "Layout",
    "grid_centers",
    "grid_edges",
    "hats",
    "histogram_layout",
    "histogram_sensitivity",
    "project_simplex",
    "rows_histogram",
]

TAIL = 0.02  # the end knots stand at these quantiles: beyond them the shape is mostly noise
TINY = 1e-37  # a smaller gap between knots has no finite float32 reciprocal


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
            share = project_simplex(block, max(total, 1e-9))
            share /= share.sum()
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
