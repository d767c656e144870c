"""Phones a second from nothing to feature rows, with two processes: `python benchmarks/population.py --phones 40960`.

Prints one line a run and, last, one JSON object. A run starts its processes, makes every raw event of every phone,
extracts the features of every labelled row from those events, and gathers the coded rows in one memory map.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from simulation.population.compose import compose
from simulation.population.generate import Population
from simulation.population.rest import at_rest


@dataclass(frozen=True)
class Result:
    """One benchmark: the median run's rates; on a busy machine read the rate per CPU second, once a process."""

    phones: int
    workers: int
    runs: int
    seconds: float
    phones_per_second: float
    phones_per_cpu_second: float
    events_per_phone: float
    events_per_second: float
    rows: int
    features: int
    load_before: float


def measure(phones: int, workers: int, runs: int, seed: int) -> Result:
    """The median of `runs` runs of `phones` phones."""
    load = os.getloadavg()[0]
    each = compose(seed, 1.0, "default", np.arange(min(phones, 2048))).batch
    events = each.total / each.phones
    seconds, made, used = [], 0, _cpu()
    for run in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            found = at_rest(Population(seed + run, phones), Path(folder) / "blocks", workers)
            seconds.append(time.perf_counter() - start)
        made, features = found.x.shape
        print(f"run {run + 1}: {phones / seconds[-1]:,.0f} phones/s, {len(found.y):,} rows", flush=True)
    used = _cpu() - used
    median = sorted(seconds)[runs // 2]
    rate = phones / median
    spent = phones * runs / used
    return Result(phones, workers, runs, median, rate, spent, events, rate * events, made, features, load)


def _cpu() -> float:
    """CPU seconds of this process and its finished children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phones", type=int, default=40_960)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(asdict(measure(options.phones, options.workers, options.runs, options.seed)), indent=2))


if __name__ == "__main__":
    main()
