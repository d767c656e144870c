"""The one place where a sum of phones gets its noise, whatever is released: knots, updates, histograms (spec 6.9)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.errors import UpdateError
from model.privacy.grid import GRID_SCALE
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, discrete_gaussian, grid_sigma

Grid = npt.NDArray[np.int64]
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
