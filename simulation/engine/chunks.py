"""How a round is cut: chunks of phones of like length, trained by a few threads, added up as they come (spec 7.8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulation.engine.problem import Problem
from simulation.engine.space import Space, lent

Ints = NDArray[np.int64]
Matrix = NDArray[np.float64]
CELLS = 1 << 20  # of a table of shuffles, phones by rows of the longest


class Updates(Protocol):
    """A chunk's updates, one a phone; raw until `encode` turns them into grid units where they lie."""

    def rows(self, kept: Ints) -> Matrix:
        """The updates of phones `kept` of this chunk in the model's order, (len(kept), d) float64."""
        ...

    def encode(self, norm: float, scale: int) -> NDArray[np.float64]:
        """Clip and round toward zero; norms before clipping (P,). UpdateError if an update is not finite."""
        ...

    def sum(self) -> NDArray[np.float64]:
        """The sum over phones in the model's order, (d,); exact for grid units."""
        ...


class Trainer(Protocol):
    """One round's training of one kind of model."""

    @property
    def phones(self) -> int:
        """Phones a chunk holds at most."""
        ...

    @property
    def rows(self) -> int:
        """Rows of one step a chunk holds at most, if it has more than one phone."""
        ...

    def threads(self) -> AbstractContextManager[int]:
        """How many threads may train at once, from entering to leaving."""
        ...

    def begin(self) -> None:
        """Called in each thread before it trains."""
        ...

    def updates(self, phones: Ints, space: Space) -> Updates:
        """Train labelled phones that stand by falling number of rows."""
        ...


def chunks(problem: Problem, phones: int, rows: int) -> Iterator[Ints]:
    """Labelled phones by falling number of rows, at most `phones` or `rows` rows of one step at a time.

    Unlabelled phones add zeros, so nothing is computed for them.
    """
    labelled = np.flatnonzero(problem.counts > 0)
    order = labelled[np.argsort(-problem.counts[labelled], kind="stable")]
    batch, at = problem.local.batch_size, 0
    while at < len(order):
        longest = int(problem.counts[order[at]])
        step = min(longest, batch) if batch else longest
        end = at + max(min(phones, rows // step, CELLS // longest), 1)
        yield order[at:end]
        at = end


def over(work: Iterator[Ints], threads: int, one: Callable[[Ints, Space], None], begin: Callable[[], None]) -> None:
    """Call `one` on every chunk from `threads` threads, `begin` first in each; an error stops the round."""
    todo = deque(work)

    def worker() -> None:
        with lent() as space:
            while todo:
                try:
                    phones = todo.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    one(phones, space)
                except BaseException:
                    todo.clear()
                    raise

    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        for done in [pool.submit(worker) for _ in range(threads)]:
            done.result()
