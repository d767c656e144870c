"""How a round is cut: chunks of phones of like length, trained by a few threads, added up as they come (spec 7.8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.batches import steps_of
from simulation.engine.problem import Problem
from simulation.engine.space import Space, lent

Ints = NDArray[np.int64]
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Around = AbstractContextManager[None]
UPDATE = 8  # rows that take as long as clipping and adding up one update
SMALLEST = 16  # phones a chunk, unless told otherwise
CELLS = 1 << 20  # of a table of shuffles, phones by rows of the longest


class Updates(Protocol):
    """Some phones' updates, one a phone; raw until `encode` turns them into grid units where they lie."""

    def rows(self, kept: Ints) -> Matrix:
        """The updates of phones `kept` of these in the model's order, (len(kept), d) float64."""
        ...

    def encode(self, norm: float, scale: int) -> tuple[Vector, Vector]:
        """Clip, round toward zero, add up: (norms before clipping (P,), sum in the trainer's order, exact).

        UpdateError if an update is not finite.
        """
        ...

    def sum(self) -> Vector:
        """The sum over phones in the trainer's own order."""
        ...


class Trainer(Protocol):
    """One round's training of one kind of model."""

    @property
    def limits(self) -> Limits:
        """How large a chunk may be."""
        ...

    @property
    def size(self) -> int:
        """Numbers of an update in the trainer's own order."""
        ...

    @property
    def place(self) -> Ints:
        """Where each number of the model lies in that order, (d,)."""
        ...

    def threads(self) -> AbstractContextManager[int]:
        """How many threads may train at once, from entering to leaving."""
        ...

    def working(self) -> AbstractContextManager[None]:
        """Around all that one thread trains."""
        ...

    def updates(self, phones: Ints, space: Space) -> Iterator[tuple[slice, Updates]]:
        """Train labelled phones that stand by falling number of rows; some at a time, good until the next are asked."""
        ...


@dataclass(frozen=True)
class Limits:
    """What a chunk holds at most: phones, and rows of one step if it has more than one phone.

    `single` and `single_rows` are the same for phones that make one step.
    """

    phones: int
    rows: int
    single: int
    single_rows: int


def chunks(problem: Problem, limits: Limits, share: float = 1.0) -> Iterator[Ints]:
    """Labelled phones by falling number of rows, within `limits` and about `share` of the round's work.

    Unlabelled phones add zeros, so nothing is computed for them. Those that make one step stand by themselves.
    """
    labelled = np.flatnonzero(problem.counts > 0)
    order = labelled[np.argsort(-problem.counts[labelled], kind="stable")]
    counts, batch, at = problem.counts[order], problem.local.batch_size, 0
    work = np.cumsum(counts + UPDATE)
    several = int((steps_of(problem.local, counts) > 1).sum())
    while at < len(order):
        longest, more = int(counts[at]), at < several
        step = min(longest, batch) if batch else longest
        phones, rows = (limits.phones, limits.rows) if more else (limits.single, limits.single_rows)
        done = int(work[at - 1]) if at else 0
        fair = int(np.searchsorted(work, done + share * work[-1])) + 1 - at
        end = at + max(min(phones, rows // step, CELLS // longest, max(fair, SMALLEST)), 1)
        end = min(end, several) if more else end
        yield order[at:end]
        at = end


def over(work: Iterator[Ints], threads: int, one: Callable[[Ints, Space], None], working: Callable[[], Around]) -> None:
    """Call `one` on every chunk from `threads` threads, `working` around what each does; an error stops the round."""
    todo = deque(work)

    def worker() -> None:
        with lent() as space, working():
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

    workers = min(threads, len(todo))
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for done in [pool.submit(worker) for _ in range(workers)]:
            done.result()
