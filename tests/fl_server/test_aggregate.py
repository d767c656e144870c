"""Sums, fixed denominator, noise, server optimisers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_server.aggregate import Iterate, add, advance, mean_update, noised
from fl_server.cohort import minimum, require_cohort, select
from model.contract.plan import ServerOptimiser, TrainingPlan
from model.errors import RoundError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import SeededSource
from model.risk.knots import Knots
from model.risk.precondition import Preconditioner
from simulation.small import small_dataset, small_plan

DATA = small_dataset(200, seed=1)
SIZE = 6
IDENTITY = Preconditioner(DATA.schema, Knots(((0.0,),) * 5, ((1.0, 0.0),) * 5), (2,))


def plan_of(**server: object) -> TrainingPlan:
    optimiser = ServerOptimiser("fedavg", 1.0, 0.0, 1.0, 0.0, 0.99, 1e-3)
    return small_plan(DATA, rounds=4, server=replace(optimiser, **server))  # type: ignore[arg-type]


def sum_of(plan: TrainingPlan, update: np.ndarray) -> np.ndarray:
    return np.rint(update * plan.privacy.grid_scale * plan.expected_cohort).astype(np.int64)


def run(plan: TrainingPlan, updates: list[np.ndarray], start: np.ndarray | None = None) -> Iterate:
    iterate = Iterate.start(np.zeros(SIZE) if start is None else start)
    for update in updates:
        iterate = advance(iterate, sum_of(plan, update), plan, IDENTITY, np.ones(SIZE))
    return iterate


def test_neither_order_nor_grouping_matters() -> None:
    random = np.random.Generator(np.random.Philox(1))
    parts = [random.integers(-(2**40), 2**40, SIZE) for _ in range(7)]
    whole = add(parts, SIZE)
    np.testing.assert_array_equal(whole, add([add(parts[4:], SIZE), *parts[3::-1]], SIZE))


def test_the_denominator_is_the_plans_whoever_answers() -> None:
    plan = replace(plan_of(), participation=0.5)
    update = mean_update(np.full(SIZE, plan.privacy.grid_scale, dtype=np.int64), plan)
    np.testing.assert_allclose(update, 1 / (0.5 * plan.phones))


def test_the_expected_response_is_part_of_the_denominator_and_not_of_the_noise() -> None:
    plan = replace(plan_of(), participation=0.5, response=0.4)
    assert plan.expected_cohort == pytest.approx(0.2 * plan.phones)
    update = mean_update(np.full(SIZE, plan.privacy.grid_scale, dtype=np.int64), plan)
    np.testing.assert_allclose(update, 1 / (0.2 * plan.phones))
    assert minimum(plan, 1000, 0.5) == plan.min_cohort
    with pytest.raises(RoundError, match="20 phones are expected"):
        minimum(plan, 100, 0.5)


@pytest.mark.parametrize("answered", [1.0, 0.5, 0.2])
def test_noise_in_a_step_is_the_same_whoever_drops_out(answered: float) -> None:
    plan, size = plan_of(), 20_000
    charge = GaussianRelease("training", 3.0, 0.5, 4, 1.0, "train")
    phones = round(answered * plan.phones)
    total = np.full(size, phones * 1000, dtype=np.int64)
    step = mean_update(noised(total, charge, plan.privacy.grid_scale, SeededSource(1)), plan)
    spread = charge.sigma / plan.phones
    assert step.std() == pytest.approx(spread, rel=0.02)
    # The control: over the number of answers, noise would grow as phones drop out, and say how many did.
    over_answers = step * plan.phones / phones
    assert over_answers.std() == pytest.approx(spread / answered, rel=0.02)


def test_a_step_is_right_on_average_where_the_response_is() -> None:
    plan = replace(plan_of(), response=0.5)
    random = np.random.Generator(np.random.Philox(3))
    units = round(0.3 * plan.privacy.grid_scale)
    steps = [mean_update(np.array([units * random.binomial(plan.phones, 0.5)]), plan)[0] for _ in range(400)]
    assert np.mean(steps) == pytest.approx(0.3, rel=0.02)


def test_noise_has_the_charges_spread_and_no_charge_has_none() -> None:
    charge, zeros = GaussianRelease("training", 3.0, 0.5, 1, 1.0, "train"), np.zeros(4000, dtype=np.int64)
    drawn = noised(zeros, charge, 1 << 20, SeededSource(1)).astype(float) / (1 << 20)
    assert drawn.std() == pytest.approx(1.5, rel=0.05)
    assert not noised(zeros, None, 1 << 20, SeededSource(1)).any()


def test_momentum_carries_on() -> None:
    one = np.ones(SIZE)
    iterate = run(plan_of(momentum=0.5), [one, 0 * one])
    np.testing.assert_allclose(iterate.v, 1.5, rtol=1e-6)


def test_fedadam_steps_by_sign_first() -> None:
    update = np.array([1.0, -1.0, 10.0, -10.0, 0.1, 0.0])
    iterate = run(plan_of(name="fedadam", momentum=0.9, learning_rate=0.2, epsilon=1e-9), [update])
    np.testing.assert_allclose(iterate.v, 0.2 * np.sign(update), atol=1e-6)


def test_the_average_covers_the_iterates_after_the_given_fraction() -> None:
    iterate = run(plan_of(average_from=0.5), [np.full(SIZE, value) for value in (1.0, 1.0, 1.0, 3.0)])
    np.testing.assert_allclose(iterate.result, (3.0 + 6.0) / 2, rtol=1e-6)
    last = run(plan_of(), [np.full(SIZE, value) for value in (1.0, 1.0, 1.0, 3.0)])
    np.testing.assert_allclose(last.result, 6.0, rtol=1e-6)


def test_l2_shrinks_without_any_data() -> None:
    iterate = run(plan_of(l2=0.1), [np.zeros(SIZE)], start=np.ones(SIZE))
    np.testing.assert_allclose(iterate.v, 0.9)


def test_a_model_that_leaves_the_numbers_is_refused() -> None:
    with pytest.raises(RoundError, match="finite"):
        run(plan_of(learning_rate=1e308), [np.full(SIZE, 100.0)] * 2)


def test_field_nodes_are_selected_by_a_coin_that_repeats() -> None:
    plan = replace(plan_of(), topology="field", participation=0.3)
    first = select(range(5000), plan, 1, 0.3)
    assert first == select(range(5000), plan, 1, 0.3) != select(range(5000), plan, 2, 0.3)
    assert abs(len(first) / 5000 - 0.3) < 0.03
    assert select(range(9), replace(plan, topology="farm"), 1, 0.3) == tuple(range(9))


def test_case_21_a_plan_too_small_for_its_cohort_is_refused() -> None:
    plan = plan_of()
    assert minimum(plan, 100, 1.0) == plan.min_cohort
    with pytest.raises(RoundError, match="raise the participation"):
        minimum(plan, 100, 0.1)
    with pytest.raises(RoundError, match="nothing was released"):
        require_cohort(29, 30, 100, "train-0001")
    with pytest.raises(RoundError, match="twice"):
        require_cohort(101, 30, 100, "train-0001")
