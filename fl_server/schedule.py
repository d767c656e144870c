"""Which releases a plan consists of, in order, each under a charge that covers it (spec 7.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.contract import releases
from model.contract.plan import TrainingPlan
from model.contract.releases import CHARGES, reach
from model.errors import RoundError
from model.privacy.mechanism import GaussianRelease

__all__ = ["Phase", "noise_reach", "noise_sd", "reach", "schedule"]


@dataclass(frozen=True)
class Phase:
    """One release to come. `charge` is None only where the plan's privacy mode is "off"."""

    kind: str
    round: int
    charge: GaussianRelease | None
    population: int
    participation: float

    @property
    def name(self) -> str:
        """For people and file names, such as `train-07`."""
        return f"{self.kind}-{self.round:04d}"


def schedule(plan: TrainingPlan) -> tuple[Phase, ...]:
    """Every phase of the plan. Calibration and evaluation happen where they are charged (or privacy is off).

    RoundError for a charge that does not fit what would be released under it.
    """
    charges = {charge.name: charge for charge in plan.privacy.charges}
    kinds = ["knots", *["train"] * plan.rounds, "calibrate", "evaluate"]
    phases = []
    for round_, kind in enumerate(kinds):
        charge = charges.get(CHARGES[kind])
        if charge is None and plan.privacy.mode != "off":
            if kind in ("knots", "train"):
                raise RoundError(f"the plan charges no release named {CHARGES[kind]!r}; add it and sign again")
            continue
        if kind == "evaluate" and charge is None and not plan.holdout_phones:
            continue
        if charge is not None:
            _check_charge(charge, kind, plan)
        phases.append(_phase(kind, round_, charge, plan))
    return tuple(phases)


def noise_sd(phase: Phase, plan: TrainingPlan) -> float:
    """Standard deviation of all the noise in one number of a release, whoever adds it, in the release's own unit."""
    return releases.noise_sd(plan, phase.kind)


def noise_reach(plan: TrainingPlan, phase: Phase, parties: int, dim: int) -> float:
    """L2 norm, in grid units, that the noise of `parties` parties passes with probability below 2⁻⁴⁰.

    A subgaussian vector's tail: σ(√d + √(2t)) is passed with probability e^−t (Hsu, Kakade & Zhang 2012, Thm 1).
    """
    sigma = releases.share_sigma(plan, phase.charge) if phase.charge else 0
    return sigma * math.sqrt(parties) * (math.sqrt(dim) + math.sqrt(2 * 40 * math.log(2)))


def _phase(kind: str, round_: int, charge: GaussianRelease | None, plan: TrainingPlan) -> Phase:
    _, sampling = releases.split_of(plan, kind)
    return Phase(kind, round_, charge, releases.population(plan, kind), sampling)


def _check_charge(charge: GaussianRelease, kind: str, plan: TrainingPlan) -> None:
    """A charge must cover what is released: as often, as sensitive and from the phones it says."""
    least = reach(plan, kind)
    if charge.sensitivity < least * (1 - 1e-12):
        raise RoundError(f"charge {charge.name!r} has sensitivity {charge.sensitivity:g}, below {least:g}; correct it")
    if charge.count != (plan.rounds if kind == "train" else 1):
        raise RoundError(f"charge {charge.name!r} covers {charge.count} releases, not what the plan does; correct it")
    if kind == "train" and not math.isclose(charge.sampling, plan.participation):
        raise RoundError(f"charge {charge.name!r} samples {charge.sampling:g}, the plan {plan.participation:g}; align")
