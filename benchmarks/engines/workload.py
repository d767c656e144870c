"""Workload W: phones with log-normally many rows, an MLP on raw floats, one local epoch; and what it must compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CAP = 256
SPREAD = 0.6  # σ of log n_i


@dataclass(frozen=True)
class Workload:
    """`phones` of `rows` rows on average (at least 1, at most 256), `width` inputs, widths of the hidden layers."""

    phones: int
    rows: float = 60.0
    width: int = 40
    hidden: tuple[int, ...] = (64, 32)
    batch: int = 16
    rate: float = 0.1

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each layer."""
        return tuple(pairwise((self.width, *self.hidden, 1)))

    @property
    def parameters(self) -> int:
        """d, weights and biases."""
        return sum(inside * outside + outside for inside, outside in self.shapes)

    @property
    def flops_a_row(self) -> int:
        """Multiplications and additions that no method can leave out, for one row of one epoch.

        Forward and weight gradient 2·in·out a layer each; input gradient 2·in·out for every layer but the first.
        """
        sizes = [inside * outside for inside, outside in self.shapes]
        return 4 * sum(sizes) + 2 * sum(sizes[1:])


@dataclass(frozen=True)
class Data:
    """Phone i owns rows first[i] … first[i]+counts[i]-1 of x (R, width) and y (R,); theta (d,) is where all start."""

    workload: Workload
    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    theta: NDArray[np.float32]

    def cohort(self, size: int, turn: int) -> NDArray[np.int64]:
        """The phones of one round, drawn without repetition; the same ones for every engine."""
        if size == len(self.counts):
            return np.arange(size)
        return np.sort(np.random.default_rng((7, turn)).choice(len(self.counts), size, replace=False))

    def save(self, path: Path) -> None:
        """One .npz, from which every peer reads."""
        w = self.workload
        made = {"hidden": np.array(w.hidden), "batch": w.batch, "rate": w.rate}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, first=self.first, counts=self.counts, x=self.x, y=self.y, theta=self.theta, **made)


def load(path: str | Path) -> Data:
    """What `Data.save` wrote."""
    with np.load(path) as f:
        hidden = tuple(int(h) for h in f["hidden"])
        workload = Workload(
            len(f["counts"]), float(f["counts"].mean()), f["x"].shape[1], hidden, int(f["batch"]), float(f["rate"])
        )
        return Data(workload, f["first"], f["counts"], f["x"], f["y"], f["theta"])


def draw(workload: Workload, seed: int = 1) -> Data:
    """Standard normal inputs, labels from a random linear score through a logistic, weights of variance 1/in."""
    random = np.random.default_rng(seed)
    counts = row_counts(random, workload)
    first = np.cumsum(counts) - counts
    x = random.standard_normal((int(counts.sum()), workload.width), dtype=np.float32)
    score = x @ (random.standard_normal(workload.width, dtype=np.float32) * np.float32(2 / np.sqrt(workload.width)))
    y = (random.random(len(x)) < 1 / (1 + np.exp(-score))).astype(np.float32)
    return Data(workload, first, counts, x, y, start(workload))


def row_counts(random: np.random.Generator, workload: Workload) -> NDArray[np.int64]:
    """n_i (N,): log-normal with mean `rows`, rounded, 1 to 256."""
    middle = np.log(workload.rows) - SPREAD**2 / 2
    return np.clip(np.rint(random.lognormal(middle, SPREAD, workload.phones)), 1, CAP).astype(np.int64)


def start(workload: Workload, seed: int = 2) -> NDArray[np.float32]:
    """Starting weights (d,): per layer the (in, out) matrix row by row, then its biases, which are 0."""
    random = np.random.default_rng(seed)
    parts = [
        np.concatenate([random.standard_normal(inside * outside) / np.sqrt(inside), np.zeros(outside)])
        for inside, outside in workload.shapes
    ]
    return np.concatenate(parts).astype(np.float32)


def repeated(workload: Workload, rows: int = 40) -> Data:
    """Every phone has `rows` copies of one row of its own: an epoch's result then does not depend on the shuffle."""
    data = draw(replace(workload, rows=1.0, phones=workload.phones))
    own = data.first
    counts = np.full(workload.phones, rows, np.int64)
    return Data(
        workload, np.arange(workload.phones) * rows, counts, data.x[own].repeat(rows, 0), data.y[own].repeat(rows),
        data.theta,
    )  # fmt: skip
