"""Many phones at once: the same numbers as the phone loop, in chunks of stacked arrays (spec 7.8).

The MLP trains in torch, the additive model in NumPy; either way one vector of sums goes through a round, and of single
updates only the norms and a sample are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import Task
from simulation.engine.chunks import Ints, Trainer, Updates, chunks, over
from simulation.engine.inputs import problem_of
from simulation.engine.problem import Problem
from simulation.engine.protocol import Crowd, Trained
from simulation.engine.space import Space


@dataclass(frozen=True)
class BatchedEngine:
    """`chunk` phones at a time at most; `threads` None is what OMP_NUM_THREADS or torch's own setting grants."""

    chunk: int | None = None
    threads: int | None = None
    name: str = "batched"

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Sum of encoded updates; see `Engine.train`."""
        return self.solve(problem_of(crowd, task), sample)

    def solve(self, problem: Problem, sample: int = 0) -> Trained:
        """One round of `problem`. UpdateError where a phone's training leaves the finite numbers."""
        norms, trainer = np.zeros(len(problem.counts)), trainer_of(problem)
        shape = (min(sample, len(norms)), problem.dimension)
        raw, units = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        total, lock = np.zeros(trainer.size, dtype=np.int64), Lock()

        def one(phones: Ints, updates: Updates) -> None:
            kept = np.flatnonzero(phones < sample)
            if len(kept):
                raw[phones[kept]] = updates.rows(kept)
            norms[phones], part = updates.encode(problem.local.clip_norm, problem.scale)
            if len(kept):
                units[phones[kept]] = updates.rows(kept)
            whole = part.astype(np.int64)
            with lock:
                np.add(total, whole, out=total)

        self._each(problem, trainer, one)
        return Trained(total[trainer.place], norms, raw, units)

    def plain(self, problem: Problem) -> NDArray[np.float64]:
        """The sum of raw updates (d,), neither clipped nor on the grid: what clip and encode are measured against."""
        trainer, lock = trainer_of(problem), Lock()
        total = np.zeros(trainer.size)

        def one(_: Ints, updates: Updates) -> None:
            part = updates.sum()
            with lock:
                np.add(total, part, out=total)

        self._each(problem, trainer, one)
        return np.asarray(total[trainer.place])

    def _each(self, problem: Problem, trainer: Trainer, one: Callable[[Ints, Updates], None]) -> None:
        """Train every chunk and hand its updates over."""

        def chunk(phones: Ints, space: Space) -> None:
            for which, updates in trainer.updates(phones, space):
                one(phones[which], updates)

        limits = trainer.limits
        if self.chunk:
            limits = replace(limits, phones=self.chunk, single=self.chunk)
        with trainer.threads() as granted:
            threads = self.threads or granted
            over(chunks(problem, limits, 1 / threads), threads, chunk, trainer.working)


def trainer_of(problem: Problem) -> Trainer:
    """What trains this problem. torch is loaded for an MLP, and for one additive step of many rows."""
    if problem.hidden:
        from simulation.engine.mlp import Mlp

        return Mlp(problem)
    from simulation.engine.additive import Additive

    trainer = Additive(problem)
    if trainer.fits_bags:
        from simulation.engine.bags import Bags

        return Bags(problem)
    return trainer
