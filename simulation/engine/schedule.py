"""Which rows each phone of a chunk looks at, step by step: gathered batches and their weights (spec 7.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_client.batches import steps_of
from fl_client.phones import mix
from simulation.engine.problem import Problem

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
_LAST = np.uint64(2**64 - 1)


@dataclass
class Schedule:
    """The local steps of `phones` (P,), labelled and sorted by falling number of rows.

    Those that still train at a step are then the first ones: `active` says how many.
    """

    problem: Problem
    phones: Ints

    def __post_init__(self) -> None:
        local = self.problem.local
        self.counts = self.problem.counts[self.phones]
        self.first = self.problem.first[self.phones]
        self.steps = steps_of(local, self.counts)
        self.batch = local.batch_size or int(self.counts[0])
        self.batches = -(-self.counts // self.batch)
        self.shuffled = int((self.batches > 1).sum())  # one batch takes every row: its order does not matter

    @property
    def length(self) -> int:
        """Steps of the phone that makes most."""
        return int(self.steps[0])

    def active(self, step: int) -> int:
        """How many phones train at `step`."""
        return int((self.steps > step).sum())

    def at(self, step: int) -> tuple[Ints, Floats]:
        """(row numbers (A, L), weights (A, L)) of the active phones' batches at `step`.

        Weights are 1/(rows in the batch), and 0 where a shorter batch is filled up with a row of its own phone.
        """
        active = self.active(step)
        counts, batches = self.counts[:active], self.batches[:active]
        start = step % batches * self.batch
        size = np.minimum(self.batch, counts - start)
        turn = np.arange(int(size.max()))
        inside = turn < size[:, None]
        place = np.where(inside, start[:, None] + turn, 0)
        shuffled = min(self.shuffled, active)
        if shuffled:
            self._shuffle(step, shuffled)
            place[:shuffled] = np.take_along_axis(self._order[:shuffled], place[:shuffled], axis=1)
        return self.first[:active, None] + place, (inside / size[:, None]).astype(np.float32)

    @cached_property
    def _order(self) -> Ints:
        """Row numbers in shuffled order, (shuffled, most rows)."""
        return np.zeros((self.shuffled, int(self.counts[0])), dtype=np.int64)

    def _shuffle(self, step: int, shuffled: int) -> None:
        """New orders for the phones that begin an epoch at `step`."""
        epoch, turn = np.divmod(step, self.batches[:shuffled])
        fresh = np.flatnonzero(turn == 0)
        if len(fresh):
            ids = self.problem.ids[self.phones[fresh]][:, None]
            self._order[fresh] = _orders(
                self.problem, ids, epoch[fresh][:, None], self.counts[fresh][:, None], self._order.shape[1]
            )


def _orders(problem: Problem, ids: NDArray[np.uint64], epoch: Ints, counts: Ints, width: int) -> Ints:
    """Rows of phones `ids` (P, 1) by rising counter hash, ties by position; (P, width), what lies beyond comes last."""
    position = np.arange(width)[None, :]
    key = mix(ids, problem.seed, problem.round, epoch, position)
    key[position >= counts] = _LAST
    order = np.argsort(key, axis=1)
    ranked = np.take_along_axis(key, order, axis=1)
    if ((ranked[:, 1:] == ranked[:, :-1]) & (position[:, 1:] < counts + 1)).any():
        return np.argsort(key, axis=1, kind="stable")
    return order
