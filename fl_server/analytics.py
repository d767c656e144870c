"""Charged histograms: knots, calibration, evaluation. Nothing leaves here without its noise (spec 6.9)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fl_server.budget import Budget, Reservation
from model.errors import BudgetError, UpdateError
from model.privacy.grid import GRID_SCALE, from_grid, grid_sensitivity
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, discrete_gaussian, grid_sigma

Grid = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]
MAX_SUM = 2**62


def knots_sensitivity(features: int, cells: int, scale: int = GRID_SCALE) -> float:
    """L2, zero-out: a phone's row weights sum to 1 in each of `features` histograms, so at most √features."""
    return grid_sensitivity(math.sqrt(features), cells, scale)


def outcome_sensitivity(bins: int, scale: int = GRID_SCALE) -> float:
    """L2, zero-out, of a 2 × `bins` histogram of rows by outcome: a phone's row weights sum to 1 over all of it."""
    return grid_sensitivity(1.0, 2 * bins, scale)


def noisy_sum(total: Grid, release: GaussianRelease, source: ByteSource, scale: int = GRID_SCALE) -> Counts:
    """`total` (…) in grid units plus discrete Gaussian noise, back in the unit of the release as float64 (…).

    Noised values may be negative; what is done to them afterwards is post-processing and free. UpdateError for
    anything but int64 below 2**62; BudgetError for a release whose noise is below two grid units.
    """
    return from_grid(noisy_grid(total, release, source, scale), scale)


def noisy_grid(total: Grid, release: GaussianRelease, source: ByteSource, scale: int = GRID_SCALE) -> Grid:
    """As `noisy_sum`, but still in whole grid units: what the log keeps and a reviewer adds up again."""
    if not isinstance(total, np.ndarray) or total.dtype != np.int64:
        raise UpdateError("a sum to be released must be int64 grid units; put it on the grid first")
    if total.size and (int(total.max()) > MAX_SUM or int(total.min()) < -MAX_SUM):
        raise UpdateError(f"a sum to be released exceeds {MAX_SUM} grid units; use a smaller grid scale")
    noise = discrete_gaussian(grid_sigma(release, scale), total.size, source)
    return total + noise.reshape(total.shape)


def noisy_knots(
    total: Grid, release: GaussianRelease, source: ByteSource, *, features: int, scale: int = GRID_SCALE
) -> Counts:
    """The stacked feature histograms (cells,) that knots are chosen from, noised; float64 (cells,)."""
    _covers(release, knots_sensitivity(features, total.size, scale))
    return noisy_sum(total, release, source, scale)


def noisy_outcomes(total: Grid, release: GaussianRelease, source: ByteSource, *, scale: int = GRID_SCALE) -> Counts:
    """A (2, bins) histogram, good over bad, of logits (calibration) or scores (evaluation), noised; float64."""
    if total.ndim != 2 or total.shape[0] != 2:
        raise UpdateError(f"an outcome histogram has shape (2, bins), not {total.shape}; stack good over bad")
    _covers(release, outcome_sensitivity(total.shape[1], scale))
    return noisy_sum(total, release, source, scale)


@dataclass(frozen=True)
class Charged:
    """A noised sum in grid units with the reservation that paid for it; `digest` is SHA-256 of its '<i8' bytes."""

    values: Grid
    reservation: Reservation

    @property
    def digest(self) -> str:
        """What `Budget.commit` records."""
        return hashlib.sha256(np.ascontiguousarray(self.values, dtype="<i8").tobytes()).hexdigest()


def charge(
    budget: Budget, name: str, total: Grid, source: ByteSource, *, round: int = 0, scale: int = GRID_SCALE
) -> Charged:
    """Reserve, then draw, in this order and no other. Keep the result on disk, then call `settle`.

    BudgetError, before a byte is taken from `source`, when the budget does not hold the release or when `source`
    is not the one that the plan names.
    """
    if source.name != budget.plan.privacy.noise_source:
        raise BudgetError(f"the plan draws noise from {budget.plan.privacy.noise_source!r}, not {source.name!r}")
    reservation = budget.reserve(name, round)
    return Charged(noisy_grid(total, reservation.release, source, scale), reservation)


def settle(budget: Budget, charged: Charged) -> Charged:
    """Commit a kept result; afterwards it is the only one this charge can ever release."""
    return Charged(charged.values, budget.commit(charged.reservation, charged.digest))


def _covers(release: GaussianRelease, needed: float) -> None:
    if release.sensitivity < needed:
        raise BudgetError(
            f"release {release.name!r} claims a sensitivity of {release.sensitivity:.6g} but one phone can move it "
            f"by {needed:.6g}; raise it in the plan"
        )
