"""The reference local step: gradients, batches, FedProx, silence of unlabelled phones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_client.batches import batch_weights
from fl_client.phones import Phone
from fl_client.training import Learner, train_phone
from model.contract.plan import LocalTraining, ModelChoice, TrainingPlan
from model.risk.knots import Knots, rows_histogram
from simulation.dataset import Dataset
from simulation.small import small_dataset, small_plan

DATA = small_dataset(80, seed=3)
KNOTS = Knots.from_histogram(rows_histogram(DATA.x, np.ones(len(DATA.y)), DATA.schema), DATA.schema, 5)
MODELS = [ModelChoice("additive", (), 5), ModelChoice("mlp", (6, 3), 5)]


def plan_of(model: ModelChoice, **local: float) -> TrainingPlan:
    settings = {"local_steps": 1, "learning_rate": 0.7, "batch_size": 0, "prox": 0.0, "clip_norm": 50.0, **local}
    return replace(small_plan(DATA), model=model, local=LocalTraining(**settings))  # type: ignore[arg-type]


def rich_phone(data: Dataset) -> Phone:
    chosen = int(np.argmax(data.counts))
    rows = slice(int(data.offsets[chosen]), int(data.offsets[chosen + 1]))
    return Phone(data.x[rows], data.y[rows], int(data.ids[chosen]))


def start(learner: Learner, seed: int = 0) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(seed))
    return (0.3 * random.normal(size=learner.network.dimension)).astype(np.float32)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)
def test_one_step_is_minus_rate_times_gradient(model: ModelChoice) -> None:
    learner, phone = Learner.of(plan_of(model), KNOTS), rich_phone(DATA)
    flat, inputs = start(learner), learner.inputs(phone.x)
    delta, _ = train_phone(learner, phone, flat, 1)

    def loss(v: np.ndarray) -> float:
        learner.network.load_flat(learner.precondition.to_theta(v))
        import torch

        z = learner.network.logits(learner.network.theta.double(), torch.from_numpy(inputs).double())
        return float((torch.nn.functional.softplus(z) - torch.from_numpy(phone.y) * z).mean().detach())

    direction = np.random.Generator(np.random.Philox(9)).normal(size=len(flat))
    step = 1e-2
    slope = (loss(flat + step * direction) - loss(flat - step * direction)) / (2 * step)
    assert delta.values @ direction == pytest.approx(-0.7 * slope, rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)
def test_a_phone_without_labels_answers_zeros(model: ModelChoice) -> None:
    learner = Learner.of(plan_of(model), KNOTS)
    phone = Phone(np.zeros((0, len(DATA.schema.features)), dtype=np.float32), np.zeros(0, dtype=np.float32), 5)
    _, encoded = train_phone(learner, phone, start(learner), 1)
    assert len(encoded.units) == learner.network.dimension and not encoded.units.any()
    _, control = train_phone(learner, rich_phone(DATA), start(learner), 1)
    assert control.units.any()


def test_the_proximal_term_pulls_back() -> None:
    loose = plan_of(MODELS[0], local_steps=8, prox=0.0)
    tight = plan_of(MODELS[0], local_steps=8, prox=1.0)
    lengths = []
    for plan in (loose, tight):
        learner = Learner.of(plan, KNOTS)
        delta, _ = train_phone(learner, rich_phone(DATA), start(learner), 1)
        lengths.append(float(np.linalg.norm(delta.values)))
    assert lengths[1] < lengths[0]


def test_the_proximal_term_is_nothing_in_the_first_step() -> None:
    deltas = []
    for prox in (0.0, 5.0):
        learner = Learner.of(plan_of(MODELS[0], prox=prox), KNOTS)
        deltas.append(train_phone(learner, rich_phone(DATA), start(learner), 1)[0].values)
    np.testing.assert_array_equal(*deltas)


def test_an_epoch_of_batches_sees_every_row_once() -> None:
    ids, offsets = np.array([7, 8, 9], dtype=np.uint64), np.array([0, 5, 5, 9])
    seen = np.zeros(9)
    for step in range(3):
        weights = batch_weights(ids, offsets, 1, 2, step, 2)
        seen[:5] += weights[:5] > 0
        assert weights[:5].sum() == pytest.approx(1.0)
        if step < 2:
            seen[5:] += weights[5:] > 0
            assert weights[5:].sum() == pytest.approx(1.0)
    assert (seen == 1).all()


def test_batches_are_the_same_alone_and_in_a_crowd_and_differ_by_round() -> None:
    ids, offsets = np.array([7, 8], dtype=np.uint64), np.array([0, 6, 12])
    together = [batch_weights(ids, offsets, 1, r, 0, 2) for r in range(6)]
    alone = [batch_weights(ids[1:], np.array([0, 6]), 1, r, 0, 2) for r in range(6)]
    np.testing.assert_array_equal([t[6:] for t in together], alone)
    assert len({t.tobytes() for t in together}) > 1
