"""The bounds of the mechanism audit: against scipy, against their own promise, and how seldom a correct one fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from simulation.redteam.audit import MUTANT_TRIALS, TIGHT, TRIALS
from simulation.redteam.bounds import (
    ALPHA,
    MOST,
    Claim,
    alpha_of,
    at_least,
    at_most,
    bound,
    choose,
    exceeds,
    false_alarm,
    reachable,
)
from simulation.redteam.mechanisms import MECHANISMS
from simulation.redteam.mutants import MUTANTS

FULL, SAMPLED, LARGE = Claim(1.0), Claim(2.0, 0.5), Claim(2.0)
JUDGED = TRIALS * 4 // 5
ALARM, SHORT = 7e-6, 3e-6  # of one gate


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_bounds_on_a_probability_are_those_of_clopper_and_pearson(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    exact = stats.binomtest(hits, trials).proportion_ci(1 - 2 * 5e-4, "exact")
    assert at_most(hits, trials, 5e-4) == pytest.approx(exact.high, abs=1e-9)
    assert at_least(hits, trials, 5e-4) == pytest.approx(exact.low, abs=1e-9)


@given(st.floats(0.1, 4), st.floats(0.05, 1), st.floats(0.001, 0.999))
def test_mu_undoes_power(mu: float, sampling: float, rate: float) -> None:
    claim = Claim(mu, sampling)
    power = float(claim.power(rate))
    assert rate <= power <= 1
    if special.ndtr(special.ndtri(rate) + mu) < MOST:
        assert float(claim.mu_of(rate, power)) == pytest.approx(mu, rel=1e-4, abs=1e-4)


def test_full_participation_is_the_gaussian_trade_off() -> None:
    """Dong, Roth and Su (2022), (6): G_mu(a) = Φ(Φ⁻¹(1 - a) - mu)."""
    rate = np.linspace(0.01, 0.99, 50)
    assert 1 - FULL.power(rate) == pytest.approx(stats.norm.cdf(stats.norm.ppf(1 - rate) - 1))


def test_no_event_proves_anything_of_equal_laws() -> None:
    same = np.random.default_rng(3).normal(size=(2, 20_000))
    assert bound(same[0], same[1], FULL).mu == 0
    assert bound(np.zeros(5000), np.zeros(5000), FULL).mu == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_certain_event_proves_much_on_either_side(sign: int) -> None:
    found = bound(np.zeros(5000), np.full(5000, float(sign)), FULL)
    assert found.mu > 5 and found.side == sign
    assert np.isfinite(found.mu)


@pytest.mark.parametrize("claim", [FULL, SAMPLED, LARGE], ids=["full", "sampled", "large"])
def test_a_true_claim_is_seldom_exceeded_and_nearly_reached(claim: Claim) -> None:
    """Exact binomial sums over the chances of the trials, for the event that the choosing part picks."""
    alpha = alpha_of(claim, False)
    assert false_alarm(claim, JUDGED, TRIALS - JUDGED, alpha=alpha) < ALARM
    random, chosen = np.random.default_rng(8), []
    for _ in range(100):
        absent = random.normal(size=TRIALS - JUDGED)
        present = random.normal(size=TRIALS - JUDGED) + claim.mu * (random.random(TRIALS - JUDGED) < claim.sampling)
        side, threshold = choose(absent, present, claim)
        assert side == 1
        chosen.append(float(stats.norm.sf(threshold)))
    low, high = reachable(TRIALS - JUDGED)
    assert low < min(chosen) and max(chosen) < high
    short = [1 - exceeds(claim, rate, JUDGED, ratio=TIGHT, alpha=alpha) for rate in chosen]
    assert max(short) < 2e-3 and np.mean(short) < 2e-5  # over 1,000 choices the mean is below 3e-6


def test_a_correct_mechanism_fails_fewer_than_one_run_in_10000() -> None:
    """Eight gates from above and from below, and the observers whom a mutant does not help, from above."""
    gates = sum(len(m.observers) for m in MECHANISMS.values())
    blind = sum(len(m.blind) for m in MUTANTS.values())
    judged = MUTANT_TRIALS * 4 // 5
    beside = false_alarm(FULL, judged, MUTANT_TRIALS - judged, alpha=alpha_of(FULL, True))
    assert (gates, blind) == (8, 3)
    assert {m.against(o) for m in MECHANISMS.values() for o in m.observers} == {FULL, SAMPLED, LARGE}
    assert all(len(m.modes) == 1 for m in MUTANTS.values() if m.blind)
    assert gates * (ALARM + SHORT) + blind * beside < 1e-4


def test_exceeding_is_the_chance_that_trials_show() -> None:
    """Against drawn counts, at a ratio low enough to be seen often."""
    random, judged, rate = np.random.default_rng(4), 2000, 0.3
    false = random.binomial(judged, rate, 4000)
    true = random.binomial(judged, FULL.power(rate), 4000)
    mu = FULL.mu_of(at_most(false, judged, ALPHA / 2), at_least(true, judged, ALPHA / 2))
    for ratio in (0.7, 0.8, 0.9):
        assert exceeds(FULL, rate, judged, ratio=ratio) == pytest.approx(float((mu > ratio).mean()), abs=0.03)
