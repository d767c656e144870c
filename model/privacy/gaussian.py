"""The closed form of Gaussian releases in which every phone takes part: ε of μ, μ of ε (spec 6.6).

What `accountant` is built on, and all that a phone needs to judge a plan: nothing here imports more than arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from model.privacy.mechanism import GaussianRelease

PRICIEST = 500.0  # above this ε a plan promises nothing; the zCDP bound stands in for the exact figure


def composed_mu(charges: Iterable[GaussianRelease]) -> float:
    """μ of all charges together, whatever their sampling: √Σ count/z² (Dong, Roth and Su 2022, Corollary 3.3).

    Infinite where one has no noise.
    """
    counted = list(charges)
    if any(c.noise_multiplier == 0 for c in counted):
        return math.inf
    return math.sqrt(sum(c.count / c.noise_multiplier**2 for c in counted))


def gaussian_delta(mu: float, eps: float) -> float:
    """δ(ε) = Φ(μ/2 - ε/μ) - exp(ε)·Φ(-μ/2 - ε/μ) of a Gaussian of sensitivity over noise μ (Balle and Wang)."""
    return _normal_cdf(mu / 2 - eps / mu) - math.exp(eps) * _normal_cdf(-mu / 2 - eps / mu)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest ε with δ(ε) ≤ `delta`, from above; 0 for μ = 0."""
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    bound = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # zCDP: Bun and Steinke 2016, Proposition 1.3
    if bound > PRICIEST:
        return bound
    return _bisect(lambda eps: gaussian_delta(mu, eps) <= delta, 0.0, bound)


def gaussian_mu(target: float, delta: float) -> float:
    """Largest μ whose ε at `delta` is at most `target`, from below."""
    high = 1.0
    while gaussian_epsilon(high, delta) <= target:
        high *= 2
    return high - _bisect(lambda step: gaussian_epsilon(high - step, delta) <= target, 0.0, high)


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Near the least x in [low, high] from which on `holds` is true; it holds at what is returned."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
