"""The state machine: order, charges, replay, voids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_server import rounds
from fl_server.rounds import Phase, Release, State
from model.contract.plan import TrainingPlan
from model.errors import RoundError
from simulation.small import small_dataset, small_plan

DATA = small_dataset(200, seed=1)
PLAN = small_plan(DATA, rounds=3)


def release_of(plan: TrainingPlan, state: State, phase: Phase, *, void: bool = False) -> Release:
    size = rounds.dimension(plan, state, phase.kind)
    random = np.random.Generator(np.random.Philox(phase.round))
    noised = random.integers(0, 50 << 20, size)
    return Release(phase.kind, phase.round, 100, 1, 1, (), noised, void)


def played(plan: TrainingPlan = PLAN, stop: int = 99) -> tuple[State, list[Release]]:
    state, releases = State(), list[Release]()
    while (phase := rounds.current(plan, state)) is not None and len(releases) < stop:
        releases.append(release_of(plan, state, phase))
        state = rounds.close(plan, state, releases[-1])
    return state, releases


def test_phases_come_in_order_and_each_has_its_charge() -> None:
    phases = rounds.schedule(PLAN)
    assert [p.name for p in phases] == [
        "knots-0000",
        "train-0001",
        "train-0002",
        "train-0003",
        "calibrate-0004",
        "evaluate-0005",
    ]
    assert [p.charge.name for p in phases if p.charge] == ["knots", *["training"] * 3, "calibration", "evaluation"]
    assert phases[-1].population == PLAN.holdout_phones and phases[0].population == PLAN.phones


def test_replaying_the_releases_gives_the_same_model() -> None:
    state, releases = played()
    again = rounds.replay(PLAN, releases)
    assert state.theta is not None and again.theta is not None
    np.testing.assert_array_equal(state.theta, again.theta)
    assert state.platt == again.platt and rounds.current(PLAN, again) is None


def test_case_15_and_16_only_the_open_phase_can_be_closed() -> None:
    state, releases = played(stop=2)
    for wrong in (releases[1], replace(releases[1], round=3), replace(releases[0], kind="calibrate")):
        with pytest.raises(RoundError, match="train-0002 is due"):
            rounds.close(PLAN, state, wrong)


def test_a_void_training_round_moves_on_and_changes_nothing() -> None:
    state, _ = played(stop=2)
    phase = rounds.current(PLAN, state)
    assert phase is not None and state.iterate is not None
    after = rounds.close(PLAN, state, release_of(PLAN, state, phase, void=True))
    assert after.iterate is state.iterate and after.closed == 3


def test_a_void_calibration_ends_the_run() -> None:
    state, _ = played(stop=4)
    phase = rounds.current(PLAN, state)
    assert phase is not None and phase.kind == "calibrate"
    with pytest.raises(RoundError, match="start a new run"):
        rounds.close(PLAN, state, release_of(PLAN, state, phase, void=True))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("training", {"sensitivity": 0.1}, "sensitivity"),
        ("training", {"count": 2}, "covers 2"),
        ("training", {"sampling": 0.5}, "samples 0.5"),
        ("knots", {"sensitivity": 1.0}, "sensitivity"),
        ("training", {"name": "other"}, "charges no release named 'training'"),
    ],
)
def test_a_charge_must_cover_what_is_released(name: str, change: dict[str, object], words: str) -> None:
    charges = tuple(replace(c, **change) if c.name == name else c for c in PLAN.privacy.charges)  # type: ignore[arg-type]
    with pytest.raises(RoundError, match=words):
        rounds.schedule(replace(PLAN, privacy=replace(PLAN.privacy, charges=charges)))


def test_what_is_not_charged_is_not_asked() -> None:
    charges = tuple(c for c in PLAN.privacy.charges if c.name in ("knots", "training"))
    phases = rounds.schedule(replace(PLAN, privacy=replace(PLAN.privacy, charges=charges)))
    assert {p.kind for p in phases} == {"knots", "train"}


def test_the_model_respects_its_signs() -> None:
    from model.risk.monotone import violations

    state, _ = played()
    assert state.theta is not None and state.knots is not None
    assert violations(state.theta, PLAN.schema, state.knots) == 0


def test_questions_before_their_time_are_refused() -> None:
    for kind in ("train", "calibrate"):
        with pytest.raises(RoundError):
            rounds.question(PLAN, State(), kind)
