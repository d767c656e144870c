"""From integer partial sums to the next model: fixed denominator, noise, server optimiser (spec 7.7).

Every phone counts once and the denominator is the expected cohort qrN (asked × expected to answer × phones), public and
fixed: a phone that drops out cannot shrink the noise, and no weight a client sends exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_server.analytics import noisy_grid
from model.contract.plan import ServerOptimiser, TrainingPlan
from model.errors import RoundError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource
from model.risk.precondition import Preconditioner

Vector = NDArray[np.float64]


def add(partials: Sequence[NDArray[np.int64]], dimension: int) -> NDArray[np.int64]:
    """Sum of partial sums, (dimension,) int64. Integer, so neither the order nor the grouping of phones matters."""
    total = np.zeros(dimension, dtype=np.int64)
    for partial in partials:
        total += partial
    return total


def noised(
    total: NDArray[np.int64], charge: GaussianRelease | None, scale: int, source: ByteSource
) -> NDArray[np.int64]:
    """The release: the sum plus discrete Gaussian noise of the charge on the same grid; no charge, no noise."""
    if charge is None or charge.noise_multiplier == 0:
        return total.copy()
    return noisy_grid(total, charge, source, scale)


@dataclass(frozen=True)
class Iterate:
    """The server optimiser's state, all (d,) float64: model v, first and second moment, running average of v."""

    v: Vector
    first: Vector
    second: Vector
    average: Vector
    steps: int = 0
    averaged: int = 0

    @classmethod
    def start(cls, v: Vector) -> Iterate:
        """Before the first round."""
        zero = np.zeros_like(v)
        return cls(v, zero, zero, zero)

    @property
    def result(self) -> Vector:
        """The averaged iterate where averaging began, else the last."""
        return self.average if self.averaged else self.v


def mean_update(release: NDArray[np.int64], plan: TrainingPlan) -> Vector:
    """Noised sum of updates over the fixed denominator qrN, in model units."""
    return release.astype(np.float64) / (plan.privacy.grid_scale * plan.expected_cohort)


def advance(
    iterate: Iterate,
    release: NDArray[np.int64],
    plan: TrainingPlan,
    coordinates: Preconditioner,
    penalised: Vector,
) -> Iterate:
    """One server step from a round's noised sum. RoundError if it leaves the finite numbers.

    L2 acts here, on the `penalised` (0/1 mask) weights of theta = P v, at the pace of the phones' steps: it needs
    no data.
    """
    update = mean_update(release, plan)
    if plan.server.l2:
        weights = coordinates.to_theta(iterate.v) * penalised
        pace = plan.local.learning_rate * plan.local.turns * plan.server.l2
        update = update - pace * coordinates.pull_back(weights)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = _STEPS[plan.server.name](iterate, update, plan.server)
    if not np.isfinite(moved.v).all():
        raise RoundError("the model left the finite numbers; lower the server's learning rate and start a new run")
    return _averaged(moved, plan)


def _fedavg(iterate: Iterate, update: Vector, server: ServerOptimiser) -> Iterate:
    """FedAvg with server momentum (Hsu et al. 2019): m ← βm + u, v ← v + η m."""
    first = server.momentum * iterate.first + update
    return replace(iterate, v=iterate.v + server.learning_rate * first, first=first, steps=iterate.steps + 1)


def _fedadam(iterate: Iterate, update: Vector, server: ServerOptimiser) -> Iterate:
    """FedAdam (Reddi et al. 2021, algorithm 2), with Adam's bias correction since T is small; β1 is the momentum."""
    steps = iterate.steps + 1
    first = server.momentum * iterate.first + (1 - server.momentum) * update
    second = server.beta2 * iterate.second + (1 - server.beta2) * update**2
    lead = first / (1 - server.momentum**steps)
    spread = np.sqrt(second / (1 - server.beta2**steps))
    v = iterate.v + server.learning_rate * lead / (spread + server.epsilon)
    return replace(iterate, v=v, first=first, second=second, steps=steps)


_STEPS = {"fedavg": _fedavg, "fedadam": _fedadam}


def _averaged(iterate: Iterate, plan: TrainingPlan) -> Iterate:
    """Polyak averaging of the iterates after the first `average_from` of the rounds."""
    if plan.server.average_from >= 1.0 or iterate.steps <= plan.server.average_from * plan.rounds:
        return iterate
    averaged = iterate.averaged + 1
    average = iterate.average + (iterate.v - iterate.average) / averaged
    return replace(iterate, average=average, averaged=averaged)
