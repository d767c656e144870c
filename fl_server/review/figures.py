"""Figures of the charged evaluation, and the gate's rule over them, by the reviewer's own code (spec 8.1, 11.5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fl_server.review.replay import Recomputed
from model.contract.plan import TrainingPlan
from model.risk.calibration import CELLS, EDGES
from model.risk.metrics import auc_from_histogram, ece_from_histogram

MIN_AUC = 0.55
CONFIDENCE = 1.645  # one-sided 95 %
MAX_ECE = 0.05
FINE = 32
LOST = 0.5  # an AUC with so large an error says nothing


def gate_figures(done: Recomputed, plan: TrainingPlan) -> tuple[float | None, float | None, float | None]:
    """Private AUC, its standard error and private ECE; all None where nothing was evaluated under a charge."""
    if done.evaluation is None or done.edges is None or plan.privacy.mode == "off":
        return None, None, None
    good, bad = np.split(done.evaluation, 2)
    area = auc_from_histogram(good, bad, done.evaluation_noise)
    gap = ece_from_histogram(good, bad, cell_pd(done), done.evaluation_noise, debias=True)
    known = area.se < LOST
    return (area.value, area.se, gap.value) if known else (None, None, gap.value)


def cell_pd(done: Recomputed) -> NDArray[np.float64]:
    """Mean PD of each evaluation cell (B,), logits weighed by the calibration release: no further look at phones."""
    if done.edges is None:
        return np.zeros(0)
    borders = np.linspace(EDGES[0], EDGES[-1], CELLS * FINE + 1)
    middle = (borders[1:] + borders[:-1]) / 2
    weight = np.full(len(middle), 1e-9)
    if done.calibration is not None:
        weight += np.repeat(np.maximum(done.calibration[:CELLS] + done.calibration[CELLS:], 0), FINE)
    cell = np.searchsorted(done.edges, middle, side="right")
    size = len(done.edges) + 1
    total = np.bincount(cell, weight, size)
    mean = np.bincount(cell, weight * done.platt.pd(middle), size) / np.maximum(total, 1e-300)
    return np.where(total > 0, mean, 0.5)


def verdict(
    auc: float | None, se: float | None, ece: float | None, epsilon: float | None, plan: TrainingPlan
) -> list[str]:
    """Why the gate must refuse, in words; empty where it must pass. What is not known or not finite does not pass."""
    failed = []
    if not _known(auc, se) or _number(auc) - CONFIDENCE * _number(se) < MIN_AUC:
        failed.append(f"the private AUC is not above {MIN_AUC} with confidence")
    if not _known(ece) or _number(ece) > MAX_ECE:
        failed.append(f"the private calibration error is not known to be at most {MAX_ECE}")
    if not _known(epsilon) or _number(epsilon) > plan.privacy.epsilon_budget:
        failed.append("no ε within the plan's budget is charged")
    return failed


def _known(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) and value >= 0 for value in values)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
