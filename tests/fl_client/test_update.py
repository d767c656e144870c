"""Delta → Clipped → Encoded, and nothing else (cases 1–4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_client.update import Clipped, Delta, Encoded, encode_rows
from model.errors import UpdateError

SCALE = 1 << 20
finite = st.floats(-1e6, 1e6, allow_nan=False)


def test_case_01_nan_refused() -> None:
    with pytest.raises(UpdateError, match="NaN"):
        Delta(np.array([0.0, np.nan]))
    with pytest.raises(UpdateError):
        encode_rows(np.array([[0.0, np.nan]]), 1.0, SCALE)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_case_02_infinity_refused(bad: float) -> None:
    with pytest.raises(UpdateError, match="infinity"):
        Delta(np.array([bad, 1.0]))
    with pytest.raises(UpdateError):
        encode_rows(np.array([[bad, 1.0]]), 1.0, SCALE)


def test_case_04_all_zero_accepted() -> None:
    encoded = Delta.zero(7).clip(1.0).encode(SCALE)
    assert encoded.units.dtype == np.int64 and not encoded.units.any()


@given(arrays(np.float64, st.integers(1, 20), elements=finite), st.floats(1e-3, 10.0))
def test_no_encoded_update_is_longer_than_the_clip_norm(values: np.ndarray, norm: float) -> None:
    units = Delta(values).clip(norm).encode(SCALE).units
    assert sum(int(u) ** 2 for u in units) <= (norm * SCALE) ** 2


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=finite), st.floats(1e-3, 10.0))
def test_many_at_once_are_the_same_road(deltas: np.ndarray, norm: float) -> None:
    alone = np.array([Delta(row).clip(norm).encode(SCALE).units for row in deltas])
    together, norms = encode_rows(deltas.copy(), norm, SCALE)
    assert np.abs(alone - together).max() <= 1
    assert (np.array([sum(int(u) ** 2 for u in row) for row in together]) <= (norm * SCALE) ** 2).all()
    np.testing.assert_allclose(norms, np.linalg.norm(deltas, axis=1), rtol=1e-12, atol=1e-200)


def test_short_updates_keep_their_length() -> None:
    assert Delta(np.array([0.5, -0.25])).clip(1.0).encode(4).units.tolist() == [2, -1]


def test_illegal_orders_cannot_be_written() -> None:
    values = np.array([100.0])
    with pytest.raises(UpdateError, match=r"Delta\.clip"):
        Clipped(values, 1.0, None)
    with pytest.raises(UpdateError, match=r"Clipped\.encode"):
        Encoded(values.astype(np.int64), SCALE, None)
    assert not hasattr(Delta(values), "encode") and not hasattr(Clipped, "clip")


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.zeros(3, dtype=np.float32), np.zeros(3, dtype=object)])
def test_an_update_is_one_float64_vector(values: np.ndarray) -> None:
    with pytest.raises(UpdateError):
        Delta(values)
