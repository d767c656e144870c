"""A peer that does not train is no peer: one round of each must be the reference's, and a run must lower the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.mlp import epoch, loss
from engines.workload import Data

TOLERANCE = 2e-4  # ‖Δ − Δ_ref‖ / ‖Δ_ref‖; float32 in other orders gives about 1e-6


def reference(data: Data) -> NDArray[np.float64]:
    """theta (d,) after one round of everybody, float64; the data must not depend on the shuffle (`repeated`)."""
    w, theta = data.workload, data.theta.astype(np.float64)
    ends = [
        epoch(theta, data.x[at : at + n].astype(np.float64), data.y[at : at + n].astype(np.float64), w.shapes, w.batch,
              w.rate, np.arange(n))
        for at, n in zip(data.first, data.counts, strict=True)
    ]  # fmt: skip
    return np.asarray(np.mean(ends, axis=0))


def distance(data: Data, found: NDArray[Any], right: NDArray[np.float64]) -> float:
    """How far a round lies from the reference `right` (d,), relative to the length of the step; 1.0 is no step."""
    if found.shape != right.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(found - right) / np.linalg.norm(right - data.theta))


def trains(data: Data, found: NDArray[Any], right: NDArray[np.float64]) -> bool:
    """Whether one round's result is the reference's."""
    return distance(data, found, right) <= TOLERANCE


def controls(data: Data) -> dict[str, bool]:
    """Wrong answers and whether they are seen: no step, half a step, a lost last batch, and unshared weights."""
    right = reference(data)
    step = right - data.theta
    short = Data(data.workload, data.first, data.counts - data.counts % data.workload.batch, data.x, data.y, data.theta)
    wrong = {"idle": data.theta, "half": data.theta + 0.5 * step, "short": reference(short), "other": right + 0.01}
    return {name: not trains(data, found, right) for name, found in wrong.items()}


def losses(data: Data, theta: NDArray[np.float32]) -> tuple[float, float]:
    """Mean loss over all rows (before, after)."""
    shapes = data.workload.shapes
    return loss(data.theta, data.x, data.y, shapes), loss(theta, data.x, data.y, shapes)
