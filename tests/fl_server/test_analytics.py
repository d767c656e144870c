"""Charged histograms: the noise has the plan's size, and nothing passes without it (spec 6.9)."""

import math

import numpy as np
import pytest

from fl_server.analytics import noisy_grid, noisy_knots, noisy_outcomes, noisy_sum
from model.errors import BudgetError, UpdateError
from model.privacy.grid import GRID_SCALE, to_grid
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import OsSource, SeededSource


def release(z: float, sensitivity: float, name: str = "knots") -> GaussianRelease:
    return GaussianRelease(name, z, sensitivity, 1, 1.0, "train")


def test_noise_has_the_sigma_of_the_plan_in_the_unit_of_the_release() -> None:
    truth = np.full(40_000, 123.5)
    noisy = noisy_sum(to_grid(truth), release(20.0, 4.8), SeededSource(1))
    assert noisy.dtype == np.float64
    spread = (noisy - truth).std() / (20.0 * 4.8)
    margin = 5 / math.sqrt(2 * truth.size)
    assert abs(spread - 1) < margin and abs(spread * 1.05 - 1) > margin
    assert abs((noisy - truth).mean()) < 5 * 96 / math.sqrt(truth.size)


def test_noise_lies_on_the_grid_and_adds_up_again() -> None:
    total = to_grid(np.linspace(-3, 3, 12).reshape(3, 4))
    grid = noisy_grid(total, release(2.0, 1.0), SeededSource(4))
    assert grid.dtype == np.int64 and grid.shape == (3, 4) and not np.array_equal(grid, total)
    assert np.array_equal(noisy_sum(total, release(2.0, 1.0), SeededSource(4)) * GRID_SCALE, grid)


def test_negative_noisy_counts_are_kept_so_that_the_sum_stays_unbiased() -> None:
    noisy = noisy_sum(np.zeros(400, np.int64), release(3.0, 1.0), SeededSource(2))
    assert (noisy < 0).any() and (noisy > 0).any()


@pytest.mark.parametrize("features", [1, 23])
def test_one_phone_moves_the_knots_by_no_more_than_claimed(features: int) -> None:
    cells, rng = 12, np.random.default_rng(features)
    worst = 0.0
    for rows in (1, 2, 7):  # a phone with several rows: each weighs 1/n
        one = np.zeros((features, cells))
        for _ in range(rows):
            one[np.arange(features), rng.integers(0, cells, features)] += 1 / rows
        worst = max(worst, float(np.linalg.norm(to_grid(one).astype(float) / GRID_SCALE)))
    assert worst == pytest.approx(math.sqrt(features), rel=1e-9)  # one row a phone reaches it


def test_the_knots_and_outcomes_need_the_sensitivity_that_they_have() -> None:
    total = np.zeros(23 * 130, np.int64)
    enough = release(5.0, math.sqrt(23))
    assert noisy_knots(total, enough, OsSource(), features=23).shape == total.shape
    with pytest.raises(BudgetError, match="raise it in the plan"):
        noisy_knots(total, release(5.0, 1.0), OsSource(), features=23)
    outcomes = np.zeros((2, 20), np.int64)
    assert noisy_outcomes(outcomes, release(5.0, 1.0), OsSource()).shape == (2, 20)
    with pytest.raises(BudgetError, match="raise it in the plan"):
        noisy_outcomes(outcomes, release(5.0, 0.5), OsSource())
    with pytest.raises(UpdateError, match="good over bad"):
        noisy_outcomes(np.zeros(40, np.int64), enough, OsSource())


def test_what_is_no_grid_sum_or_has_no_noise_is_refused() -> None:
    for bad in (np.zeros(3), np.zeros(3, np.int32), np.full(3, 2**62 + 1)):
        with pytest.raises(UpdateError):
            noisy_sum(bad, release(5.0, 1.0), OsSource())  # type: ignore[arg-type]
    with pytest.raises(BudgetError):
        noisy_sum(np.zeros(3, np.int64), release(0.0, 1.0), OsSource())
