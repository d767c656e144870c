"""One phone behind one node: the field's case (spec 7.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        self._require_asked(task)
        if task.kind == "train":
            _, encoded = train_phone(Learner.of(task.plan, knots_of(task)), self.phone, task.flat, task.round)
            return Partial(1, encoded.units)
        offsets = np.array([0, len(self.phone.y)], dtype=np.int64)
        return Partial(1, histogram(task, self.phone.x, self.phone.y, offsets))

    def members(self, task: Task) -> NDArray[np.uint64]:
        """The one phone; UpdateError as `partial`."""
        self._require_asked(task)
        return np.array([self.phone.id], dtype=np.uint64)

    def each(self, task: Task) -> NDArray[np.int64]:
        """Its answer, (1, d)."""
        return self.partial(task).sum[None, :]

    def _require_asked(self, task: Task) -> None:
        split, _ = split_of(task.plan, task.kind)
        if split != "all" and (split == "holdout") != self.phone.holdout:
            raise UpdateError(f"this phone is not in the {split} split; ask the others")
