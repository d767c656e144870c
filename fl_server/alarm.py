"""Is the norm of a released sum more than honest, clipped phones and the noise can give? (spec 13.13)

Under masks nobody sees who ignored the clip. The sum shows it only when it is longer than n clipped updates can be, or
than earlier rounds lead one to expect. The first is a proof but for a stated rate; the second a habit and no more.
Both look at a released sum, so they cost no ε. Pure functions; nothing here stops a round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_server.rounds import Release
from model.contract.plan import TrainingPlan
from model.contract.releases import charge_of, total_sigma
from model.errors import RoundError

FALSE_ALARM = 1e-6  # probability, a round, that `impossible` is said of honest clipped phones
# What honest trainings do (docs/results.md): the signal shrinks as the model learns. Early on it may be as long as
# ever, later it is well below the longest so far; one that stays there is pushed.
GROWTH, SETTLED_GROWTH, SETTLED = 1.5, 0.75, 6


@dataclass(frozen=True)
class Alarm:
    """What a round's norm says, in grid units: of the released sum, the most that is possible, of its signal (noise
    taken out), and the most that is usual (None in the first round)."""

    norm: float
    most: float
    signal: float
    usual: float | None
    impossible: bool
    unusual: bool

    @property
    def raised(self) -> bool:
        """Whether a person should look."""
        return self.impossible or self.unusual

    @property
    def sentence(self) -> str:
        """One line for log and report."""
        if self.impossible:
            return f"the sum's norm {self.norm:.3g} exceeds the {self.most:.3g} that clipped phones and noise can give"
        if self.unusual:
            return f"the sum's norm without noise is {self.signal:.3g}, beyond the usual {self.usual:.3g}"
        return "the sum's norm is possible and usual"

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self) | {"sentence": self.sentence}


def watch(
    released: NDArray[np.int64],
    *,
    phones: int,
    clip: float,
    scale: int,
    sigma: float,
    earlier: Sequence[float] = (),
    false_alarm: float = FALSE_ALARM,
) -> Alarm:
    """The alarm of one round: a released sum (d,) of `phones` updates of norm ≤ `clip`, on the grid of 1/`scale`.

    `sigma` is the standard deviation, in grid units, of all noise in the sum together, both servers' in mode helper.
    `earlier` are the signals of the rounds before. RoundError for numbers that describe no sum.
    """
    if released.ndim != 1 or phones < 0 or not clip > 0 or scale < 1 or not sigma >= 0:
        raise RoundError("a sum to be watched is one vector of some clipped phones and noise; describe it again")
    norm = float(np.linalg.norm(released.astype(np.float64)))
    most = phones * clip * scale + noise_norm(len(released), sigma, false_alarm)
    signal = signal_norm(norm, len(released), sigma)
    usual = _usual(earlier, len(released), sigma, false_alarm)
    return Alarm(norm, most, signal, usual, norm > most, usual is not None and signal > usual)


def watched(plan: TrainingPlan, releases: Iterable[Release]) -> list[tuple[int, str]]:
    """(round, sentence) of every training release that is void or whose norm is impossible or unusual, in order."""
    found, earlier = list[tuple[int, str]](), list[float]()
    scale, clip = plan.privacy.grid_scale, plan.local.clip_norm
    for release in releases:
        if release.kind != "train":
            continue
        if release.void:
            why = release.refused[-1] if release.refused else "the run ended while it was released"
            found.append((release.round, f"void: {why}"))
            continue
        sigma = _sigma(plan, release.phones)
        alarm = watch(release.noised, phones=release.phones, clip=clip, scale=scale, sigma=sigma, earlier=earlier)
        earlier.append(alarm.signal)
        if alarm.raised:
            found.append((release.round, alarm.sentence))
    return found


def noise_norm(dim: int, sigma: float, tail: float) -> float:
    """A norm that noise of `dim` coordinates of σ exceeds with probability at most `tail`.

    σ √(d + 2√(dt) + 2t) with t = ln 1/tail: Laurent and Massart (2000) for chi-square; Hsu, Kakade and Zhang (2012)
    show the same for every σ-subgaussian vector, which the discrete Gaussian is. RoundError unless 0 < tail < 1.
    """
    if not 0 < tail < 1:
        raise RoundError(f"a false alarm rate of {tail!r} is no probability; use one between 0 and 1")
    t = math.log(1 / tail)
    return sigma * math.sqrt(dim + 2 * math.sqrt(dim * t) + 2 * t)


def signal_norm(norm: float, dim: int, sigma: float) -> float:
    """Norm of the sum before its noise, estimated: √max(‖S‖² - dσ², 0)."""
    return math.sqrt(max(norm * norm - dim * sigma * sigma, 0.0))


def _sigma(plan: TrainingPlan, phones: int) -> float:
    """σ, in grid units, of all the noise in a training sum of so many phones."""
    return total_sigma(plan, charge_of(plan, "train"), phones)


def _usual(earlier: Sequence[float], dim: int, sigma: float, tail: float) -> float | None:
    """So much of the longest signal so far, and room for what noise adds to the estimate of this one."""
    if not earlier:
        return None
    most = (GROWTH if len(earlier) < SETTLED else SETTLED_GROWTH) * max(earlier)
    t = math.log(1 / tail)
    # ‖s + Z‖² - dσ² = s² + 2⟨s, Z⟩ + (‖Z‖² - dσ²), each noise term below its tail of `tail`
    squared = most * most + 2 * most * sigma * math.sqrt(2 * t) + sigma * sigma * (2 * math.sqrt(dim * t) + 2 * t)
    return math.sqrt(squared)
