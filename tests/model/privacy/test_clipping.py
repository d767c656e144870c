"""Clipping: the bound holds, zero stays zero, and what has no norm is refused (spec 6.2)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.errors import UpdateError
from model.privacy.clipping import clip, clip_rows

FINITE = st.floats(-1e300, 1e300)


@given(arrays(np.float64, st.integers(1, 20), elements=FINITE), st.floats(1e-6, 1e6))
def test_the_norm_never_exceeds_the_bound(delta: np.ndarray, bound: float) -> None:
    assert np.sqrt(sum(float(v) * float(v) for v in clip(delta, bound))) <= bound * (1 + 1e-12)


@given(arrays(np.float64, 7, elements=st.floats(-1, 1)))
def test_within_the_bound_nothing_changes(delta: np.ndarray) -> None:
    assert np.array_equal(clip(delta, 3.0), delta)


def test_direction_is_kept_and_the_bound_is_reached() -> None:
    clipped = clip([3.0, 4.0], 1.0)
    assert np.allclose(clipped, [0.6, 0.8], rtol=1e-12) and not np.allclose(clip([3.0, 4.0], 2.0), [0.6, 0.8])


def test_zero_stays_zero() -> None:
    assert not clip(np.zeros(5), 1.0).any() and not clip_rows(np.zeros((3, 5)), 1.0).any()


def test_a_denormal_and_a_huge_update_are_clipped_too() -> None:
    assert np.linalg.norm(clip([5e-324, 5e-324], 1.0)) < 1e-300
    assert np.linalg.norm(clip([1e308, 1e308], 1.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_do_not_pass(bad: float) -> None:
    with pytest.raises(UpdateError):
        clip([0.1, bad], 1.0)
    with pytest.raises(UpdateError):
        clip_rows([[0.0, 0.0], [0.1, bad]], 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    with pytest.raises(UpdateError):
        clip([1.0], bound)


def test_rows_are_clipped_each_on_its_own() -> None:
    rows = np.random.default_rng(5).normal(size=(40, 6))
    assert np.array_equal(clip_rows(rows, 1.5), np.stack([clip(row, 1.5) for row in rows]))
    assert clip_rows(np.zeros((2, 0)), 1.0).shape == (2, 0)
