"""The fixed grid on which sums and noise are exact integers (spec 6.3)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from model.errors import UpdateError

GRID_SCALE = 2**20
MAX_GRID = 2**52


def to_grid(values: npt.ArrayLike, scale: int = GRID_SCALE) -> npt.NDArray[np.int64]:
    """Nearest grid point of every value (ties to even), as int64 in units of 1/`scale`.

    UpdateError for NaN, an infinity, or a magnitude above 2**52 grid units, where float64 stops being exact.
    """
    scaled = np.asarray(values, dtype=np.float64) * float(scale)
    if not np.isfinite(scaled).all():
        raise UpdateError("a value to be put on the grid is NaN or infinite; drop that phone's update")
    if scaled.size and float(np.abs(scaled).max()) > MAX_GRID:
        raise UpdateError(f"a value exceeds {MAX_GRID} grid units; clip it before it is put on the grid")
    return np.rint(scaled).astype(np.int64)


def from_grid(values: npt.NDArray[np.int64], scale: int = GRID_SCALE) -> npt.NDArray[np.float64]:
    """Grid units back to the unit of the release, as float64."""
    return values.astype(np.float64) / float(scale)


def grid_sensitivity(clip: float, dim: int, scale: int = GRID_SCALE) -> float:
    """L2 sensitivity of a sum of `dim` numbers of sensitivity `clip` once it lies on the grid: clip + √dim/scale.

    Rounding moves each coordinate by at most half a grid unit. If every phone is rounded by itself, zeroing one
    out moves the sum by at most clip + √dim/(2·scale). If a partial sum is rounded as a whole, both neighbouring
    sums are rounded and each may move by √dim/(2·scale), hence √dim/scale. The larger holds for both.
    """
    return float(clip) + math.sqrt(dim) / scale
