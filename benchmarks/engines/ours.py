"""Our engines as runners: a round is a cohort taken as views, `solve`, discrete Gaussian noise, the server's mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.workload import Data
from model.contract.plan import LocalTraining
from model.privacy.noise import OsSource, discrete_gaussian
from simulation.engine.problem import Columns, Dense, Hats, Problem, Rows, active_hats

SCALE = 1 << 20
CLIP = 0.2  # about the median update of W, so that clipping has something to do
MULTIPLIER = 1.0  # σ of the noise on the sum, in clip norms


def population(data: Data, rows: Rows | None = None, clip: float = CLIP) -> Problem:
    """Everybody as one `Problem`; a round is the same with some of the phones."""
    w = data.workload
    return Problem(
        ids=np.arange(len(data.counts), dtype=np.uint64),
        first=data.first,
        counts=data.counts,
        y=data.y,
        rows=Dense(data.x) if rows is None else rows,
        flat=data.theta,
        hidden=w.hidden,
        local=LocalTraining(0, w.rate, w.batch, 0.0, clip, local_epochs=1),
        seed=11,
        round=0,
        scale=SCALE,
    )


def engine(name: str, threads: int = 2) -> Any:
    """`native` or `batched` by name. RunError if there is no compiled kernel."""
    if name == "native":
        from simulation.engine.native.engine import NativeEngine

        return NativeEngine(threads=threads)
    from simulation.engine.batched import BatchedEngine

    return BatchedEngine(threads=threads)


@dataclass
class Ours:
    """An engine over a population. `private` False leaves out clip, grid and noise (`plain`)."""

    name: str
    engine: Any
    everyone: Problem
    draw: Callable[[int, int], NDArray[np.int64]]
    private: bool = True
    noise: float = MULTIPLIER

    def go(self, rounds: int, cohort: int) -> float:
        """Seconds of so many rounds from the starting weights."""
        begun = time.perf_counter()
        self.run(rounds, cohort)
        return time.perf_counter() - begun

    def run(self, rounds: int, cohort: int) -> NDArray[np.float32]:
        """The model (d,) after so many rounds."""
        theta = self.everyone.flat.astype(np.float64)
        for turn in range(rounds):
            theta += self.mean(self.part(theta, cohort, turn), cohort)
        return theta.astype(np.float32)

    def part(self, theta: NDArray[np.float64], cohort: int, turn: int) -> Problem:
        """This round's phones over the same rows."""
        all_, chosen = self.everyone, self.draw(cohort, turn)
        flat = theta.astype(np.float32)
        return replace(
            all_, ids=all_.ids[chosen], first=all_.first[chosen], counts=all_.counts[chosen], flat=flat, round=turn
        )

    def mean(self, problem: Problem, cohort: int) -> NDArray[np.float64]:
        """The step of the server, (d,)."""
        if not self.private:
            return np.asarray(self.engine.plain(problem)) / cohort
        total = self.engine.solve(problem, 0).sum
        if self.noise:
            sigma = self.noise * problem.local.clip_norm * problem.scale
            total = total + discrete_gaussian(sigma, len(total), OsSource())
        return np.asarray(total / (problem.scale * cohort))


@dataclass
class Peak:
    """The processor's float32 multiply-adds, as a runner whose "updates" a second are FLOP/s."""

    threads: int = 2
    name: str = "peak"

    def go(self, rounds: int, cohort: int) -> float:
        """Seconds that rounds·cohort FLOPs would take at the peak measured just now."""
        from simulation.engine.native.library import library

        return rounds * cohort / (library().fma_peak(self.threads, 0.2) * 1e9)


def additive(phones: int, rows: float, features: int = 40, knots: int = 16, levels: int = 255) -> Problem:
    """The additive model on features of one byte each, trained as plans train it: one step of all a phone's rows."""
    from engines.workload import Workload, draw

    data = draw(Workload(phones, rows, 1))
    random = np.random.default_rng(3)
    codes = random.integers(0, levels, (len(data.y), features), dtype=np.uint8)
    grid = np.linspace(0, knots - 1, levels - 1)
    phi = np.maximum(0, 1 - np.abs(grid[:, None] - np.arange(knots))).astype(np.float32)
    phi = np.vstack([phi, np.zeros(knots, np.float32)])  # the last level is "missing"
    hat, low, high = active_hats(phi)
    flag = np.zeros(levels, np.float32)
    flag[-1] = 1
    block = np.linalg.inv(np.cov(np.hstack([phi, flag[:, None]]).T) + 0.1 * np.eye(knots + 1))
    mean = np.append(phi.mean(0), 1 / levels).astype(np.float64)
    tables = [np.tile(table, features) for table in (hat, low, high, flag)]
    sizes = np.full(features, knots, np.int32)
    start = np.arange(features, dtype=np.int64) * levels
    blocks = tuple(np.ascontiguousarray(block) for _ in range(features))
    rows_ = Hats(codes, start, *tables, sizes, blocks, np.tile(mean, features), 1.0)
    theta = np.zeros(rows_.width + 1, np.float32)
    whole = replace(data, theta=theta, workload=replace(data.workload, hidden=()))
    one_step = LocalTraining(1, whole.workload.rate, 0, 0.0, CLIP)
    return replace(population(whole, rows_), local=one_step)


def bytes_at_rest(data: Data, codes: NDArray[np.uint8]) -> Problem:
    """W over features kept as one byte each: column c of a row is the code's quantile of a standard normal."""
    width = data.workload.width
    quantiles = np.sort(np.random.default_rng(4).standard_normal((width, 256), dtype=np.float32), axis=1)
    table = np.arange(width, dtype=np.int64) * 256
    return population(data, Columns(codes, np.arange(width, dtype=np.int32), table, quantiles.ravel()))
