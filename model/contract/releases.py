"""What a plan says of each kind of sum: its charge, its phones, the reach of one, its noise (spec 3.1, 13.1)."""

from __future__ import annotations

import math
from dataclasses import replace

from model.contract.plan import TrainingPlan
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import grid_sigma
from model.risk.knots import histogram_sensitivity

CHARGES = {"knots": "knots", "train": "training", "calibrate": "calibration", "evaluate": "evaluation"}


def charge_of(plan: TrainingPlan, kind: str) -> GaussianRelease | None:
    """The charge that sums of this kind are released under; None where there is none."""
    found: GaussianRelease | None = {charge.name: charge for charge in plan.privacy.charges}.get(CHARGES[kind])
    return found


def split_of(plan: TrainingPlan, kind: str) -> tuple[str, float]:
    """(split, participation) of the phones asked, as the charge says; defaults where privacy is off."""
    charge = charge_of(plan, kind)
    if charge is not None:
        return charge.split, charge.sampling
    return ("holdout" if kind == "evaluate" else "train"), (plan.participation if kind == "train" else 1.0)


def population(plan: TrainingPlan, kind: str) -> int:
    """How many phones there are to ask, by the plan's public counts."""
    sizes = {"train": plan.phones, "holdout": plan.holdout_phones, "all": plan.phones + plan.holdout_phones}
    return sizes[split_of(plan, kind)[0]]


def reach(plan: TrainingPlan, kind: str) -> float:
    """Largest L2 norm of what one phone adds to a sum of this kind: its sensitivity to zeroing that phone out."""
    return {"knots": histogram_sensitivity(plan.schema), "train": plan.local.clip_norm}.get(kind, 1.0)


def share_sigma(plan: TrainingPlan, charge: GaussianRelease) -> int:
    """Noise, in whole grid units, that one party adds: a server (in mode helper the helper), or one phone.

    0 for a charge without noise. BudgetError below two grid units (6.5).
    """
    if charge.noise_multiplier == 0:
        return 0
    each = charge.noise_multiplier / math.sqrt(max(1, plan.privacy.honest))
    return grid_sigma(replace(charge, noise_multiplier=each), plan.privacy.grid_scale)


def coordinator_sigma(plan: TrainingPlan, charge: GaussianRelease) -> int:
    """Noise, in whole grid units, that the coordinator adds in modes central and helper; 0, BudgetError as above."""
    return share_sigma(plan, plan.privacy.weakest(charge))


def total_sigma(plan: TrainingPlan, charge: GaussianRelease | None, phones: float) -> float:
    """Standard deviation, in grid units, of all the noise in one sum of `phones` phones (13.1); 0 without a charge.

    Helper: two servers', which need not be equal (13.16). Pairwise and local: that of the phones.
    """
    if charge is None or charge.noise_multiplier == 0:
        return 0.0
    each = share_sigma(plan, charge)
    if plan.privacy.mode == "helper":
        return math.hypot(each, coordinator_sigma(plan, charge))
    parties = phones if plan.privacy.mode in ("pairwise", "local") else 1.0
    return math.sqrt(parties) * each


def noise_sigma(plan: TrainingPlan, kind: str) -> float:
    """Standard deviation, in grid units, of all the noise expected in one sum (13.1); 0 where nothing is charged.

    Pairwise and local: that of the phones expected, in pairwise at least the honest ones.
    """
    charge = charge_of(plan, kind)
    cohort = population(plan, kind) * (charge.sampling if charge else 1.0) * plan.response
    return total_sigma(plan, charge, max(cohort, plan.privacy.honest, 1.0))


def noise_sd(plan: TrainingPlan, kind: str) -> float:
    """The same in the release's own unit."""
    return noise_sigma(plan, kind) / plan.privacy.grid_scale
