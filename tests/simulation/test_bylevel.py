"""Answers and sums of coded rows by level: to the last unit what phones compute one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_client.answers import histogram, score_rows
from fl_client.phones import Task
from model.contract.plan import TrainingPlan
from model.risk.knots import Knots, rows_histogram
from model.risk.network import RiskNetwork
from simulation.bylevel import counted, histogram_by_level, logits_of, totals
from simulation.coded import Coded, nearest, public_levels
from simulation.dataset import Dataset
from simulation.engine.protocol import Crowd
from simulation.small import small_dataset, small_plan

DATA = small_dataset(120, seed=3)
CODED = nearest(DATA.x, public_levels(DATA.schema))
WEIGHTS = np.repeat((1 << 20) // np.maximum(DATA.counts, 1), DATA.counts).astype(np.float64)


def knots() -> Knots:
    return Knots.from_histogram(rows_histogram(CODED[:], WEIGHTS, DATA.schema), DATA.schema, 12)


def task(kind: str, hidden: tuple[int, ...] = (), seed: int = 1) -> Task:
    plan: TrainingPlan = small_plan(DATA)
    plan = replace(plan, model=replace(plan.model, kind="mlp" if hidden else "additive", hidden=hidden))
    if kind == "knots":
        return Task(kind, 0, plan, None, np.zeros(0, np.float32))
    size = RiskNetwork(plan.schema, knots(), hidden).dimension
    theta = np.random.Generator(np.random.Philox(seed)).normal(size=size)
    edges = np.linspace(-2, 2, 19) if kind == "evaluate" else np.zeros(0)
    return Task(kind, 1, plan, knots(), np.concatenate([theta, edges]).astype(np.float32))


def crowd(x: object) -> Crowd:
    return Crowd.of(DATA.ids, DATA.offsets, x, DATA.y)  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [(), (5,)])
@pytest.mark.parametrize("kind", ["knots", "calibrate", "evaluate"])
@pytest.mark.parametrize("exactly", [False, True])
def test_a_farm_counts_what_its_phones_count_one_by_one(
    kind: str, hidden: tuple[int, ...], exactly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hidden and kind != "knots":
        monkeypatch.setattr("simulation.bylevel.PHONES_A_CHUNK", 1 << 15)  # an MLP's products may round by batch
    else:
        monkeypatch.setattr("simulation.bylevel.PHONES_A_CHUNK", 37)
    coded = Coded.exact(DATA.x) if exactly else CODED
    asked, alone = task(kind, hidden), 0
    for first, last in zip(DATA.offsets[:-1], DATA.offsets[1:], strict=True):
        alone = alone + histogram(asked, coded[first:last], DATA.y[first:last], np.array([0, last - first]))
    found = counted(asked, crowd(coded))
    np.testing.assert_array_equal(found, alone)
    if kind != "knots":
        assert (counted(task(kind, hidden, seed=2), crowd(coded)) != alone).any()  # the control: another model


def test_plain_rows_are_counted_as_coded_ones() -> None:
    for kind in ("knots", "calibrate", "evaluate"):
        np.testing.assert_array_equal(counted(task(kind), crowd(CODED[:])), counted(task(kind), crowd(CODED)))


def test_logits_do_not_depend_on_the_rows_beside() -> None:
    network = RiskNetwork(DATA.schema, knots())
    network.load_flat(np.random.Generator(np.random.Philox(5)).normal(size=network.dimension))
    whole = logits_of(network, CODED)
    alone = np.concatenate([score_rows(network, CODED[i : i + 1]) for i in range(len(CODED))])
    assert whole.tobytes() == alone.tobytes() == logits_of(network, CODED[:]).tobytes()
    np.testing.assert_allclose(whole, network_logits(network), atol=3e-5)


def network_logits(network: RiskNetwork) -> np.ndarray:
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(CODED[:])).double().numpy()


def test_totals_by_level_are_a_count_of_every_cell() -> None:
    found = totals(CODED, WEIGHTS)
    for j, total in enumerate(found):
        np.testing.assert_array_equal(total, np.bincount(CODED.codes[:, j], WEIGHTS, len(CODED.levels[j])))
    np.testing.assert_array_equal(
        histogram_by_level(CODED, WEIGHTS, DATA.schema), rows_histogram(CODED[:], WEIGHTS, DATA.schema)
    )


def test_no_rows_are_zeros() -> None:
    empty = Dataset(
        DATA.schema, DATA.ids[:1], np.zeros(2, np.int64), CODED.take(slice(0, 0)), DATA.y[:0], {}, DATA.holdout[:1]
    )
    for kind in ("knots", "calibrate", "evaluate"):
        assert not counted(task(kind), Crowd.of(empty.ids, empty.offsets, empty.x, empty.y)).any()
