"""What a helper answers and what it refuses, apart from keeping it: functions of a plan and a batch (spec 13.6.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from model.contract.envelope import Signed, keyid, verify
from model.contract.plan import DOMAIN, TrainingPlan
from model.contract.releases import CHARGES, population, reach, share_sigma
from model.errors import BudgetError, ContractError, PolicyError, RoundError, SchemaError
from model.policy.rules import load_pack, require_allowed
from model.privacy.accountant import released
from model.privacy.mechanism import GaussianRelease
from model.secagg.room import require_no_wrap


class Refused(RoundError):
    """A batch that gets no share. `code` is stable; `messages` are the ids to leave out, where those are the reason."""

    def __init__(self, code: str, sentence: str, messages: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.code = code
        self.messages = tuple(messages)


@dataclass(frozen=True)
class Wanted:
    """One release that a plan provides for: its charge (count 1, unamplified), whom it can count, its noise.

    `sigma` is in grid units, rounded up as grid_sigma does.
    """

    kind: str
    round: int
    charge: GaussianRelease
    population: int
    sigma: int


def admit(envelope: bytes, trust: Mapping[str, bytes], helper_key: str) -> TrainingPlan:
    """The plan in a signed envelope, once coordinator and reviewer both signed it and it is for this helper.

    `trust` maps both roles to public keys; `helper_key` is this helper's own HPKE key in hex. `Refused` otherwise.
    """
    if not trust:
        raise Refused("untrusted", "this helper trusts nobody yet; its operator must name coordinator and reviewer")
    ring = {keyid(key): key for key in trust.values()}
    try:
        signed = Signed.from_bytes(envelope)
        plan = TrainingPlan.from_dict(verify(signed, DOMAIN, ring, threshold=len(ring), required=ring))
    except (ContractError, SchemaError) as error:
        raise Refused("untrusted", f"the plan is not one that coordinator and reviewer signed: {error}") from error
    if plan.privacy.mode != "helper":
        raise Refused("mode", f"the plan is of privacy mode {plan.privacy.mode}; a helper serves mode helper alone")
    if plan.privacy.helper_key != helper_key:
        raise Refused("helper", "the plan names another helper's key; send the batch to that helper")
    _require_policy(plan)
    _require_plan_in_budget(plan)
    return plan


def wanted(plan: TrainingPlan, kind: str, round_: int) -> Wanted:
    """The release of that kind and round under `plan`; `Refused` where it has none, or charges too little for it."""
    rounds = {
        "knots": range(1),
        "train": range(1, plan.rounds + 1),
        "calibrate": range(plan.rounds + 1, plan.rounds + 2),
        "evaluate": range(plan.rounds + 2, plan.rounds + 3),
    }
    charges = [charge for charge in plan.privacy.charges if charge.name == CHARGES[kind]]
    if round_ not in rounds[kind] or len(charges) != 1:
        raise Refused("round", f"the plan has no {kind} release of round {round_}; ask for one it charges")
    _require_cover(plan, kind, charges[0])
    try:
        sigma = share_sigma(plan, charges[0])
    except BudgetError as error:
        raise Refused("charge", f"the plan's {kind} release has too little noise to hide a phone: {error}") from error
    if sigma == 0:
        raise Refused("charge", f"the plan's {kind} release has no noise; a helper adds masks under noise alone")
    _require_room(plan)
    return Wanted(kind, round_, unamplified(charges[0]), population(plan, kind), sigma)


def unamplified(charge: GaussianRelease) -> GaussianRelease:
    """One release of `charge` as the coordinator sees it: who took part is no secret from it, so nothing amplifies."""
    return replace(charge, count=1, sampling=1.0)


def require_batch(plan: TrainingPlan, want: Wanted, ids: Sequence[bytes]) -> None:
    """`Refused` for a message named twice, fewer messages than the minimum cohort, or more than there are phones."""
    again = sorted(each.hex() for each, times in Counter(ids).items() if times > 1)
    if again:
        raise Refused("twice", f"the batch names {len(again)} messages twice; ask with each message once", again)
    if len(ids) < plan.min_cohort:
        raise Refused(
            "cohort", f"a batch of {len(ids)} messages is below the minimum cohort of {plan.min_cohort}; wait for more"
        )
    if len(ids) > want.population:
        raise Refused("cohort", f"a batch of {len(ids)} messages is over the {want.population} phones of the plan")


def require_budget(plan: TrainingPlan, want: Wanted, spent: Sequence[GaussianRelease]) -> None:
    """`Refused` unless what was spent under the plan and this release together stay within the plan's ε."""
    cost = released([*spent, want.charge], plan.privacy.delta)
    if not cost <= plan.privacy.epsilon_budget:
        raise Refused(
            "budget",
            f"this release would bring the plan's ε to {cost:.4g} of {plan.privacy.epsilon_budget:g}; it is exhausted",
        )


def require_yearly(plan: TrainingPlan, want: Wanted, spent: Sequence[GaussianRelease], cap: float | None) -> None:
    """`Refused` unless what plans of this name spent within a year and this release together stay within `cap`."""
    cost = 0.0 if cap is None else released([*spent, want.charge], plan.privacy.delta)
    if cap is not None and not cost <= cap:
        raise Refused(
            "yearly",
            f"plans named {plan.name!r} would come to ε {cost:.4g} of {cap:g} in a year; wait, or ask less",
        )


def _require_policy(plan: TrainingPlan) -> None:
    try:
        require_allowed(plan, load_pack(plan.policy_pack))
    except PolicyError as error:
        raise Refused("policy", f"the plan breaks its policy pack: {error}") from error


def _require_plan_in_budget(plan: TrainingPlan) -> None:
    """A plan that could not be carried out to its end is refused at its start, before anything is spent on it."""
    charges = [replace(charge, sampling=1.0) for charge in plan.privacy.charges]
    cost = released(charges, plan.privacy.delta)
    if not cost <= plan.privacy.epsilon_budget:
        raise Refused(
            "budget",
            f"the plan's releases cost ε {cost:.4g} of {plan.privacy.epsilon_budget:g} against a coordinator that sees "
            "who takes part; add noise or take fewer rounds",
        )


def _require_room(plan: TrainingPlan) -> None:
    """A sum that wraps is not the sum: its release would be of something that nobody charged for (case 41)."""
    try:
        require_no_wrap(plan)
    except RoundError as error:
        raise Refused("wrap", str(error)) from error
    except BudgetError as error:
        raise Refused("charge", f"a release of the plan has too little noise to hide a phone: {error}") from error


def _require_cover(plan: TrainingPlan, kind: str, charge: GaussianRelease) -> None:
    least = reach(plan, kind)
    if charge.sensitivity < least * (1 - 1e-12):
        raise Refused(
            "charge", f"charge {charge.name!r} has sensitivity {charge.sensitivity:g}, below the {least:g} of one phone"
        )
    if charge.count != (plan.rounds if kind == "train" else 1):
        raise Refused("charge", f"charge {charge.name!r} counts {charge.count} releases, not what the plan does")
