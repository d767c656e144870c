"""What a number of trials proves about a mechanism: exact binomial bounds on its privacy loss (spec 13.12).

A test that says "present" has a false positive rate a and a power b. Under the claim that a release is a Gaussian of
mu = clip/sigma in which the phone takes part with probability q, every test obeys b ≤ (1-q)a + qΦ(Φ⁻¹(a) + mu) (Dong,
Roth and Su, JRSS B 2022, Proposition 4.2). Clopper–Pearson bounds (1934) turn counts into "a is at most", "b is at
least" and so into "mu is at least". They are exact: a bound is too high with probability at most α, whatever the
mechanism does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Vector = NDArray[np.float64]
ALPHA = 1e-3  # both error rates together: half for the false positives, half for the power
SURE = 1e-4  # of mutants, and of losses so large that the bound is sharp all the same and errs more often at ALPHA
LARGE = 1.0  # mu above which that is so
MOST = 1 - 1e-12  # a power is cut here, so that mu stays finite; the bound only gets lower
STRICT = 1e-9  # the α by which an event is chosen: so wary a bound is seldom the largest by luck
RATES = np.linspace(0.02, 0.90, 45)  # false positive rates at which thresholds are tried


@dataclass(frozen=True)
class Claim:
    """What is claimed of one release: `mu` is clip over sigma, `sampling` the probability q of taking part in it."""

    mu: float
    sampling: float = 1.0

    def power(self, rate: Any) -> Any:
        """The most power a test of false positive rate `rate` may have."""
        reached = special.ndtr(special.ndtri(rate) + self.mu)
        return (1 - self.sampling) * rate + self.sampling * reached

    def mu_of(self, rate: Any, power: Any) -> Any:
        """The mu at which `power` is just allowed at `rate`, at the claimed sampling; 0 where any mu allows it."""
        share = (power - (1 - self.sampling) * rate) / self.sampling
        mu = special.ndtri(np.clip(share, 0.0, MOST)) - special.ndtri(rate)
        return np.where(share <= 0, 0.0, np.maximum(np.nan_to_num(mu, nan=0.0, neginf=0.0), 0.0))


def at_most(hits: Any, trials: int, alpha: float) -> Any:
    """Clopper–Pearson: a probability is above this with chance at most `alpha`, having hit `hits` times in `trials`."""
    inner = special.betaincinv(np.asarray(hits) + 1.0, np.maximum(trials - np.asarray(hits), 1e-300), 1 - alpha)
    return np.where(np.asarray(hits) >= trials, 1.0, inner)


def at_least(hits: Any, trials: int, alpha: float) -> Any:
    """Clopper–Pearson: a probability is below this with chance at most `alpha`."""
    return 1.0 - at_most(trials - np.asarray(hits), trials, alpha)


def alpha_of(claim: Claim, mutant: bool) -> float:
    """Both error rates of one gate together (13.12.3); `test_audit_bounds` adds up what all gates come to."""
    return SURE if mutant or (claim.sampling == 1 and claim.mu > LARGE) else ALPHA


@dataclass(frozen=True)
class Bound:
    """mu is at least `mu`, with confidence 1 - α: the event is `side` · statistic > `threshold`."""

    mu: float
    rate: float
    power: float
    threshold: float
    side: int


def bound(absent: Vector, present: Vector, claim: Claim, *, choosing: float = 0.2, alpha: float = ALPHA) -> Bound:
    """The lower bound on mu that trials without (n,) and with (n,) the canary prove.

    The first `choosing` part of the trials picks threshold and side and nothing else; the rest is judged at that one
    event, so nothing need be paid for having looked at 90 of them.
    """
    cut = int(len(absent) * choosing)
    side, threshold = choose(absent[:cut], present[:cut], claim)
    judged = len(absent) - cut
    rate = at_most(int((side * absent[cut:] > threshold).sum()), judged, alpha / 2)
    power = at_least(int((side * present[cut:] > threshold).sum()), len(present) - cut, alpha / 2)
    return Bound(float(claim.mu_of(rate, power)), float(rate), float(power), threshold, side)


def choose(absent: Vector, present: Vector, claim: Claim) -> tuple[int, float]:
    """Side and threshold of the largest bound. Thresholds are quantiles of `absent`, so rates stay near RATES."""
    best = (-1.0, 1, 0.0)
    for side in (1, -1):
        low, high = np.sort(side * absent), np.sort(side * present)
        thresholds = np.quantile(low, 1 - RATES, method="inverted_cdf")
        false = len(low) - np.searchsorted(low, thresholds, side="right")
        true = len(high) - np.searchsorted(high, thresholds, side="right")
        mu = claim.mu_of(at_most(false, len(low), STRICT), at_least(true, len(high), STRICT))
        best = max(best, (float(mu.max()), side, float(thresholds[mu.argmax()])))
    return best[1], best[2]


def exceeds(claim: Claim, rate: float, judged: int, *, ratio: float = 1.0, alpha: float = ALPHA) -> float:
    """The chance that a mechanism *just* as claimed gives a bound above `ratio` · mu at an event of this rate.

    Exact: a sum over the binomial law of the false positives, by P(at_least(k) > p) = P(Bin(p) ≥ k) < α/2.
    """
    reach = 9 * np.sqrt(judged * rate * (1 - rate)) + 9
    false = np.arange(max(0, int(judged * rate - reach)), min(judged, int(judged * rate + reach)) + 1)
    allowed = Claim(claim.mu * ratio, claim.sampling).power(at_most(false, judged, alpha / 2))
    enough = stats.binom.isf(alpha / 2, judged, allowed)
    power = claim.power(rate)
    return float((stats.binom.pmf(false, judged, rate) * stats.binom.sf(enough, judged, power)).sum())


def false_alarm(claim: Claim, judged: int, chosen: int, *, alpha: float = ALPHA) -> float:
    """The largest chance, over all events that `chosen` trials can pick, that a mechanism just as claimed is alarmed.

    Below α, because both rates have to err together. On the wrong side the bound is near 0, so that side adds nothing.
    """
    low, high = reachable(chosen)
    rates = np.concatenate([np.geomspace(max(low, 1 / judged), 0.1, 20), np.linspace(0.1, high, 40)])
    return max(exceeds(claim, float(rate), judged, alpha=alpha) for rate in rates)


def reachable(chosen: int) -> tuple[float, float]:
    """The rates that an event picked by `chosen` trials can really have: RATES, and seven standard deviations more."""
    low, high = float(RATES[0]), float(RATES[-1])
    low, high = (rate + sign * 7 * math.sqrt(rate * (1 - rate) / chosen) for rate, sign in ((low, -1), (high, 1)))
    return max(low, 0.0), min(high, 1.0)
