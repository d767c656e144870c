"""Knots: public grids, noisy histograms, and what they promise to everything built on them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_samples import MIXED, knot_sets, mixed_rows

from model.errors import SchemaError
from model.risk.knots import (
    Knots,
    grid_centers,
    grid_edges,
    hats,
    histogram_layout,
    histogram_sensitivity,
    project_simplex,
    rows_histogram,
)
from model.risk.schema import Feature, Schema


def exact(x, schema, max_knots=16):
    return Knots.from_histogram(rows_histogram(x, np.ones(len(x)), schema), schema, max_knots)


def test_small_integers_fall_into_distinct_cells_named_by_them():
    for feature in (Feature("a"), Feature("b", lower=-20, upper=200, grid="linear")):
        edges, centers = grid_edges(feature), grid_centers(feature)
        integers = np.arange(-20, 21)
        cells = np.searchsorted(edges[1:-1], integers, side="right")
        assert len(set(cells)) == 41 or feature.grid == "linear"
        if feature.grid == "signed_log":
            assert np.array_equal(centers[cells], integers)


def test_linear_grid_hits_integer_steps():
    assert set(range(31)) <= set(grid_centers(Feature("n", lower=0, upper=30, grid="linear")))


@given(knot_sets())
@settings(max_examples=60, deadline=None)
def test_grid_is_ascending_and_closed_by_its_bounds(pair):
    for feature in pair[0].features:
        edges = grid_edges(feature)
        assert np.all(np.diff(edges) > 0)
        assert np.all(np.diff(grid_centers(feature).astype(np.float32)) > 0)


@given(knot_sets())
@settings(max_examples=150, deadline=None)
def test_knots_of_any_noisy_histogram_keep_their_promises(pair):
    schema, knots = pair
    for feature, values, mass in zip(schema.features, knots.values, knots.mass, strict=True):
        assert len(values) >= 1
        assert np.all(np.diff(np.asarray(values, np.float32)) > 0)
        assert min(mass) >= 0
        assert sum(mass) <= 1 + 1e-9
        assert feature.kind == "category" or sum(mass) == pytest.approx(1)
    assert Knots.from_dict(knots.to_dict()) == knots
    assert Knots.from_dict(knots.to_dict()).digest == knots.digest


def test_discrete_columns_get_a_knot_at_each_value():
    knots = exact(mixed_rows(20_000), MIXED)
    assert knots.values[1] == tuple(float(i) for i in range(-2, 9))
    assert knots.values[3] == (7.0,)
    assert knots.values[5] == (1.0, 3.0, 4.0, 9.0, 12.0)


def test_column_without_any_value_gets_one_knot_without_mass():
    knots = exact(mixed_rows(500), MIXED)
    assert knots.mass[4] == (0.0, 1.0)


def test_knots_follow_quantiles_under_noise():
    schema = Schema("s", "1", (Feature("v"),))
    x = np.random.Generator(np.random.Philox(1)).lognormal(10, 1, (24_000, 1))
    clean = rows_histogram(x, np.ones(len(x)), schema)
    noisy = clean + np.random.Generator(np.random.Philox(2)).normal(0, 60, len(clean))
    knots = Knots.from_histogram(noisy, schema, 8, noise_sd=60)
    middle = np.log(np.interp(0.5, np.cumsum(knots.mass[0][:-1]), knots.values[0]))
    assert middle == pytest.approx(np.log(np.median(x)), abs=0.35)
    wild = Knots.from_histogram(clean + np.random.Generator(np.random.Philox(2)).normal(0, 6000, len(clean)), schema, 8)
    assert wild != knots  # control: the noise does reach the knots


def test_codes_lost_in_noise_are_dropped():
    schema = Schema("s", "1", (Feature("c", kind="category", buckets=6),))
    counts = np.array([500.0, 12, 300, 0, -8, 5, 40])
    assert Knots.from_histogram(counts, schema, 5, noise_sd=10).values[0] == (0.0, 2.0)
    assert Knots.from_histogram(np.maximum(counts, 0), schema, 5).values[0] == (0.0, 1.0, 2.0, 5.0)
    assert len(Knots.from_histogram(counts * 0, schema, 5, noise_sd=10).values[0]) == 1


def test_tiny_tables_work():
    x = np.array([[3.0], [np.nan]])
    knots = exact(x, Schema("s", "1", (Feature("v"),)))
    assert knots.values[0] == (3.0,)
    assert knots.mass[0] == (0.5, 0.5)


def test_histogram_counts_each_row_once_a_feature():
    x = mixed_rows(300)
    weights = np.full(300, 1 / 3)
    counts = rows_histogram(x, weights, MIXED)
    layout = histogram_layout(MIXED)
    assert counts.shape == (layout.total,)
    assert counts.sum() == pytest.approx(100 * len(MIXED.features))
    one_phone = rows_histogram(x[:4], np.full(4, 0.25), MIXED)
    assert np.linalg.norm(one_phone) <= histogram_sensitivity(MIXED) + 1e-12


def test_values_beyond_bounds_and_unknown_codes():
    schema = Schema("s", "1", (Feature("v", lower=0, upper=1, grid="linear"), Feature("c", kind="category", buckets=2)))
    counts = rows_histogram(np.array([[np.inf, 5], [-3.0, 1]]), np.ones(2), schema)
    layout = histogram_layout(schema)
    assert counts[0] == counts[layout.sizes[0] - 2] == 1
    assert counts[layout.offsets[1] :].tolist() == [0, 1, 0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.floats(0.1, 1e4))
def test_simplex_projection_is_the_nearest_point(counts, total):
    counts = np.asarray(counts)
    out = project_simplex(counts, total)
    assert out.min() >= 0
    assert out.sum() == pytest.approx(total, rel=1e-6, abs=1e-6)
    gap = counts - out
    assert np.all(gap <= gap[out > 0].max() + 1e-6)  # KKT: one shift where positive, at most that elsewhere


@given(st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=9, unique=True), st.lists(st.floats(-200, 200)))
def test_hats_sum_to_one(values, points):
    basis = hats(sorted(values), points)
    assert np.allclose(basis.sum(axis=1), 1)
    assert basis.min(initial=0) >= 0


@pytest.mark.parametrize(
    ("values", "mass"),
    [
        ((2.0, 1.0), (0.5, 0.5, 0)),
        ((1.0,), (1.0,)),
        ((), (1.0,)),
        ((1.0,), (-0.1, 1.1)),
        ((1.0, 1.0 + 1e-12), (1, 0, 0)),
    ],
)
def test_malformed_knots_are_refused(values, mass):
    with pytest.raises(SchemaError):
        Knots((values,), (mass,))


@pytest.mark.parametrize(
    "raw", [{}, {"values": [[1]], "mass": "x"}, {"values": 3, "mass": []}, {"values": [[1]], "mass": []}]
)
def test_malformed_knots_on_disk_are_refused(raw):
    with pytest.raises(SchemaError):
        Knots.from_dict(raw)


def test_wrong_histograms_and_rows_are_refused():
    with pytest.raises(SchemaError, match="cells"):
        Knots.from_histogram(np.zeros(3), MIXED, 8)
    with pytest.raises(SchemaError, match="cells"):
        Knots.from_histogram(np.full(histogram_layout(MIXED).total, np.nan), MIXED, 8)
    with pytest.raises(SchemaError, match="features"):
        rows_histogram(np.zeros((2, 3)), np.ones(2), MIXED)


def test_device_side_of_the_risk_model_imports_no_torch():
    rooms = ("schema", "knots", "grid", "scorecard", "metrics", "calibration", "monotone", "precondition", "onnx_ops")
    barred = "import sys; sys.modules['torch'] = None; import "

    def exit_code(modules):
        return subprocess.run([sys.executable, "-c", barred + modules], capture_output=True).returncode

    assert exit_code(", ".join(f"model.risk.{room}" for room in rooms)) == 0
    assert exit_code("model.risk.encoding") != 0  # control
