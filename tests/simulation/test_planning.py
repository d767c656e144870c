"""From options to a plan, or one sentence why not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from model.contract.plan import TrainingPlan
from model.contract.watchers import observers_of
from model.errors import ContractError, InputError, PolicyError
from model.privacy.accountant import default_delta, epsilon, released
from model.privacy.observers import observers, promised
from model.risk.schema import Feature, Schema
from model.secagg.fixedpoint import MAX_WRAP
from model.secagg.graph import count, require_bound
from model.secagg.room import plan_wraps
from simulation import promises
from simulation.dataset import Dataset, holdout_by_id, holdout_share
from simulation.planning import MIN_COHORT, Options, build_plan, cohort_share, delta_of, server_optimiser
from simulation.small import small_dataset

NOW = 1_790_000_000
DATA = small_dataset(600)


def phones_of(phones: int, holdout: int, feature: str = "a") -> Dataset:
    held = np.arange(phones) < holdout
    return Dataset(
        Schema("t", "1", (Feature(feature),)),
        np.arange(phones, dtype=np.uint64),
        np.arange(phones + 1, dtype=np.int64),
        np.zeros((phones, 1), np.float32),
        (np.arange(phones) % 2).astype(np.float32),
        {},
        held,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 1.0, "noise": 2.0}, ["--epsilon and --noise", "one of them"]),
        ({"epsilon": 0.0}, ["--epsilon 0"]),
        ({"epsilon": 1e-9}, ["--epsilon 1e-09"]),
        ({"epsilon": -1.0}, ["--epsilon -1"]),
        ({"epsilon": math.nan}, ["--epsilon nan"]),
        ({"epsilon": 101.0}, ["--epsilon 101"]),
        ({"noise": -1.0}, ["--noise -1"]),
        ({"noise": math.inf}, ["--noise inf"]),
        ({"noise": math.nan}, ["--noise nan"]),
        ({"noise": 1e-200}, ["--noise 1e-200"]),
        ({"noise": 1e300}, ["--noise 1e+300"]),
        ({"rounds": 0}, ["--rounds 0"]),
        ({"rounds": 1001}, ["--rounds 1001"]),
        ({"participation": 0.0}, ["--participation 0"]),
        ({"participation": 1.5}, ["--participation 1.5"]),
        ({"participation": math.nan}, ["--participation nan"]),
        ({"model": "forest"}, ["--model 'forest'", "additive or mlp"]),
        ({"seed": -1}, ["--seed -1"]),
        ({"seed": 2**64}, ["--seed"]),
    ],
)
def test_options_out_of_range(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Options(**options)  # type: ignore[arg-type]
    for part in words:
        assert part in str(caught.value)


def test_the_default_plan_spends_its_budget_and_no_more() -> None:
    plan = build_plan(DATA, Options(), unit="phone", now=NOW)
    assert (plan.privacy.epsilon_budget, plan.participation, plan.rounds) == (1.5, 1.0, 20)
    assert 1.49 < released(plan.privacy.charges, plan.privacy.delta) <= 1.5
    assert {c.name for c in plan.privacy.charges} == {"knots", "training", "calibration", "evaluation"}
    assert plan.simulation and plan.privacy.noise_source == "os"


def test_less_epsilon_means_more_noise() -> None:
    tight, loose = (build_plan(DATA, Options(epsilon=e), unit="row", now=NOW) for e in (0.5, 4.0))
    for a, b in zip(tight.privacy.charges, loose.privacy.charges, strict=True):
        assert a.noise_multiplier > b.noise_multiplier


@pytest.mark.parametrize("noise", [0.3, 1.0, 15.0, 10_000.0])
def test_a_noise_multiplier_is_taken_and_its_cost_is_the_budget(noise: float) -> None:
    plan = build_plan(DATA, Options(noise=noise, rounds=5), unit="row", now=NOW)
    training = next(c for c in plan.privacy.charges if c.name == "training")
    assert training.noise_multiplier == noise
    assert 0 < epsilon(plan.privacy.charges, plan.privacy.delta, split="train") <= plan.privacy.epsilon_budget


def test_noise_0_is_off_and_charges_nothing() -> None:
    plan = build_plan(DATA, Options(noise=0.0), unit="row", now=NOW)
    assert (plan.privacy.mode, plan.privacy.charges) == ("off", ())


def test_too_few_phones_to_train_on_or_to_evaluate_on() -> None:
    with pytest.raises(InputError, match=r"40 phones leave 29 to train on.* 90"):
        build_plan(phones_of(40, 11), Options(), unit="row", now=NOW)
    with pytest.raises(InputError, match=r"100 phones leave 29 held out.* 90"):
        build_plan(phones_of(100, 29), Options(), unit="row", now=NOW)
    build_plan(phones_of(60, 30), Options(), unit="row", now=NOW)


def test_ninety_phones_are_enough_as_the_sentence_promises() -> None:
    sides = [holdout_by_id(np.arange(90, dtype=np.uint64), holdout_share(90), salt).sum() for salt in range(200)]
    assert sum(30 <= held <= 60 for held in sides) >= 196


def test_a_small_participation_rises_until_no_cohort_falls_short() -> None:
    """The mean alone will not do: of binomial cohorts with mean 30, nearly half are below 30."""
    phones, rounds = 400, 20
    share = cohort_share(phones, 0.01, rounds)
    draws = np.random.Generator(np.random.Philox(3)).binomial(phones, share, size=200_000)
    assert draws.min() >= MIN_COHORT
    control = np.random.Generator(np.random.Philox(3)).binomial(phones, MIN_COHORT / phones, size=1000)
    assert (control < MIN_COHORT).mean() > 0.3
    assert cohort_share(phones, 0.9, rounds) == 0.9
    assert cohort_share(40, 0.01, rounds) == 1.0


def test_a_forbidden_column_is_refused_by_the_policy() -> None:
    with pytest.raises(PolicyError, match="contact_count"):
        build_plan(phones_of(200, 50, "contact_count"), Options(), unit="row", now=NOW)
    build_plan(phones_of(200, 50, "income"), Options(), unit="row", now=NOW)


def test_delta_may_be_smaller_than_the_default_and_not_larger() -> None:
    data = small_dataset(2000)
    phones = data.phones - int(data.holdout.sum())
    plain = build_plan(data, Options(), unit="phone", now=NOW).privacy
    strict = build_plan(data, Options(delta=1e-10), unit="phone", now=NOW).privacy
    assert (plain.delta, strict.delta) == (default_delta(phones), 1e-10)
    noise = [{c.name: c.noise_multiplier for c in privacy.charges}["training"] for privacy in (plain, strict)]
    assert noise[0] < noise[1] and released(strict.charges, 1e-10) <= 1.5
    with pytest.raises(InputError, match="above 3e-06, the most for 100000 phones"):
        delta_of(Options(delta=1e-5), 100_000)
    for delta in (0.0, -1e-9, 2e-5, 1.0, 1e-16, float("nan")):
        with pytest.raises(InputError, match="--delta"):
            Options(delta=delta)


def test_the_server_moves_faster_only_for_many_phones_and_little_noise() -> None:
    slow, fast = server_optimiser("additive"), server_optimiser("additive", 50_000, 5e-4)
    assert (slow.learning_rate, slow.momentum, slow.average_from) == (16.0, 0.8, 0.5)
    assert (fast.learning_rate, fast.momentum, fast.average_from) == (28.0, 0.6, 0.8)
    for other in (("additive", 49_999, 5e-4), ("additive", 50_000, 6e-4)):
        assert server_optimiser(*other) == slow
    assert server_optimiser("mlp", 10**6, 0.0) == server_optimiser("mlp")
    assert build_plan(DATA, Options(epsilon=100.0), unit="phone", now=NOW).server == slow
    many = phones_of(100_000, 20_000)
    assert build_plan(many, Options(noise=30.0), unit="phone", now=NOW).server == fast
    assert build_plan(many, Options(noise=60.0), unit="phone", now=NOW).server == slow
    assert build_plan(many, Options(noise=0.0), unit="phone", now=NOW).server == fast


KEY = "ab" * 32


def plan_in(mode: str, data: Dataset = DATA, **options: object) -> TrainingPlan:
    return build_plan(data, Options(privacy=mode, **options), unit="phone", now=NOW, helper_key=KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["helper", "pairwise", "central", "local"])
@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_the_target_is_met_against_the_strongest_promised_observer(mode: str, participation: float) -> None:
    privacy = plan_in(mode, small_dataset(1000), epsilon=1.5, participation=participation).privacy
    cost = promised(privacy.charges, privacy.delta, mode)
    seen = observers(privacy.charges, privacy.delta, mode, privacy.honest)
    strongest = seen.released_models if mode == "central" else seen.coordinator
    assert strongest == cost and 1.49 < cost <= privacy.epsilon_budget == 1.5
    assert (privacy.mode, privacy.helper_key) == (mode, KEY if mode == "helper" else "")


def test_control_the_central_noise_would_not_do_against_a_coordinator_that_sees_who_took_part() -> None:
    charges = plan_in("central", small_dataset(1000), participation=0.5).privacy.charges
    assert promised(charges, 1e-5, "helper") > 1.6 > promised(charges, 1e-5, "central")


def test_a_masked_plan_takes_the_finest_grid_on_which_no_sum_wraps() -> None:
    for mode, data in (("helper", phones_of(20_000, 5_000)), ("pairwise", small_dataset(1000))):
        plan = plan_in(mode, data)
        finer = replace(plan, privacy=replace(plan.privacy, grid_scale=2 * plan.privacy.grid_scale))
        assert plan_wraps(plan) <= MAX_WRAP
        assert plan.privacy.grid_scale == 1 << 20 or plan_wraps(finer) > MAX_WRAP
    assert plan_in("helper", phones_of(20_000, 5_000)).privacy.grid_scale == 1 << 17
    assert plan_in("central", phones_of(20_000, 5_000)).privacy.grid_scale == 1 << 20
    with pytest.raises(InputError, match=r"does not fit the 32-bit ring.*central"):
        plan_in("helper", phones_of(10_000_000, 5_000), model="mlp")


def test_the_graph_of_a_pairwise_plan_holds_for_both_splits() -> None:
    data = small_dataset(1000)
    privacy, held = plan_in("pairwise", data).privacy, int(data.holdout.sum())
    for phones in (held, 1000 - held):
        require_bound(phones, privacy.neighbours)
    assert (privacy.neighbours.corrupt, privacy.neighbours.dropout) == (0.2, 0.1)
    with pytest.raises(InputError, match="no graph of masks serves sums of 30 and of 70"):
        plan_in("pairwise", phones_of(100, 30))
    for phones in (held, 1000 - held):
        with pytest.raises(ContractError):  # control: with fewer neighbours the bound fails
            require_bound(phones, replace(privacy.neighbours, degree=60, threshold=31))


def test_pairwise_counts_on_a_share_of_the_smallest_sum_and_masks_at_most_a_thousand() -> None:
    data = small_dataset(1000)
    held = int(data.holdout.sum())
    some, most = (plan_in("pairwise", data, honest=h).privacy for h in (0.8, 0.85))
    assert 0 <= int(0.8 * held) - some.honest <= 2 and 0 <= int(0.85 * held) - most.honest <= 2
    for privacy in (some, most):
        graph = privacy.neighbours
        for n in (held, 1000 - held):  # the planned share is lost, and a list is still long enough
            assert privacy.honest + count(n, graph.corrupt) + count(n, graph.dropout) <= n
    with pytest.raises(InputError, match=r"--honest 0\.86 leaves no room .* use 0\.85 or less"):
        plan_in("pairwise", data, honest=0.86)
    with pytest.raises(InputError, match=r"1,000 phones in one sum and here are 15,000.*helper"):
        plan_in("pairwise", phones_of(20_000, 5_000))


def test_a_hopeless_graph_is_refused_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(*arguments: object) -> bool:
        raise AssertionError("searched")

    monkeypatch.setattr(promises, "_private", searched)
    with pytest.raises(InputError, match="no graph of masks"):
        promises.graph_of({873, 127}, 0.85)
    with pytest.raises(AssertionError):  # control: where the shares fit, it is searched
        promises.graph_of({873, 127}, 0.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"privacy": "secagg"}, "--privacy 'secagg'"),
        ({"privacy": "off", "epsilon": 1.0}, "--privacy off has no noise"),
        ({"privacy": "off", "noise": 2.0}, "--privacy off has no noise"),
        ({"privacy": "helper", "noise": 0.0}, "--noise 0 leaves nothing of --privacy helper"),
        ({"noise": 0.0, "epsilon": 1.0}, "one of them"),
        ({"helper_epsilon": 2.0}, "add --privacy helper"),
        ({"privacy": "pairwise", "helper_epsilon": 2.0}, "add --privacy helper"),
        ({"privacy": "helper", "helper_epsilon": 1.0}, "below the coordinator's ε of 1.5"),
        ({"privacy": "helper", "epsilon": 3.0, "helper_epsilon": 2.0}, "below the coordinator's ε of 3"),
        ({"privacy": "helper", "helper_epsilon": 101.0}, "--helper-epsilon 101"),
        ({"privacy": "helper", "helper_epsilon": math.nan}, "--helper-epsilon nan"),
        ({"honest": 0.0}, "--honest 0"),
        ({"honest": 1.1}, "--honest 1.1"),
        ({"honest": math.nan}, "--honest nan"),
    ],
)
def test_privacy_options_that_contradict_each_other(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Options(**options)  # type: ignore[arg-type]


def test_off_is_said_by_either_option() -> None:
    assert plan_in("off").privacy == plan_in("central", noise=0.0).privacy
    assert plan_in("off").privacy.mode == "off"


def test_a_noise_multiplier_in_a_masked_mode_sets_the_budget_by_the_coordinator() -> None:
    privacy = plan_in("helper", noise=15.0, participation=0.6).privacy
    assert promised(privacy.charges, privacy.delta, "helper") <= privacy.epsilon_budget
    assert epsilon(privacy.charges, privacy.delta, split="train") < 0.95 * privacy.epsilon_budget


@pytest.mark.parametrize("participation", [1.0, 0.5])
@pytest.mark.parametrize("asked", [1.2, 2.0, 5.0])
def test_the_helpers_epsilon_is_met_and_barely_and_the_coordinators_stays(participation: float, asked: float) -> None:
    data = small_dataset(1000)
    privacy = plan_in("helper", data, epsilon=1.0, helper_epsilon=asked, participation=participation).privacy
    equal = plan_in("helper", data, epsilon=1.0, participation=participation).privacy
    seen, finer = observers_of(privacy), replace(privacy, coordinator_noise=privacy.coordinator_noise - 1e-4)
    assert privacy.charges == equal.charges and equal.coordinator_noise == 1.0
    assert seen.coordinator == observers_of(equal).coordinator and 0.99 < seen.coordinator <= 1.0
    assert seen.helper is not None and seen.helper == privacy.helper_epsilon <= asked < finer.helper_epsilon
    assert 0.98 * asked < seen.helper


def test_the_coordinators_own_epsilon_is_two_equal_noises_and_noise_is_held_to_what_it_costs() -> None:
    assert plan_in("helper", epsilon=1.0, helper_epsilon=1.0).privacy.coordinator_noise == 1.0
    assert plan_in("helper", noise=20.0, helper_epsilon=4.0).privacy.coordinator_noise < 0.5
    with pytest.raises(InputError, match="below the coordinator's ε"):
        plan_in("helper", noise=20.0, helper_epsilon=0.5)
