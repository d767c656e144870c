"""Training coordinates v with theta = P v, P a public function of the released histograms (spec 5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.risk.knots import Knots
from model.risk.schema import Schema

Array = npt.NDArray[Any]

FLOOR = 0.02  # share below which a rare knot is not amplified further: there the gradient is mostly noise


def feature_block(mass: Sequence[float], floor: float = FLOOR) -> npt.NDArray[np.float64]:
    """P of one additive feature, (knots+1, knots+1): diag 1/sqrt(mass + floor), so rare knots keep pace."""
    return np.diag(1 / np.sqrt(np.asarray(mass, np.float64) + floor))


class Preconditioner:
    """theta = P v with P block diagonal: [1] for the bias, then one block a feature (additive); identity for an MLP.

    P depends on nothing but the knots' masses, which are released anyway, so it costs no privacy.
    """

    def __init__(self, schema: Schema, knots: Knots, hidden: Sequence[int] = (), *, floor: float = FLOOR) -> None:
        self.identity = bool(hidden)
        self.blocks: list[npt.NDArray[np.float64]] = []
        if not self.identity:
            self.blocks = [np.eye(1), *(feature_block(mass, floor) for mass in knots.mass)]
        self._starts = np.concatenate([[0], np.cumsum([len(block) for block in self.blocks])]).astype(int)

    def to_theta(self, v: Array) -> Array:
        """theta = P v along the last axis (…, dimension)."""
        return self._apply(v, [block.T for block in self.blocks])

    def pull_back(self, gradient: Array) -> Array:
        """Gradient by v from the gradient by theta: Pᵀ g along the last axis (…, dimension)."""
        return self._apply(gradient, self.blocks)

    def to_v(self, theta: Array) -> Array:
        """v = P⁻¹ theta along the last axis (…, dimension)."""
        return self._apply(theta, [np.linalg.inv(block).T for block in self.blocks])

    def _apply(self, values: Array, right: Sequence[Array]) -> Array:
        if self.identity:
            return np.array(values, copy=True)
        parts = [values[..., a:b] @ block for a, b, block in zip(self._starts, self._starts[1:], right, strict=False)]
        return np.concatenate(parts, axis=-1).astype(values.dtype)
