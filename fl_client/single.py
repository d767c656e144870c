"""One phone behind one node: the field's case (spec 7.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_client.answers import histogram, knots_of
from fl_client.phones import Partial, Phone, Task
from fl_client.training import Learner, train_phone
from model.contract.releases import split_of
from model.errors import UpdateError


@dataclass(frozen=True)
class OnePhone:
    """`Phones` of exactly one. Its answer counts 1, with zeros where it has no labels."""

    phone: Phone

    def partial(self, task: Task) -> Partial:
        """The phone's own answer. UpdateError, which looks like absence, when the question is for other phones."""
        split, _ = split_of(task.plan, task.kind)
        if split != "all" and (split == "holdout") != self.phone.holdout:
            raise UpdateError(f"this phone is not in the {split} split; ask the others")
        if task.kind == "train":
            _, encoded = train_phone(Learner.of(task.plan, knots_of(task)), self.phone, task.flat, task.round)
            return Partial(1, encoded.units)
        offsets = np.array([0, len(self.phone.y)], dtype=np.int64)
        return Partial(1, histogram(task, self.phone.x, self.phone.y, offsets))
