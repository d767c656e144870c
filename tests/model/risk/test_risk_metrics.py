"""Metrics, calibration and the scorecard, against scikit-learn and by their own laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from model.errors import SchemaError
from model.risk.calibration import CELLS, CENTERS, EDGES, Platt, logit_histogram, sigmoid
from model.risk.metrics import (
    UNKNOWN,
    auc,
    auc_from_histogram,
    brier,
    brier_from_histogram,
    ece,
    ece_from_histogram,
    equal_count_edges,
    gini,
    ks,
    ks_exact,
    psi,
)
from model.risk.scorecard import band, points, ranked_reasons, reason_ids, to_grid

rows = st.integers(0, 10_000).map(lambda seed: np.random.Generator(np.random.Philox(seed)))


def outcomes(random, count=400, slope=1.0, digits=1):
    """Logits (with ties) and labels drawn from them."""
    logits = random.normal(-1.5, 1.2, count).round(digits)
    labels = (random.random(count) < sigmoid(slope * logits)).astype(float)
    labels[:2] = 0, 1
    return logits, labels


@given(rows)
@settings(max_examples=50)
def test_exact_metrics_equal_sklearn(random):
    z, y = outcomes(random)
    weights = random.random(len(z))
    assert auc(z, y) == pytest.approx(roc_auc_score(y, z))
    assert auc(z, y, weights) == pytest.approx(roc_auc_score(y, z, sample_weight=weights))
    away, found, _ = roc_curve(y, z, drop_intermediate=False)
    assert ks_exact(z, y) == pytest.approx(np.max(np.abs(found - away)))
    assert brier(sigmoid(z), y) == pytest.approx(brier_score_loss(y, sigmoid(z)))


@given(rows)
@settings(max_examples=30)
def test_histogram_metrics_equal_exact_ones_on_cells_without_spread(random):
    z, y = outcomes(random)
    values, cell = np.unique(z, return_inverse=True)
    good, bad = (np.bincount(cell, y == label, len(values)) for label in (0, 1))
    assert auc_from_histogram(good, bad).value == pytest.approx(auc(z, y))
    assert ks(good, bad) == pytest.approx(ks_exact(z, y))
    assert brier_from_histogram(good, bad, sigmoid(values)) == pytest.approx(brier(sigmoid(z), y))


def test_auc_error_covers_sampling_and_noise():
    random = np.random.Generator(np.random.Philox(3))
    exact, plain, noisy = [], [], []
    for _ in range(300):
        z, y = outcomes(random, 2000, digits=3)
        counts = logit_histogram(z, y)
        exact.append(auc_from_histogram(counts[:CELLS], counts[CELLS:]))
        counts = counts + random.normal(0, 8, len(counts))
        noisy.append(auc_from_histogram(counts[:CELLS], counts[CELLS:], 8))
        plain.append(auc_from_histogram(counts[:CELLS], counts[CELLS:], 0))
    assert np.std([e.value for e in exact]) == pytest.approx(np.mean([e.se for e in exact]), rel=0.2)
    assert np.std([e.value for e in noisy]) == pytest.approx(np.mean([e.se for e in noisy]), rel=0.2)
    assert np.mean([e.value for e in noisy]) == pytest.approx(np.mean([e.value for e in exact]), abs=0.005)
    assert np.mean([e.se for e in plain]) < 0.8 * np.mean([e.se for e in noisy])  # control: noise is in the error


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(0, 1e3))
def test_metrics_survive_any_noise(counts, noise):
    counts = np.asarray(counts)
    back = counts[::-1]
    area, error = (lambda e: (e.value, e.se))(auc_from_histogram(counts, back, noise))
    assert 0 <= area <= 1
    assert 0 <= error <= 0.5
    assert 0 <= ks(counts, back) <= 1
    assert psi(counts, back) >= 0
    assert ece_from_histogram(counts, back, np.full(len(counts), 0.3), noise, debias=True).value >= 0


def test_one_class_says_nothing():
    assert auc_from_histogram(np.zeros(4), np.ones(4)) == UNKNOWN
    assert auc(np.ones(4), np.zeros(4)) == 0.5
    assert ks(np.zeros(2), np.ones(2)) == 0
    assert gini(0.75) == 0.5
    with pytest.raises(SchemaError, match="labels"):
        auc(np.ones(3), np.array([0, 1, 2]))
    with pytest.raises(SchemaError, match="histograms"):
        ks(np.ones(3), np.ones(4))


def test_ece_of_calibrated_and_shifted_forecasts():
    random = np.random.Generator(np.random.Philox(5))
    z, y = outcomes(random, 50_000, digits=9)
    assert ece(sigmoid(z), y) < 0.01
    assert ece(sigmoid(z) * 0 + 0.5, y) == pytest.approx(abs(0.5 - y.mean()))
    order = np.argsort(z)
    by_hand = sum(abs(sigmoid(z[part]).mean() - y[part].mean()) for part in order.reshape(10, -1)) / 10
    assert ece(sigmoid(z), y) == pytest.approx(by_hand)


def test_ece_from_histogram_follows_the_exact_one_and_debiases_noise():
    random = np.random.Generator(np.random.Philox(6))
    z, y = outcomes(random, 20_000, slope=0.95, digits=9)
    edges = np.concatenate([[-9], equal_count_edges(logit_histogram(z, y).reshape(2, -1).sum(0), EDGES, 20), [9]])
    cell = np.digitize(z, edges[1:-1])
    good, bad = (np.bincount(cell, y == label, 20) for label in (0, 1))
    predicted = np.bincount(cell, sigmoid(z), 20) / (good + bad)
    assert (good + bad).min() > 500  # about equal counts
    found = ece_from_histogram(good, bad, predicted)
    assert found.value == pytest.approx(ece(sigmoid(z), y), abs=0.004)
    noisy = [(good + random.normal(0, 80, 20), bad + random.normal(0, 80, 20)) for _ in range(200)]
    plain = np.mean([ece_from_histogram(g, b, predicted, 80).value for g, b in noisy])
    debiased = np.mean([ece_from_histogram(g, b, predicted, 80, debias=True).value for g, b in noisy])
    assert abs(debiased - found.value) < abs(plain - found.value)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.0, 0.03), (0.5, 0.05, 0.13)])
def test_a_few_rows_do_not_make_a_calibrated_model_look_bad_nor_a_bad_one_good(shift, low, high):
    random = np.random.Generator(np.random.Philox(12))
    plain, debiased = [], []
    for _ in range(60):
        pd = random.uniform(0.05, 0.5, 800)
        y = random.random(800) < sigmoid(np.log(pd / (1 - pd)) + shift)
        cell = np.argsort(np.argsort(pd)) * 20 // 800
        good, bad = np.bincount(cell, ~y, 20), np.bincount(cell, y, 20)
        told = np.bincount(cell, pd, 20) / 40
        plain.append(ece_from_histogram(good, bad, told).value)
        debiased.append(ece_from_histogram(good, bad, told, debias=True).value)
    assert low <= np.mean(debiased) <= high
    assert np.mean(plain) > 0.03  # control: the plain figure cannot tell


def test_ece_of_nothing_is_the_worst():
    good, bad, predicted = np.ones(20), np.ones(20), np.full(20, 0.5)
    assert ece_from_histogram(good * 0, bad * 0, predicted).value == 1


def test_psi_of_equal_and_moved_populations():
    assert psi(np.array([10, 20, 30]), np.array([1, 2, 3])) == 0
    assert psi(np.array([50, 50]), np.array([25, 75])) == pytest.approx(0.25 * np.log(3))


@given(rows, st.floats(0.4, 2.5), st.floats(-1, 1))
@settings(max_examples=20, deadline=None)
def test_calibration_equals_logistic_regression_on_cell_centers(random, slope, shift):
    z = random.normal(-1, 1.2, 5000)
    y = (random.random(5000) < sigmoid(slope * z + shift)).astype(float)
    middle = CENTERS[np.clip(np.searchsorted(EDGES[1:-1], z, side="right"), 0, CELLS - 1)]
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(middle[:, None], y)
    mine = Platt.line(logit_histogram(z, y))
    assert mine.slope == pytest.approx(theirs.coef_[0, 0], abs=0.05)
    assert mine.intercept == pytest.approx(theirs.intercept_[0], abs=0.05)


def test_calibration_under_noise_lowers_ece():
    random = np.random.Generator(np.random.Philox(8))
    z = random.normal(-1, 1.2, 24_000)
    y = (random.random(24_000) < sigmoid(1.7 * z - 0.6)).astype(float)
    found = [Platt.fit(logit_histogram(z, y) + random.normal(0, 40, 2 * CELLS), noise_sd=40) for _ in range(20)]
    errors = [ece(platt.pd(z), y) for platt in found]
    assert np.mean(errors) < 0.02 < ece(sigmoid(z), y)
    bare = [Platt.fit(logit_histogram(z, y) + random.normal(0, 40, 2 * CELLS)) for _ in range(20)]
    assert np.mean(errors) < np.mean([ece(platt.pd(z), y) for platt in bare])  # control: knowing the noise helps
    lines = [Platt.line(logit_histogram(z, y) + random.normal(0, 40, 2 * CELLS), noise_sd=40) for _ in range(20)]
    assert np.mean([line.slope for line in lines]) == pytest.approx(1.7, abs=0.1)


def test_bends_follow_a_curve_that_no_line_fits():
    random = np.random.Generator(np.random.Philox(9))
    z = random.normal(-1, 1.2, 24_000)
    y = (random.random(24_000) < sigmoid(np.where(z < -1, 0.3 * (z + 1) - 1.5, 1.8 * (z + 1) - 1.5))).astype(float)
    counts = logit_histogram(z, y) + random.normal(0, 7, 2 * CELLS)
    line, bent = Platt.line(counts, noise_sd=7), Platt.fit(counts, noise_sd=7)
    assert ece(bent.pd(z), y) < 0.01 < ece(line.pd(z), y)  # control: the line alone does not


@given(st.lists(st.floats(-500, 5000), min_size=2 * CELLS, max_size=2 * CELLS), st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_a_calibration_rises_everywhere(counts, noise):
    logits = Platt.fit(counts, noise_sd=noise).logit(np.linspace(-12, 12, 400))
    assert (np.diff(logits) > 0).all()
    with pytest.raises(SchemaError, match="rising"):  # control: one that falls is refused
        Platt(1.0, 0.0, (0.0,), (-1.5,))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2 * CELLS, max_size=2 * CELLS), st.floats(0, 1e6))
@settings(max_examples=50, deadline=None)
def test_calibration_of_any_counts_keeps_order(counts, noise):
    platt = Platt.fit(counts, noise_sd=noise)
    assert platt.slope > 0
    assert np.isfinite(platt.intercept)
    assert Platt.from_dict(platt.to_dict()) == platt


def test_calibration_lost_in_noise_changes_little_and_bad_input_is_refused():
    lost = Platt.fit(np.ones(2 * CELLS), noise_sd=1000)
    assert lost.logit(np.array([-2.0, 0, 2])) == pytest.approx([-2, 0, 2], abs=0.02)
    assert Platt.fit(-np.ones(2 * CELLS)) == Platt()
    for wrong in (np.ones(3), np.full(2 * CELLS, np.nan)):
        with pytest.raises(SchemaError, match="counts"):
            Platt.fit(wrong)
    with pytest.raises(SchemaError, match="slope"):
        Platt(-1.0, 0.0)
    with pytest.raises(SchemaError, match="malformed"):
        Platt.from_dict({"slope": "steep"})
    with pytest.raises(SchemaError, match="label"):
        logit_histogram([0.0, np.nan], [0, 1])
    assert logit_histogram([99.0, -99.0], [1, 0])[[0, -1]].tolist() == [1, 1]


def test_points_scale():
    assert points(1 / 9) == pytest.approx(600)
    assert points(1 / 17) == pytest.approx(660)
    assert points(np.array([0.0, 1.0])).tolist() == [900, 300]
    with pytest.raises(SchemaError, match="probability"):
        points(np.nan)


@given(st.floats(300, 900), st.integers(1, 100))
def test_grid_is_near_and_bands_cover_every_score(score, grid):
    assert to_grid(score, grid) % grid == 0
    assert abs(to_grid(score, grid) - score) <= grid / 2
    assert band(score) in "ABCDE"
    assert band(score) <= band(max(score - 50, 300))


def test_grid_and_band_edges():
    assert to_grid(605) == 610
    assert [band(s) for s in (660, 659.9, 600, 560, 300, 0)] == list("ABCDEE")
    for wrong in ((np.inf, 10), (600, 0)):
        with pytest.raises(SchemaError, match="grid"):
            to_grid(*wrong)


def test_reasons_are_the_strongest_above_their_noise_and_a_set():
    parts, names = np.array([0.5, -2, 0.1, 0.9, 0.2, 0.3, 0.0]), tuple("gfedcba")
    assert ranked_reasons(parts, names) == ("d", "g", "b", "c")
    assert reason_ids(parts, names) == ("b", "c", "d", "g")
    assert reason_ids(parts, names, floor=0.4) == ("d", "g")
    assert reason_ids(-np.abs(parts), names) == ()
    with pytest.raises(SchemaError, match="contributions"):
        reason_ids(parts, names[:3])
