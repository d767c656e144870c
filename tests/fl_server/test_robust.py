"""Robust rules: what they are by definition, what they withstand, and that masks never meet them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server import robust
from fl_server.robust import RULES, combine, gathered, mean, median, multikrum, rfa, trimmed_mean
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.errors import PocketScoreError, RoundError, UpdateError
from simulation.dataset import Dataset
from simulation.federate import federate
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEYS = [SigningKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
ROBUST = [name for name in RULES if name != "mean"]
FAR = 1e6


def crowd(phones: int = 60, dim: int = 12, seed: int = 0) -> np.ndarray:
    """Updates around (1, 1, …) with spread .3."""
    return 1 + 0.3 * np.random.Generator(np.random.Philox(seed)).normal(size=(phones, dim))


def clear(aggregation: str) -> TrainingPlan:
    """A simulation in mode off under a rule."""
    plan = small_plan(small_dataset())
    return replace(plan, privacy=replace(plan.privacy, mode="off", charges=()), aggregation=aggregation)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_fifth_of_far_rows_moves_no_robust_rule(rule: str) -> None:
    rows = crowd()
    rows[:12] = -FAR
    assert np.abs(RULES[rule](rows) - 1).max() < 0.5


def test_control_the_mean_is_moved_by_the_same_rows() -> None:
    rows = crowd()
    rows[:12] = -FAR
    assert np.abs(mean(rows) - 1).max() > FAR / 10


@pytest.mark.parametrize("rule", list(RULES))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.floats(-100, 100), factor=st.floats(0.01, 100))
def test_every_rule_follows_shift_scale_and_order(rule: str, seed: int, shift: float, factor: float) -> None:
    rows, place = crowd(20, 4, seed), RULES[rule]
    found = place(rows)
    assert np.allclose(place(rows * factor + shift), found * factor + shift, rtol=1e-4, atol=1e-4 * factor)
    order = np.random.Generator(np.random.Philox(seed)).permutation(20)
    assert np.allclose(place(rows[order]), found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", list(RULES))
def test_equal_rows_are_their_own_place_and_int64_is_taken(rule: str) -> None:
    rows = np.tile(np.array([3, -5, 0], dtype=np.int64), (9, 1))
    found = RULES[rule](rows)
    assert found.dtype == np.float64 and np.allclose(found, [3, -5, 0])


def test_trimmed_mean_is_its_definition() -> None:
    rows = crowd(11, 3)
    assert np.allclose(trimmed_mean(rows, 0.2), np.sort(rows, axis=0)[3:8].mean(axis=0))
    assert np.allclose(trimmed_mean(rows, 0.0), rows.mean(axis=0))


def test_multikrum_is_its_definition() -> None:
    rows = crowd(15, 3)
    f = 3
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(squares[i], i))[: 15 - f - 2].sum() for i in range(15)]
    assert np.allclose(multikrum(rows, 0.2), rows[np.argsort(scores)[: 15 - f]].mean(axis=0))


def test_multikrum_over_several_blocks_of_rows_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = crowd(40, 5)
    whole = multikrum(rows)
    monkeypatch.setattr(robust, "ROWS_A_BLOCK", 7)
    assert np.array_equal(multikrum(rows), whole)


def test_rfa_is_where_unit_vectors_balance() -> None:
    rows = crowd(31, 4)
    away = rows - rfa(rows, steps=500)
    pull = (away / np.linalg.norm(away, axis=1, keepdims=True)).sum(axis=0)
    assert np.linalg.norm(pull) < 1e-4 * len(rows)


def test_rfa_rests_on_a_row_that_most_share() -> None:
    rows = np.zeros((9, 2))
    rows[7:] = 5.0
    assert np.allclose(rfa(rows), 0, atol=1e-6)


def test_median_is_numpys() -> None:
    rows = crowd(10, 3)
    assert np.array_equal(median(rows), np.median(rows, axis=0))


def test_mean_takes_the_fixed_denominator() -> None:
    rows = crowd(10, 3)
    assert np.allclose(mean(rows, 20.0), rows.sum(axis=0) / 20)
    with pytest.raises(RoundError, match="no meaning"):
        mean(rows, 0.0)


def test_combining_by_the_mean_is_the_exact_sum() -> None:
    rows = np.array([[2**52, 1], [1, 2]], dtype=np.int64)
    assert combine(small_plan(small_dataset()), rows).tolist() == [2**52 + 1, 3]


@pytest.mark.parametrize("rule", ROBUST)
def test_a_rule_stands_where_the_sum_stands(rule: str) -> None:
    rows = np.rint(crowd() * 2**20).astype(np.int64)
    found = combine(clear(rule), rows)  # type: ignore[arg-type]
    assert found.dtype == np.int64
    assert np.allclose(found / rows.sum(axis=0), 1, atol=0.2)


@pytest.mark.parametrize("rule", ROBUST)
def test_no_rule_but_the_mean_where_noise_or_masks_are_promised(rule: str) -> None:
    plan = small_plan(small_dataset())
    object.__setattr__(plan, "aggregation", rule)  # a plan so made is refused; this is one that slipped through
    with pytest.raises(RoundError, match="in the clear"):
        combine(plan, np.ones((9, 2), dtype=np.int64))


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize(
    "rows",
    [
        np.ones(3),
        np.ones((0, 3)),
        np.ones((2, 2), dtype=np.float32),
        np.array([[np.nan, 1.0]]),
        np.full((9, 2), np.inf),
    ],
)
def test_what_are_no_updates_is_refused(rule: str, rows: np.ndarray) -> None:
    with pytest.raises(UpdateError):
        RULES[rule](rows)


@pytest.mark.parametrize(("rule", "rows", "share"), [(multikrum, 4, 0.3), (multikrum, 9, 0.5), (trimmed_mean, 4, 0.5)])
def test_too_few_phones_for_so_many_liars_are_refused(rule: object, rows: int, share: float) -> None:
    with pytest.raises(RoundError):
        rule(np.ones((rows, 2)), share)  # type: ignore[operator]


def test_single_updates_go_by_the_rule_in_training_alone() -> None:
    rows = [(1, np.array([1, -2, 3])), (1, np.array([2, -2, 9])), (1, np.array([900, -2, 3]))]
    stacked = np.stack([vector for _, vector in rows])
    np.testing.assert_array_equal(gathered(clear("median"), "train", rows), [6, -6, 9])
    np.testing.assert_array_equal(gathered(clear("median"), "knots", rows), stacked.sum(axis=0))
    np.testing.assert_array_equal(gathered(clear("mean"), "train", rows), stacked.sum(axis=0))


def test_one_farm_has_done_it_and_several_cannot() -> None:
    farm = (3, np.array([6, -6, 9]))
    np.testing.assert_array_equal(gathered(clear("median"), "train", [farm]), farm[1])
    with pytest.raises(RoundError, match="one farm"):
        gathered(clear("median"), "train", [farm, farm])
    np.testing.assert_array_equal(gathered(clear("mean"), "train", [farm, farm]), 2 * farm[1])


def prepared(folder: Path, data: Dataset, plan: TrainingPlan) -> Workspace:
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.prepare(data, plan, KEYS)
    return workspace


@pytest.mark.parametrize("rule", ["median", "rfa"])
def test_a_whole_run_by_a_rule_is_that_of_its_phones_and_not_the_means(tmp_path: Path, rule: str) -> None:
    data = small_dataset()
    plans = {name: replace(clear(name), rounds=2) for name in ("mean", rule)}
    thetas = {name: federate(prepared(tmp_path / name, data, plan)).theta for name, plan in plans.items()}
    assert np.abs(thetas[rule] - thetas["mean"]).max() > 1e-4
    with pytest.raises(PocketScoreError):
        federate(prepared(tmp_path / "two", data, plans[rule]), nodes=2)
