"""From a crowd and a task to a `Problem`: what each code feeds into the model, computed once per knots (spec 7.8).

The tables repeat the network's own float32 arithmetic on a feature's levels, so a looked-up input is the bits the
phone itself would compute. The additive model's need no torch: a farm that only adds up never loads it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_client.answers import knots_of
from fl_client.phones import Task
from model.contract.plan import TrainingPlan
from model.risk.knots import Knots
from model.risk.precondition import BIAS, Preconditioner
from model.risk.schema import Feature
from simulation.coded import Coded
from simulation.engine.problem import Columns, Hats, Problem, Rows, active_hats
from simulation.engine.protocol import Crowd

Floats = NDArray[np.float32]


def problem_of(crowd: Crowd, task: Task) -> Problem:
    """The arithmetic of `task` over `crowd`. RoundError without knots or for a model that does not fit."""
    plan = task.plan
    rows = inputs_of(crowd, plan, knots_of(task))
    return Problem(
        ids=crowd.ids,
        first=crowd.first,
        counts=crowd.counts,
        y=crowd.y,
        rows=rows,
        flat=task.flat,
        hidden=plan.model.hidden,
        local=plan.local,
        seed=plan.seed,
        round=task.round,
        scale=plan.privacy.grid_scale,
    )


def inputs_of(crowd: Crowd, plan: TrainingPlan, knots: Knots) -> Rows:
    """The rows' inputs by look-up, kept with the crowd until other knots come."""
    key = f"{knots.digest}-{plan.model.hidden}"
    if key not in crowd.cache:
        coded = crowd.cache.get("coded") or coded_of(crowd.x)
        crowd.cache.clear()
        crowd.cache["coded"] = coded
        make = columns if plan.model.hidden else hats
        crowd.cache[key] = make(coded, plan, knots)
    kept: Rows = crowd.cache[key]
    return kept


def coded_of(x: Floats | Coded) -> Coded:
    """Coded rows as they are; plain ones coded without loss."""
    return x if isinstance(x, Coded) else Coded.exact(x)


def hats(coded: Coded, plan: TrainingPlan, knots: Knots) -> Hats:
    """The additive model's look-up tables."""
    coordinates = Preconditioner(plan.schema, knots)
    parts = [
        _active(basis(feature, values, levels), levels)
        for feature, values, levels in zip(plan.schema.features, knots.values, coded.levels, strict=True)
    ]
    hat, low, high, flag = (np.concatenate(column) for column in zip(*parts, strict=True))
    sizes = np.array([len(values) for values in knots.values], dtype=np.int32)
    blocks = tuple(coordinates.blocks)
    return Hats(coded.codes, coded.starts, hat, low, high, flag, sizes, blocks, coordinates.centre, BIAS)


def basis(feature: Feature, knots: tuple[float, ...], x: Floats) -> Floats:
    """Hats (L, K) of one feature at values x (L,), zero where missing: `PiecewiseLinear` in NumPy, bit for bit."""
    missing = np.isnan(x)
    filled = np.where(missing, np.float32(0), x)[:, None]
    values = np.asarray(knots)
    ones, zeros = np.ones((len(x), 1), np.float32), np.zeros((len(x), 1), np.float32)
    if feature.kind == "category":
        up, away = (_ramps(filled, values + shift, np.ones(len(values))) for shift in (-1, 0))
        found = up - away
    else:
        inner = _ramps(filled, values[:-1], 1 / np.diff(values))
        found = np.hstack([ones, inner]) - np.hstack([inner, zeros])
    return np.where(missing[:, None], np.float32(0), found)


def columns(coded: Coded, plan: TrainingPlan, knots: Knots) -> Columns:
    """The MLP's look-up tables: the network's inputs at each feature's levels, every other feature missing."""
    import torch  # the additive model's farms never load it

    from model.risk.network import RiskNetwork

    network = RiskNetwork(plan.schema, knots, plan.model.hidden)
    owner = network.input_owner.numpy().astype(np.int32)
    height = int(coded.sizes.max())
    x = np.full((height, len(coded.levels)), np.nan, np.float32)
    for j, levels in enumerate(coded.levels):
        x[: len(levels), j] = levels
    with torch.no_grad():
        found = network.inputs(torch.from_numpy(x)).numpy()
    values = np.ascontiguousarray(found.T).reshape(-1)
    table = np.arange(len(owner), dtype=np.int64) * height
    return Columns(coded.codes, owner, table, values)


def _ramps(filled: Floats, starts: NDArray[np.float64], gains: NDArray[np.float64]) -> Floats:
    ramps = (filled - starts.astype(np.float32)) * gains.astype(np.float32)
    return np.clip(ramps, np.float32(0), np.float32(1))


def _active(phi: Floats, levels: Floats) -> tuple[NDArray[np.int32], Floats, Floats, Floats]:
    hat, low, high = active_hats(phi)
    return hat, low, high, np.isnan(levels).astype(np.float32)
