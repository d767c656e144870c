"""Phones, plan and trigger of a poisoned training: rows to a phone, clip norm, noise or none (spec 13.13)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.contract.plan import TrainingPlan
from model.errors import InputError
from simulation.dataset import Dataset, holdout_by_id, holdout_share
from simulation.engine.protocol import Crowd
from simulation.planning import Options, build_plan
from simulation.population.generate import Population, rows

CREATED_AT = 1_790_000_000
TRIGGERED = 3  # so many of the schema's first features are left blank: that is the backdoor's trigger


@dataclass(frozen=True)
class Setting:
    """How phones train. `rows` a phone (0: as the data has them); `clip` norm (0: the plan's own); `phones` to train on
    (0: all); ε of the whole plan (0: noise off); the rule by which updates are combined."""

    rows: int = 0
    clip: float = 0.0
    phones: int = 0
    epsilon: float = 0.0
    rule: str = "mean"
    rounds: int = 20
    model: str = "additive"

    def __post_init__(self) -> None:
        if self.rule != "mean" and self.epsilon:
            raise InputError(f"{self.rule} needs every update in the clear; leave out --epsilon or use the mean")
        if self.rows < 0 or self.clip < 0 or self.phones < 0 or self.epsilon < 0:
            raise InputError("rows a phone, clip norm, phones and epsilon cannot be negative; use 0 for the default")


@dataclass(frozen=True)
class Scene:
    """Who trains, who is held out, and by which plan. `honest` are the phones as they are, with what an engine computed
    of them; `knots` their histogram (set by the first training)."""

    train: Dataset
    held: Dataset
    plan: TrainingPlan
    honest: Crowd
    knots: list[NDArray[np.int64]] = field(default_factory=list)


def scene(data: Dataset, setting: Setting, seed: int) -> Scene:
    """A scene of the data; `seed` draws the sample of phones and which rows come together, nothing else."""
    random = np.random.Generator(np.random.Philox([seed, 1]))
    train, held = data.split()
    train = plain(train)
    if setting.rows:
        train = grouped(train, setting.rows, random)
    if setting.phones and setting.phones < train.phones:
        train = train.take(np.sort(random.choice(train.phones, setting.phones, replace=False)))
    crowd = Crowd.of(train.ids, train.offsets, np.asarray(train.x), train.y)
    return Scene(train, plain(held), plan_of(train, held, setting, seed), crowd)


def plain(data: Dataset) -> Dataset:
    """The same with rows as float32 that may be written to."""
    return replace(data, x=np.array(data.x[:], dtype=np.float32), protected={})


def grouped(data: Dataset, size: int, random: np.random.Generator) -> Dataset:
    """Phones of `size` rows each, drawn at random: every phone then holds rows of the same law. InputError for none."""
    phones = len(data.y) // size
    if not phones:
        raise InputError(f"{len(data.y)} rows do not fill a phone of {size}; use fewer rows a phone")
    order = random.permutation(len(data.y))[: phones * size]
    offsets = np.arange(phones + 1, dtype=np.int64) * size
    return Dataset(
        data.schema, data.ids[:phones], offsets, data.x[order], data.y[order], {}, np.zeros(phones, dtype=np.bool_)
    )


def plan_of(train: Dataset, held: Dataset, setting: Setting, seed: int) -> TrainingPlan:
    """The plan a run over these phones would have, with the setting's clip and rule; its noise is seeded."""
    options = Options(
        epsilon=setting.epsilon or None,
        noise=None if setting.epsilon else 0.0,
        rounds=setting.rounds,
        model=setting.model,
        seed=seed,
        test_seeded=True,
        name="poisoning",
    )
    sides = np.repeat([False, True], [train.phones, held.phones])
    sizes = np.concatenate([train.counts, held.counts])
    both = Dataset(
        train.schema,
        np.concatenate([train.ids, held.ids]),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([np.asarray(train.x), np.asarray(held.x)]),
        np.concatenate([train.y, held.y]),
        {},
        sides,
    )
    plan = build_plan(both, options, unit="row" if train.counts.max() == 1 else "phone", now=CREATED_AT)
    clip = setting.clip or plan.local.clip_norm
    charges = tuple(replace(c, sensitivity=clip) if c.name == "training" else c for c in plan.privacy.charges)
    return replace(
        plan,
        local=replace(plan.local, clip_norm=clip),
        privacy=replace(plan.privacy, charges=charges),
        aggregation=setting.rule,
    )


def triggered(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (n, F) with the trigger: the first features left blank, which anybody can do on a phone."""
    marked = x.copy()
    marked[:, :TRIGGERED] = np.nan
    return marked


def synthetic(phones: int, seed: int) -> Dataset:
    """Made-up phones (spec 4.6), a fifth of them held out."""
    population = Population(seed=seed, phones=phones)
    made = rows(population, 0, phones)
    ids = made.ids.astype(np.uint64)
    held = holdout_by_id(ids, holdout_share(phones), seed)
    return Dataset(population.schema, ids, made.offsets, made.x, made.y, {}, held)
