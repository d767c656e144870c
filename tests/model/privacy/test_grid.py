"""The fixed grid: rounding, refusals, and what rounding adds to a sensitivity (spec 6.3)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.errors import UpdateError
from model.privacy.clipping import clip_rows
from model.privacy.grid import GRID_SCALE, MAX_GRID, from_grid, grid_sensitivity, to_grid


@given(arrays(np.float64, 9, elements=st.floats(-1000, 1000)))
def test_a_value_moves_by_at_most_half_a_unit(values: np.ndarray) -> None:
    on_grid = to_grid(values)
    assert on_grid.dtype == np.int64
    assert np.abs(from_grid(on_grid) - values).max() <= 0.5 / GRID_SCALE + 1e-13


def test_what_has_no_place_on_the_grid_is_refused() -> None:
    for bad in (np.nan, np.inf, 2.0 * MAX_GRID / GRID_SCALE):
        with pytest.raises(UpdateError):
            to_grid([0.0, bad])
    assert to_grid([]).size == 0


@pytest.mark.parametrize("dim", [1, 17, 4096])
def test_grid_sensitivity_covers_one_phone_and_a_whole_sum(dim: int) -> None:
    scale, rng = 8, np.random.default_rng(dim)
    rows = clip_rows(rng.normal(size=(64, dim)), 1.0)
    bound = grid_sensitivity(1.0, dim, scale) * scale
    alone = np.linalg.norm(to_grid(rows, scale).astype(float), axis=1).max()
    together = np.linalg.norm((to_grid(rows.sum(0), scale) - to_grid(rows[1:].sum(0), scale)).astype(float))
    assert alone <= bound and together <= bound
    assert bound == pytest.approx(scale + math.sqrt(dim))


def test_without_the_rounding_term_the_sensitivity_is_too_small() -> None:
    row = np.full((1, 4096), 0.51 / 8)  # every coordinate is rounded up
    clipped = clip_rows(row, 10.0)
    assert np.linalg.norm(to_grid(clipped, 8).astype(float)) > np.linalg.norm(clipped) * 8
