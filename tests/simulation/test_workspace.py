"""The engine asked for reaches every farm; a round's memory follows its cohort."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.phones import Task
from model.contract.envelope import SigningKey
from model.errors import InputError, RunError
from model.risk.knots import Knots, rows_histogram
from model.risk.network import RiskNetwork
from simulation.coded import nearest, public_levels
from simulation.dataset import Dataset
from simulation.engine.batched import BatchedEngine
from simulation.engine.choice import choose
from simulation.engine.protocol import Crowd, Engine, Trained
from simulation.engine.reference import ReferenceEngine
from simulation.experiment.request import ENGINES, Request
from simulation.farm import Farm
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEYS = [SigningKey.generate(), SigningKey.generate()]
DATA = small_dataset(300, seed=2)


def prepared(folder: Path) -> Workspace:
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.prepare(DATA, small_plan(DATA, rounds=4), KEYS)
    return workspace


def test_farms_take_the_engine_that_was_asked_for(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "w")
    assert workspace.engine == "auto" and type(workspace.farm(0, 2).engine) is type(choose()[0])
    workspace.take_engine("reference")
    assert isinstance(Workspace(workspace.folder).farm(1, 2).engine, ReferenceEngine)
    workspace.take_engine("batched")
    assert isinstance(workspace.farm(0, 1).engine, BatchedEngine)
    with pytest.raises(RunError, match="'warp'"):
        workspace.take_engine("warp")
    assert workspace.engine == "batched"


def test_a_request_names_an_engine_there_is() -> None:
    for name in ENGINES:
        assert Request(100, engine=name).to_dict()["engine"] == name
    with pytest.raises(InputError, match="--engine 'warp' is unknown; use auto, native, batched or reference"):
        Request(100, engine="warp")


class Greedy(BatchedEngine):
    """An engine that makes everybody's rows float32 each round: what the measurement must notice."""

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        everybody = crowd.x[:]
        return super().train(crowd, task, sample) if len(everybody) else super().train(crowd, task)


def peak_of_a_round(phones: int, cohort: float, engine: Engine | None = None) -> int:
    """Bytes a training round takes beyond what the farm holds before it."""
    plain = small_dataset(phones)
    coded = nearest(plain.x, public_levels(plain.schema))
    data = Dataset(plain.schema, plain.ids, plain.offsets, coded, plain.y, {}, plain.holdout)
    plan = replace(small_plan(data), participation=cohort / phones)
    charges = tuple(
        replace(charge, sampling=plan.participation) if charge.name == "training" else charge
        for charge in plan.privacy.charges
    )
    plan = replace(plan, privacy=replace(plan.privacy, charges=charges))
    knots = Knots.from_histogram(rows_histogram(coded[:], np.ones(len(coded)), data.schema), data.schema, 16)
    flat = np.zeros(RiskNetwork(data.schema, knots).dimension, np.float32)
    farm = Farm(data, engine or BatchedEngine(), observe=lambda task, trained: None, sample=4)
    farm.partial(Task("train", 1, plan, knots, flat))  # what is held between rounds is there now
    tracemalloc.start()
    try:
        for number in (2, 3, 4):
            assert 0 < farm.partial(Task("train", number, plan, knots, flat)).phones < 2 * cohort
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_round_grows_with_the_cohort_and_not_with_the_phones() -> None:
    few, many = peak_of_a_round(2_000, 500), peak_of_a_round(20_000, 500)
    assert many < few + 20_000 * 16, (few, many)  # a coin a phone is tossed, and nothing of its rows is touched
    assert peak_of_a_round(20_000, 500, Greedy()) > few + 20_000 * 16  # the control
