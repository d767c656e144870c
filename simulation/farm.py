"""Many virtual phones behind one Flower node: a slice of a dataset and an engine (spec 7.8).

The node's messages are those of the field. Figures about single phones (norms, samples of updates) are
simulation_only: they go to an `Observer` on the farm's own disk and never into a message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fl_client.answers import histogram, part_of
from fl_client.phones import Partial, Task, coins
from model.errors import RunError
from simulation.dataset import Dataset
from simulation.engine.batched import BatchedEngine
from simulation.engine.protocol import Crowd, Engine, Trained

Observer = Callable[[Task, Trained], None]


@dataclass
class Farm:
    """`Phones` of a dataset. RunError when the plan is for another schema or for the field.

    `sample` is how many phones' updates the observer is shown at each stage; 0 shows norms only. `store` keeps the
    rows' inputs on disk, for a node whose process ends with each message.
    """

    data: Dataset
    engine: Engine = field(default_factory=BatchedEngine)
    observe: Observer | None = None
    sample: int = 0
    store: Path | None = None
    _crowds: dict[str, Crowd] = field(default_factory=dict, repr=False)

    def partial(self, task: Task) -> Partial:
        """The sum over this farm's phones that take part, unlabelled ones included with zeros."""
        if task.plan.schema != self.data.schema:
            raise RunError("the plan's schema is not the one these phones were made with; prepare the farm again")
        split, participation = part_of(task.plan, task.kind)
        crowd = self._taking_part(split, participation, task)
        if task.kind != "train":
            return Partial(crowd.phones, histogram(task, crowd.x, crowd.y, crowd.offsets))
        if self.observe is None:
            return Partial(crowd.phones, self.engine.train(crowd, task).sum)
        trained = self.engine.train(crowd, task, self.sample)
        self.observe(task, trained)
        return Partial(crowd.phones, trained.sum)

    def _taking_part(self, split: str, participation: float, task: Task) -> Crowd:
        """The split's phones whose coin of this round says so; the whole split is kept, for its cache."""
        if split not in self._crowds:
            everyone = np.ones(self.data.phones, dtype=bool)
            chosen = {"train": ~self.data.holdout, "holdout": np.asarray(self.data.holdout), "all": everyone}[split]
            self._crowds[split] = self._crowd(split, self.data.take(chosen))
        crowd = self._crowds[split]
        if participation >= 1.0:
            return crowd
        return crowd.take(np.flatnonzero(coins(crowd.ids, task.plan.seed, task.round, participation)))

    def _crowd(self, split: str, data: Dataset) -> Crowd:
        store = None if self.store is None else self.store / split
        return Crowd(data.ids, data.offsets, data.x, data.y, store=store)
