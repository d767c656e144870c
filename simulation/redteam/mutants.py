"""The faults that the audit must find: each breaks the real mechanism in one way (spec 13.12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fl_client.local import own_noise
from fl_client.update import Delta, to_units
from fl_server.aggregate import noised
from model.contract.plan import TrainingPlan
from model.privacy.clipping import clip
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, discrete_gaussian
from simulation.redteam.trials import Flags, Ids, Parts, Units, Vector, encoded, takes_part

ROWS, MEAN_ROWS = 12, 4
LESS = 0.5  # the coordinator's share of noise in the audited plan of two unequal noises


@dataclass(frozen=True)
class Mutant:
    """One fault: what it is, which modes can have it, and how it is put in.

    `blind` are the observers whom it does not help: against them the audit must still find nothing.
    """

    name: str
    fault: str
    modes: tuple[str, ...]
    put: Callable[[Parts], Parts]
    blind: tuple[str, ...] = ()


def _half(charge: GaussianRelease) -> GaussianRelease:
    return replace(charge, noise_multiplier=charge.noise_multiplier / 2)


def _half_release(total: Units, charge: GaussianRelease | None, scale: int, source: ByteSource) -> Units:
    return noised(total, charge and _half(charge), scale, source)


def _half_helper(sigma: float, size: int, source: ByteSource) -> Units:
    return discrete_gaussian(sigma / 2, size, source)


def _half_phone(plan: TrainingPlan, kind: str, phones: int, dim: int, source: ByteSource) -> Units:
    weak = replace(plan.privacy, charges=tuple(map(_half, plan.privacy.charges)))
    return own_noise(replace(plan, privacy=weak), kind, phones, dim, source)


def _silent_release(total: Units, charge: GaussianRelease | None, scale: int, source: ByteSource) -> Units:
    return noised(total, None, scale, source)


def _short_release(total: Units, charge: GaussianRelease | None, scale: int, source: ByteSource) -> Units:
    """The plan's share of noise is taken twice: half of a half where the plan says half."""
    less = charge and replace(charge, noise_multiplier=LESS * charge.noise_multiplier)
    return noised(total, less, scale, source)


def _silent_helper(sigma: float, size: int, source: ByteSource) -> Units:
    return np.zeros(size, dtype=np.int64)


def _weighted(values: Vector, norm: float, scale: int) -> Units:
    """FedAvg's weight, rows over the mean rows of a phone, as the phone itself says."""
    return encoded(values, norm, scale) * ROWS // MEAN_ROWS


def _leaking(values: Vector, norm: float, scale: int) -> Units:
    """The norm is taken over all coordinates but the last, as when the bias is forgotten."""
    head = Delta(values[:-1]).values
    length = float(np.linalg.norm(head))
    factor = float(np.linalg.norm(clip(head, norm))) / length if length else 1.0
    return to_units(values * factor, scale)


def _flipped_again(phones: Ids, round_: int, attempt: int, participation: float) -> Flags:
    return takes_part(phones, round_ + 1_000_000 * attempt, 0, participation)


def _halved(parts: Parts) -> Parts:
    return replace(parts, release=_half_release, helper=_half_helper, phone=_half_phone)


FULL = ("central", "local", "helper", "pairwise")
MUTANTS = {
    m.name: m
    for m in (
        Mutant("halved-noise", "all noise has half its sigma", FULL, _halved),
        Mutant(
            "varying-weights", "a phone weighs as many as it has rows", FULL, lambda p: replace(p, encode=_weighted)
        ),
        Mutant("leaking-clip", "the norm overlooks the last coordinate", FULL, lambda p: replace(p, encode=_leaking)),
        Mutant("coin-again", "a retry flips again", ("sampled",), lambda p: replace(p, coin=_flipped_again)),
        Mutant(
            "helper-silent",
            "the helper adds no noise",
            ("helper",),
            lambda p: replace(p, helper=_silent_helper),
            blind=("helper",),
        ),
        Mutant(
            "coordinator-silent",
            "the coordinator adds no noise",
            ("helper",),
            lambda p: replace(p, release=_silent_release),
            blind=("coordinator",),
        ),
        Mutant(
            "coordinator-short",
            "the coordinator adds its share of the noise that is already its share",
            ("unequal",),
            lambda p: replace(p, release=_short_release),
            blind=("coordinator",),
        ),
    )
}
