"""What a plan says of the noise in a sum: one party's, the coordinator's, all of it (spec 13.1; 13.16.2)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from model.contract.releases import charge_of, coordinator_sigma, noise_sd, noise_sigma, share_sigma, total_sigma
from model.contract.watchers import lifetime_of, observers_of
from model.privacy.observers import lifetime, observers
from simulation.small import small_dataset, small_plan

PLAN = small_plan(small_dataset(60))
SCALE = PLAN.privacy.grid_scale
HELPER: dict[str, Any] = {"mode": "helper", "helper_key": "ab" * 32}


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_of_two_servers_the_helper_adds_the_charges_noise_and_the_coordinator_its_share(share: float) -> None:
    plan = replace(PLAN, privacy=replace(PLAN.privacy, **HELPER, coordinator_noise=share))
    charge = charge_of(plan, "train")
    assert charge is not None
    helper, own = share_sigma(plan, charge), coordinator_sigma(plan, charge)
    assert helper == math.ceil(charge.sigma * SCALE) + 1 and own == math.ceil(share * charge.sigma * SCALE) + 1
    assert total_sigma(plan, charge, 60) == math.hypot(helper, own) == noise_sigma(plan, "train")
    assert noise_sd(plan, "train") == noise_sigma(plan, "train") / SCALE
    assert noise_sd(plan, "train") == pytest.approx(math.sqrt(1 + share**2) * charge.sigma, rel=1e-4)


def test_other_modes_know_one_servers_noise_or_their_phones() -> None:
    charge = charge_of(PLAN, "train")
    assert charge is not None
    one = share_sigma(PLAN, charge)
    local = replace(PLAN, privacy=replace(PLAN.privacy, mode="local"))
    assert total_sigma(PLAN, charge, 60) == one == coordinator_sigma(PLAN, charge)
    assert total_sigma(local, charge, 49) == 7 * one
    quiet = replace(charge, noise_multiplier=0.0)
    assert total_sigma(PLAN, None, 60) == total_sigma(PLAN, quiet, 60) == 0


def test_a_plans_own_words_reach_the_accountant() -> None:
    privacy = replace(PLAN.privacy, **HELPER, coordinator_noise=0.5)
    rest = privacy.charges, privacy.delta, "helper"
    assert observers_of(privacy) == observers(*rest, coordinator_noise=0.5) != observers(*rest)
    assert lifetime_of(privacy) == lifetime(*rest, 0.5) != lifetime(*rest)
    assert observers_of(privacy, privacy.charges[:1]) == observers(privacy.charges[:1], privacy.delta, "helper", 0, 0.5)
    assert observers_of(privacy).helper == pytest.approx(privacy.helper_epsilon)
