"""The phone's own record of what it took part in, and its lifetime privacy spend under a yearly cap (spec 9.6).

One number, ρ of zero-concentrated differential privacy, adds up over releases: a (discrete) Gaussian release of
noise multiplier z costs ρ = 1/(2z²) (Bun & Steinke 2016, Prop. 1.6; Canonne, Kamath & Steinke 2020, Thm 4). No
amplification by sampling is taken: the phone cannot check who else was drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.errors import BudgetError

if TYPE_CHECKING:  # scoring reads the cap and needs no plan
    from fl_client.store import PhoneStore
    from model.contract.plan import TrainingPlan
    from model.privacy.mechanism import GaussianRelease

YEAR_SECONDS = 365 * 86_400
# ε = ρ + 2√(ρ ln 1/δ) at δ = 1e-6 is 5.8: about what a monthly ε of 1.67 adds up to in one year (6.1).
YEARLY_RHO = 0.5
_TABLE = "ledger"


@dataclass(frozen=True)
class Spend:
    """One charge: ρ for one release of one plan at Unix second `at`."""

    plan_digest: str
    name: str
    round: int
    rho: float
    at: int


def rho(charge: GaussianRelease) -> float:
    """ρ of ONE of the charge's releases; infinite without noise."""
    return math.inf if charge.noise_multiplier == 0 else 1 / (2 * charge.noise_multiplier**2)


def epsilon(total: float, delta: float) -> float:
    """(ε, δ) that ρ-zCDP implies: ρ + 2√(ρ ln 1/δ) (Bun & Steinke 2016, Prop. 1.3)."""
    return total + 2 * math.sqrt(total * math.log(1 / delta)) if total else 0.0


class Ledger:
    """Charges kept in the encrypted store; every charge is durable before the phone answers."""

    def __init__(self, store: PhoneStore, yearly_rho: float = YEARLY_RHO) -> None:
        self._store, self.yearly_rho = store, yearly_rho

    def spends(self) -> list[Spend]:
        """All charges, oldest first."""
        return [Spend(**entry) for entry in self._store.entries(_TABLE)]

    def lifetime(self) -> float:
        """ρ of everything this phone ever took part in."""
        return math.fsum(spend.rho for spend in self.spends())

    def past_year(self, now: int) -> float:
        """ρ of the 365 days before `now`."""
        return math.fsum(spend.rho for spend in self.spends() if spend.at > now - YEAR_SECONDS)

    def require(self, plan: TrainingPlan, split: str, now: int) -> None:
        """BudgetError unless everything `plan` may ask of a phone of `split` fits under the yearly cap."""
        planned = math.fsum(c.count * rho(c) for c in plan.privacy.charges if c.split in (split, "all"))
        already = math.fsum(s.rho for s in self.spends() if s.plan_digest == plan.digest)
        self._fits(max(planned - already, 0.0), now)

    def charge(self, plan: TrainingPlan, name: str, round_: int, now: int) -> Spend:
        """Record one release before answering it; asked again for the same round, nothing is charged twice.

        BudgetError if the plan names no such release or round, or the yearly cap would be passed.
        """
        release = next((c for c in plan.privacy.charges if c.name == name), None)
        if release is None or not 0 <= round_ < release.count:
            raise BudgetError(f"the plan {plan.name!r} announces no release {name!r} {round_}; refuse this round")
        for spend in self.spends():
            if (spend.plan_digest, spend.name, spend.round) == (plan.digest, name, round_):
                return spend
        self._fits(rho(release), now)
        spend = Spend(plan.digest, name, round_, rho(release), now)
        self._store.append(_TABLE, dict(vars(spend)))
        return spend

    def summary(self, now: int) -> dict[str, Any]:
        """Lifetime and yearly ρ, the cap, and the number of releases and plans."""
        spends = self.spends()
        plans = {spend.plan_digest for spend in spends}
        spent = {"lifetime_rho": self.lifetime(), "year_rho": self.past_year(now), "yearly_cap": self.yearly_rho}
        return {**spent, "releases": len(spends), "plans": len(plans)}

    def _fits(self, more: float, now: int) -> None:
        spent = self.past_year(now)
        if spent + more > self.yearly_rho * (1 + 1e-9):
            raise BudgetError(
                f"taking part would bring this year's privacy spend to ρ {spent + more:.4g}, over the cap of "
                f"{self.yearly_rho:.4g}; sit this plan out"
            )
