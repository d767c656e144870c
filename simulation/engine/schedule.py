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
        local, longest = self.problem.local, int(self.problem.counts[self.phones[0]])
        self.counts = self.problem.counts[self.phones]
        self.steps = steps_of(local, self.counts)
        self.batch = min(local.batch_size or longest, longest)
        self.batches = -(-self.counts // self.batch)
        self.shuffled = int((self.batches > 1).sum())  # one batch takes every row: its order does not matter
        self._position = np.arange(int(self.batches[0]) * self.batch)

    @property
    def length(self) -> int:
        """Steps of the phone that makes most."""
        return int(self.steps[0])

    def active(self, step: int) -> int:
        """How many phones train at `step`."""
        return int((self.steps > step).sum())

    def at(self, step: int) -> tuple[Ints, Floats]:
        """(row numbers (A, L), weights (A, L)) of the active phones' batches at `step`, to be read only.

        Weights are 1/(rows in the batch), and 0 where a shorter batch is filled up with a row of its own phone.
        """
        active = self.active(step)
        turn = step % self.batches[:active]
        self._shuffle(step, turn)
        longest = int(np.minimum(self.counts[:active] - turn * self.batch, self.batch).max())
        rows, weights = self._rows[:active], self._weights[:active]
        start = int(turn[0]) * self.batch
        if (turn == turn[0]).all():  # as in a first epoch: one slice serves all
            return rows[:, start : start + longest], weights[:, start : start + longest]
        place = (turn * self.batch)[:, None] + np.arange(longest)
        return np.take_along_axis(rows, place, axis=1), np.take_along_axis(weights, place, axis=1)

    @cached_property
    def _rows(self) -> Ints:
        """Row numbers in the order of the epoch each phone is in, (P, whole batches of the longest)."""
        return self.problem.first[self.phones][:, None] + np.minimum(self._position, self.counts[:, None] - 1)

    @cached_property
    def _weights(self) -> Floats:
        """Each place's weight, (P, whole batches of the longest), up to the end of a phone's last batch."""
        weights = np.full((len(self.counts), len(self._position)), 1 / self.batch, dtype=np.float32)
        begun = ((self.batches - 1) * self.batch)[:, None]
        turn, size = np.arange(self.batch), self.counts[:, None] - begun
        np.put_along_axis(weights, begun + turn, np.where(turn < size, 1 / size, 0).astype(np.float32), axis=1)
        return weights

    def _shuffle(self, step: int, turn: Ints) -> None:
        """New orders for the phones that begin an epoch at `step`."""
        fresh = np.flatnonzero(turn[: self.shuffled] == 0)
        if len(fresh) == 0:
            return
        chosen, epoch, counts = self.phones[fresh], step // self.batches[fresh], self.counts[fresh][:, None]
        order = _orders(self.problem, self.problem.ids[chosen][:, None], epoch[:, None], counts, int(self.counts[0]))
        np.minimum(order, counts - 1, out=order)  # a batch is filled up with a row of its own phone
        order += self.problem.first[chosen][:, None]
        self._rows[fresh, : order.shape[1]] = order


def _orders(problem: Problem, ids: NDArray[np.uint64], epoch: Ints, counts: Ints, width: int) -> Ints:
    """Rows of phones `ids` (P, 1) by rising counter hash, ties by position; (P, width), what lies beyond comes last."""
    position = np.arange(width)[None, :]
    key = mix(ids, problem.seed, problem.round, epoch, position)
    key[position >= counts] = _LAST
    order = np.argsort(key, axis=1)
    ranked = np.sort(key, axis=1)
    if ((ranked[:, 1:] == ranked[:, :-1]) & (position[:, 1:] < counts + 1)).any():
        return np.argsort(key, axis=1, kind="stable")
    return order
