"""Charged histograms: knots, calibration, evaluation. Nothing leaves here without its noise (spec 6.9)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from model.errors import BudgetError, UpdateError
from model.privacy.grid import GRID_SCALE, from_grid
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, discrete_gaussian, grid_sigma

Grid = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]
MAX_SUM = 2**62


def noisy_grid(total: Grid, release: GaussianRelease, source: ByteSource, scale: int = GRID_SCALE) -> Grid:
    """`total` (…) plus discrete Gaussian noise of the release, both in whole grid units, as int64 (…).

    The caller has reserved the release (6.8) and draws once. UpdateError for anything but int64 below 2**62;
    BudgetError for a release whose noise is below two grid units.
    """
    if not isinstance(total, np.ndarray) or total.dtype != np.int64:
        raise UpdateError("a sum to be released must be int64 grid units; put it on the grid first")
    if total.size and (int(total.max()) > MAX_SUM or int(total.min()) < -MAX_SUM):
        raise UpdateError(f"a sum to be released exceeds {MAX_SUM} grid units; use a smaller grid scale")
    noise = discrete_gaussian(grid_sigma(release, scale), total.size, source)
    return total + noise.reshape(total.shape)


def noisy_sum(total: Grid, release: GaussianRelease, source: ByteSource, scale: int = GRID_SCALE) -> Counts:
    """As `noisy_grid`, in the unit of the release as float64 (…).

    Values may be negative; whatever is done to them afterwards is post-processing and free.
    """
    return from_grid(noisy_grid(total, release, source, scale), scale)


def noisy_knots(
    total: Grid, release: GaussianRelease, source: ByteSource, *, features: int, scale: int = GRID_SCALE
) -> Counts:
    """The stacked feature histograms (cells,) that knots are chosen from, noised; float64 (cells,).

    A phone's row weights sum to at most 1 in each of `features` histograms, so it moves the stack by at most
    √features (L2, zero-out). BudgetError for a release that claims less.
    """
    _covers(release, math.sqrt(features))
    return noisy_sum(total, release, source, scale)


def noisy_outcomes(total: Grid, release: GaussianRelease, source: ByteSource, *, scale: int = GRID_SCALE) -> Counts:
    """A (2, bins) histogram, good over bad, of logits (calibration) or scores (evaluation), noised; float64.

    A phone's row weights sum to at most 1 over all of it, so it moves it by at most 1 (L2, zero-out).
    BudgetError for a release that claims less; UpdateError for another shape.
    """
    if total.ndim != 2 or total.shape[0] != 2:
        raise UpdateError(f"an outcome histogram has shape (2, bins), not {total.shape}; stack good over bad")
    _covers(release, 1.0)
    return noisy_sum(total, release, source, scale)


def _covers(release: GaussianRelease, needed: float) -> None:
    if release.sensitivity < needed:
        raise BudgetError(
            f"release {release.name!r} claims a sensitivity of {release.sensitivity:.6g} but one phone can move it "
            f"by {needed:.6g}; raise it in the plan"
        )
