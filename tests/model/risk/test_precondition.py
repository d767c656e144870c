"""Training coordinates: exact inverses, exact adjoints, centred and scaled inputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.risk.knots import Knots
from model.risk.precondition import Preconditioner, feature_block
from model.risk.schema import Feature, Schema

SCHEMA = Schema("t", "1", (Feature("age", lower=0, upper=100), Feature("town", kind="category", buckets=8)))
KNOTS = Knots(((1.0, 5.0, 9.0), (0.0, 3.0)), ((0.2, 0.5, 0.2, 0.1), (0.6, 0.2, 0.1)))
D = 1 + 4 + 3


def vectors() -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(-10, 10), min_size=D, max_size=D).map(np.array)


@given(vectors())
def test_to_v_undoes_to_theta(v: np.ndarray) -> None:
    p = Preconditioner(SCHEMA, KNOTS)
    np.testing.assert_allclose(p.to_v(p.to_theta(v)), v, atol=1e-8)


@given(vectors(), vectors())
def test_pull_back_is_the_adjoint(v: np.ndarray, g: np.ndarray) -> None:
    p = Preconditioner(SCHEMA, KNOTS)
    assert np.isclose(p.to_theta(v) @ g, v @ p.pull_back(g), atol=1e-7)
    assert not np.isclose(p.to_theta(np.ones(D)) @ np.arange(D), np.ones(D) @ np.arange(D))  # control: P is no identity


def test_weights_leave_the_mean_logit_where_it_was() -> None:
    p = Preconditioner(SCHEMA, KNOTS)
    mean_row = np.concatenate([[1.0], p.centre])
    moved = p.to_theta(np.concatenate([[0.0], np.arange(1.0, D)]))
    assert abs(moved @ mean_row) < 1e-9


def test_a_typical_row_has_norm_one() -> None:
    p = Preconditioner(SCHEMA, KNOTS)
    rng = np.random.default_rng(4)
    rows = np.zeros((20_000, D))
    rows[:, 0] = 1
    rows[np.arange(20_000), 1 + rng.choice(4, 20_000, p=KNOTS.mass[0])] = 1
    town = rng.choice(4, 20_000, p=[*KNOTS.mass[1], 0.1])  # a tenth of the codes were not kept: all zeros
    rows[np.flatnonzero(town < 3), 5 + town[town < 3]] = 1
    assert (p.pull_back(rows)[:, 1:] ** 2).sum(1).mean() == pytest.approx(1, rel=0.03)


def test_neighbouring_knots_share_strength_and_codes_do_not() -> None:
    mass = (0.3, 0.3, 0.3, 0.1)
    ordered, codes = feature_block(mass), feature_block(mass, "category")
    assert (ordered @ ordered.T)[0, 1] > 0.1
    assert abs((codes @ codes.T)[0, 1]) < 1e-12


def test_an_mlp_trains_in_its_own_weights() -> None:
    p, v = Preconditioner(SCHEMA, KNOTS, (4,)), np.arange(5.0)
    assert np.array_equal(p.to_theta(v), v)
    assert np.array_equal(p.pull_back(v), v)
    assert np.array_equal(p.to_v(v), v)
