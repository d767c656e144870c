"""AUC, KS, Gini, Brier, ECE and PSI from histograms, so that noisy sums are enough; exact twins beside (spec 5.11).

Histograms are counts of repaid (`good`) and defaulted (`bad`) rows in cells of ascending risk, float (B,); cells may be
negative where noise was added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import SchemaError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    se: float


NOTHING = 1e-6  # a total of rows below this is none
UNKNOWN = Estimate(0.5, 0.5)  # what is said of an AUC when one class is empty or lost in noise


def auc(scores: Array, labels: Array, weights: Array | None = None) -> float:
    """Exact area under the ROC curve: P(bad scored above good) + half the ties; 0.5 where one class is empty."""
    s, y, w = _rows(scores, labels, weights)
    _, cell = np.unique(s, return_inverse=True)
    size = int(cell.max()) + 1 if len(s) else 0
    return auc_from_histogram(np.bincount(cell, w * (1 - y), size), np.bincount(cell, w * y, size)).value


def auc_from_histogram(good: Array, bad: Array, noise_sd: float = 0.0) -> Estimate:
    """AUC with half credit within a cell, and its error: sampling (DeLong et al. 1988) plus noise, to first order.

    `noise_sd` is the noise of each count. 0.5 ± 0.5 where a class's noisy total is not positive.
    """
    g, b = _pair(good, bad)
    total_good, total_bad = g.sum(), b.sum()
    if total_good <= NOTHING or total_bad <= NOTHING:
        return UNKNOWN
    below = (np.cumsum(g) - g / 2) / total_good  # a default's placement among the repaid
    above = (total_bad - np.cumsum(b) + b / 2) / total_bad
    area = float(b @ below / total_bad)
    noise = noise_sd**2 * (((below - area) / total_bad) ** 2 + ((above - area) / total_good) ** 2).sum()
    sampling = sum(
        np.maximum(n, 0) @ (place - area) ** 2 / total**2
        for n, place, total in ((b, below, total_bad), (g, above, total_good))
    )
    return Estimate(float(np.clip(area, 0, 1)), min(float(np.sqrt(noise + sampling)), 0.5))


def gini(area: float) -> float:
    """2·AUC − 1."""
    return 2 * area - 1


def ks(good: Array, bad: Array) -> float:
    """Greatest gap between the two cumulative shares, 0 … 1; 0 where a class is empty."""
    g, b = (np.maximum(n, 0) for n in _pair(good, bad))
    if g.sum() <= NOTHING or b.sum() <= NOTHING:
        return 0.0
    return float(np.abs(np.cumsum(g) / g.sum() - np.cumsum(b) / b.sum()).max())


def ks_exact(scores: Array, labels: Array) -> float:
    """KS of rows (R,)."""
    s, y, _ = _rows(scores, labels, None)
    values, cell = np.unique(s, return_inverse=True)
    return ks(np.bincount(cell, 1 - y, len(values)), np.bincount(cell, y, len(values)))


def brier(pd: Array, labels: Array) -> float:
    """Mean squared error of the PD over rows (R,)."""
    p, y, _ = _rows(pd, labels, None)
    return float(np.mean((p - y) ** 2)) if len(p) else 0.0


def brier_from_histogram(good: Array, bad: Array, predicted: Array) -> float:
    """Brier score with every row of a cell at the cell's PD `predicted` (B,); 0 where the total is not positive."""
    g, b = _pair(good, bad)
    total = g.sum() + b.sum()
    return max(float((b @ (1 - predicted) ** 2 + g @ predicted**2) / total), 0.0) if total > 0 else 0.0


def ece(pd: Array, labels: Array, groups: int = 10) -> float:
    """Expected calibration error over `groups` equal-count groups of rows (R,): Σ share · |mean PD − default rate|."""
    p, y, _ = _rows(pd, labels, None)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, groups) if len(part)]
    return float(sum(abs((p[part] - y[part]).sum()) for part in parts) / max(len(p), 1))


def ece_from_histogram(
    good: Array, bad: Array, predicted: Array, noise_sd: float = 0.0, *, groups: int = 10, debias: bool = False
) -> Estimate:
    """ECE over `groups` groups of neighbouring cells, as equal in count as the cells allow, and its error.

    `predicted` (B,) is each cell's PD. Noise and sampling widen every gap, so the plain value is biased upward, by
    .04 for a perfect model on 800 rows; `debias` gives each gap the size whose expected reading under both is the gap
    read (folded normal, 0 where less).
    """
    g, b = _pair(good, bad)
    count = np.maximum(g + b, 0)
    if count.sum() <= NOTHING:
        return Estimate(1.0, 1.0)
    middle = np.cumsum(count) - count / 2
    group = np.minimum((groups * middle / count.sum()).astype(np.int64), groups - 1)
    gap = np.bincount(group, predicted * (g + b) - b, groups) / count.sum()
    noise = np.bincount(group, noise_sd**2 * (predicted**2 + (1 - predicted) ** 2), groups) / count.sum() ** 2
    chance = np.bincount(group, count * predicted * (1 - predicted), groups) / count.sum() ** 2
    spread = np.sqrt(noise + chance)
    sizes = [_unfold(abs(g), s) if debias else abs(g) for g, s in zip(gap, spread, strict=True)]
    return Estimate(float(sum(sizes)), float(np.sqrt((noise + chance).sum())))


def _unfold(size: float, sd: float) -> float:
    """m ≥ 0 with E|N(m, sd²)| = size, by bisection; 0 where size is below what sd alone gives."""
    low, high = 0.0, size
    for _ in range(40 if sd > 0 else 0):
        middle = (low + high) / 2
        z = middle / sd
        mean = sd * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + middle * math.erf(z / math.sqrt(2))
        low, high = (middle, high) if mean < size else (low, middle)
    return high if sd == 0 else low


def psi(expected: Array, actual: Array, floor: float = 1e-4) -> float:
    """Population stability index of two histograms (B,); shares below `floor` are lifted to it."""
    one, two = (np.maximum(n, 0) for n in _pair(expected, actual))
    if one.sum() <= NOTHING or two.sum() <= NOTHING:
        return 0.0
    p, q = np.maximum(one / one.sum(), floor), np.maximum(two / two.sum(), floor)
    return float(np.sum((q - p) * np.log(q / p)))


def equal_count_edges(counts: Array, edges: Array, cells: int) -> Floats:
    """Inner borders (cells−1,) that split a (noisy) histogram with `edges` (B+1,) into about equal counts.

    Post-processing of a released histogram: evaluation cells follow the scores without another look at phones.
    """
    n = np.maximum(np.asarray(counts, np.float64), 0) + 1e-9
    upto = np.concatenate([[0], np.cumsum(n)]) / n.sum()
    return np.interp(np.arange(1, cells) / cells, upto, np.asarray(edges, np.float64))


def _pair(one: Array, two: Array) -> tuple[Floats, Floats]:
    a, b = np.asarray(one, np.float64), np.asarray(two, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not np.all(np.isfinite(a) & np.isfinite(b)):
        raise SchemaError(f"histograms of shapes {a.shape} and {b.shape} are not one finite length; count again")
    return a, b


def _rows(values: Array, labels: Array, weights: Array | None) -> tuple[Floats, Floats, Floats]:
    v, y = _pair(values, labels)
    if not np.all((y == 0) | (y == 1)):
        raise SchemaError("labels must be 0 (repaid) or 1 (default); check the target column")
    return v, y, np.ones(len(v)) if weights is None else np.asarray(weights, np.float64)
