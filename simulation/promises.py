"""The privacy part of a simulated plan: mode, noise, the grid no sum can overflow, honest phones (spec 3.7, 13.10).

The noise is chosen so that the ε asked for holds against the strongest observer the mode promises anything: whoever
reads releases in mode central; the coordinator, which sees who took part, in modes helper, pairwise and local. In mode
helper a larger ε may be asked for against the helper: the coordinator then adds less noise than the helper (13.16).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours, PrivacyPlan
from model.errors import BudgetError, ContractError, InputError
from model.privacy.accountant import calibrate, released
from model.privacy.mechanism import GaussianRelease
from model.privacy.observers import full, noisier, promised
from model.secagg.circle import degree_of
from model.secagg.circle import sizes as circles
from model.secagg.fixedpoint import MAX_WRAP
from model.secagg.graph import ANSWERS, BITS, count, require_bound, tail
from model.secagg.room import LARGEST_SCALE, plan_wraps

SHARES = {"knots": 0.15, "training": 0.70, "calibration": 0.15}
GROUP = 1_000  # phones that mode pairwise masks as one sum
LEAST_SCALE = 1 << 8
SHARE_STEPS = 10_000  # a share of noise is one of so many
DROPOUT = 0.1  # phones of a pairwise cohort that may be lost half-way; with the hostile ones, all that are not honest
LEAST_CORRUPT = 0.05  # hostile phones the graph allows for, however honest they are said to be
MOST_HONEST = 1 - LEAST_CORRUPT - DROPOUT  # above it a sum needs more phones than there are, and never closes


@dataclass(frozen=True)
class Sizes:
    """Public counts: phones of either split, the smallest number expected to answer in one sum, and the rounds."""

    train: int
    holdout: int
    least: float
    rounds: int


@dataclass(frozen=True)
class Wish:
    """What is asked for: mode, ε or training multiplier (None, None is not a wish), honest share, helper's key.

    `helper_epsilon` is the ε that may hold against the helper; None for the coordinator's, with equal noises.
    """

    mode: str
    epsilon: float | None
    noise: float | None
    honest: float = 0.7
    helper_key: str = ""
    source: str = "os"
    helper_epsilon: float | None = None


def promise(
    wish: Wish, sizes: Sizes, sensitivities: Mapping[str, float], *, q: float, delta: float, unit: str
) -> PrivacyPlan:
    """The plan's privacy. InputError for more phones than the mode can add up; BudgetError for unusable noise."""
    if wish.mode == "off":
        return PrivacyPlan("off", delta, 1.0, "zero-out", unit, (), wish.source)
    charges, budget = _charges(wish, sizes.rounds, q, delta, sensitivities)
    honest, graph = _pairwise(wish, sizes)
    return PrivacyPlan(
        mode=wish.mode,
        delta=delta,
        epsilon_budget=budget,
        relation="zero-out",
        unit=unit,
        charges=charges,
        noise_source=wish.source,
        helper_key=wish.helper_key,
        honest=honest,
        neighbours=graph,
        coordinator_noise=coordinator_noise(charges, delta, budget, wish.helper_epsilon),
    )


def require_helper_epsilon(asked: float, coordinator: float) -> None:
    """InputError where the helper is to learn less than the coordinator, whose ε the helper's own noise decides."""
    if not coordinator <= asked:
        raise InputError(
            f"--helper-epsilon {asked:g} is below the coordinator's ε of {coordinator:g}, which two equal noises give "
            "the helper as well; raise it, or leave it out"
        )


def coordinator_noise(
    charges: Sequence[GaussianRelease], delta: float, budget: float, helper_epsilon: float | None
) -> float:
    """The least share r of the helper's noise at which ε against the helper stays within `helper_epsilon` (13.16).

    All charges, nothing amplified. Up to four decimals, as a plan is read by people; 1 where nothing is asked.
    InputError for a helper's ε below the coordinator's `budget`.
    """
    if helper_epsilon is None:
        return 1.0
    require_helper_epsilon(helper_epsilon, budget)
    low, high = 0, SHARE_STEPS  # r·z costs more than is asked at `low`, no more at `high`
    while high - low > 1:
        middle = (low + high) // 2
        enough = released(noisier(full(charges), middle / SHARE_STEPS), delta) <= helper_epsilon
        low, high = (low, middle) if enough else (middle, high)
    return high / SHARE_STEPS


def on_the_ring(plan: TrainingPlan) -> TrainingPlan:
    """The plan on the finest grid, a power of two up to 2^20, at which none of its masked sums wraps (13.2).

    InputError below 2^8, where the grid would be coarser than the updates. Other modes keep 2^20.
    """
    scale = LARGEST_SCALE
    while scale >= LEAST_SCALE:
        fitted = replace(plan, privacy=replace(plan.privacy, grid_scale=scale))
        if plan_wraps(fitted) <= MAX_WRAP:
            return fitted
        scale //= 2
    raise InputError(f"a sum over {plan.phones:,} phones does not fit the 32-bit ring; use fewer, or --privacy central")


def _charges(
    wish: Wish, rounds: int, q: float, delta: float, sensitivities: Mapping[str, float]
) -> tuple[tuple[GaussianRelease, ...], float]:
    """Every release and its noise, and the ε budget: what was asked for, or what the noise asked for comes to."""
    if wish.noise is not None:
        charges = fixed_noise(wish.noise, rounds, q, sensitivities)
        cost = promised(charges, delta, wish.mode)
        if not math.isfinite(cost):
            raise BudgetError(f"--noise {wish.noise:g} gives no finite epsilon; raise it")
        return charges, max(math.ceil(cost * 1e4), 1) / 1e4
    if wish.epsilon is None:
        raise BudgetError("neither ε nor noise was asked for; give one of them")
    # Whoever sees who took part gains nothing from a coin: its ε is met with the coin priced as 1.
    counted = q if wish.mode == "central" else 1.0
    found = calibrate(wish.epsilon, delta, rounds=rounds, q=counted, shares=SHARES, sensitivities=sensitivities)
    return tuple(replace(c, sampling=q) if c.name == "training" else c for c in found), wish.epsilon


def _pairwise(wish: Wish, sizes: Sizes) -> tuple[int, Neighbours]:
    """h and the graph: h is a share of the smallest sum, since one promise stands for all of the plan's releases."""
    if wish.mode != "pairwise":
        return 0, Neighbours()
    most = max(sizes.train, sizes.holdout)
    if most > GROUP:
        raise InputError(
            f"--privacy pairwise masks at most {GROUP:,} phones in one sum and here are {most:,}; use --privacy helper"
        )
    if wish.honest > MOST_HONEST + 1e-9:
        raise InputError(
            f"--honest {wish.honest:g} leaves no room for {LEAST_CORRUPT:.0%} hostile and {DROPOUT:.0%} lost phones; "
            f"use {MOST_HONEST:g} or less"
        )
    corrupt = max(LEAST_CORRUPT, round(1 - wish.honest - DROPOUT, 6))
    rosters = {sizes.train, sizes.holdout}
    graph = graph_of(rosters, corrupt)
    room = min(_survivors(phones, graph) for phones in {*rosters, math.floor(sizes.least)})
    return max(1, min(math.floor(wish.honest * sizes.least), room)), graph


def _survivors(phones: int, graph: Neighbours) -> int:
    """The most that h may be for a list of a roster of `phones` to be long enough when the planned share is lost."""
    return phones - count(phones, graph.corrupt) - count(phones, graph.dropout)


def graph_of(rosters: Collection[int], corrupt: float, dropout: float = DROPOUT) -> Neighbours:
    """One graph whose bound (13.8) holds for every one of these rosters; InputError where none does.

    Privacy asks for a high threshold and answering for a low one: with each degree the least private one is tried. It
    only rises with the degree, so the search goes on from the last. Where not even the expected numbers of hostile and
    lost neighbours fit (they must stay below 2t - k and k - t), no degree k is tried.
    """
    hopeless = any(count(n, corrupt) + 2 * count(n, dropout) >= n for n in rosters)
    threshold = 0
    for degree in range(2, 0 if hopeless else max(rosters), 2):
        threshold = max(threshold, degree // 2 + 1)
        while threshold <= degree and not _private(rosters, degree, threshold, corrupt):
            threshold += 1
        found = Neighbours(degree, threshold, corrupt, dropout) if threshold <= degree else None
        if found is not None and _holds(rosters, found):
            return found
    raise InputError(
        f"no graph of masks serves sums of {min(rosters)} and of {max(rosters)} phones with {corrupt:.0%} hostile and "
        f"{dropout:.0%} lost; bring more phones, raise --honest, or use --privacy helper"
    )


def _private(rosters: Collection[int], degree: int, threshold: int, corrupt: float) -> bool:
    """The graph's first bound alone (13.8.3); the others take longer, and most thresholds fail already here."""
    for phones in rosters:
        near = degree_of(min(circles(phones)), degree)
        if phones * tail(phones - 1, count(phones, corrupt), near, 2 * threshold - near) > 2.0**-BITS:
            return False
    return True


def _holds(rosters: Collection[int], graph: Neighbours) -> bool:
    """All of the graph's bounds, the cheap ones first: a window's floor is a search of its own."""
    for phones in rosters:
        near, lost = degree_of(min(circles(phones)), graph.degree), count(phones, graph.dropout)
        if phones * tail(phones - 1, lost, near, near - graph.threshold + 1) > 2.0**-ANSWERS:
            return False
        gone, width = min(count(phones, graph.corrupt) + lost, phones), near // 2
        if near < phones - 1 and phones * tail(phones, gone, width, width) > 2.0**-BITS:
            return False
    try:
        for phones in rosters:
            require_bound(phones, graph)
    except ContractError:
        return False
    return True


def fixed_noise(noise: float, rounds: int, q: float, sensitivities: Mapping[str, float]) -> tuple[GaussianRelease, ...]:
    """Training at the noise multiplier asked for; the one-shot releases keep their shares of μ² beside it."""
    whole = sum(SHARES.values())
    mu2 = rounds / noise**2 / (SHARES["training"] / whole)

    def once(name: str, share: float, split: str) -> GaussianRelease:
        return GaussianRelease(name, 1 / math.sqrt(share * mu2), sensitivities.get(name, 1.0), 1, 1.0, split)

    return (
        once("knots", SHARES["knots"] / whole, "train"),
        GaussianRelease("training", noise, sensitivities["training"], rounds, q, "train"),
        once("calibration", SHARES["calibration"] / whole, "train"),
        once("evaluation", 1.0, "holdout"),
    )
