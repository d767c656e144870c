"""ε against published figures, an independent PLD, and the ways an accountant can flatter (spec 6.5, 6.6)."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BudgetError
from model.privacy.accountant import calibrate, default_delta, epsilon, epsilon_by_split, released
from model.privacy.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from model.privacy.mechanism import GaussianRelease

SHARES = {"knots": 0.1, "training": 0.8, "calibration": 0.1}


def training(z: float, rounds: int = 20, q: float = 1.0, split: str = "train") -> GaussianRelease:
    return GaussianRelease("training", z, 1.0, rounds, q, split)


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta", "expected"),
    [
        (0.01, 1.0, 1000, 1e-6, 2.125),
        (0.1, 1.0, 100, 1e-6, 8.06),
        (0.1, 0.7, 50, 1e-5, 10.71),
        (1.0, 5.0, 50, 1e-6, 7.29),
        (0.05, 0.8, 100, 1e-5, 5.7),
        (0.05, 1.0, 100, 1e-5, 3.5),
        (0.05, 1.5, 100, 1e-5, 1.7),
        (0.05, 2.0, 100, 1e-5, 1.1),
        (1.0, 10.0, 100, 1e-5, 4.4),
        (1.0, 20.0, 100, 1e-5, 2.0),
        (1.0, 20.0, 20, 1e-5, 0.82),
        (1.0, 40.0, 20, 1e-5, 0.385),
    ],
)
def test_known_figures(q: float, z: float, rounds: int, delta: float, expected: float) -> None:
    digits = len(str(expected).split(".")[1])
    assert epsilon([training(z, rounds, q)], delta) == pytest.approx(expected, abs=0.51 * 10**-digits)


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta"), [(0.01, 1.0, 1000, 1e-6), (0.1, 1.0, 100, 1e-6), (0.1, 0.7, 50, 1e-5)]
)
def test_an_rdp_bound_lies_above_and_would_be_noticed(q: float, z: float, rounds: int, delta: float) -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = PoissonSampledDpEvent(q, GaussianDpEvent(z))
    renyi = RdpAccountant().compose(event, rounds).get_epsilon(delta)
    assert epsilon([training(z, rounds, q)], delta) < 0.95 * renyi


@pytest.mark.parametrize(
    ("z", "rounds", "delta"), [(5.0, 50, 1e-6), (20.0, 20, 1e-5), (40.0, 20, 1e-5), (1.0, 3, 1e-7)]
)
def test_the_closed_form_agrees_with_the_pld(z: float, rounds: int, delta: float) -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    numeric = pld.from_gaussian_mechanism(z).self_compose(rounds).get_epsilon_for_delta(delta)
    exact = epsilon([training(z, rounds)], delta)
    assert 0 <= numeric - exact <= 1e-4 * (1 + exact)


def test_releases_of_several_kinds_compose_as_one_gaussian() -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    charges = [training(12.0), GaussianRelease("knots", 9.0, 4.8, 1, 1.0, "train")]
    numeric = pld.from_gaussian_mechanism(12.0).self_compose(20).compose(pld.from_gaussian_mechanism(9.0))
    assert epsilon(charges, 1e-5) == pytest.approx(numeric.get_epsilon_for_delta(1e-5), abs=1e-4)
    mixed = [replace(charges[0], sampling=0.2), charges[1]]
    assert epsilon([mixed[1]], 1e-5) < epsilon(mixed, 1e-5) < epsilon(charges, 1e-5)


def test_replace_one_is_printed_beside() -> None:
    assert epsilon([training(5.0, 50)], 1e-6, relation="replace-one") == pytest.approx(16.86, abs=0.005)
    sampled = training(1.5, 100, 0.05)
    assert epsilon([sampled], 1e-5) < epsilon([sampled], 1e-5, relation="replace-one")
    doubled = epsilon([replace(sampled, noise_multiplier=0.75, sampling=1.0)], 1e-5)
    assert epsilon([sampled], 1e-5, relation="replace-one") < doubled


def test_a_person_is_charged_the_maximum_over_disjoint_splits_not_the_sum() -> None:
    train, holdout, both = training(20.0), training(8.0, 1, split="holdout"), training(30.0, 1, split="all")
    by_split = epsilon_by_split([train, holdout, both], 1e-5)
    assert by_split == {"train": epsilon([train, both], 1e-5), "holdout": epsilon([holdout, both], 1e-5)}
    assert released([train, holdout, both], 1e-5) == max(by_split.values()) < epsilon([train, holdout, both], 1e-5)
    assert epsilon_by_split([both], 1e-5) == {"all": epsilon([both], 1e-5)}
    assert released([], 1e-5) == 0.0


def test_no_noise_costs_infinity() -> None:
    assert epsilon([training(20.0), training(0.0, 1)], 1e-5) == math.inf


def test_what_the_accountant_does_not_know_it_refuses() -> None:
    with pytest.raises(BudgetError, match="not a mechanism"):
        epsilon([{"name": "laplace"}], 1e-5)  # type: ignore[list-item]
    for delta, relation in ((0.0, "zero-out"), (1.0, "zero-out"), (1e-5, "add-one")):
        with pytest.raises(BudgetError):
            epsilon([training(20.0)], delta, relation=relation)


@given(st.floats(1e-3, 20), st.floats(1e-12, 1e-3))
def test_gaussian_epsilon_meets_its_delta_from_above(mu: float, delta: float) -> None:
    eps = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, eps) <= delta
    assert eps == 0 or gaussian_delta(mu, eps * (1 - 1e-6)) > delta * (1 - 1e-9)


@given(st.floats(1e-2, 30), st.floats(1e-12, 1e-3))
@settings(max_examples=40)
def test_gaussian_mu_undoes_it_from_below(target: float, delta: float) -> None:
    mu = gaussian_mu(target, delta)
    assert gaussian_epsilon(mu, delta) <= target < gaussian_epsilon(mu * (1 + 1e-6), delta)


def test_an_absurd_epsilon_is_bounded_not_guessed() -> None:
    assert gaussian_epsilon(40.0, 1e-5) >= 40.0**2 / 2 and gaussian_epsilon(0.0, 1e-5) == 0.0


@pytest.mark.parametrize("phones", [1, 30, 1000, 20_000, 24_000, 35_112, 10**6, 10**9])
def test_default_delta(phones: int) -> None:
    delta = default_delta(phones)
    assert delta <= min(1e-5, phones**-1.1)
    digit, exponent = f"{delta:.0e}".split("e")
    assert float(f"{digit}e{exponent}") == delta
    assert float(f"{int(digit) + 1}e{exponent}") > min(1e-5, phones**-1.1)


def test_default_delta_needs_a_phone() -> None:
    assert (default_delta(24_000), default_delta(10**6)) == (1e-5, 2e-7)
    with pytest.raises(BudgetError):
        default_delta(0)


@pytest.mark.parametrize("target", [0.1, 0.5, 1.5, 2.0, 4.0, 10.0])
def test_calibration_is_tight_and_never_above(target: float) -> None:
    charges = calibrate(target, 1e-5, rounds=20, shares=SHARES, sensitivities={"knots": 4.8})
    assert [c.name for c in charges] == ["knots", "training", "calibration", "evaluation"]
    assert [c.split for c in charges] == ["train", "train", "train", "holdout"]
    assert charges[0].sensitivity == 4.8 and charges[1].count == 20
    for eps in epsilon_by_split(charges, 1e-5).values():
        assert target * (1 - 1e-3) <= eps <= target


def test_shares_are_shares_of_mu_squared() -> None:
    knots, train, calibration, _ = calibrate(1.5, 1e-5, rounds=20, shares=SHARES)
    spent = [c.count / c.noise_multiplier**2 for c in (knots, train, calibration)]
    assert [s / sum(spent) for s in spent] == pytest.approx([0.1, 0.8, 0.1], rel=1e-3)
    no_knots = calibrate(1.5, 1e-5, rounds=20, shares={"training": 8.0, "calibration": 1.0, "knots": 0.0})
    assert [c.name for c in no_knots] == ["training", "calibration", "evaluation"]


@pytest.mark.parametrize(("q", "target"), [(0.3, 1.5), (0.05, 0.5), (0.05, 4.0)])
def test_calibration_with_sampling(q: float, target: float) -> None:
    charges = calibrate(target, 1e-5, rounds=50, q=q, shares=SHARES)
    assert {c.name: c.sampling for c in charges} == {"knots": 1, "training": q, "calibration": 1, "evaluation": 1}
    assert target * (1 - 2e-3) <= released(charges, 1e-5) <= target
    full = calibrate(target, 1e-5, rounds=50, shares=SHARES)
    assert charges[1].noise_multiplier < full[1].noise_multiplier


@pytest.mark.parametrize(
    ("target", "shares"), [(0.0, SHARES), (math.inf, SHARES), (1.0, {"knots": 1.0}), (1.0, {**SHARES, "knots": -0.1})]
)
def test_a_target_or_share_without_meaning_is_refused(target: float, shares: dict[str, float]) -> None:
    with pytest.raises(BudgetError):
        calibrate(target, 1e-5, rounds=20, shares=shares)


def test_full_participation_needs_neither_dp_accounting_nor_scipy() -> None:
    code = (
        "import sys; from model.privacy import accountant, clipping, grid, noise; "
        "accountant.calibrate(1.5, 1e-5, rounds=20, shares={'training': 1.0}); "
        "print([m for m in ('dp_accounting', 'scipy', 'torch', 'flwr') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
