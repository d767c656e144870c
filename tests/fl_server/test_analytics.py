"""The noise has the plan's size, lies on the grid, and no sum passes without it (spec 6.9)."""

import math

import numpy as np
import pytest

from fl_server.analytics import noisy_grid
from model.errors import BudgetError, UpdateError
from model.privacy.grid import GRID_SCALE, to_grid
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import OsSource, SeededSource


def release(z: float, sensitivity: float, name: str = "knots") -> GaussianRelease:
    return GaussianRelease(name, z, sensitivity, 1, 1.0, "train")


def test_noise_has_the_sigma_of_the_plan_in_the_unit_of_the_release() -> None:
    truth = np.full(40_000, 123.5)
    noisy = noisy_grid(to_grid(truth), release(20.0, 4.8), SeededSource(1)) / GRID_SCALE
    spread = (noisy - truth).std() / (20.0 * 4.8)
    margin = 5 / math.sqrt(2 * truth.size)
    assert abs(spread - 1) < margin and abs(spread * 1.05 - 1) > margin
    assert abs((noisy - truth).mean()) < 5 * 96 / math.sqrt(truth.size)


def test_noise_lies_on_the_grid_and_adds_up_again() -> None:
    total = to_grid(np.linspace(-3, 3, 12).reshape(3, 4))
    grid = noisy_grid(total, release(2.0, 1.0), SeededSource(4))
    assert grid.dtype == np.int64 and grid.shape == (3, 4) and not np.array_equal(grid, total)
    assert np.array_equal(noisy_grid(total, release(2.0, 1.0), SeededSource(4)), grid)


def test_what_is_no_grid_sum_or_has_no_noise_is_refused() -> None:
    for bad in (np.zeros(3), np.zeros(3, np.int32), np.full(3, 2**62 + 1)):
        with pytest.raises(UpdateError):
            noisy_grid(bad, release(5.0, 1.0), OsSource())  # type: ignore[arg-type]
    with pytest.raises(BudgetError):
        noisy_grid(np.zeros(3, np.int64), release(0.0, 1.0), OsSource())
