"""The faults that the audit must find: each breaks the real mechanism in one way (spec 13.12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_client.update import Delta, to_units
from fl_server.aggregate import noised
from model.privacy.clipping import clip
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, discrete_gaussian
from simulation.redteam.mechanisms import Flags, Ids, Parts, Units, encoded, takes_part

ROWS, MEAN_ROWS = 12, 4


@dataclass(frozen=True)
class Mutant:
    """One fault: what it is, which modes can have it, against whom it must be found, and how it is put in.

    `blind` are the observers whom it does not help: the audit must still pass there.
    """

    name: str
    fault: str
    modes: tuple[str, ...]
    put: Callable[[Parts], Parts]
    blind: tuple[str, ...] = ()


def _half(sigma: float, size: int, source: ByteSource) -> Units:
    return discrete_gaussian(sigma / 2, size, source)


def _none(sigma: float, size: int, source: ByteSource) -> Units:
    return np.zeros(size, dtype=np.int64)


def _half_release(total: Units, charge: GaussianRelease | None, scale: int, source: ByteSource) -> Units:
    weak = charge and replace(charge, noise_multiplier=charge.noise_multiplier / 2)
    return noised(total, weak, scale, source)


def _weighted(values: NDArray[np.float64], norm: float, scale: int) -> Units:
    """FedAvg's weight, rows over the mean rows of a phone, as the phone itself says."""
    return encoded(values, norm, scale) * ROWS // MEAN_ROWS


def _leaking(values: NDArray[np.float64], norm: float, scale: int) -> Units:
    """The norm is taken over all coordinates but the last, as when the bias is forgotten."""
    head = Delta(values[:-1]).values
    length = float(np.linalg.norm(head))
    factor = float(np.linalg.norm(clip(head, norm))) / length if length else 1.0
    return to_units(values * factor, scale)


def _flipped_again(phones: Ids, round_: int, attempt: int, participation: float) -> Flags:
    return takes_part(phones, round_ + 1_000_000 * attempt, 0, participation)


FULL = ("central", "helper", "pairwise")
MUTANTS = {
    m.name: m
    for m in (
        Mutant(
            "halved-noise",
            "every noise is drawn at half its sigma",
            FULL,
            lambda p: replace(p, release=_half_release, coordinator=_half, helper=_half, phone=_half),
        ),
        Mutant(
            "varying-weights",
            "a phone's update is weighted by its rows",
            FULL,
            lambda p: replace(p, encode=_weighted),
        ),
        Mutant("leaking-clip", "the norm overlooks the last coordinate", FULL, lambda p: replace(p, encode=_leaking)),
        Mutant(
            "coin-again",
            "the coin is flipped again on a retry",
            ("sampled",),
            lambda p: replace(p, coin=_flipped_again),
        ),
        Mutant(
            "helper-silent",
            "the helper adds no noise",
            ("helper",),
            lambda p: replace(p, helper=_none),
            blind=("helper",),
        ),
        Mutant(
            "coordinator-silent",
            "the coordinator adds no noise",
            ("helper",),
            lambda p: replace(p, coordinator=_none),
            blind=("coordinator",),
        ),
    )
}
