"""Clip an update to a bounded L2 norm; refuse what has no norm (spec 6.2)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from model.errors import UpdateError

Floats = npt.NDArray[np.float64]


def clip(delta: npt.ArrayLike, bound: float) -> Floats:
    """`delta` (d,) scaled down, if need be, to an L2 norm of at most `bound`; float64.

    A vector within the bound, the zero vector among them, comes back unchanged. UpdateError if any entry is NaN
    or infinite (NaN compares false with every bound and would pass) or if `bound` is not finite and positive.
    """
    row: Floats = clip_rows(np.asarray(delta, dtype=np.float64)[None, :], bound)[0]
    return row


def clip_rows(matrix: npt.ArrayLike, bound: float) -> Floats:
    """Every row of `matrix` (n, d) clipped on its own, as `clip` does; float64 (n, d)."""
    rows = np.asarray(matrix, dtype=np.float64)
    if not (math.isfinite(bound) and bound > 0):
        raise UpdateError(f"the clipping bound is {bound!r}; set it to a finite number above 0")
    if not np.isfinite(rows).all():
        raise UpdateError("an update holds NaN or an infinity, so it cannot be clipped; drop that phone's update")
    if rows.shape[-1] == 0:
        return rows.copy()
    # Dividing by the largest magnitude first keeps the squares from overflowing or vanishing.
    peak = np.abs(rows).max(axis=-1, keepdims=True)
    unit = rows / np.where(peak > 0, peak, 1.0)
    length = np.sqrt((unit * unit).sum(axis=-1, keepdims=True))
    over = length * peak > bound
    safe = np.where(length > 0, length, 1.0)
    # The last factor covers the few roundings above, so that the norm never ends above the bound.
    return np.where(over, unit * (bound / safe) * (1 - 2**-48), rows)
