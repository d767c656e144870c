"""What a trial of the audit is made of: a plan, a canary, and the functions of a real release (spec 13.12).

A trial is one release with or without the canary: a phone whose raw update is ten times the clip, against the same
phone answering zeros. All others are the observer's own or known to it. It gives the best that the observer can do: its
view, less all that it knows, along the canary, in clips. `Parts` are the functions on the way; a mutant replaces one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.local import own_noise
from fl_client.phones import coins
from fl_client.update import Delta
from fl_server.aggregate import noised
from model.contract.plan import TrainingPlan
from model.contract.promise import PrivacyPlan
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import ByteSource, discrete_gaussian
from model.secagg.context import Context
from simulation.redteam.bounds import Claim
from simulation.small import small_dataset, small_plan

Vector = NDArray[np.float64]
Units = NDArray[np.int64]
Ids = NDArray[np.uint64]
Flags = NDArray[np.bool_]
DIM, CLIP, LOUD, SCALE = 4, 1.0, 10.0, 1 << 20
# Along each coordinate and across all, so that a clip which overlooks some of them is seen.
AXES = np.vstack([np.eye(DIM), np.full(DIM, DIM**-0.5)])
OTHER = np.array([0.3, -0.2, 0.1, 0.4])
PLAN_SEED = 7


def encoded(values: Vector, clip: float, scale: int) -> Units:
    """A phone's own road: clip, then round to the grid, (d,) int64."""
    return Delta(values).clip(clip).encode(scale).units


def takes_part(phones: Ids, round_: int, attempt: int, participation: float) -> Flags:
    """The coins (P,) of phones (P,). They do not read `attempt`: asked again, they fall as before."""
    return coins(phones, PLAN_SEED, round_, participation)


@dataclass(frozen=True)
class Parts:
    """The functions of which a release is made; what stands here is the real thing.

    `release` is the coordinator's noise, `helper` the helper's, `phone` a phone's own.
    """

    encode: Callable[[Vector, float, int], Units] = encoded
    coin: Callable[[Ids, int, int, float], Flags] = takes_part
    release: Callable[[Units, GaussianRelease | None, int, ByteSource], Units] = noised
    helper: Callable[[float, int, ByteSource], Units] = discrete_gaussian
    phone: Callable[[TrainingPlan, str, int, int, ByteSource], Units] = own_noise


Trials = Callable[[bool, np.random.Generator, int], Vector]


@dataclass(frozen=True)
class Mechanism:
    """A mode under audit: what is claimed against each of `observers`, and how trials are made of `Parts`.

    `coordinator_noise` is that of a plan of mode helper: the helper is claimed to lose so much more (13.16).
    Trials (present, generator, n) give (n, observers). The generator chooses what protects nobody: ids and contexts.
    """

    mode: str
    claim: Claim
    observers: tuple[str, ...]
    make: Callable[[Claim, Parts], Trials]
    coordinator_noise: float = 1.0

    def against(self, observer: str) -> Claim:
        """What is claimed against one of the observers."""
        share = self.coordinator_noise if observer == "helper" else 1.0
        return replace(self.claim, mu=self.claim.mu / share)


def charge_of(claim: Claim) -> GaussianRelease:
    """The charge of one release under which `claim` is made."""
    return GaussianRelease("training", 1 / claim.mu, CLIP, 1, claim.sampling, "train")


def plan_of(claim: Claim, mode: str, **parts: Any) -> TrainingPlan:
    """A plan with that charge; `parts` are those of its privacy mode."""
    privacy = PrivacyPlan(mode, 1e-5, 100.0, "zero-out", "phone", (charge_of(claim),), grid_scale=SCALE, **parts)
    plan = small_plan(small_dataset(60), rounds=1, privacy=privacy, participation=claim.sampling)
    return replace(plan, local=replace(plan.local, clip_norm=CLIP))


def canary(axis: Vector, present: bool) -> Vector:
    """The victim's raw update: far beyond the clip, or zeros."""
    return LOUD * CLIP * axis if present else np.zeros(DIM)


def answers(parts: Parts, present: bool) -> list[Units]:
    """The victim's encoded answer for each axis. It has no chance in it, so it is computed once.

    Trial i takes axis i modulo their number: in equal shares, counts spread no more than a binomial (Hoeffding 1956).
    """
    return [parts.encode(canary(axis, present), CLIP, SCALE) for axis in AXES]


def along(axis: int, view: Units) -> float:
    """What is left of a view along a canary's axis, in clips."""
    return float(AXES[axis] @ view) / (CLIP * SCALE)


def fresh_context(rng: np.random.Generator, dim: int = DIM) -> Context:
    """A context that no other trial has."""
    return Context(rng.bytes(32).hex(), "train", int(rng.integers(1, 1000)), "ab" * 32, dim)
