"""How our engines fare as one thing changes: N, C, n_i, widths, privacy, threads, the additive model, 10⁶ phones."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engines.headline import Plan
from engines.ours import Ours, Peak, additive, bytes_at_rest, engine, population
from engines.timing import Pace, Rate, alternate
from engines.workload import Data, Workload, draw, row_counts

Section = dict[str, dict[str, Rate]]


def sections(plan: Plan) -> dict[str, Section]:
    """Section → variant → engine → rate."""
    pace = Pace(0.25, 3, 6.0) if plan.quick else Pace(1.0, 7, 30.0)
    small = draw(Workload(1000))
    found = {"N, at C = 1,000": by_phones(plan, pace)}
    found["C, at N = 10,000"] = by_cohort(plan, pace)
    means = (2, 8, 60, 120) if plan.quick else (2, 4, 8, 16, 30, 60, 120)
    found["rows a phone"] = variants(plan, pace, {str(n): draw(Workload(1000, rows=float(n))) for n in means})
    widths = {"16": (16,), "64-32": (64, 32), "128-64": (128, 64), "256-128": (256, 128)}
    nets = {name: draw(Workload(1000, hidden=hidden)) for name, hidden in widths.items()}
    found["hidden widths"] = variants(plan, pace, nets)
    found["privacy"] = privacy(plan, pace, small)
    found["threads"] = threads(plan, pace, small)
    found["additive, 40 × 16, mean 8 rows"] = tiny_additive(plan, pace)
    return found


def split(rates: Mapping[str, Rate]) -> Section:
    """Runners named "variant|engine" → variant → engine → rate."""
    found: Section = {}
    for name, rate in rates.items():
        variant, _, runner = name.partition("|")
        found.setdefault(variant, {})[runner] = rate
    return found


def variants(plan: Plan, pace: Pace, data: Mapping[str, Data]) -> Section:
    """Everybody of each data set a round, all data sets in turn."""
    runners: list[Any] = []
    for variant, each in data.items():
        everyone = population(each)
        runners += [Ours(f"{variant}|{name}", engine(name), everyone, each.cohort) for name in plan.engines]
    cohorts = {f"{variant}|{name}": len(each.counts) for variant, each in data.items() for name in plan.engines}
    return split(alternate(runners, cohorts, pace))


def by_phones(plan: Plan, pace: Pace) -> Section:
    """A cohort of 1,000 out of N; other phones every round, so the rows come from all over memory."""
    runners: list[Any] = []
    for phones in (1_000, 10_000, 100_000):
        data = draw(Workload(phones))
        everyone = population(data)
        runners += [Ours(f"{phones:,}|{name}", engine(name), everyone, data.cohort) for name in plan.engines]
    return split(alternate(runners, 1000, pace))


def by_cohort(plan: Plan, pace: Pace) -> Section:
    """Cohorts of 10,000 phones."""
    data = draw(Workload(10_000))
    everyone = population(data)
    sizes = (100, 1_000, 10_000) if plan.quick else (10, 30, 100, 300, 1_000, 3_000, 10_000)
    cohorts = {f"{size:,}|{name}": size for size in sizes for name in plan.engines}
    runners = [Ours(name, engine(name.partition("|")[2]), everyone, data.cohort) for name in cohorts]
    return split(alternate(runners, cohorts, pace))


def privacy(plan: Plan, pace: Pace, data: Data) -> Section:
    """Clip, grid and noise on; and off."""
    everyone = population(data)
    runners = [
        Ours(f"{variant}|{name}", engine(name), everyone, data.cohort, private=variant == "on")
        for name in plan.engines
        for variant in ("on", "off")
    ]
    return split(alternate(runners, 1000, replace(pace, turns=2 * pace.turns + 1)))


def threads(plan: Plan, pace: Pace, data: Data) -> Section:
    """One thread and two, with the peak of as many."""
    everyone = population(data)
    runners: list[Any] = []
    for count in (1, 2):
        runners += [Ours(f"{count}|{name}", engine(name, count), everyone, data.cohort) for name in plan.engines]
        if "native" in plan.engines:
            runners.append(Peak(count, f"{count}|peak"))
    return split(alternate(runners, 1000, pace))


def tiny_additive(plan: Plan, pace: Pace) -> Section:
    """The additive model on phones of 8 rows, 1,000 and all 20,000 of them a round."""
    everyone = additive(20_000, 8.0)
    random = np.random.default_rng(6)
    cohorts = {f"{size:,}|{name}": size for size in (1_000, 20_000) for name in plan.engines}

    def some(size: int, turn: int) -> Any:
        return np.arange(size) if size == 20_000 else random.choice(20_000, size, replace=False)

    runners = [Ours(name, engine(name.partition("|")[2]), everyone, some) for name in cohorts]
    return split(alternate(runners, cohorts, pace))


def million(engines: Sequence[str], phones: int = 1_000_000) -> dict[str, Any]:
    """One full round of W over 10⁶ phones whose features rest as bytes: seconds a round and the process's peak."""
    made = time.perf_counter()
    counts = row_counts(np.random.default_rng(1), Workload(phones))
    rows = int(counts.sum())
    random = np.random.default_rng(8)
    codes = np.frombuffer(random.bytes(rows * 40), np.uint8).reshape(rows, 40)
    y = (random.random(rows, dtype=np.float32) < 0.3).astype(np.float32)
    w = Workload(phones)
    data = Data(w, np.cumsum(counts) - counts, counts, np.zeros((0, 40), np.float32), y, draw(Workload(1)).theta)
    everyone = bytes_at_rest(data, codes)
    found: dict[str, Any] = {"phones": phones, "rows": rows, "seconds_to_make": time.perf_counter() - made}
    for name in engines:
        run = Ours(name, engine(name), everyone, data.cohort)
        found[name] = {"seconds": min(run.go(1, phones) for _ in range(2 if name == "native" else 1))}
        found[name]["updates_a_second"] = phones / found[name]["seconds"]
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    del codes, everyone
    gc.collect()
    return found
