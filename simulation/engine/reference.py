"""The phone loop over the real `fl_client`: slow, plain, and what every other engine must equal (spec 7.8)."""

from __future__ import annotations

import numpy as np

from fl_client.answers import knots_of
from fl_client.phones import Phone, Task
from fl_client.training import Learner, train_phone
from simulation.engine.protocol import Crowd, Trained


class ReferenceEngine:
    """One phone after the other, each through `train_phone`."""

    name = "reference"

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Sum of encoded updates; see `Engine.train`."""
        learner = Learner.of(task.plan, knots_of(task))
        total = np.zeros(len(task.flat), dtype=np.int64)
        norms, raw, units = np.zeros(crowd.phones), [], []
        for i in range(crowd.phones):
            rows = slice(int(crowd.first[i]), int(crowd.first[i] + crowd.counts[i]))
            phone = Phone(np.asarray(crowd.x[rows]), np.asarray(crowd.y[rows]), int(crowd.ids[i]))
            delta, encoded = train_phone(learner, phone, task.flat, task.round)
            total += encoded.units
            norms[i] = np.linalg.norm(delta.values)
            if i < sample:
                raw.append(delta.values)
                units.append(encoded.units)
        shape = (min(sample, crowd.phones), len(task.flat))
        return Trained(total, norms, np.array(raw).reshape(shape), np.array(units, dtype=np.int64).reshape(shape))
