"""Calibration from a (noisy) histogram over fixed public logit bins: Platt scaling with a few bends (spec 5.9)."""

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
BENDS = 6  # places where the slope may change, at even quantiles of the released histogram
BEND_PRIOR = 1.0  # precision of a change of slope around 0
LEAST_SLOPE = 0.1  # of the calibrated logit anywhere, as a share of `slope`


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
    """Calibrated logit = u + Σ changes · max(0, u − places), where u = slope · logit + intercept is the scaled logit.

    It rises everywhere, so ranks never turn over. Contributions add up to u; the bends are one map of u to a PD.
    """

    slope: float = 1.0
    intercept: float = 0.0
    places: tuple[float, ...] = ()
    changes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.slope, self.intercept, *self.places, *self.changes)
        if not (np.isfinite(numbers).all() and self.slope > 0 and len(self.places) == len(self.changes)):
            raise SchemaError(f"calibration {self.slope}, {self.intercept} is not finite with slope > 0; fit it again")
        if list(self.places) != sorted(self.places) or min(np.cumsum([1.0, *self.changes])) <= 0:
            raise SchemaError("a calibration's bends must ascend and leave it rising everywhere; fit it again")

    def scaled(self, raw: npt.ArrayLike) -> Floats:
        """u = slope · raw + intercept, float64, same shape."""
        return np.asarray(self.slope * np.asarray(raw, np.float64) + self.intercept)

    def logit(self, raw: npt.ArrayLike) -> Floats:
        """Calibrated logit of raw logits, float64, same shape."""
        u = self.scaled(raw)
        bent = (np.maximum(u - place, 0) * change for place, change in zip(self.places, self.changes, strict=True))
        return np.asarray(sum(bent, u))

    def pd(self, raw: npt.ArrayLike) -> Floats:
        """Calibrated probability of default, float64, same shape."""
        return sigmoid(self.logit(raw))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {**asdict(self), "places": list(self.places), "changes": list(self.changes)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Platt:
        """Inverse of `to_dict`; SchemaError on anything malformed."""
        try:
            bends = (tuple(float(value) for value in raw[name]) for name in ("places", "changes"))
            return cls(float(raw["slope"]), float(raw["intercept"]), *bends)
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"a calibration is malformed ({error}); fit it again") from error

    @classmethod
    def fit(cls, counts: npt.ArrayLike, *, noise_sd: float = 0.0) -> Platt:
        """The line of `line`, then a few changes of slope fitted the same way, each held near 0 by its prior.

        Counts (2·CELLS,) of `logit_histogram`, possibly noisy. SchemaError for a wrong length or a number not finite.
        """
        good, bad = _split(counts)
        if good.sum() + bad.sum() <= 0:
            return cls()
        return cls.line(counts, noise_sd=noise_sd)._bent(good, bad, noise_sd)

    @classmethod
    def line(cls, counts: npt.ArrayLike, *, noise_sd: float = 0.0) -> Platt:
        """Penalised maximum likelihood (Platt 1999), slope and intercept alone.

        Each cell weighs by the share of its variance that is not noise (the optimal estimating function, Godambe
        1960); its counts enter as they are, negative ones too, which keeps the equations unbiased. Without noise this
        is plain likelihood; a sea of noise leaves the prior, slope 1 and intercept 0.
        """
        good, bad = _split(counts)
        point = START
        for _ in range(PASSES if good.sum() + bad.sum() > 0 else 0):
            weight, information = _weights(good + bad, sigmoid(DESIGN @ point), noise_sd)
            point = _maximise(DESIGN, PRIOR, START, weight * good, weight * bad, weight * information)
        return cls(float(np.clip(point[0], *SLOPE_RANGE)), float(point[1]))

    def _bent(self, good: Floats, bad: Floats, noise_sd: float) -> Platt:
        """This line with changes of slope at even quantiles."""
        u = self.scaled(CENTERS)
        places = np.unique(_quantiles(u, good + bad, noise_sd))
        design = np.column_stack([u, np.ones(CELLS), *(np.maximum(u - place, 0) for place in places)])
        start = np.array([1.0, 0.0, *np.zeros(len(places))])
        prior = np.array([*PRIOR, *np.full(len(places), BEND_PRIOR)])
        weight, information = _weights(good + bad, sigmoid(u), noise_sd)
        point = _maximise(design, prior, start, weight * good, weight * bad, weight * information)
        return self._compose(np.maximum(np.cumsum([point[0], *point[2:]]), LEAST_SLOPE), float(point[1]), places)

    def _compose(self, slopes: Floats, shift: float, places: Floats) -> Platt:
        """slopes (K+1,) between the places, of v = slopes[0] · u + shift + …, as one calibration of the raw logit."""
        first = float(slopes[0])
        moved = tuple((first * places + shift).tolist())
        changes = tuple((np.diff(slopes) / first).tolist())
        return Platt(self.slope * first, self.intercept * first + shift, moved, changes)


def _split(counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    both = np.asarray(counts, np.float64)
    if both.shape != (2 * CELLS,) or not np.all(np.isfinite(both)):
        raise SchemaError(f"calibration counts of shape {both.shape} are not {2 * CELLS} finite ones; count again")
    return both[:CELLS], both[CELLS:]


def _quantiles(u: Floats, total: Floats, noise_sd: float) -> Floats:
    """Scaled logits at BENDS even quantiles of a histogram, smoothed where it is noisy."""
    size = _sizes(total, noise_sd)
    upto = np.cumsum(size) - size / 2
    return np.asarray(np.interp(np.arange(1, BENDS + 1) / (BENDS + 1) * size.sum(), upto, u))


def _sizes(total: Floats, noise_sd: float) -> Floats:
    """The likeliest rows per cell, smoothed over neighbours where there is noise."""
    size = project_simplex(total, float(total.sum()))
    return np.convolve(size, KERNEL, mode="same") if noise_sd > 0 else size


def _weights(total: Floats, pd: Floats, noise_sd: float) -> tuple[Floats, Floats]:
    """Per cell: information / (information + noise variance of its residual), and the information, (CELLS,) each.

    The cell's size is smoothed over its neighbours, so that its own noise hardly chooses its own weight.
    """
    size = _sizes(total, noise_sd)
    information = size * pd * (1 - pd)
    noise = noise_sd**2 * (pd**2 + (1 - pd) ** 2)
    return information / np.maximum(information + noise, 1e-300), information


def _maximise(design: Floats, prior: Floats, start: Floats, good: Floats, bad: Floats, information: Floats) -> Floats:
    """Weighted likelihood plus a prior of precision `prior` around `start`, by Fisher scoring with step halving."""

    def value(at: Floats) -> float:
        eta = design @ at
        fit = bad @ np.logaddexp(0, -eta) + good @ np.logaddexp(0, eta)
        return float(-fit - 0.5 * prior @ (at - start) ** 2)

    point = start
    curve = (design.T * information) @ design + np.diag(prior)
    for _ in range(MOST_STEPS):
        slope = design.T @ (bad - (good + bad) * sigmoid(design @ point)) - prior * (point - start)
        step = np.linalg.solve(curve, slope)
        while value(point + step) < value(point) and np.abs(step).max() > 1e-12:
            step = step / 2
        point = point + step
        if np.abs(step).max() < 1e-10:
            break
    return point
