"""Training coordinates v with theta = P v, P a public function of the released histograms (spec 5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.risk.knots import Knots
from model.risk.schema import Schema

Array = npt.NDArray[Any]
Block = npt.NDArray[np.float64]

# A prior over each feature's curve, chosen on synthetic populations (docs/adr/0002): amplitudes of a straight line,
# of a smooth curve with correlation length LENGTH (as a share of the knots), and of single knots standing out.
LINE, SMOOTH, LENGTH, SPIKE = 0.5, 1.0, 0.3, 0.3
FLOOR = 0.02  # share below which a rare knot is not amplified further: there the gradient is mostly noise
TYPICAL = 0.06  # share of a knot at which SPIKE is its own amplitude
BIAS = 0.5


def feature_block(mass: Sequence[float], kind: str = "number", *, floor: float = FLOOR) -> Block:
    """P of one additive feature, (knots+1, knots+1): a symmetric root of the prior covariance of its weights.

    Numbers: line + smooth curve + spikes; a category's codes have no order, so spikes alone. The last row is the
    missing flag, independent of the rest.
    """
    shares = np.asarray(mass[:-1], np.float64)
    size = len(shares)
    place = (np.arange(size) + 0.5) / size
    covariance = np.diag(SPIKE**2 * TYPICAL / (shares + floor))
    if kind == "number":
        line, gaps = place - 0.5, np.abs(place[:, None] - place)
        covariance += LINE**2 * 12 * np.outer(line, line) + SMOOTH**2 * np.exp(-gaps / LENGTH)
    else:
        covariance += SMOOTH**2 * np.eye(size)
    values, vectors = np.linalg.eigh(covariance)
    block = np.eye(size + 1)
    block[:size, :size] = (vectors * np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
    return block


class Preconditioner:
    """theta = P v: one block a feature for the weights, and a bias that keeps the mean logit where it was.

    Inputs are thereby centred on the released mean and scaled so that a typical phone's input has norm 1, hence a
    clipping norm of 1 clips few. P depends on nothing but the knots' masses, which are released anyway, so it
    costs no privacy. An MLP trains in theta itself (P is the identity).
    """

    def __init__(self, schema: Schema, knots: Knots, hidden: Sequence[int] = (), *, floor: float = FLOOR) -> None:
        self.identity = bool(hidden)
        self.blocks: list[Block] = []
        self.centre = np.concatenate([np.asarray(mass, np.float64) for mass in knots.mass])
        if not self.identity:
            kinds = [feature.kind for feature in schema.features]
            blocks = [feature_block(m, kind, floor=floor) for m, kind in zip(knots.mass, kinds, strict=True)]
            scale = 1 / np.sqrt(max(sum(map(_spread, blocks, knots.mass)), 1e-12))
            self.blocks = [block * scale for block in blocks]
        self._starts = np.concatenate([[0], np.cumsum([len(block) for block in self.blocks])]).astype(int)

    def to_theta(self, v: Array) -> Array:
        """theta = P v along the last axis (…, dimension)."""
        if self.identity:
            return np.array(v, copy=True)
        weights = self._apply(v[..., 1:], [block.T for block in self.blocks])
        bias = BIAS * v[..., :1] - (weights @ self.centre)[..., None]
        return np.concatenate([bias, weights], axis=-1).astype(v.dtype)

    def pull_back(self, gradient: Array) -> Array:
        """Gradient by v from the gradient by theta: Pᵀ g along the last axis (…, dimension)."""
        if self.identity:
            return np.array(gradient, copy=True)
        by_bias = gradient[..., :1]
        weights = self._apply(gradient[..., 1:] - by_bias * self.centre, self.blocks)
        return np.concatenate([BIAS * by_bias, weights], axis=-1).astype(gradient.dtype)

    def to_v(self, theta: Array) -> Array:
        """v = P⁻¹ theta along the last axis (…, dimension)."""
        if self.identity:
            return np.array(theta, copy=True)
        weights = theta[..., 1:]
        bias = (theta[..., :1] + (weights @ self.centre)[..., None]) / BIAS
        inner = self._apply(weights, [np.linalg.inv(block).T for block in self.blocks])
        return np.concatenate([bias, inner], axis=-1).astype(theta.dtype)

    def _apply(self, values: Array, right: Sequence[Array]) -> Array:
        spans = zip(self._starts, self._starts[1:], right, strict=False)
        return np.concatenate([values[..., a:b] @ block for a, b, block in spans], axis=-1)


def _spread(block: Block, mass: Sequence[float]) -> float:
    """E‖Pᵀ(phi − mean)‖² of one feature if each row sat on one knot with the released shares."""
    shares = np.asarray(mass, np.float64)
    square = block @ block.T
    return float(shares @ np.diag(square) - shares @ square @ shares)
