"""What a plan costs a phone in ρ, by the count its own ledger keeps, and how often a year its cap allows that (9.6.2).

Apart from the accountant, which computes ε: the device reads this where nothing heavy may be loaded. A (discrete)
Gaussian release of noise multiplier z costs ρ = 1/(2z²) (Bun & Steinke 2016, Prop. 1.6; Canonne, Kamath & Steinke
2020, Thm 4), and ρ adds up over releases.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # scoring reads the cap and needs no plan
    from collections.abc import Sequence

    from model.privacy.mechanism import GaussianRelease

# ε = ρ + 2√(ρ ln 1/δ) at δ = 1e-6 is 5.8: about what a monthly ε of 1.67 adds up to in one year (6.1).
YEARLY_RHO = 0.5
SLACK = 1e-9  # of the cap: a sum of rounded numbers may pass it by so much


def rho(charge: GaussianRelease, share: float = 1.0) -> float:
    """ρ of ONE release under `share` of the charge's noise; infinite without noise."""
    return math.inf if charge.noise_multiplier == 0 else 1 / (2 * (share * charge.noise_multiplier) ** 2)


def plan_rho(charges: Sequence[GaussianRelease], share: float = 1.0) -> float:
    """ρ of all `charges` for the phone charged most, of either split; nothing is amplified by sampling.

    `share` is the plan's coordinator_noise: a phone counts the lesser of two noises (13.16.4).
    """
    mine = ([c for c in charges if c.split in (split, "all")] for split in ("train", "holdout"))
    return max(math.fsum(c.count * rho(c, share) for c in counted) for counted in mine)


def plans_a_year(cost: float, cap: float = YEARLY_RHO) -> int:
    """How many plans of ρ `cost`, above 0 and answered in full, fit under a yearly cap of ρ."""
    return math.floor(cap * (1 + SLACK) / cost)


def said_of_cap(charges: Sequence[GaussianRelease], share: float = 1.0) -> str:
    """How often a year a phone with the usual cap takes part in plans of these charges, in words.

    "at least" where a phone is asked by chance: its ledger holds a whole plan against the cap, but charges answers.
    Nothing is said of no charges and of no noise.
    """
    cost = plan_rho(charges, share)
    if not 0 < cost < math.inf:
        return ""
    phone, times = f"a phone with the usual yearly cap (ρ {f'{YEARLY_RHO:g}'.lstrip('0')})", plans_a_year(cost)
    if times == 0:
        return f"{phone} would not take part: one plan costs it ρ {cost:.3g}"
    least = "at least " if any(c.sampling < 1 for c in charges) else ""
    often = "once" if times == 1 else f"{times:,} times"
    return f"{phone} takes part {least}{often} a year: one plan costs it ρ {cost:.3g}"
