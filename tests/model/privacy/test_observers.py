"""Who sees what in each privacy mode, what two noises make together, and what years add up to (spec 6.6, 13.10)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import BudgetError
from model.privacy.accountant import released
from model.privacy.gaussian import gaussian_epsilon
from model.privacy.mechanism import NO_HELPER, GaussianRelease
from model.privacy.observers import (
    CENTRAL_REASON,
    OFF_REASON,
    full,
    lifetime,
    noisier,
    observers,
    promised,
)

DELTA = 1e-5


def training(z: float, rounds: int = 20, q: float = 1.0, split: str = "train") -> GaussianRelease:
    return GaussianRelease("training", z, 1.0, rounds, q, split)


def test_a_viewer_of_participation_gets_no_amplification() -> None:
    seen = observers([training(1.5, 100, 0.05)], DELTA)
    assert seen.participation_viewer == pytest.approx(49.9, abs=0.05)
    assert seen.released_models == pytest.approx(1.67, abs=0.01)
    whole = observers([training(20.0)], DELTA)
    assert whole.participation_viewer == whole.released_models


def test_central_and_off_promise_the_coordinator_nothing_and_say_why() -> None:
    central, off = observers([training(20.0)], DELTA), observers([], DELTA, "off")
    assert (central.coordinator, central.reason, central.helper, central.helper_reason) == (
        *(None, CENTRAL_REASON),
        *(None, NO_HELPER),
    )
    figures = (off.released_models, off.participation_viewer, off.coordinator, off.helper, off.replace_one)
    assert figures == (None,) * 5 and off.reason == off.helper_reason == OFF_REASON


@pytest.mark.parametrize("q", [1.0, 0.2])
def test_helper_meets_either_server_under_the_others_noise_alone(q: float) -> None:
    charges = [training(20.0, q=q)]
    seen = observers(charges, DELTA, "helper")
    assert seen.coordinator == seen.helper == released([training(20.0)], DELTA)
    assert seen.released_models == released([training(20.0 * math.sqrt(2), q=q)], DELTA)
    assert seen.participation_viewer == released([training(20.0 * math.sqrt(2))], DELTA)
    assert seen.released_models <= seen.participation_viewer < seen.coordinator
    assert "do not pool what they see and each really adds its noise" in seen.condition and seen.alone_round is None


def test_pairwise_and_local_claim_no_amplification_and_name_what_they_rest_on() -> None:
    charges = [training(20.0, q=0.2)]
    alone = released([training(20.0)], DELTA)
    for mode, honest, words in (("pairwise", 700, "at least 700 of the phones"), ("local", 0, "its own noise alone")):
        seen = observers(charges, DELTA, mode, honest)
        assert seen.released_models == seen.participation_viewer == seen.coordinator == alone
        assert seen.helper is None and seen.helper_reason == NO_HELPER and words in seen.condition
        further = ("plan's share of them is corrupt", "the witness does not collude with the server")
        assert all((part in seen.condition) == (mode == "pairwise") for part in further)


def test_one_honest_phone_among_sybils_keeps_little() -> None:
    """PRIVACY.md's 106 is the zCDP bound; the exact figure at z 3, h 1,000 is 99.7 at δ 1e-5, 104.8 at 1e-6."""
    seen = observers([training(3.0, 20)], DELTA, "pairwise", 1000)
    assert seen.alone_round == pytest.approx(99.67, abs=0.01)
    assert gaussian_epsilon(math.sqrt(1000) / 3, 1e-6) == pytest.approx(104.84, abs=0.01)
    rho = 1000 / 9 / 2
    assert rho + 2 * math.sqrt(rho * math.log(1e5)) == pytest.approx(106.1, abs=0.1)
    assert observers([training(3.0, 20)], DELTA, "pairwise", 10).alone_round < 20


def test_a_mode_takes_honest_phones_where_it_counts_them() -> None:
    for mode, honest in (("pairwise", 0), ("central", 5), ("helper", 1), ("secagg", 0)):
        with pytest.raises(BudgetError):
            observers([training(20.0)], DELTA, mode, honest)


def test_no_noise_is_promised_to_nobody() -> None:
    for mode, honest in (("helper", 0), ("pairwise", 30), ("central", 0), ("local", 0)):
        seen = observers([training(0.0)], DELTA, mode, honest)
        assert (seen.released_models, seen.coordinator, seen.helper) == (None, None, None)
        assert seen.reason and seen.helper_reason
    assert promised([training(20.0)], DELTA, "off") == math.inf


def test_what_a_budget_bounds_is_the_strongest_promised_observer() -> None:
    charges = [training(1.5, 100, 0.05)]
    assert promised(charges, DELTA, "central") == released(charges, DELTA)
    for mode in ("helper", "pairwise", "local"):
        assert promised(charges, DELTA, mode) == released(full(charges), DELTA)


def law(sigma: float, reach: int) -> np.ndarray:
    grid = np.arange(-reach, reach + 1)
    weight = np.exp(-(grid**2) / (2 * sigma**2))
    return weight / weight.sum()


def ratio_of_two(first: float, second: float) -> float:
    """Largest |log| between the law of two discrete Gaussians' sum and the discrete Gaussian of √(σ₁² + σ₂²), in 4 σ.

    Beyond float64's reach the tails of the two are no longer told apart, so they are not looked at.
    """
    sigma = math.hypot(first, second)
    reach = math.ceil(12 * sigma) + 8
    two = np.convolve(law(first, reach), law(second, reach))[reach : 3 * reach + 1]
    middle = slice(reach - math.ceil(4 * sigma), reach + math.ceil(4 * sigma) + 1)
    return float(np.abs(np.log(two[middle] / law(sigma, reach)[middle])).max())


def poisson_bound(first: float, second: float) -> float:
    """log (1 + e)/(1 - e), e = 2·Σ exp(-2π²τ²m²), τ² = 1/(1/σ₁² + 1/σ₂²): what the argument of 13.16.1 gives."""
    tau2 = 1 / (1 / first**2 + 1 / second**2)
    e = 2 * sum(math.exp(-2 * math.pi**2 * tau2 * m * m) for m in range(1, 9))
    return math.log1p(e) - math.log1p(-e)


def test_two_noises_are_one_of_root_two_and_the_control_shows_where_that_ends() -> None:
    """Every release has σ ≥ 3 grid units; below one unit the sum is visibly no discrete Gaussian."""
    assert all(ratio_of_two(sigma, sigma) < 1e-12 for sigma in (3.0, 5.0, 17.0))
    bound = 2 * math.exp(-((math.pi * 0.6) ** 2))
    assert 1e-3 < ratio_of_two(0.6, 0.6) < math.log((1 + bound) / (1 - bound)) * 1.5
    assert ratio_of_two(0.4, 0.4) > 0.1


@pytest.mark.parametrize(("first", "second"), [(3, 3), (3, 4), (3, 30), (4, 90), (17, 9), (50, 51)])
def test_two_unequal_noises_are_one_of_the_root_of_their_squares(first: float, second: float) -> None:
    """13.16.1: from whole σ ≥ 3 on e is below 2⁻¹¹², however unequal; the rest here is float64's."""
    assert poisson_bound(first, second) < 2.0**-110
    assert ratio_of_two(first, second) < 1e-12


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.6), (0.5, 0.9), (0.6, 2.0), (0.6, 20.0), (0.7, 0.9)])
def test_control_where_the_lesser_noise_is_small_the_bound_is_seen_and_kept(first: float, second: float) -> None:
    """The greater noise does not help the lesser: the ratio stays near the bound that τ ≈ min σ gives."""
    found, bound = ratio_of_two(first, second), poisson_bound(first, second)
    assert 1e-12 < bound / 40 < found <= bound * (1 + 1e-9)


@given(st.floats(2, 1e9), st.floats(1e-3, 1))
def test_whole_sigmas_pay_for_the_grid_of_two_unequal_noises(s: float, share: float) -> None:
    """(s₁ + 1)² + (s₂ + 1)² - 4 ≥ s₁² + s₂² where s₁ + s₂ ≥ 1: √(1 + r²)·z stays conservative (13.16.2)."""
    other = max(share * s, 2.0)
    assert (math.ceil(s) + 1) ** 2 + (math.ceil(other) + 1) ** 2 - 4 >= s**2 + other**2


@pytest.mark.parametrize("q", [1.0, 0.2])
def test_a_coordinator_that_adds_less_is_seen_less_of_by_the_coordinator_than_by_the_helper(q: float) -> None:
    """13.16.3: z against the coordinator, r·z against the helper, √(1 + r²)·z in releases."""
    charges, whole = [training(20.0, q=q)], [training(20.0)]
    seen, equal = observers(charges, DELTA, "helper", coordinator_noise=0.5), observers(charges, DELTA, "helper")
    assert seen.coordinator == equal.coordinator == released(whole, DELTA)
    assert seen.helper == released([training(10.0)], DELTA)
    assert seen.released_models == released(noisier(charges, math.sqrt(1.25)), DELTA)
    assert seen.participation_viewer == released(noisier(whole, math.sqrt(1.25)), DELTA)
    assert seen.replace_one == released(noisier(charges, math.sqrt(1.25)), DELTA, relation="replace-one")
    assert equal.participation_viewer < seen.participation_viewer < seen.coordinator < seen.helper
    assert "adds 0.5 of the noise" in seen.condition and "adds" not in equal.condition.replace("adds its noise", "")


@pytest.mark.parametrize(("mode", "share"), [("helper", 0.0), ("helper", 1.1), ("helper", -1.0), ("central", 0.5)])
def test_a_share_of_noise_fits_mode_helper_alone(mode: str, share: float) -> None:
    with pytest.raises(BudgetError, match="coordinator's noise"):
        observers([training(20.0)], DELTA, mode, coordinator_noise=share)


def test_over_years_the_helper_and_the_phones_ledger_count_the_lesser_noise() -> None:
    charges = [training(60.0)]
    equal, less = lifetime(charges, DELTA, "helper"), lifetime(charges, DELTA, "helper", 0.5)
    assert equal is not None and less is not None
    for name, months in (("one_year", 12), ("five_years", 60)):
        assert equal[name]["helper"] == equal[name]["composed"] == less[name]["composed"]
        assert less[name]["helper"] == pytest.approx(gaussian_epsilon(math.sqrt(months * 20) / 30, DELTA))
        rho = months * 20 / (2 * 30**2)
        assert less[name]["zcdp"] == pytest.approx(rho + 2 * math.sqrt(rho * math.log(1 / DELTA)))
    central = lifetime(charges, DELTA, "central")
    assert central is not None and central["one_year"]["helper"] is None


def test_a_sum_of_many_shares_is_one_noise_too() -> None:
    reach, share = 256, law(3.0, 64)
    total = np.zeros(2 * reach + 1)
    total[reach] = 1.0
    for _ in range(9):
        total = np.convolve(total, share)[64:-64]
    near = slice(reach - 30, reach + 31)
    assert np.abs(np.log(total[near] / law(9.0, reach)[near])).max() < 1e-11


def test_a_whole_sigma_pays_for_the_grid_of_two_noises() -> None:
    """2·(s + 1)² - 4 ≥ 2·s² from s = 1/2 on: the plan's √2·z stays conservative (6.5 for the sum)."""
    for s in (2.0, 3.7, 1e3, 1e7):
        assert 2 * (math.ceil(s) + 1) ** 2 - 4 >= 2 * s**2


def test_years_add_up_as_published() -> None:
    """z 1.5, q .05, T 100 a month: 1.67, in one year 6.1, in five 16 (PLD, δ 1e-5)."""
    found = lifetime([training(1.5, 100, 0.05)], DELTA, "central")
    assert found is not None
    assert found["one_year"]["composed"] == pytest.approx(6.13, abs=0.02)
    assert found["five_years"]["composed"] == pytest.approx(16.05, abs=0.05)


def test_the_phones_own_sum_lies_above_exact_composition_and_below_adding_epsilons() -> None:
    charges = [training(60.0), GaussianRelease("evaluation", 20.0, 1.0, 1, 1.0, "holdout")]
    once = promised(charges, DELTA, "helper")
    found = lifetime(charges, DELTA, "helper")
    assert found is not None and lifetime(charges, DELTA, "off") is None
    for name, months in (("one_year", 12), ("five_years", 60)):
        composed, zcdp = found[name]["composed"], found[name]["zcdp"]
        assert composed == pytest.approx(gaussian_epsilon(math.sqrt(months * 20) / 60, DELTA))
        assert composed < zcdp < months * once


def test_noisier_is_noise_and_nothing_else() -> None:
    (louder,) = noisier([training(20.0, q=0.5)], 2.0)
    assert louder == training(40.0, q=0.5)
