"""What a list of releases costs in ε, and the noise that a wanted ε needs (spec 6.5, 6.6).

Relation. N is public and the denominator is fixed, so the neighbour of a data set is the same one with one
phone's contribution replaced by zero (zero-out; Kairouz et al., ICML 2021, Definition 1.1). For a noised sum its
pair of output laws is the one of add/remove, so the privacy loss distribution is the same. Replace-one is
reported beside it: with every phone taking part it is zero-out at twice the sensitivity.

Method. Releases in which every phone takes part compose into a single Gaussian with μ² = Σ count/z² (Dong, Roth
and Su, JRSS B 2022, Corollary 3.3), whose δ(ε) is known in closed form (Balle and Wang, ICML 2018, Theorem 8).
Poisson-sampled releases have none: their privacy loss distributions are composed by dp-accounting (Doroshenko et
al., PoPETs 2022), rounded so that ε is never too small. dp-accounting is imported only then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from model.errors import BudgetError
from model.privacy.gaussian import composed_mu, gaussian_epsilon, gaussian_mu
from model.privacy.mechanism import GaussianRelease

RELATIONS = ("zero-out", "replace-one")
ACCOUNTANT = "PLD (dp-accounting 0.6; closed form where every phone takes part)"
MAX_DELTA = 1e-5


def default_delta(phones: int) -> float:
    """Largest δ of one significant digit that is at most N^-1.1 and at most 1e-5."""
    if phones < 1:
        raise BudgetError(f"delta cannot be chosen for {phones} phones; use one phone or more")
    most = min(MAX_DELTA, float(phones) ** -1.1)
    power = math.floor(math.log10(most)) + 1
    tries = (float(f"{digit}e{exponent}") for exponent in (power, power - 1) for digit in range(9, 0, -1))
    return next(delta for delta in tries if delta <= most)


def epsilon(
    charges: Sequence[GaussianRelease], delta: float, *, split: str | None = None, relation: str = "zero-out"
) -> float:
    """ε at `delta` of all `charges`, or of those that phones of `split` take part in; inf if one has no noise.

    BudgetError for a δ outside (0, 1), an unknown relation, or anything that is not a GaussianRelease.
    """
    if relation not in RELATIONS or not 0 < delta < 1:
        raise BudgetError(f"ε is not defined for relation {relation!r} at delta {delta!r}; use zero-out and 0 < δ < 1")
    for charge in charges:
        if not isinstance(charge, GaussianRelease):
            raise BudgetError(f"{type(charge).__name__} is not a mechanism the accountant knows; use GaussianRelease")
    counted = [c for c in charges if split is None or c.split in (split, "all")]
    if any(c.noise_multiplier == 0 for c in counted):
        return math.inf
    factor = 2.0 if relation == "replace-one" else 1.0
    mu = factor * composed_mu(c for c in counted if c.sampling == 1)
    sampled = [c for c in counted if c.sampling < 1]
    return _pld_epsilon(mu, sampled, delta, relation) if sampled else gaussian_epsilon(mu, delta)


def epsilon_by_split(
    charges: Sequence[GaussianRelease], delta: float, *, relation: str = "zero-out"
) -> dict[str, float]:
    """ε of a phone of each split that is charged; a phone is in "train" or "holdout", and "all" charges both."""
    splits = sorted({c.split for c in charges} - {"all"}) or ["all"]
    return {split: epsilon(charges, delta, split=split, relation=relation) for split in splits}


def released(charges: Sequence[GaussianRelease], delta: float, *, relation: str = "zero-out") -> float:
    """ε of the phone that is charged most: the maximum over the disjoint splits; 0 when nothing is charged."""
    return max(epsilon_by_split(charges, delta, relation=relation).values())


def calibrate(
    target: float,
    delta: float,
    *,
    rounds: int,
    q: float = 1.0,
    shares: Mapping[str, float],
    sensitivities: Mapping[str, float] | None = None,
) -> tuple[GaussianRelease, ...]:
    """The least noise with which a run's releases cost at most `target` at `delta`; never more, barely less.

    `shares` weighs "training" (needed) and any one-shot release of the train split ("knots", "calibration")
    as parts of μ²; "evaluation" is added on the holdout split, whose phones have the whole target to
    themselves. `sensitivities` (1.0 where not given) are L2, zero-out, of one release. With q < 1 only training
    is sampled and takes whatever the others leave. BudgetError when a share or the target cannot be used.
    """
    if not (math.isfinite(target) and target > 0) or not shares.get("training", 0) > 0 or min(shares.values()) < 0:
        raise BudgetError(f"no noise can be chosen for ε {target!r} and shares {dict(shares)!r}; all must be above 0")
    mu2 = gaussian_mu(target, delta) ** 2
    whole = sum(shares.values())
    width = sensitivities or {}

    def release(name: str, part: float, count: int = 1, sampling: float = 1.0, split: str = "train") -> GaussianRelease:
        z = _round_up(math.sqrt(count / (part * mu2)))
        return GaussianRelease(name, z, float(width.get(name, 1.0)), count, sampling, split)

    once = [release(n, s / whole) for n, s in shares.items() if n != "training" and s > 0]
    training = release("training", shares["training"] / whole, rounds)
    if q < 1:
        training = _sampled_training(replace(training, sampling=q), once, target, delta)
    order = {"knots": 0, "training": 1}
    chosen = sorted([*once, training], key=lambda c: order.get(c.name, 2))
    return (*chosen, release("evaluation", 1.0, split="holdout"))


def _pld_epsilon(mu: float, sampled: Sequence[GaussianRelease], delta: float, relation: str) -> float:
    """ε of Poisson-sampled releases composed with one Gaussian of `mu` (already doubled for replace-one)."""
    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.privacy_accountant import NeighboringRelation

    neighbours = NeighboringRelation.REPLACE_ONE if relation == "replace-one" else NeighboringRelation.REPLACE_SPECIAL
    step = min(max(min(c.sampling / c.noise_multiplier for c in sampled) / 30, 3e-5), 1e-3)
    total = pld.identity(value_discretization_interval=step)
    for c in sampled:
        one = pld.from_gaussian_mechanism(
            c.noise_multiplier,
            sampling_prob=c.sampling,
            value_discretization_interval=step,
            neighboring_relation=neighbours,
        )
        total = total.compose(one.self_compose(c.count))
    if mu > 0:
        total = total.compose(pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=step))
    return float(total.get_epsilon_for_delta(delta))


def _sampled_training(
    training: GaussianRelease, once: Sequence[GaussianRelease], target: float, delta: float
) -> GaussianRelease:
    """`training` with the least multiplier that keeps the whole within `target`: a secant in logarithms.

    `training` arrives with the multiplier that suffices without amplification, so it surely suffices.
    """

    def excess(z: float) -> float:
        return math.log(epsilon([*once, replace(training, noise_multiplier=z)], delta) / target)

    enough, gain = training.noise_multiplier, excess(training.noise_multiplier)
    other, loss = enough, gain
    while loss <= 0:
        enough, gain, other = other, loss, other / 2
        loss = excess(other)
    while gain < -1e-4 and enough - other > 3e-4:
        slope = (loss - gain) / math.log(other / enough)
        guess = enough * math.exp((-5e-5 - gain) / slope)
        guess = _round_up(min(max(guess, other + 1e-4), enough - 2e-4))
        value = excess(guess)
        if value <= 0:
            enough, gain = guess, value
        else:
            other, loss = guess, value
    return replace(training, noise_multiplier=enough)


def _round_up(z: float) -> float:
    """`z` to four decimals, never below it: a plan is read by people."""
    return math.ceil(z * 1e4) / 1e4
