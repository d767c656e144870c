"""Two engines, one round: the same sum to 1e-5 relative, for both models, one step or several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_client.phones import Task
from fl_client.training import Learner
from model.contract.plan import LocalTraining, ModelChoice
from model.risk.knots import Knots, rows_histogram
from simulation.engine.batched import BatchedEngine
from simulation.engine.protocol import Crowd
from simulation.engine.reference import ReferenceEngine
from simulation.small import small_dataset, small_plan

DATA = small_dataset(90, seed=5)
KNOTS = Knots.from_histogram(rows_histogram(DATA.x, np.ones(len(DATA.y)), DATA.schema), DATA.schema, 6)
MODELS = [ModelChoice("additive", (), 6), ModelChoice("mlp", (6, 4), 6)]
LOCALS = [
    LocalTraining(1, 0.6, 0, 0.0, 0.3),
    LocalTraining(4, 0.4, 0, 0.2, 0.3),
    LocalTraining(3, 0.4, 1, 0.1, 5.0),
    LocalTraining(0, 0.4, 2, 0.1, 5.0, 2),
]


def crowd() -> Crowd:
    return Crowd.of(DATA.ids, DATA.offsets, DATA.x, DATA.y)


def task_of(model: ModelChoice, local: LocalTraining, round_: int = 3) -> Task:
    plan = replace(small_plan(DATA), model=model, local=local)
    size = Learner.of(plan, KNOTS).network.dimension
    flat = (0.3 * np.random.Generator(np.random.Philox(2)).normal(size=size)).astype(np.float32)
    return Task("train", round_, plan, KNOTS, flat)


@pytest.mark.parametrize("local", LOCALS, ids=["one step", "four steps", "batches of one", "two epochs"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)
def test_batched_equals_reference(model: ModelChoice, local: LocalTraining) -> None:
    task = task_of(model, local)
    slow, fast = ReferenceEngine().train(crowd(), task, 4), BatchedEngine().train(crowd(), task, 4)
    assert np.linalg.norm(slow.sum - fast.sum) <= 1e-5 * np.linalg.norm(slow.sum)
    np.testing.assert_allclose(fast.norms, slow.norms, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fast.raw, slow.raw, rtol=1e-4, atol=1e-6)
    assert np.abs(fast.units - slow.units).max() <= 8
    assert (fast.norms[np.diff(DATA.offsets) == 0] == 0).all() and (fast.norms > local.clip_norm).any() == (
        slow.norms > local.clip_norm
    ).any()


def test_the_comparison_can_fail() -> None:
    task = task_of(MODELS[0], LOCALS[0])
    other = replace(task, flat=task.flat + np.float32(1e-3))
    one, two = BatchedEngine().train(crowd(), task), ReferenceEngine().train(crowd(), other)
    assert np.linalg.norm(one.sum - two.sum) > 1e-5 * np.linalg.norm(two.sum)


def test_unlabelled_phones_add_nothing() -> None:
    labelled = np.flatnonzero(np.diff(DATA.offsets) > 0)
    assert len(labelled) < DATA.phones
    for engine in (ReferenceEngine(), BatchedEngine()):
        task = task_of(MODELS[0], LOCALS[0])
        np.testing.assert_array_equal(engine.train(crowd(), task).sum, engine.train(crowd().take(labelled), task).sum)


def test_parts_add_up_to_the_whole_exactly() -> None:
    task = task_of(MODELS[0], LOCALS[1])
    whole = BatchedEngine().train(crowd(), task).sum
    halves = [crowd().take(np.arange(a, b)) for a, b in ((0, 40), (40, 90))]
    parts = sum(BatchedEngine().train(half, task).sum for half in halves)
    assert np.abs(whole - parts).max() <= 4
