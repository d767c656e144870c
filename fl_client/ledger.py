"""The phone's own record of what it took part in, and its lifetime privacy spend under a yearly cap (spec 9.6, 13.11).

One number, ρ of zero-concentrated differential privacy, adds up over releases: a (discrete) Gaussian release of
noise multiplier z costs ρ = 1/(2z²) (Bun & Steinke 2016, Prop. 1.6; Canonne, Kamath & Steinke 2020, Thm 4). No
amplification by sampling is taken: the phone cannot check who else was drawn.

z is what the phone can rely on in the plan's mode: in helper the lesser of the two servers' noises, for whoever of them
sees more of the phone is who it must reckon with (13.16), in pairwise that of h honest phones together, in local its
own, in central the coordinator's against whoever reads releases. In pairwise and local an answer given twice is two
draws of noise over the same data, so it is charged twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.errors import BudgetError, UpdateError
from model.privacy.yearly import SLACK, YEARLY_RHO, rho

if TYPE_CHECKING:  # scoring reads the cap and needs no plan
    from fl_client.store import PhoneStore
    from model.contract.plan import TrainingPlan

YEAR_SECONDS = 365 * 86_400
NEW_NOISE = ("pairwise", "local")  # modes in which every answer draws noise of its own
DELTA = 1e-6  # for showing ρ as an ε
_TABLE = "ledger"


@dataclass(frozen=True)
class Spend:
    """One charge: ρ for one release of one plan at Unix second `at`."""

    plan_digest: str
    name: str
    round: int
    rho: float
    at: int
    question: str = ""


def epsilon(total: float, delta: float) -> float:
    """(ε, δ) that ρ-zCDP implies: ρ + 2√(ρ ln 1/δ) (Bun & Steinke 2016, Prop. 1.3)."""
    return total + 2 * math.sqrt(total * math.log(1 / delta)) if total else 0.0


class Ledger:
    """Charges kept in the encrypted store; every charge is durable before the phone answers."""

    def __init__(self, store: PhoneStore, yearly_rho: float = YEARLY_RHO) -> None:
        self.store, self.yearly_rho = store, yearly_rho

    def spends(self) -> list[Spend]:
        """All charges, oldest first."""
        return [Spend(**entry) for entry in self.store.entries(_TABLE)]

    def lifetime(self) -> float:
        """ρ of everything this phone ever took part in."""
        return math.fsum(spend.rho for spend in self.spends())

    def past_year(self, now: int) -> float:
        """ρ of the 365 days before `now`."""
        return math.fsum(spend.rho for spend in self.spends() if spend.at > now - YEAR_SECONDS)

    def require(self, plan: TrainingPlan, split: str, now: int) -> None:
        """BudgetError unless everything `plan` may ask of a phone of `split` fits under the yearly cap."""
        mine = (c for c in plan.privacy.charges if c.split in (split, "all"))
        planned = math.fsum(c.count * rho(plan.privacy.weakest(c)) for c in mine)
        already = math.fsum(s.rho for s in self.spends() if s.plan_digest == plan.digest)
        self._fits(max(planned - already, 0.0), now)

    def admit(self, plan: TrainingPlan, kind: str, round_: int, split: str, now: int, question: str = "") -> Spend:
        """Charge a phone of `split` for one answer, before it is computed; the charge is durable when this returns.

        `question` is the digest of the model asked about. UpdateError where another split is asked. BudgetError where
        the plan charges no such answer, the round is another kind's, the whole plan does not fit under the yearly cap,
        or the same round is asked again about another model.
        """
        from model.contract.releases import CHARGES, charge_of

        charge = charge_of(plan, kind) if kind in CHARGES else None
        if charge is None:
            raise BudgetError(f"the plan {plan.name!r} charges nothing for {kind!r}; refuse this round")
        if charge.split not in (split, "all"):
            raise UpdateError(f"this phone is not in the {charge.split} split; ask the others")
        index = round_ - {"knots": 0, "train": 1, "calibrate": plan.rounds + 1, "evaluate": plan.rounds + 2}[kind]
        self.require(plan, split, now)
        return self.charge(plan, charge.name, index, now, question)

    def charge(self, plan: TrainingPlan, name: str, round_: int, now: int, question: str = "") -> Spend:
        """Record one release before answering it; asked the same again, it is charged again only where noise is new.

        BudgetError if the plan names no such release or round, it was asked about another model before, or the yearly
        cap would be passed.
        """
        release = next((c for c in plan.privacy.charges if c.name == name), None)
        if release is None or not 0 <= round_ < release.count:
            raise BudgetError(f"the plan {plan.name!r} announces no release {name!r} {round_}; refuse this round")
        for spend in self.spends():
            if (spend.plan_digest, spend.name, spend.round) == (plan.digest, name, round_):
                if spend.question != question:
                    raise BudgetError(f"{name} {round_} was answered about another model; refuse this round")
                if plan.privacy.mode not in NEW_NOISE:
                    return spend
        cost = rho(plan.privacy.weakest(release))
        self._fits(cost, now)
        spend = Spend(plan.digest, name, round_, cost, now, question)
        self.store.append(_TABLE, dict(vars(spend)))
        return spend

    def summary(self, now: int) -> dict[str, Any]:
        """Lifetime and yearly ρ, the cap, each also as ε at DELTA, and the number of releases and plans."""
        spends = self.spends()
        plans = {spend.plan_digest for spend in spends}
        spent = {"lifetime_rho": self.lifetime(), "year_rho": self.past_year(now), "yearly_cap": self.yearly_rho}
        shown = {
            "lifetime_epsilon": epsilon(self.lifetime(), DELTA),
            "year_epsilon": epsilon(self.past_year(now), DELTA),
            "cap_epsilon": epsilon(self.yearly_rho, DELTA),
            "five_years_at_the_cap": epsilon(5 * self.yearly_rho, DELTA),
            "delta": DELTA,
        }
        return {**spent, **shown, "releases": len(spends), "plans": len(plans)}

    def _fits(self, more: float, now: int) -> None:
        spent = self.past_year(now)
        if spent + more > self.yearly_rho * (1 + SLACK):
            raise BudgetError(
                f"taking part would bring this year's privacy spend to ρ {spent + more:.4g}, over the cap of "
                f"{self.yearly_rho:.4g}; sit this plan out"
            )
