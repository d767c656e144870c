"""Which rows each phone of a chunk looks at, step by step: gathered batches and their weights (spec 7.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


@dataclass(frozen=True)
class Part:
    """Rows (A, L) of phones `at` … `at` + A - 1 of a chunk at one step, and their weights (A, L).

    `first` is the first part of its step and `whole` the only one.
    """

    step: int
    at: int
    rows: Ints
    weights: Floats
    first: bool = True
    whole: bool = True


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
        return int(np.searchsorted(-self.steps, -step))

    def at(self, step: int) -> tuple[Ints, Floats]:
        """(row numbers (A, L), weights (A, L)) of the active phones' batches at `step`, to be read only.

        Weights are 1/(rows in the batch), and 0 where a shorter batch is filled up with a row of its own phone.
        """
        active = self.active(step)
        if 0 < step < self.batches[active - 1]:  # all are in their first epoch
            begin, end = step * self.batch, min((step + 1) * self.batch, int(self.counts[0]))
            return self._rows[:active, begin:end], self._weights[:active, begin:end]
        turn = step % self.batches[:active]
        self._shuffle(step, turn)
        longest = int(np.minimum(self.counts[:active] - turn * self.batch, self.batch).max())
        rows, weights = self._rows[:active], self._weights[:active]
        start = int(turn[0]) * self.batch
        if (turn == turn[0]).all():  # as when all make equally many steps: one slice serves all
            return rows[:, start : start + longest], weights[:, start : start + longest]
        place = (turn * self.batch)[:, None] + np.arange(longest)
        return np.take_along_axis(rows, place, axis=1), np.take_along_axis(weights, place, axis=1)

    def parts(self, most: int) -> Iterator[Part]:
        """All steps one after the other; a step of more than `most` rows comes as several parts."""
        for step in range(self.length):
            rows, weights = self.at(step)
            size = max(most // len(rows), 1)
            whole = size >= rows.shape[1]
            for begin in range(0, rows.shape[1], size):
                columns = slice(begin, begin + size)
                chosen = rows[:, columns].copy()  # the next epoch's order is written where this one lies
                yield Part(step, 0, chosen, weights[:, columns], begin == 0, whole)

    def alike(self, most: int) -> Iterator[Part]:
        """The first step of everybody, at most `most` phones of like length at a time."""
        rows, weights = self.at(0)
        sizes, at = np.minimum(self.counts, self.batch), 0
        while at < len(rows):
            longest = int(sizes[at])
            same = int(np.searchsorted(-sizes, -longest, side="right")) - at
            end = min(at + (most if same < most // 2 else min(same, most)), len(rows))
            yield Part(0, at, rows[at:end, :longest], weights[at:end, :longest])
            at = end

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


def windows(parts: Iterable[Part], most: int) -> Iterator[list[Part]]:
    """Parts in lists of at most `most` rows, or one part."""
    held: list[Part] = []
    size = 0
    for part in parts:
        if held and size + part.rows.size > most:
            yield held
            held, size = [], 0
        held.append(part)
        size += part.rows.size
    yield held


def _orders(problem: Problem, ids: NDArray[np.uint64], epoch: Ints, counts: Ints, width: int) -> Ints:
    """Rows of phones `ids` (P, 1) by rising counter hash, ties by position; (P, width), what lies beyond comes last.

    A sort of hashes whose last bits are the position is much sooner than one of positions; where the other bits tie,
    it is the latter after all.
    """
    position = np.arange(width)[None, :]
    key = mix(ids, problem.seed, problem.round, epoch, position)
    key[position >= counts] = _LAST
    low = np.uint64((1 << (width - 1).bit_length()) - 1)
    packed = (key & ~low) | position.astype(np.uint64)
    packed.sort(axis=1)
    tied = (packed[:, 1:] ^ packed[:, :-1]) <= low
    if (tied & (position[:, 1:] < counts + 1)).any():
        return np.argsort(key, axis=1, kind="stable")
    return (packed & low).astype(np.int64)
