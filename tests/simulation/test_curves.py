"""Central models by level: the same curves, gradients and optimum as dense float64 matrices give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from model.risk.knots import hats
from simulation import curves as by_level
from simulation.baselines import coded_split, exact_knots, row_weights, rows_of
from simulation.coded import Coded
from simulation.curves import Curve, fit, knotted, straight
from simulation.dataset import Dataset
from simulation.small import small_dataset

TRAIN, HELD = coded_split(small_dataset(700, seed=4))
X, W = rows_of(TRAIN), row_weights(TRAIN)
KNOTS = exact_knots(TRAIN, 8)


def additive(x: np.ndarray) -> np.ndarray:
    """Hats and missing flag of every feature, dense float64."""
    parts = []
    for j, values in enumerate(KNOTS.values):
        missing = np.isnan(x[:, j])
        basis = hats(values, np.where(missing, values[0], x[:, j]))
        parts.append(np.column_stack([np.where(missing[:, None], 0, basis), missing]))
    return np.hstack(parts)


def plain(x: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Per feature the standardised signed log, 0 where missing, and a flag, dense float64."""
    squeezed, train = (np.sign(m) * np.log1p(np.abs(m.astype(np.float64))) for m in (x, base))
    scaled = (squeezed - np.nanmean(train, axis=0)) / np.nanstd(train, axis=0)
    return np.stack([np.where(np.isnan(scaled), 0, scaled), np.isnan(x)], axis=2).reshape(len(x), -1)


DESIGNS = {
    "additive": (knotted(X.levels, KNOTS), additive(X[:]), additive(rows_of(HELD)[:])),
    "logistic": (straight(X), plain(X[:], X[:]), plain(rows_of(HELD)[:], X[:])),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_inputs_by_level_are_the_dense_ones(name: str) -> None:
    curves, dense, _ = DESIGNS[name]
    mine = np.hstack([curve.inputs(X.codes[:, j]) for j, curve in enumerate(curves)])
    np.testing.assert_allclose(mine, dense, atol=2e-6)


@pytest.mark.parametrize("name", DESIGNS)
def test_value_and_gradient_by_level_equal_dense_float64(name: str) -> None:
    curves, dense, _ = DESIGNS[name]
    point = np.random.Generator(np.random.Philox(3)).normal(size=1 + dense.shape[1])
    value, slope = by_level._Loss(curves, X, TRAIN.y.astype(np.float64), W, 0.3).at(point)
    logits = point[0] + dense @ point[1:]
    error = (1 / (1 + np.exp(-logits)) - TRAIN.y) * W
    expected = np.concatenate([[error.sum()], dense.T @ error + point[1:] / 0.3])
    np.testing.assert_allclose(slope, expected, rtol=1e-9, atol=1e-9)
    loss = W @ (np.logaddexp(0, logits) - TRAIN.y * logits) + point[1:] @ point[1:] / 0.6
    assert value == pytest.approx(loss, rel=1e-12)
    assert np.abs(slope - (expected - np.eye(len(point))[1])).max() > 0.5  # the control


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("rows", [40_000, 150])
def test_the_fit_is_the_optimum_also_where_the_curvature_is_a_samples(
    name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_level, "CURVED_ROWS", rows)
    curves, dense, outside = DESIGNS[name]
    found = fit(curves, X, TRAIN.y, W, 0.1)
    right = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(dense, TRAIN.y, sample_weight=W)
    np.testing.assert_allclose(found.logits(rows_of(HELD)), right.decision_function(outside), atol=5e-3)
    again = fit(curves, X, TRAIN.y, W, 0.1, start=found)
    np.testing.assert_allclose(again.weights, found.weights, atol=5e-3)


def test_no_dense_matrix_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    real = Curve.inputs

    def watched(self: Curve, codes: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, len(codes))
        return real(self, codes)

    monkeypatch.setattr(Curve, "inputs", watched)
    many = np.tile(np.arange(len(X)), 60)
    wide = Dataset(TRAIN.schema, TRAIN.ids, TRAIN.offsets, TRAIN.x, TRAIN.y, {}, TRAIN.holdout)
    assert len(many) > 16_384
    fit(DESIGNS["additive"][0], Coded(X.codes[many], X.levels), wide.y[many], W[many], 0.1)
    assert 0 < most <= 1 << 13


def test_a_single_knot_and_a_feature_that_is_never_there() -> None:
    x = np.column_stack([np.full(60, 7.0), np.full(60, np.nan), np.arange(60) % 4]).astype(np.float32)
    coded, y = Coded.exact(x), (np.arange(60) % 4 > 1).astype(np.float32)
    for curves in (
        straight(coded),
        knotted(
            coded.levels,
            replace(KNOTS, values=((7.0,), (0.0,), (0.0, 3.0)), mass=((1.0, 0.0), (0.0, 1.0), (0.5, 0.5, 0.0))),
        ),
    ):
        logits = fit(curves, coded, y, np.ones(60), 0.3).logits(coded)
        assert np.isfinite(logits).all() and logits[y > 0].min() > logits[y == 0].max()
