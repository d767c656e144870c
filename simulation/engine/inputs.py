"""The rows' fixed inputs, computed once per knots; kept in memory, or on disk (spec 7.8)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.contract.plan import TrainingPlan
from model.risk.knots import Knots
from simulation.engine.protocol import Crowd

ROWS_A_CHUNK = 4096


def prepared(crowd: Crowd, plan: TrainingPlan, knots: Knots) -> NDArray[np.float32]:
    """Inputs of every row: additive (R, d) in training coordinates, [1 | phi] P; MLP (R, width)."""
    if crowd.base is not None:
        return np.asarray(prepared(crowd.base, plan, knots)[crowd.base_rows])
    key = f"{knots.digest[:32]}-{'mlp' if plan.model.hidden else 'additive'}"
    if key not in crowd.cache:
        crowd.cache.clear()
        crowd.cache[key] = _stored(crowd.store / f"{key}.npy", crowd, plan, knots) if crowd.store else None
        if crowd.cache[key] is None:
            crowd.cache[key] = np.concatenate(list(_parts(crowd, plan, knots)))
    kept: NDArray[np.float32] = crowd.cache[key]
    return kept


def _stored(path: Path, crowd: Crowd, plan: TrainingPlan, knots: Knots) -> NDArray[np.float32]:
    """Memory-mapped inputs, written at first by whoever comes first; the file appears by rename."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(temporary, "wb") as file:
            np.save(file, np.concatenate(list(_parts(crowd, plan, knots))), allow_pickle=False)
        os.replace(temporary, path)
    mapped: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _parts(crowd: Crowd, plan: TrainingPlan, knots: Knots) -> list[NDArray[np.float32]]:
    from fl_client.training import Learner

    learner = Learner.of(plan, knots)
    parts = []
    for at in range(0, max(len(crowd.y), 1), ROWS_A_CHUNK):
        inputs = learner.inputs(np.array(crowd.x[at : at + ROWS_A_CHUNK]))
        if not plan.model.hidden:
            # z = [1 | phi] P v: a row is pulled back once instead of the model being pushed forward at every step.
            widened = np.concatenate([np.ones((len(inputs), 1), dtype=np.float32), inputs], axis=1)
            inputs = learner.precondition.pull_back(widened)
        parts.append(inputs)
    return parts
