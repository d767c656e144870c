"""The phone's own privacy account: one number, never charged twice, capped by the year."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_client.ledger import YEAR_SECONDS, Ledger, epsilon
from fl_client.store import SqliteStore
from model.contract.plan import LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import Neighbours, PrivacyPlan
from model.errors import BudgetError, UpdateError
from model.privacy.mechanism import GaussianRelease
from model.privacy.yearly import YEARLY_RHO, plan_rho, plans_a_year, rho
from model.risk.registry import default_schema

NOW = 1_900_000_000


def make_plan(name: str = "p", z: float = 20.0, rounds: int = 20) -> TrainingPlan:
    charges = (
        GaussianRelease("knots", z, 1.0, 1, 1.0, "all"),
        GaussianRelease("training", z, 1.0, rounds, 1.0, "train"),
        GaussianRelease("evaluation", z, 1.0, 1, 1.0, "holdout"),
    )
    return TrainingPlan(
        name=name,
        purpose="test",
        created_at=NOW,
        schema=default_schema(),
        review_features=(),
        policy_pack="in-rbi-2025",
        topology="field",
        phones=10_000,
        holdout_phones=2_000,
        min_cohort=30,
        rounds=rounds,
        participation=1.0,
        model=ModelChoice(),
        local=LocalTraining(1, 0.1, 0, 0.0, 1.0),
        server=ServerOptimiser("fedavg", 1.0, 0.9, 0.5, 0.0, 0.99, 1e-8),
        privacy=PrivacyPlan("central", 1e-6, 2.0, "zero-out", "phone", charges),
    )


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(SqliteStore(":memory:", b"r" * 32))


def test_rho_is_one_over_two_z_squared():
    assert rho(GaussianRelease("a", 20.0, 3.0, 20, 1.0, "all")) == pytest.approx(1 / 800)
    assert rho(GaussianRelease("a", 0.0, 1.0, 1, 1.0, "all")) == math.inf


@given(st.floats(0.001, 5), st.floats(0.001, 5))
def test_epsilon_grows_with_rho(a, b):
    assert epsilon(a + b, 1e-6) > epsilon(a, 1e-6) > a


def test_the_default_cap_is_the_year_it_claims():
    assert epsilon(YEARLY_RHO, 1e-6) == pytest.approx(5.8, abs=0.05)
    assert epsilon(0.0, 1e-6) == 0.0


def test_charges_add_up_and_are_never_taken_twice(ledger):
    plan = make_plan()
    ledger.charge(plan, "knots", 0, NOW)
    for round_ in range(20):
        ledger.charge(plan, "training", round_, NOW + round_)
    first = ledger.charge(plan, "training", 3, NOW + 99)
    assert first.at == NOW + 3
    assert ledger.lifetime() == pytest.approx(21 / 800)
    summary = ledger.summary(NOW + 99)
    assert (summary["releases"], summary["plans"]) == (21, 1)


def test_what_no_plan_announces_is_refused(ledger):
    plan = make_plan()
    for name, round_ in (("survey", 0), ("training", 20), ("training", -1)):
        with pytest.raises(BudgetError, match="announces no release"):
            ledger.charge(plan, name, round_, NOW)
    assert ledger.spends() == []


def test_the_yearly_cap_holds_and_a_year_later_is_free_again(ledger):
    plan = make_plan(z=1.0, rounds=2)  # rho 1/2 a release: the whole default cap
    ledger.charge(plan, "training", 0, NOW)
    with pytest.raises(BudgetError, match=r"over the cap of 0\.5"):
        ledger.charge(plan, "training", 1, NOW + 1)
    assert len(ledger.spends()) == 1
    later = NOW + YEAR_SECONDS
    ledger.charge(plan, "training", 1, later)
    assert ledger.past_year(later) == pytest.approx(0.5)
    assert ledger.lifetime() == pytest.approx(1.0)


@pytest.mark.parametrize(("z", "share", "times"), [(20.0, 1.0, 19), (20.0, 0.5, 4), (6.5, 1.0, 2), (20.0, 0.2, 0)])
def test_a_year_holds_as_many_plans_as_reports_say(ledger, z, share, times):
    """What a summary says of the usual cap (model/privacy/yearly.py) is what a phone's ledger does, plan by plan."""
    plan, taken = make_plan(z=z), 0
    parts = {"mode": "helper", "helper_key": "ab" * 32, "coordinator_noise": share}
    plan = replace(plan, privacy=replace(plan.privacy, **parts))
    while taken < 30:
        monthly = replace(plan, name=f"p{taken}")
        try:
            ledger.require(monthly, "train", NOW)
        except BudgetError:
            break
        for charge in monthly.privacy.charges[:2]:
            for round_ in range(charge.count):
                ledger.charge(monthly, charge.name, round_, NOW)
        taken += 1
    assert taken == plans_a_year(plan_rho(plan.privacy.charges, share)) == times


def test_a_plan_is_refused_before_its_first_round(ledger):
    ledger.require(make_plan(z=20.0), "train", NOW)
    with pytest.raises(BudgetError, match="sit this plan out"):
        ledger.require(make_plan(z=2.0), "train", NOW)
    ledger.require(make_plan(z=2.0), "holdout", NOW)  # two releases reach that phone, not 21
    with pytest.raises(BudgetError):
        ledger.require(make_plan(z=0.0), "holdout", NOW)


def test_a_plan_half_done_is_not_counted_twice(ledger):
    plan = make_plan(z=4.6)  # 21 releases: rho .496, just under the cap
    ledger.require(plan, "train", NOW)
    for round_ in range(15):
        ledger.charge(plan, "training", round_, NOW)
    ledger.require(plan, "train", NOW)
    with pytest.raises(BudgetError):
        ledger.require(make_plan("another", z=4.6), "train", NOW)


ROUNDS = {"knots": 0, "train": 1, "evaluate": 22}


def test_admission_is_by_kind_round_and_split(ledger):
    plan = make_plan()
    spend = ledger.admit(plan, "train", 20, "train", NOW, "q")
    assert (spend.name, spend.round, spend.question) == ("training", 19, "q")
    ledger.admit(plan, "evaluate", ROUNDS["evaluate"], "holdout", NOW)
    for kind, round_ in (("train", 0), ("train", 21), ("knots", 1), ("evaluate", 21)):
        with pytest.raises(BudgetError, match="announces no release"):
            ledger.admit(plan, kind, round_, "holdout" if kind == "evaluate" else "train", NOW)
    for kind in ("calibrate", "survey"):
        with pytest.raises(BudgetError, match="charges nothing"):
            ledger.admit(plan, kind, 0, "train", NOW)
    with pytest.raises(UpdateError, match="not in the holdout split"):
        ledger.admit(plan, "evaluate", ROUNDS["evaluate"], "train", NOW)
    assert ledger.lifetime() == pytest.approx(2 / 800)


def test_a_round_is_answered_about_one_model_only(ledger):
    plan = make_plan()
    first = ledger.admit(plan, "train", 1, "train", NOW, "model a")
    assert ledger.admit(plan, "train", 1, "train", NOW + 5, "model a") == first
    with pytest.raises(BudgetError, match="about another model"):
        ledger.admit(plan, "train", 1, "train", NOW + 5, "model b")
    assert len(ledger.spends()) == 1


@pytest.mark.parametrize(("mode", "charges"), [("central", 1), ("helper", 1), ("pairwise", 2), ("local", 2)])
def test_noise_of_the_phones_own_is_charged_at_every_draw(ledger, mode, charges):
    parts = {"helper_key": "ab" * 32 if mode == "helper" else "", "honest": 30 if mode == "pairwise" else 0}
    graph = Neighbours(10, 6, 0.1, 0.1) if mode == "pairwise" else Neighbours()
    plan = make_plan()
    plan = replace(plan, privacy=replace(plan.privacy, mode=mode, neighbours=graph, **parts))
    for _ in range(2):
        ledger.admit(plan, "train", 1, "train", NOW, "m")
    assert ledger.lifetime() == pytest.approx(charges / 800)


def test_a_plan_without_privacy_or_over_the_cap_is_not_admitted(ledger):
    off = make_plan()
    off = replace(off, simulation=True, privacy=replace(off.privacy, mode="off", charges=()))
    with pytest.raises(BudgetError, match="charges nothing"):
        ledger.admit(off, "train", 1, "train", NOW)
    with pytest.raises(BudgetError, match="sit this plan out"):
        ledger.admit(make_plan(z=2.0), "train", 1, "train", NOW)
    assert ledger.spends() == []


def test_five_years_at_the_cap(ledger):
    shown = ledger.summary(NOW)
    assert shown["cap_epsilon"] == pytest.approx(epsilon(YEARLY_RHO, 1e-6))
    assert shown["five_years_at_the_cap"] == pytest.approx(epsilon(2.5, 1e-6))
    assert shown["lifetime_epsilon"] == 0


def test_with_two_unequal_servers_the_phone_counts_the_noise_that_hides_it_least(ledger):
    """13.16.4: the helper meets r·z alone, so one answer costs ρ = 1/2(r·z)², and the cap is held to that."""
    plan = make_plan(z=10.0)
    parts = {"mode": "helper", "helper_key": "ab" * 32}
    equal, less = (
        replace(plan, privacy=replace(plan.privacy, **parts, coordinator_noise=share)) for share in (1.0, 0.4)
    )
    assert ledger.charge(less, "training", 0, NOW).rho == pytest.approx(1 / (2 * 4.0**2))
    assert ledger.charge(equal, "training", 0, NOW).rho == pytest.approx(1 / 200)
    fresh = Ledger(SqliteStore(":memory:", b"r" * 32))
    fresh.require(equal, "train", NOW)  # 21 answers: ρ .105 of .5
    with pytest.raises(BudgetError, match="sit this plan out"):
        fresh.require(less, "train", NOW)  # ρ .656
