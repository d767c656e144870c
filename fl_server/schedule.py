"""Which releases a plan consists of, in order, each under a charge that covers it (spec 7.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.contract.plan import TrainingPlan
from model.errors import RoundError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import grid_sigma
from model.risk.knots import histogram_sensitivity

CHARGES = {"knots": "knots", "train": "training", "calibrate": "calibration", "evaluate": "evaluation"}


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
    """Standard deviation of the noise of one number of a release, in its own unit."""
    if phase.charge is None or phase.charge.noise_multiplier == 0:
        return 0.0
    return grid_sigma(phase.charge, plan.privacy.grid_scale) / plan.privacy.grid_scale


def reach(plan: TrainingPlan, kind: str) -> float:
    """Largest L2 norm of what one phone adds to a sum of this kind: its sensitivity to zeroing that phone out."""
    return {"knots": histogram_sensitivity(plan.schema), "train": plan.local.clip_norm}.get(kind, 1.0)


def _phase(kind: str, round_: int, charge: GaussianRelease | None, plan: TrainingPlan) -> Phase:
    default = "holdout" if kind == "evaluate" else "train"
    split = charge.split if charge else default
    sizes = {"train": plan.phones, "holdout": plan.holdout_phones, "all": plan.phones + plan.holdout_phones}
    sampling = charge.sampling if charge else (plan.participation if kind == "train" else 1.0)
    return Phase(kind, round_, charge, sizes[split], sampling)


def _check_charge(charge: GaussianRelease, kind: str, plan: TrainingPlan) -> None:
    """A charge must cover what is released: as often, as sensitive and from the phones it says."""
    least = reach(plan, kind)
    if charge.sensitivity < least * (1 - 1e-12):
        raise RoundError(f"charge {charge.name!r} has sensitivity {charge.sensitivity:g}, below {least:g}; correct it")
    if charge.count != (plan.rounds if kind == "train" else 1):
        raise RoundError(f"charge {charge.name!r} covers {charge.count} releases, not what the plan does; correct it")
    if kind == "train" and not math.isclose(charge.sampling, plan.participation):
        raise RoundError(f"charge {charge.name!r} samples {charge.sampling:g}, the plan {plan.participation:g}; align")
