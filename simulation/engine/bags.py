"""One local step of many phones' additive model in torch: a gradient is a weighted sum of table rows (spec 7.8).

Such a sum is what torch calls an embedding bag: one bag a phone and feature, its rows' levels and slopes inside. No
row's inputs are ever written down. NumPy's road (`additive`) stays for few rows, where loading torch costs more than
it saves, and for more than one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulation.engine.additive import Additive, Ints
from simulation.engine.chunks import Limits, Updates
from simulation.engine.schedule import Schedule
from simulation.engine.space import Space
from simulation.engine.tally import StackedUpdates, exact_group, no_records, one_thread_an_operation

NUMBERS, MOST = 400_000, 4096  # weights of a chunk's phones, and phones
ROWS = 1 << 13  # of a chunk


@dataclass(frozen=True)
class Bags(Additive):
    """One step of the additive model; `Additive.fits_bags` says for which problems."""

    @cached_property
    def table(self) -> Tensor:
        """Each level's inputs (L, K), padded to one width."""
        return torch.from_numpy(np.ascontiguousarray(self.hats.inputs))

    @cached_property
    def starts(self) -> NDArray[np.int32]:
        """Where each feature's levels begin, (F,)."""
        return self.hats.start.astype(np.int32)

    @property
    def limits(self) -> Limits:
        """How large a chunk may be."""
        phones = min(max(NUMBERS // self.size, 16), MOST)
        return Limits(phones, ROWS, phones, ROWS)

    @contextmanager
    def threads(self) -> Iterator[int]:
        """torch's number of threads, each with chunks of its own."""
        _ = self._scores, self.table, self.starts  # once, before the threads ask for them
        with one_thread_an_operation() as granted:
            yield granted

    @contextmanager
    def working(self) -> Iterator[None]:
        """One thread an operation; `encode_parts` refuses what leaves the finite numbers."""
        with no_records(), super().working():
            yield

    def updates(self, phones: Ints, space: Space) -> Iterator[tuple[slice, Updates]]:
        """Raw updates of labelled phones sorted by falling length."""
        yield slice(None), self._stepped(phones)

    def _stepped(self, phones: Ints) -> StackedUpdates:
        rows, weights = Schedule(self.problem, phones).at(0)
        levels = self.hats.codes[rows].astype(np.int32)
        levels += self.starts
        logits = self._scores.take(levels).sum(axis=2)
        slope = (0.5 * (1 + np.tanh(logits / 2)) - self.problem.y[rows]) * weights
        slope *= np.float32(-self.problem.local.learning_rate)
        sums = self._bagged(torch.from_numpy(levels), torch.from_numpy(slope))
        bias = torch.from_numpy(slope.sum(axis=1, dtype=np.float64) * self.hats.bias).float()[:, None]
        return StackedUpdates([sums, bias], self.place, exact_group(self.problem))

    def _bagged(self, levels: Tensor, slope: Tensor) -> Tensor:
        """Each phone's Σ slope · inputs, (A, F·K), of levels (A, L, F) and slopes (A, L)."""
        active, length, features = levels.shape
        ordered = levels.transpose(1, 2).reshape(-1)
        weights = slope[:, None, :].expand(active, features, length).reshape(-1)
        begins = torch.arange(0, len(ordered), length, dtype=torch.int32)
        found = torch.nn.functional.embedding_bag(ordered, self.table, begins, mode="sum", per_sample_weights=weights)
        return found.view(active, -1)
