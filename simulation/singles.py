"""What each phone of a crowd answers by itself, for the modes in which phones are masked one by one (spec 13.15)."""

from __future__ import annotations

import numpy as np

from fl_client.phones import Task
from simulation.bylevel import counter
from simulation.engine.protocol import Crowd, Engine, Ints, Trained


def trained_singles(task: Task, crowd: Crowd, engine: Engine) -> Trained:
    """A round of training with the units of every phone kept, (P, d)."""
    return engine.train(crowd, task, crowd.phones)


def counted_singles(task: Task, crowd: Crowd, size: int) -> Ints:
    """Every phone's histogram (P, size), to the last unit what the phone counts itself."""
    count, found = counter(task, crowd.x), np.zeros((crowd.phones, size), dtype=np.int64)
    for at in range(crowd.phones):
        rows, offsets = crowd.take(slice(at, at + 1)).rows()
        found[at] = count(rows, offsets, crowd.y[rows])
    return found
