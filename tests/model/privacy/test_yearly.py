"""ρ of a plan, and how often a year a phone's cap lets it take part, in numbers and words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.privacy.mechanism import GaussianRelease
from model.privacy.yearly import YEARLY_RHO, plan_rho, plans_a_year, rho, said_of_cap


def training(z: float, count: int = 1, split: str = "train", sampling: float = 1.0) -> GaussianRelease:
    return GaussianRelease("training", z, 1.0, count, sampling, split)


def test_rho_is_one_over_twice_the_squared_noise_that_the_phone_counts() -> None:
    assert rho(training(2.0)) == 1 / 8 and rho(training(2.0), 0.5) == 1 / 2 and rho(training(0.0)) == math.inf


def test_the_phone_charged_most_is_counted_of_either_split() -> None:
    charges = [training(2.0, 4), training(1.0, 2, "holdout"), training(1.0, 1, "all")]
    assert plan_rho(charges) == 1.5 and plan_rho(charges[:1]) == 0.5 and plan_rho([]) == 0
    assert plan_rho(charges, 0.5) == 4 * plan_rho(charges)


@given(cost=st.floats(1e-4, 10), cap=st.floats(1e-3, 10))
def test_as_many_plans_fit_as_are_said_and_no_more(cost: float, cap: float) -> None:
    times = plans_a_year(cost, cap)
    assert times * cost <= cap * (1 + 1e-8) and (times + 1) * cost > cap


@pytest.mark.parametrize(
    ("charge", "share", "words"),
    [
        (training(1.0, 5), 1.0, "(ρ .5) would not take part: one plan costs it ρ 2.5"),
        (training(1.0, 1), 1.0, "(ρ .5) takes part once a year: one plan costs it ρ 0.5"),
        (training(10.0, 10), 1.0, "takes part 10 times a year: one plan costs it ρ 0.05"),
        (training(10.0, 10), 0.5, "takes part 2 times a year: one plan costs it ρ 0.2"),
        (training(10.0, 10, sampling=0.1), 1.0, "takes part at least 10 times a year"),
    ],
)
def test_what_is_said(charge: GaussianRelease, share: float, words: str) -> None:
    assert YEARLY_RHO == 0.5 and words in said_of_cap([charge], share)
    assert ("at least" in said_of_cap([charge], share)) == (charge.sampling < 1)


def test_nothing_is_said_without_charges_or_noise() -> None:
    assert said_of_cap([]) == said_of_cap([training(0.0)]) == ""
