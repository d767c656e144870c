"""Many virtual phones behind one Flower node: a slice of a dataset and an engine (spec 7.8).

The node's messages are those of the field. Figures about single phones (norms, samples of updates, who was reached)
are simulation_only: they go to an `Observer` or a `Teller` on the farm's own disk and never into a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_client.answers import answer_size
from fl_client.phones import Partial, Task, coins
from fl_server.robust import combine
from model.contract.releases import split_of
from model.errors import RunError
from simulation.attendance import Attendance
from simulation.availability import tiers_of
from simulation.bylevel import counted
from simulation.dataset import Dataset
from simulation.engine.choice import choose
from simulation.engine.protocol import Crowd, Engine, Ints, Trained
from simulation.singles import counted_singles, trained_singles

Observer = Callable[[Task, Trained], None]
Teller = Callable[[Task, Mapping[str, int]], None]


@dataclass
class Farm:
    """`Phones` of a dataset. RunError when the plan is for another schema or for the field.

    `sample` is how many phones' updates the observer is shown at each stage; 0 shows norms only. With an `attendance`
    the sum is over the phones it counts, and `tell` is told how many met which fate; without one, everybody answers.
    `alone` says that no other farm holds phones of the run.
    """

    data: Dataset
    engine: Engine = field(default_factory=lambda: choose()[0])
    observe: Observer | None = None
    sample: int = 0
    attendance: Attendance | None = None
    tell: Teller | None = None
    alone: bool = True
    _crowds: dict[str, Crowd] = field(default_factory=dict, repr=False)

    def partial(self, task: Task) -> Partial:
        """The sum over this farm's phones that take part, unlabelled ones included with zeros."""
        crowd = self._asked(task)
        if task.kind != "train":
            return Partial(crowd.phones, counted(task, crowd))
        if task.plan.aggregation != "mean":
            return self._by_rule(crowd, task)
        if self.observe is None:
            return Partial(crowd.phones, self.engine.train(crowd, task).sum)
        trained = self.engine.train(crowd, task, self.sample)
        self.observe(task, trained)
        return Partial(crowd.phones, trained.sum)

    def _by_rule(self, crowd: Crowd, task: Task) -> Partial:
        """Every update in the clear, put together by the plan's rule (13.13.1)."""
        if not self.alone:
            raise RunError(f"{task.plan.aggregation} compares all phones' updates; put them into one farm")
        trained = trained_singles(task, crowd, self.engine)
        self._show(task, trained)
        return Partial(crowd.phones, combine(task.plan, trained.units))

    def members(self, task: Task) -> NDArray[np.uint64]:
        """Ids (P,) of the phones that take part, for pairwise masking."""
        return self._asked(task).ids

    def each(self, task: Task) -> Ints:
        """What each of them answers, (P, d); the observer is told as by `partial`."""
        crowd = self._asked(task)
        if task.kind != "train":
            return counted_singles(task, crowd, answer_size(task))
        trained = trained_singles(task, crowd, self.engine)
        self._show(task, trained)
        return trained.units

    def _show(self, task: Task, trained: Trained) -> None:
        if self.observe is not None:
            self.observe(task, replace(trained, raw=trained.raw[: self.sample], units=trained.units[: self.sample]))

    def _asked(self, task: Task) -> Crowd:
        if task.plan.schema != self.data.schema:
            raise RunError("the plan's schema is not the one these phones were made with; prepare the farm again")
        return self._taking_part(*split_of(task.plan, task.kind), task)

    def _taking_part(self, split: str, participation: float, task: Task) -> Crowd:
        """The split's phones whose coin of this round says so and whose answer would be counted, over the same rows."""
        crowd = self._crowd(split)
        if participation >= 1.0 and self.attendance is None:
            return crowd
        asked = np.flatnonzero(coins(crowd.ids, task.plan.seed, task.round, participation))
        if self.attendance is None:
            return crowd.take(asked)
        tiers = self._tiers if split == "all" else self._tiers[self._side(split)]
        roll = self.attendance.roll(crowd.ids[asked], tiers[asked], task.round)
        if self.tell is not None:
            self.tell(task, roll.tally())
        return crowd.take(asked[roll.counted])

    def _crowd(self, split: str) -> Crowd:
        data = self.data
        if split not in self._crowds:
            whole = self._crowds.setdefault("all", Crowd.of(data.ids, data.offsets, data.x, data.y))
            self._crowds[split] = whole if split == "all" else whole.take(self._side(split))
        return self._crowds[split]

    def _side(self, split: str) -> NDArray[np.bool_]:
        held = np.asarray(self.data.holdout)
        return held if split == "holdout" else ~held

    @cached_property
    def _tiers(self) -> NDArray[np.int8]:
        return tiers_of(self.data)
