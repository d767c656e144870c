"""Central logistic models over coded rows: curves by level, fitted by Newton steps without a dense matrix (spec 12.4).

Value and gradient are exact over all rows, by level totals (`bylevel`). The curvature is that of a sample of rows: it
only aims the steps, which are taken until the exact gradient leaves nothing to gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.risk.knots import Knots
from simulation.bylevel import chunks, summed, totals
from simulation.coded import Coded

CURVED_ROWS = 40_000  # rows the curvature is taken from: some sixty a weight of the largest model
ENOUGH = 1e-5  # nats that a further step would gain, of all rows together: far below what a single row weighs
MOST_STEPS = 60
MOST_HALVINGS = 20
REFRESHED = (0, 2, 5, 10, 20, 40)  # steps at which the curvature is taken anew
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One feature's inputs by level: weights `low` on input hat and `high` on the next, `flag` on the last of `size`.

    hat (L,) int64; low, high, flag (L,) float64. size counts the flag.
    """

    hat: NDArray[np.int64]
    low: Floats
    high: Floats
    flag: Floats
    size: int

    @cached_property
    def after(self) -> NDArray[np.int64]:
        """The input beside `hat`."""
        return np.minimum(self.hat + 1, self.size - 1)

    def values(self, weights: Floats) -> Floats:
        """Σ weights · inputs at each level, (L,)."""
        found = self.low * weights[self.hat] + self.high * weights[self.after] + self.flag * weights[-1]
        return np.asarray(found)

    def pull(self, total: Floats) -> Floats:
        """Σ total · inputs over the levels, (size,)."""
        found = np.bincount(self.hat, self.low * total, self.size)
        found += np.bincount(self.after, self.high * total, self.size)
        found[-1] += self.flag @ total
        return np.asarray(found)

    def inputs(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Dense inputs (n, size) of rows with these codes."""
        out, row = np.zeros((len(codes), self.size), np.float32), np.arange(len(codes))
        out[row, self.after[codes]] = self.high[codes]
        out[row, self.hat[codes]] += self.low[codes]
        out[:, -1] += self.flag[codes]
        return out


@dataclass(frozen=True)
class Model:
    """An intercept and each curve's weights, end to end (D,)."""

    curves: tuple[Curve, ...]
    intercept: float
    weights: Floats

    def logits(self, coded: Coded) -> Floats:
        """(R,) float64 of rows on the same levels."""
        return summed(coded, _tables(self.curves, self.weights), self.intercept)


def knotted(levels: tuple[NDArray[np.float32], ...], knots: Knots) -> tuple[Curve, ...]:
    """The additive model's curves: hats on the knots and a missing flag."""
    return tuple(_hats(np.asarray(values), level) for values, level in zip(knots.values, levels, strict=True))


def straight(coded: Coded) -> tuple[Curve, ...]:
    """A plain logistic regression's: signed-log values standardised by these rows, missing ones at the mean, a flag."""
    counts = totals(coded, np.ones(len(coded)))
    return tuple(_line(level, count) for level, count in zip(coded.levels, counts, strict=True))


def fit(
    curves: tuple[Curve, ...],
    coded: Coded,
    y: NDArray[np.float32],
    w: Floats,
    strength: float,
    *,
    seed: int = 0,
    start: Model | None = None,
) -> Model:
    """Least Σ w · logistic loss + ‖weights‖² / (2 · strength) over rows (R,); the intercept is free."""
    loss = _Loss(curves, coded, np.asarray(y, np.float64), w, strength)
    point = np.zeros(1 + sum(curve.size for curve in curves))
    if start is None:
        rate = float(w @ loss.y / w.sum())
        point[0] = np.log(rate / (1 - rate))
    else:
        point[0], point[1:] = start.intercept, start.weights
    point = _descend(loss, point, np.random.Generator(np.random.Philox(seed)))
    return Model(curves, float(point[0]), point[1:])


@dataclass(frozen=True)
class _Loss:
    """What is minimised, as a function of (1+D,) [intercept | weights]."""

    curves: tuple[Curve, ...]
    coded: Coded
    y: Floats
    w: Floats
    strength: float

    def at(self, point: Floats) -> tuple[float, Floats]:
        """Value and gradient (1+D,)."""
        logits = summed(self.coded, _tables(self.curves, point[1:]), point[0])
        value = self.w @ (np.logaddexp(0, logits) - self.y * logits) + point[1:] @ point[1:] / (2 * self.strength)
        slope = (_sigmoid(logits) - self.y) * self.w
        pulled = [curve.pull(total) for curve, total in zip(self.curves, totals(self.coded, slope), strict=True)]
        return float(value), np.concatenate([[slope.sum()], np.concatenate(pulled) + point[1:] / self.strength])

    def curvature(self, point: Floats, random: np.random.Generator) -> Floats:
        """Inverse of the Hessian at `point` (1+D, 1+D), from CURVED_ROWS random rows at most."""
        count = len(self.y)
        rows = np.sort(random.choice(count, CURVED_ROWS, replace=False)) if count > CURVED_ROWS else np.arange(count)
        total = np.zeros((len(point), len(point)))
        for part in chunks(len(rows), 1 << 13):
            codes = self.coded.codes[rows[part]]
            dense = np.hstack(
                [np.ones((len(codes), 1), np.float32), *(c.inputs(codes[:, j]) for j, c in enumerate(self.curves))]
            )
            pd = _sigmoid(dense @ point.astype(np.float32))
            dense *= np.sqrt(pd * (1 - pd) * self.w[rows[part]])[:, None].astype(np.float32)
            total += dense.T @ dense
        total *= self.w.sum() / self.w[rows].sum()
        total[np.diag_indices(len(point))] += np.concatenate([[1e-9], np.full(len(point) - 1, 1 / self.strength)])
        return np.asarray(np.linalg.inv(total))


def _descend(loss: _Loss, point: Floats, random: np.random.Generator) -> Floats:
    value, slope = loss.at(point)
    inverse = np.zeros((0, 0))
    for step in range(MOST_STEPS):
        if step in REFRESHED:
            inverse = loss.curvature(point, random)
        move = -inverse @ slope
        gain = -float(slope @ move)
        if gain / 2 < ENOUGH:
            break
        found = _shortened(loss.at, point, move, value - 1e-4 * gain)
        if found is None:
            break
        point, value, slope = found
    return point


def _shortened(
    at: Callable[[Floats], tuple[float, Floats]], point: Floats, move: Floats, below: float
) -> tuple[Floats, float, Floats] | None:
    """The first of the whole step, its half, its quarter … that falls enough; None where rounding hides any gain."""
    for _ in range(MOST_HALVINGS):
        value, slope = at(point + move)
        if value <= below:
            return point + move, value, slope
        move = move / 2
    return None


def _hats(values: Floats, level: NDArray[np.float32]) -> Curve:
    missing = np.isnan(level)
    filled = np.where(missing, values[0], level).astype(np.float64)
    hat = np.zeros(len(level), np.int64)
    low, high = np.ones(len(level)), np.zeros(len(level))
    if len(values) > 1:
        hat = np.clip(np.searchsorted(values, filled, side="right") - 1, 0, len(values) - 2)
        high = np.clip((filled - values[hat]) / np.diff(values)[hat], 0, 1)
        low = 1 - high
    return Curve(hat, np.where(missing, 0, low), np.where(missing, 0, high), missing.astype(float), len(values) + 1)


def _line(level: NDArray[np.float32], count: Floats) -> Curve:
    missing = np.isnan(level)
    squeezed = np.where(missing, 0, np.sign(level) * np.log1p(np.abs(level.astype(np.float64))))
    known = np.where(missing, 0, count)
    total = max(known.sum(), 1)
    mean = known @ squeezed / total
    spread = max(np.sqrt(known @ (squeezed - mean) ** 2 / total), 1e-9)
    scaled = np.where(missing, 0, (squeezed - mean) / spread)
    zero = np.zeros(len(level))
    return Curve(zero.astype(np.int64), scaled, zero, missing.astype(float), 2)


def _tables(curves: tuple[Curve, ...], weights: Floats) -> list[Floats]:
    ends = np.cumsum([curve.size for curve in curves])
    return [curve.values(part) for curve, part in zip(curves, np.split(weights, ends[:-1]), strict=True)]


def _sigmoid(logits: NDArray[np.floating]) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)), np.float64)
