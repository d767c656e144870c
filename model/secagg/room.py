"""Whether a plan's sums stay in the ring: checked by phone, coordinator and helper before anything is masked (13.2)."""

from __future__ import annotations

import math

from model.contract.plan import TrainingPlan
from model.contract.releases import CHARGES, charge_of, population, reach, share_sigma
from model.contract.update import MAX_DIM
from model.errors import RoundError
from model.secagg.fixedpoint import MAX_WRAP, wrap_probability

MASKED = ("helper", "pairwise")
LARGEST_SCALE = 1 << 20


def plan_wraps(plan: TrainingPlan) -> float:
    """A bound on the probability that any number of any release of a masked plan wraps; 0 in other modes.

    Vectors are taken as long as any may be, so the bound does not wait for the knots. Where all phones add noise, all
    of it is in the ring; of two servers only the helper's.
    """
    if plan.privacy.mode not in MASKED:
        return 0.0
    return min(1.0, math.fsum(_kind_wraps(plan, kind) for kind in CHARGES if charge_of(plan, kind) is not None))


def require_no_wrap(plan: TrainingPlan) -> None:
    """RoundError where a masked plan's sums could wrap with probability above 2⁻⁴⁰ (case 41)."""
    chance = plan_wraps(plan)
    if not chance <= MAX_WRAP:
        raise RoundError(
            f"the sums of plan {plan.name!r} could wrap modulo 2^32 with probability up to {chance:.2g}; "
            "plan a smaller grid scale"
        )


def _kind_wraps(plan: TrainingPlan, kind: str) -> float:
    charge, phones = charge_of(plan, kind), population(plan, kind)
    if charge is None:
        return 0.0
    parties = phones if plan.privacy.mode == "pairwise" else 1
    sigma = math.sqrt(max(1, parties)) * share_sigma(plan, charge)
    return wrap_probability(phones, reach(plan, kind), sigma, plan.privacy.grid_scale, MAX_DIM, charge.count)
