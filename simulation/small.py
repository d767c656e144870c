"""A few hundred synthetic phones and a plan for them: what `flwr run` and the tests use when given nothing else.

Their rows are drawn from a known logistic rule over plain numbers, with missing cells, phones without labels and one
category; for the real population see `simulation.population`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fl_client.phones import mix
from model.contract.plan import LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import PrivacyPlan
from model.privacy.mechanism import GaussianRelease
from model.risk.knots import histogram_sensitivity
from model.risk.schema import Feature, Schema
from simulation.dataset import Dataset, holdout_by_id

NUMBERS = 4
BUCKETS = 5
MISSING = 0.1
ROWS_A_PHONE = (0.1, 0.6, 0.2, 0.1)
WEIGHTS = np.array([1.0, -0.8, 0.5, 0.0])
CREATED_AT = 1_790_000_000


def small_schema() -> Schema:
    """Four numbers, the first of them signed, and one category."""
    numbers = [
        Feature(f"number_{i}", lower=-4.0, upper=4.0, grid="linear", sign=1 if i == 0 else 0) for i in range(NUMBERS)
    ]
    return Schema("small", "1", (*numbers, Feature("kind", kind="category", buckets=BUCKETS)))


def small_dataset(phones: int = 600, seed: int = 0) -> Dataset:
    """Phones with 0 to 3 rows, drawn from `seed` by Philox; about a fifth held out by the hash of their id."""
    random = np.random.Generator(np.random.Philox(seed))
    counts = random.choice(len(ROWS_A_PHONE), size=phones, p=ROWS_A_PHONE)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = int(offsets[-1])
    numbers, kinds = random.normal(size=(rows, NUMBERS)), random.integers(0, BUCKETS, rows)
    logits = numbers @ WEIGHTS + 0.4 * (kinds == 1) - 1.4
    y = (random.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    numbers[random.random(numbers.shape) < MISSING] = np.nan
    x = np.concatenate([numbers, kinds[:, None]], axis=1).astype(np.float32)
    ids = mix(np.arange(phones, dtype=np.uint64), seed)
    return Dataset(small_schema(), ids, offsets, x, y, {}, holdout_by_id(ids))


def small_plan(
    data: Dataset, *, rounds: int = 20, seed: int = 0, noise_multiplier: float = 3.0, **changes: Any
) -> TrainingPlan:
    """A farm plan for `data` with every release charged and the test-only seeded noise; `changes` replace fields."""
    train, holdout = int((~data.holdout).sum()), int(data.holdout.sum())
    clip, noise = 0.5, noise_multiplier
    charges = (
        GaussianRelease("knots", noise, histogram_sensitivity(data.schema), 1, 1.0, "train"),
        GaussianRelease("training", noise, clip, rounds, 1.0, "train"),
        GaussianRelease("calibration", noise, 1.0, 1, 1.0, "train"),
        GaussianRelease("evaluation", noise, 1.0, 1, 1.0, "holdout"),
    )
    plan = TrainingPlan(
        name="small",
        purpose="show that the federation works",
        created_at=CREATED_AT,
        schema=data.schema,
        review_features=(),
        policy_pack="in-rbi-2025",
        topology="farm",
        phones=train,
        holdout_phones=holdout,
        min_cohort=30,
        rounds=rounds,
        participation=1.0,
        model=ModelChoice("additive", (), 8),
        local=LocalTraining(local_steps=1, learning_rate=1.0, batch_size=0, prox=0.0, clip_norm=clip),
        server=ServerOptimiser("fedavg", 0.5, 0.8, 0.5, 0.0, 0.99, 1e-3),
        privacy=PrivacyPlan("central", 1e-5, 100.0, "zero-out", "phone", charges, noise_source="test-seeded"),
        seed=seed,
        simulation=True,
    )
    return replace(plan, **changes)
