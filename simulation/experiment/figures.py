"""Figures of a finished model: the charged ones a gate may read, and exact ones that exist in simulation only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_server.app import Result
from fl_server.gate import ChargedFigures
from model.privacy.observers import Observers
from model.risk.calibration import CELLS, EDGES, Platt
from model.risk.metrics import auc, auc_from_histogram, ece, ece_from_histogram, ks_exact
from model.risk.network import RiskNetwork
from model.risk.precondition import Preconditioner
from model.risk.scorecard import points
from simulation.bylevel import logits_of
from simulation.dataset import Dataset
from simulation.experiment.training import Record

Floats = NDArray[np.float64]
LOST = 0.5  # an AUC with so large an error says nothing: a class is lost in noise
SCORE_EDGES = np.arange(300, 901, 20)


SIMULATION_ONLY = (
    "score_hist", "calibration", "rounds.norm_quantiles", "rounds.clip_rate", "rounds.auc", "decisions", "audit",
    "reach",
)  # fmt: skip
UNCHARGED = ("features",)  # where privacy is off, what is made of the model is made of people


@dataclass(frozen=True)
class Exact:
    """On held-out rows, looked at directly: simulation_only. None where a class is missing there."""

    auc: float | None
    ks: float | None
    ece: float | None
    pd: Floats
    y: NDArray[np.float32]


def network_of(result: Result) -> RiskNetwork:
    """The released network."""
    network = RiskNetwork(result.plan.schema, result.knots, result.plan.model.hidden)
    network.load_flat(result.theta)
    return network


def exact(network: RiskNetwork, platt: Platt, held: Dataset) -> Exact:
    """Exact figures of the released model."""
    pd, y = platt.pd(logits_of(network, held.x)), held.y
    if not len(y) or not 0 < y.mean() < 1:
        return Exact(None, None, None, pd, y)
    return Exact(auc(pd, y), ks_exact(pd, y), ece(pd, y), pd, y)


def charged(result: Result, observers: Observers) -> ChargedFigures:
    """What the evaluation release says; its noise is in the standard error and taken out of the ECE's bias."""
    if result.evaluation is None or result.edges is None or result.plan.privacy.mode == "off":
        return ChargedFigures(None, None, None, observers.released_models)
    good, bad = np.split(result.evaluation, 2)
    noise = result.noise_sd.get("evaluate", 0.0)
    area = auc_from_histogram(good, bad, noise)
    gap = ece_from_histogram(good, bad, cell_pd(result), noise, debias=True)
    if area.se >= LOST:
        return ChargedFigures(None, None, gap.value, observers.released_models)
    return ChargedFigures(area.value, area.se, gap.value, observers.released_models)


def cell_pd(result: Result) -> Floats:
    """Mean PD of each evaluation cell (B,), weighing logits by the calibration release: no further look at phones."""
    if result.edges is None:
        return np.zeros(0)
    fine = np.linspace(EDGES[0], EDGES[-1], CELLS * 32 + 1)
    middle = (fine[1:] + fine[:-1]) / 2
    weight = np.full(len(middle), 1e-9)
    if result.calibration is not None:
        both = np.maximum(result.calibration[:CELLS] + result.calibration[CELLS:], 0)
        weight += np.repeat(both, 32)
    cell = np.searchsorted(result.edges, middle, side="right")
    size = len(result.edges) + 1
    total = np.bincount(cell, weight, size)
    mean = np.bincount(cell, weight * result.platt.pd(middle), size) / np.maximum(total, 1e-300)
    return np.where(total > 0, mean, 0.5)


def plots(result: Result, found: Exact, record: Record, held: Dataset) -> dict[str, Any]:
    """Plain data for the report's plots, and the names of those that are simulation_only."""
    score = points(found.pd)
    good, bad = (np.histogram(score[found.y == label], SCORE_EDGES)[0].tolist() for label in (0, 1))
    return {
        "score_hist": {"edges": SCORE_EDGES.tolist(), "good": good, "bad": bad},
        "calibration": calibration_curve(found.pd, found.y),
        "charged_calibration": _charged_curve(result),
        "rounds": _rounds(result, found, record, held),
        "features": importance(result),
        "audit": audit(found, held),
        "simulation_only": [*SIMULATION_ONLY, *(UNCHARGED if result.plan.privacy.mode == "off" else ())],
    }


def calibration_curve(pd: Floats, y: NDArray[np.float32], groups: int = 10) -> dict[str, list[float]]:
    """Mean PD, default rate and rows of equal-count groups."""
    order = np.argsort(pd, kind="stable")
    parts = [part for part in np.array_split(order, groups) if len(part)]
    return {
        "mean_pd": [float(pd[part].mean()) for part in parts],
        "observed": [float(y[part].mean()) for part in parts],
        "count": [len(part) for part in parts],
    }


def audit(found: Exact, held: Dataset, least: int = 30) -> list[dict[str, Any]]:
    """Held-out rows by group of each protected column: rows, default rate, mean PD and AUC. simulation_only.

    Groups below `least` rows are left out: a figure about few people is about nobody in general.
    """
    owner = np.repeat(np.arange(held.phones), held.counts)
    rows = []
    for column, values in held.protected.items():
        for group in np.unique(values):
            mine = (np.asarray(values) == group)[owner]
            pd, y = found.pd[mine], found.y[mine]
            if len(y) < least:
                continue
            area = auc(pd, y) if 0 < y.mean() < 1 else None
            row = {"column": column, "group": str(group), "rows": len(y), "observed": float(y.mean())}
            rows.append({**row, "mean_pd": float(pd.mean()), "auc": area})
    return rows


def importance(result: Result) -> list[dict[str, Any]]:
    """How much each feature of the additive model moves the logit: sd of its part over the released histogram."""
    network = network_of(result)
    rows: list[tuple[float, str]] = []
    if network.hidden:
        return []
    for feature, mass, span in zip(network.schema.features, result.knots.mass, network.encoding.spans, strict=True):
        weights = result.theta[1 + span.start : 1 + span.stop] * result.platt.slope
        share = np.asarray(mass)
        spread = math.sqrt(max(float(share @ weights**2 - (share @ weights) ** 2), 0.0))
        rows.append((round(spread, 4), feature.name))
    return [{"feature": name, "sd": spread} for spread, name in sorted(rows, reverse=True)]


def _charged_curve(result: Result) -> dict[str, list[float]] | None:
    if result.evaluation is None or result.plan.privacy.mode == "off":
        return None
    good, bad = np.split(result.evaluation, 2)
    count = np.maximum(good + bad, 1e-9)
    return {"mean_pd": cell_pd(result).tolist(), "observed": (bad / count).tolist(), "count": (good + bad).tolist()}


def _rounds(result: Result, found: Exact, record: Record, held: Dataset) -> list[dict[str, Any]]:
    plan = result.plan
    coordinates = Preconditioner(plan.schema, result.knots, plan.model.hidden)
    network = network_of(result)
    rows = []
    for number in range(1, plan.rounds + 1):
        norms = np.concatenate([np.zeros(0), *record.norms.get(number, [])])
        row: dict[str, Any] = {"round": number, "phones": record.replied.get(number)}
        if len(norms):
            row["norm_quantiles"] = [float(q) for q in np.quantile(norms, [0.05, 0.25, 0.5, 0.75, 0.95])]
            row["norms"] = len(norms)  # of so many phones: a sample of a large cohort
            row["clip_rate"] = float((norms > plan.local.clip_norm).mean())
        if number in record.iterates and found.auc is not None:
            network.load_flat(coordinates.to_theta(record.iterates[number]))
            row["auc"] = auc(logits_of(network, held.x), held.y)
        row["seconds"] = record.seconds.get(number)
        rows.append(row)
    return rows


__all__ = ["Exact", "cell_pd", "charged", "exact", "importance", "network_of", "plots"]
