"""Groups: who is counted, and what a model owes to who was reached; intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.risk.metrics import auc
from simulation.bias import Held, area, effect, shares

RANDOM = np.random.Generator(np.random.Philox(4))


def held_of(phones: int = 400, seed: int = 0) -> Held:
    random = np.random.Generator(np.random.Philox(seed))
    owner = np.repeat(np.arange(phones), random.integers(0, 4, phones))
    y = (random.random(len(owner)) < 0.3).astype(np.float32)
    return Held(y, owner, {"side": np.where(np.arange(phones) % 4 == 0, "few", "many")}, phones)


def test_shares_say_who_is_missing() -> None:
    side = np.where(np.arange(1000) < 250, "few", "many")
    counted = np.where(side == "few", 5, 20)
    rows = {row["group"]: row for row in shares({"side": side}, counted)}
    assert rows["everyone"]["ratio"] == 1.0 and rows["few"]["share"] == 0.25
    assert rows["few"]["counted"] == pytest.approx(250 * 5 / (250 * 5 + 750 * 20))
    alike = {row["group"]: row["ratio"] for row in shares({"side": side}, np.full(1000, 7))}
    assert alike == {"everyone": 1.0, "few": 1.0, "many": 1.0}  # the control
    assert [row["group"] for row in shares({"side": np.where(np.arange(1000) < 29, "a", "b")}, counted)] == [
        "everyone", "b",
    ]  # fmt: skip
    assert shares({}, np.zeros(40, dtype=np.int64))[0]["counted"] == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 60))
def test_the_area_is_the_auc_and_its_influences_cancel(seed: int, rows: int) -> None:
    random = np.random.Generator(np.random.Philox(seed))
    y, score = (random.random(rows) < 0.4).astype(np.float32), random.integers(0, 9, rows).astype(float)
    y[:2] = (0, 1)
    value, influence = area(score, y)
    assert value == pytest.approx(auc(score, y), abs=1e-12)
    assert influence[y == 1].sum() == pytest.approx(0, abs=1e-9) == pytest.approx(influence[y == 0].sum(), abs=1e-9)


def test_the_same_model_twice_differs_nowhere() -> None:
    held = held_of()
    pd = RANDOM.random(len(held.y))
    for row in effect(held, pd, pd):
        assert (row["pd_change"], row["pd_change_ci"], row["auc_change"], row["auc_change_ci"]) == (0, 0, 0, 0)
        assert row["gap_everyone"] == pytest.approx(row["mean_pd_everyone"] - row["observed"])


def test_a_group_moved_alone_is_found_alone() -> None:
    held = held_of(4000)
    pd = 0.3 + 0.1 * RANDOM.random(len(held.y))
    few = (held.protected["side"] == "few")[held.owner]
    rows = {
        row["group"]: row for row in effect(held, pd, pd + np.where(few, 0.05, 0.001 * RANDOM.normal(size=len(pd))))
    }
    assert rows["few"]["pd_change"] == pytest.approx(0.05) and abs(rows["many"]["pd_change"]) < 1e-3
    assert rows["few"]["gap_reached"] - rows["few"]["gap_everyone"] == pytest.approx(0.05)


def test_intervals_cover_where_rows_of_a_phone_agree() -> None:
    covered, loose, naive, truth = 0, 0, 0, 0.01
    for seed in range(200):
        held = held_of(300, seed)
        random = np.random.Generator(np.random.Philox([seed, 9]))
        shift = (truth + 0.05 * random.normal(size=held.phones))[held.owner]  # the same for all rows of a phone
        (row, *_) = effect(held, np.full(len(held.y), 0.5), 0.5 + shift)
        covered += abs(row["pd_change"] - truth) <= row["pd_change_ci"]
        naive += abs(row["pd_change"] - truth) <= 1.96 * shift.std() / np.sqrt(len(shift))
        worse = 0.3 * held.y + random.normal(size=len(held.y))
        (row, *_) = effect(held, 0.3 * held.y + random.normal(size=len(held.y)), worse)
        loose += abs(row["auc_change"]) <= row["auc_change_ci"]
    assert 182 <= covered <= 198 and 180 <= loose <= 199
    assert naive < covered  # the control: rows taken for independent cover less


def test_a_class_that_is_missing_gives_no_area_and_a_small_group_no_row() -> None:
    held = held_of(60)
    nobody = Held(np.zeros_like(held.y), held.owner, held.protected, 60)
    rows = effect(nobody, held.y.astype(float), held.y.astype(float))
    assert all(row["auc_change"] is None and row["auc_everyone"] is None for row in rows)
    assert "few" not in [row["group"] for row in rows]
