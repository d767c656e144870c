"""Whether a model may be released: a verdict over charged figures alone (spec 8.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.contract.release import GateFigures


@dataclass(frozen=True)
class ChargedFigures:
    """All that the gate may read. Each is noised and charged in the ε ledger, so the verdict costs nothing more.

    `private_auc_se` covers sampling and noise. None stands for a figure that was not computed. There is no field
    for a `simulation_only` number: such a number cannot reach a verdict.
    """

    private_auc: float | None
    private_auc_se: float | None
    private_ece: float | None
    epsilon: float | None


@dataclass(frozen=True)
class Thresholds:
    """What a release must reach.

    `min_auc` .55 is the least rank order worth deciding on, and must hold at the lower end of a one-sided 95 %
    interval (`confidence_z` 1.645). `max_ece` .05 is the largest mean gap between a PD and what happened.
    `max_epsilon` is the plan's budget.
    """

    max_epsilon: float
    min_auc: float = 0.55
    max_ece: float = 0.05
    confidence_z: float = 1.645


@dataclass(frozen=True)
class Verdict:
    """`passed`, and the sentences that say why not (empty when passed)."""

    passed: bool
    reasons: tuple[str, ...]

    def figures(self, charged: ChargedFigures) -> GateFigures:
        """The verdict beside the figures it read, as a release manifest carries them."""
        return GateFigures(
            charged.private_auc, charged.private_auc_se, charged.private_ece, self.passed, tuple(self.reasons)
        )


def decide(figures: ChargedFigures, thresholds: Thresholds) -> Verdict:
    """Pass only when every figure is known, finite and within its threshold."""
    reasons = (_rank_order(figures, thresholds), _calibration(figures, thresholds), _privacy(figures, thresholds))
    failed = tuple(reason for reason in reasons if reason is not None)
    return Verdict(not failed, failed)


def _known(*values: float | None) -> bool:
    # NaN fails every comparison in silence, so it is treated as not known.
    return all(value is not None and math.isfinite(value) and value >= 0 for value in values)


def _rank_order(figures: ChargedFigures, thresholds: Thresholds) -> str | None:
    auc, se = figures.private_auc, figures.private_auc_se
    if auc is None or se is None or not _known(auc, se):
        return "the private AUC or its standard error is not known; run the charged evaluation"
    low = auc - thresholds.confidence_z * se
    if low >= thresholds.min_auc:
        return None
    return f"the private AUC {auc:.4f} is not above {thresholds.min_auc:g} with confidence (lower end {low:.4f})"


def _calibration(figures: ChargedFigures, thresholds: Thresholds) -> str | None:
    ece = figures.private_ece
    if ece is None or not _known(ece):
        return "the private calibration error is not known; run the charged evaluation"
    if ece <= thresholds.max_ece:
        return None
    return f"the private calibration error {ece:.4f} is above {thresholds.max_ece:g}"


def _privacy(figures: ChargedFigures, thresholds: Thresholds) -> str | None:
    epsilon = figures.epsilon
    if epsilon is None or not _known(epsilon):
        return "no finite epsilon is charged for this model; train it under a private plan"
    if epsilon <= thresholds.max_epsilon:
        return None
    return f"epsilon {epsilon:.4f} is above the budget of {thresholds.max_epsilon:g}"
