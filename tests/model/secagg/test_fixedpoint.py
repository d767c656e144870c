"""The ring: residues add up as the integers do while there is room, and a plan without room is refused (case 41)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.errors import RoundError, UpdateError
from model.secagg.fixedpoint import HALF, MAX_WRAP, from_ring, require_room, to_ring, wrap_probability
from model.secagg.room import plan_wraps, require_no_wrap
from simulation.small import small_dataset, small_plan

UNITS = st.lists(st.integers(-HALF, HALF - 1), min_size=1, max_size=20)


@given(UNITS)
def test_what_fits_comes_back(units: list[int]) -> None:
    vector = np.array(units, dtype=np.int64)
    residues = to_ring(vector)
    assert residues.dtype == np.uint32 and np.array_equal(from_ring(residues), vector)


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3), min_size=1, max_size=5))
def test_sums_agree_modulo_the_ring(rows: list[list[int]]) -> None:
    total = np.zeros(3, dtype=np.uint32)
    for row in rows:
        total += to_ring(np.array(row, dtype=np.int64))
    exact = [sum(column) % 2**32 for column in zip(*rows, strict=True)]
    assert [int(x) for x in total] == exact


def test_a_float_is_not_taken() -> None:
    with pytest.raises(UpdateError, match="float64"):
        to_ring(np.array([0.5]))


def test_case_41_a_sum_without_room_wraps_and_is_refused_before() -> None:
    scale, phones, reach = 1 << 20, 4096, 0.5
    units = np.full(1, int(reach * scale), dtype=np.int64)
    total = to_ring(units * phones)
    assert from_ring(total)[0] == -HALF != units[0] * phones  # without the check: the sign is lost
    with pytest.raises(RoundError, match="smaller grid scale"):
        require_room(phones, reach, 0.0, scale, 1)
    require_room(phones, reach, 0.0, scale // 2, 1)
    assert from_ring(to_ring(units // 2 * phones))[0] == units[0] // 2 * phones


@given(st.integers(1, 10**6), st.floats(0.01, 100), st.floats(0, 1e9), st.integers(1, 10**6))
def test_less_room_is_never_safer(phones: int, reach: float, sigma: float, dim: int) -> None:
    chance = wrap_probability(phones, reach, sigma, 1 << 10, dim)
    assert 0 <= chance <= 1
    assert chance <= wrap_probability(phones + 1, reach, sigma, 1 << 10, dim)
    assert chance <= wrap_probability(phones, reach, sigma + 1, 1 << 10, dim + 1)


def test_the_noise_bound_is_that_of_a_gaussian() -> None:
    # 9 sigma of room for 10,000 numbers in 50 releases: below 2^-40; 8 sigma: above.
    assert wrap_probability(0, 1.0, (HALF - 1) / 9.3, 1, 10_000, 50) < MAX_WRAP
    assert wrap_probability(0, 1.0, (HALF - 1) / 8, 1, 10_000, 50) > MAX_WRAP


def masked(scale: int = 1 << 20, **changes: object) -> TrainingPlan:
    plan = small_plan(small_dataset(200, seed=1), rounds=2)
    privacy = replace(plan.privacy, mode="helper", helper_key="ab" * 32, grid_scale=scale)
    return replace(plan, privacy=privacy, **changes)  # type: ignore[arg-type]


def test_case_41_a_plan_whose_sums_could_wrap_is_refused() -> None:
    require_no_wrap(masked())
    many = masked(phones=10_000)
    assert plan_wraps(many) == 1.0
    with pytest.raises(RoundError, match="could wrap"):
        require_no_wrap(many)
    require_no_wrap(masked(1 << 14, phones=10_000))


def test_modes_without_masks_have_no_ring() -> None:
    plan = masked(phones=10**6)
    assert plan_wraps(replace(plan, privacy=replace(plan.privacy, mode="central", helper_key=""))) == 0.0


def test_pairwise_counts_every_phones_noise() -> None:
    plan = masked(1 << 20)
    alone = plan_wraps(plan)
    graph = Neighbours(degree=20, threshold=11)
    pairwise = replace(plan.privacy, mode="pairwise", helper_key="", honest=1, neighbours=graph)
    assert plan_wraps(replace(plan, privacy=pairwise)) >= alone
