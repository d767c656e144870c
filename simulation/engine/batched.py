"""Many phones at once: the same numbers as the phone loop, in chunks of stacked arrays (spec 7.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_client.phones import Task
from simulation.engine.inputs import problem_of
from simulation.engine.mlp import Mlp
from simulation.engine.problem import Problem
from simulation.engine.protocol import Crowd, Trained
from simulation.engine.space import Space
from simulation.engine.tally import Tally, encode_parts

Ints = NDArray[np.int64]
NUMBERS_A_CHUNK = 300_000
ROWS_A_CHUNK = 1 << 14
MOST = 4096
GROUP = 32


@dataclass(frozen=True)
class BatchedEngine:
    """Chunks of phones, one vector of integer sums. `chunk` phones at a time; `threads` None is torch's own number."""

    chunk: int | None = None
    threads: int | None = None
    name: str = "batched"

    def train(self, crowd: Crowd, task: Task, sample: int = 0) -> Trained:
        """Sum of encoded updates; see `Engine.train`."""
        return self.solve(problem_of(crowd, task), sample)

    def solve(self, problem: Problem, sample: int = 0) -> Trained:
        """One round of `problem`; UpdateError where a phone's training leaves the finite numbers."""
        local, model = problem.local, Mlp.of(problem)
        group = min(GROUP, int(2**24 / (local.clip_norm * problem.scale)))
        norms = np.zeros(len(problem.counts))
        shape = (min(sample, len(norms)), problem.dimension)
        raw, units = np.zeros(shape), np.zeros(shape, dtype=np.int64)

        def one(phones: Ints, tally: Tally, space: Space) -> None:
            parts = model.deltas(phones, space)
            kept = np.flatnonzero(phones < sample)
            _keep(raw, phones[kept], parts, kept, model.columns)
            norms[phones] = encode_parts(parts, local.clip_norm, problem.scale, space)
            _keep(units, phones[kept], parts, kept, model.columns)
            tally.add(parts, group)

        total = self._over(problem, model, one)
        return Trained(total.astype(np.int64), norms, raw, units)

    def plain(self, problem: Problem) -> NDArray[np.float64]:
        """The sum of raw updates (d,), neither clipped nor on the grid: what clip and encode are measured against."""
        model = Mlp.of(problem)

        def one(phones: Ints, tally: Tally, space: Space) -> None:
            tally.add(model.deltas(phones, space), GROUP)

        return self._over(problem, model, one)

    def _over(self, problem: Problem, model: Mlp, one: Callable[[Ints, Tally, Space], None]) -> NDArray[np.float64]:
        todo: SimpleQueue[Ints] = SimpleQueue()
        for phones in chunks(problem, self.chunk):
            todo.put(phones)
        own = torch.get_num_threads()
        threads = min(self.threads or own, max(todo.qsize(), 1))

        def work() -> Tally:
            torch.set_num_threads(1)
            tally, space = Tally(), Space()
            while not todo.empty():
                one(todo.get(), tally, space)
            return tally

        with ThreadPoolExecutor(threads) as pool:
            tallies = [f.result() for f in [pool.submit(work) for _ in range(threads)]]
        torch.set_num_threads(own)
        total = np.zeros(problem.dimension)
        for tally in tallies:
            if tally.sums:
                total[model.columns] += tally.joined
        return total


def _keep(into: NDArray[Any], rows: Ints, parts: list[Tensor], kept: Ints, columns: Ints) -> None:
    """Rows `kept` of the parts, in the model's order, become rows `rows` of `into`."""
    if len(kept):
        into[rows[:, None], columns] = torch.cat([part[kept] for part in parts], dim=1).numpy()


def chunks(problem: Problem, chunk: int | None) -> Iterator[Ints]:
    """Labelled phones by falling number of rows; unlabelled ones add zeros, so nothing is computed for them."""
    labelled = np.flatnonzero(problem.counts > 0)
    order = labelled[np.argsort(-problem.counts[labelled], kind="stable")]
    size = chunk or min(max(NUMBERS_A_CHUNK // problem.dimension, 16), MOST)
    at = 0
    while at < len(order):
        longest = int(problem.counts[order[at]])
        width = longest if not problem.local.batch_size else min(longest, problem.local.batch_size)
        end = at + max(min(size, ROWS_A_CHUNK // width), 1)
        yield order[at:end]
        at = end
