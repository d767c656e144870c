"""Everything a whole run writes down: summary, plot data, egress, the reviewer's sample, page and bundle."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fl_server.keys import KeyRing, replace_file
from fl_server.review import bundle, page
from simulation.engine.choice import choose
from simulation.experiment import figures, reach
from simulation.experiment.outcome import Outcome
from simulation.experiment.scoring import Lent
from simulation.experiment.summary import summarise


def write(
    outcome: Outcome, lent: Lent, bases: Mapping[str, Any] | None, seconds: Callable[[], Mapping[str, float]]
) -> dict[str, Any]:
    """summary.json, figures.json, egress.json, the reviewer's sample, the page, and the bundle over all of it."""
    folder = outcome.place.partial
    summary = _summary(outcome, lent, bases, seconds())
    plots = figures.plots(outcome.result, outcome.found, outcome.record, outcome.held)
    plots["egress"] = summary["egress"]["bytes_per_phone"]
    plots["decisions"] = lent.decisions
    plots["reach"] = outcome.reach
    _json(outcome, "figures.json", plots)
    _json(outcome, "egress.json", summary["egress"])
    _sample(outcome)
    _json(outcome, "summary.json", summary)
    page.write(folder)
    bundle.write(folder, KeyRing(outcome.place.private / "keys").ensure("reviewer"), outcome.now)

    return summary


def engine_of(outcome: Outcome) -> dict[str, Any]:
    """Which engine trained and why, and phone-updates a second in the median round, all that a round does included."""
    numbers = sorted(outcome.record.seconds)[1:]  # the first round also prepares the phones' inputs
    rates = [outcome.record.replied[n] / max(outcome.record.seconds[n], 1e-9) for n in numbers]
    rate = round(float(np.median(rates)), 1) if rates else None
    engine, why = choose(outcome.request.engine)
    return {
        "name": engine.name,
        "why": why,
        "updates_per_second": rate,
        "farms": outcome.request.farms,
        "grid": outcome.request.grid,
    }


def _summary(
    outcome: Outcome, lent: Lent, bases: Mapping[str, Any] | None, seconds: Mapping[str, float]
) -> dict[str, Any]:
    return summarise(
        plan=outcome.plan,
        labelled_rows=len(outcome.source.data.y),
        result=outcome.result,
        observers=outcome.watchers,
        found=outcome.found,
        bases=bases or {},
        oracle=outcome.source.oracle,
        released=outcome.released,
        lent=lent,
        engine=engine_of(outcome),
        seconds=seconds,
        reached=reach.short(outcome.reach),
        one_hand=outcome.plan.privacy.mode == "helper" and outcome.request.helper is None,
    )


def _sample(outcome: Outcome) -> None:
    """archive/updates.npz: a few phones' updates at each stage and a sample of norms, simulation_only."""
    arrays: dict[str, Any] = {
        "clip": np.array(outcome.plan.local.clip_norm),
        "scale": np.array(outcome.plan.privacy.grid_scale),
    }
    for number, (raw, units) in outcome.record.sample.items():
        arrays |= {f"raw-{number:04d}": raw, f"encoded-{number:04d}": units}
    for number, parts in outcome.record.norms.items():
        arrays[f"norms-{number:04d}"] = np.concatenate(parts).astype(np.float32)
    counts = outcome.source.data.counts[~np.asarray(outcome.source.data.holdout)]
    arrays["rows"] = np.bincount(counts)
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    folder = outcome.place.partial / "archive"
    folder.mkdir(exist_ok=True)
    replace_file(folder / "updates.npz", held.getvalue())


def _json(outcome: Outcome, name: str, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=False, allow_nan=False, ensure_ascii=False)
    replace_file(outcome.place.partial / name, (text + "\n").encode())
