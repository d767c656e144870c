"""Platt calibration from a (noisy) histogram over fixed public logit bins (spec 5.9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import SchemaError
from model.risk.knots import project_simplex

Floats = npt.NDArray[np.float64]

CELLS = 32
EDGES = np.linspace(-6.0, 4.0, CELLS + 1)  # PD .25 % to 98 %; logits beyond fall into the end cells
CENTERS = (EDGES[1:] + EDGES[:-1]) / 2
SLOPE_RANGE = (0.05, 20.0)
PRIOR = np.array([4.0, 0.25])  # precision of slope around 1 (sd .5) and of intercept around 0 (sd 2)
MOST_STEPS = 200
PASSES = 2
START = np.array([1.0, 0.0])
DESIGN = np.column_stack([CENTERS, np.ones(CELLS)])
KERNEL = np.array([1.0, 2, 3, 2, 1]) / 9


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

        Each cell weighs by the share of its variance that is not noise (the optimal estimating function, Godambe
        1960); its counts enter as they are, negative ones too, which keeps the equations unbiased. Without noise this
        is plain likelihood; a sea of noise leaves the prior, slope 1 and intercept 0.
        """
        both = np.asarray(counts, np.float64)
        if both.shape != (2 * CELLS,) or not np.all(np.isfinite(both)):
            raise SchemaError(f"calibration counts of shape {both.shape} are not {2 * CELLS} finite ones; count again")
        good, bad = both[:CELLS], both[CELLS:]
        if good.sum() + bad.sum() <= 0:
            return cls()
        point = START
        for _ in range(PASSES):
            weight, information = _weights(good + bad, sigmoid(DESIGN @ point), noise_sd)
            point = _maximise(weight * good, weight * bad, weight * information)
        return cls(float(np.clip(point[0], *SLOPE_RANGE)), float(point[1]))


def _weights(total: Floats, pd: Floats, noise_sd: float) -> tuple[Floats, Floats]:
    """Per cell: information / (information + noise variance of its residual), and the information, (CELLS,) each.

    The cell's size is smoothed over its neighbours, so that its own noise hardly chooses its own weight.
    """
    size = project_simplex(total, float(total.sum()))
    if noise_sd > 0:
        size = np.convolve(size, KERNEL, mode="same")
    information = size * pd * (1 - pd)
    noise = noise_sd**2 * (pd**2 + (1 - pd) ** 2)
    return information / np.maximum(information + noise, 1e-300), information


def _maximise(good: Floats, bad: Floats, information: Floats) -> Floats:
    """Weighted likelihood plus prior over (slope, intercept), by Fisher scoring with step halving."""

    def value(at: Floats) -> float:
        eta = DESIGN @ at
        fit = bad @ np.logaddexp(0, -eta) + good @ np.logaddexp(0, eta)
        return float(-fit - 0.5 * PRIOR @ (at - START) ** 2)

    point = START
    curve = (DESIGN.T * information) @ DESIGN + np.diag(PRIOR)
    for _ in range(MOST_STEPS):
        slope = DESIGN.T @ (bad - (good + bad) * sigmoid(DESIGN @ point)) - PRIOR * (point - START)
        step = np.linalg.solve(curve, slope)
        while value(point + step) < value(point) and np.abs(step).max() > 1e-12:
            step = step / 2
        point = point + step
        if np.abs(step).max() < 1e-10:
            break
    return point
