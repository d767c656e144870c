"""Platt calibration from a (noisy) histogram over fixed public logit bins (spec 5.9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import SchemaError

Floats = npt.NDArray[np.float64]

CELLS = 32
EDGES = np.linspace(-6.0, 4.0, CELLS + 1)  # PD .25 % to 98 %; logits beyond fall into the end cells
CENTERS = (EDGES[1:] + EDGES[:-1]) / 2
SLOPE_RANGE = (0.05, 20.0)
PRIOR = np.array([4.0, 0.25])  # precision of slope around 1 (sd .5) and of intercept around 0 (sd 2)
NEWTON_STEPS = 50


def sigmoid(logit: npt.ArrayLike) -> Floats:
    """Logistic function, float64, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(logit, np.float64) / 2)))


def logit_histogram(logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Floats:
    """Counts of repaid rows, then of defaults, per logit cell: float64 (2·CELLS,), from rows (R,).

    With weights that sum to at most 1 a phone, its L2 reach is 1.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    if not z.shape == y.shape == w.shape or not np.all(np.isfinite(z)) or not np.all((y == 0) | (y == 1)):
        raise SchemaError("calibration needs one finite logit, one 0/1 label and one weight a row; check the rows")
    cell = np.searchsorted(EDGES[1:-1], z, side="right")
    return np.asarray(np.bincount(cell + CELLS * y.astype(np.int64), w, 2 * CELLS), np.float64)


@dataclass(frozen=True)
class Platt:
    """Calibrated logit = slope · logit + intercept; slope > 0 always, so ranks never turn over."""

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope) and np.isfinite(self.intercept) and self.slope > 0):
            raise SchemaError(f"calibration {self.slope}, {self.intercept} is not finite with slope > 0; fit it again")

    def logit(self, raw: npt.ArrayLike) -> Floats:
        """Calibrated logit of raw logits, float64, same shape."""
        return np.asarray(self.slope * np.asarray(raw, np.float64) + self.intercept)

    def pd(self, raw: npt.ArrayLike) -> Floats:
        """Calibrated probability of default, float64, same shape."""
        return sigmoid(self.logit(raw))

    def to_dict(self) -> dict[str, float]:
        """Plain values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Platt:
        """Inverse of `to_dict`; SchemaError on anything malformed."""
        try:
            return cls(float(raw["slope"]), float(raw["intercept"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"a calibration is malformed ({error}); fit it again") from error

    @classmethod
    def fit(cls, counts: npt.ArrayLike, *, noise_sd: float = 0.0) -> Platt:
        """Penalised maximum likelihood (Platt 1999) on counts (2·CELLS,) of `logit_histogram`, possibly noisy.

        Cells lost in noise are left out; kept ones enter the score equations as they are, negative ones too, which
        keeps those equations unbiased. The prior (slope 1, intercept 0) grows with the noise. Always has one answer.
        """
        both = np.asarray(counts, np.float64)
        if both.shape != (2 * CELLS,) or not np.all(np.isfinite(both)):
            raise SchemaError(f"calibration counts of shape {both.shape} are not {2 * CELLS} finite ones; count again")
        bad, total = both[CELLS:], both[:CELLS] + both[CELLS:]
        kept = total > 2 * np.sqrt(2.0) * noise_sd
        if not np.any(kept):
            return cls()
        slope, intercept = _newton(CENTERS[kept], bad[kept], total[kept], noise_sd)
        return cls(float(np.clip(slope, *SLOPE_RANGE)), intercept)


def _newton(z: Floats, bad: Floats, total: Floats, noise_sd: float) -> tuple[float, float]:
    """Unique maximum of a strictly concave function of (slope, intercept), by Newton with step halving."""
    design = np.column_stack([z, np.ones_like(z)])
    point = start = np.array([1.0, 0.0])
    pd = sigmoid(design @ start)
    fisher = (design.T * (total * pd * (1 - pd))) @ design + np.diag(PRIOR)
    inflation = 1 + float(np.trace(np.linalg.solve(fisher, noise_sd**2 * design.T @ design))) / 2
    prior = PRIOR * inflation

    def value(at: Floats) -> float:
        eta = design @ at
        return float(bad @ eta - total @ np.logaddexp(0, eta) - 0.5 * prior @ (at - start) ** 2)

    for _ in range(NEWTON_STEPS):
        pd = sigmoid(design @ point)
        slope = design.T @ (bad - total * pd) - prior * (point - start)
        curve = (design.T * (total * pd * (1 - pd))) @ design + np.diag(prior)
        step = np.linalg.solve(curve, slope)
        while value(point + step) < value(point) and np.abs(step).max() > 1e-12:
            step /= 2
        point = point + step
        if np.abs(step).max() < 1e-10:
            break
    return float(point[0]), float(point[1])
