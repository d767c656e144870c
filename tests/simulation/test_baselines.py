"""What the same rows allow without privacy: the central model, boosting and silos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.risk.schema import Feature, Schema
from simulation.baselines import (
    Baselines,
    baselines,
    better,
    choose,
    coded_split,
    designs,
    main,
    row_weights,
    sample,
)
from simulation.dataset import Dataset, holdout_by_id
from simulation.small import small_dataset

PLAIN = small_dataset(500)
DATA = replace(PLAIN, protected={"region": np.where(np.arange(PLAIN.phones) % 3 == 0, "north", "south")})


def phones(x: np.ndarray, y: np.ndarray, held: np.ndarray) -> Dataset:
    count = len(y)
    schema = Schema("t", "1", tuple(Feature(f"f{j}") for j in range(x.shape[1])))
    ids, offsets = np.arange(count, dtype=np.uint64), np.arange(count + 1, dtype=np.int64)
    return Dataset(schema, ids, offsets, x.astype(np.float32), y.astype(np.float32), {}, held)


@pytest.fixture(scope="module")
def found() -> Baselines:
    return baselines(DATA, knots=8, seed=0, silo_column="region")


def test_signal_is_found_and_noise_is_not(found: Baselines) -> None:
    assert found.central is not None and found.central > 0.6 and found.central_model in ("additive", "logistic")
    assert found.boosting is not None and found.boosting > 0.55
    shuffled = np.random.Generator(np.random.Philox(1)).permutation(DATA.y)
    control = baselines(replace(DATA, y=shuffled), knots=8, seed=0)
    assert control.central is not None and 0.3 < control.central < 0.6


@pytest.mark.parametrize("side", [0, 1])
def test_one_class_on_either_side_has_no_figure(side: int) -> None:
    y = DATA.y.copy()
    y[np.repeat(DATA.holdout == bool(side), DATA.counts)] = 0
    assert baselines(replace(DATA, y=y), knots=8, seed=0) == Baselines(None, None, None, None)


@pytest.mark.parametrize("bad", [1, 3, 12])
def test_few_defaults_columns_without_values_and_infinite_bounds_do_not_stop_it(bad: int) -> None:
    random = np.random.Generator(np.random.Philox(bad))
    x = np.column_stack([random.normal(size=200), np.full(200, np.nan), np.full(200, 7.0), random.normal(size=200)])
    x[::5, 3] = np.finfo(np.float32).max
    held = np.arange(200) < 60
    y = np.zeros(200)
    y[:2] = 1  # held out
    y[60 : 60 + bad] = 1
    found = baselines(phones(x, y, held), knots=16, seed=0)
    assert found.central is not None and 0 <= found.central <= 1
    assert found.boosting is not None


def test_a_phone_weighs_one_however_many_rows_it_has() -> None:
    weights = row_weights(DATA)
    owner = np.repeat(np.arange(DATA.phones), DATA.counts)
    sums = np.bincount(owner, weights, DATA.phones)
    np.testing.assert_allclose(sums[DATA.counts > 0], 1.0)


def test_the_better_design_by_cross_validation_is_chosen() -> None:
    train, _ = coded_split(DATA)
    good = designs(train, 8)["logistic"]
    dull = tuple(replace(curve, low=curve.low * 0, flag=curve.flag * 0) for curve in good)
    assert choose({"useless": dull, "useful": good}, train, 0)[0] == "useful"
    assert better({"useless": dull, "useful": good}, {"useless": 0.1, "useful": 0.1}, train, 0)[0] == "useful"


def test_a_sample_holds_whole_phones_and_says_how_many_rows() -> None:
    train, _ = coded_split(DATA)
    few = sample(train, 100, seed=1)
    assert 60 < len(few.y) < 140 and set(few.ids.tolist()) < set(train.ids.tolist())
    for number, phone in enumerate(few.ids.tolist()):
        place = int(np.flatnonzero(train.ids == phone)[0])
        mine, whole = slice(*few.offsets[number : number + 2]), slice(*train.offsets[place : place + 2])
        np.testing.assert_array_equal(few.x[mine], train.x[whole])
    assert sample(train, 10**6, seed=1) is train
    assert not np.array_equal(sample(train, 100, seed=2).ids, few.ids)


def test_sampled_figures_say_on_how_many_rows(monkeypatch: pytest.MonkeyPatch, found: Baselines) -> None:
    rows = len(coded_split(DATA)[0].y)
    assert {found.rows[name] for name in ("central", "choice", "boosting")} == {rows}
    monkeypatch.setattr("simulation.baselines.BOOSTING_ROWS", 150)
    monkeypatch.setattr("simulation.baselines.CHOICE_ROWS", 200)
    few = baselines(DATA, knots=8, seed=0, silo_column="region").rows
    assert few["central"] == rows and few["boosting"] < 190 and few["choice"] < 240


def test_silos_follow_a_protected_column_as_they_do_in_a_process(
    found: Baselines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DATA.save(tmp_path / "data")
    main([str(tmp_path / "data"), "8", "0"])
    by_share = json.loads(capsys.readouterr().out)
    assert by_share.keys() == {*found.to_dict(), "seconds"}
    del by_share["seconds"]
    assert {**by_share, "silo": found.silo} == found.to_dict()
    assert by_share["silo"] != found.silo and None not in (by_share["silo"], found.silo)


def test_rows_that_say_nothing_have_no_boosting() -> None:
    y, held = (np.arange(120) % 2).astype(float), np.arange(120) < 40
    found = baselines(phones(np.full((120, 2), np.nan), y, held), knots=8, seed=0)
    assert found.boosting is None and found.central == 0.5


def test_the_holdout_of_these_tests_is_a_fifth() -> None:
    assert 0.1 < holdout_by_id(DATA.ids).mean() < 0.3
