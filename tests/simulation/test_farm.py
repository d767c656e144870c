"""A farm under an attendance: the sum is of those counted, the others are told of on its own disk only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from fl_client.phones import Task
from fl_server import rounds
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.errors import RoundError, RunError
from model.privacy.observers import observers
from simulation.attendance import Reach, Virtual
from simulation.availability import tiers_of
from simulation.dataset import Dataset
from simulation.experiment.reach import counted_updates, measure
from simulation.farm import Farm
from simulation.faults import Faults
from simulation.federate import federate
from simulation.planning import Options
from simulation.small import small_dataset, small_plan
from simulation.workspace import RecordAttendance, Workspace

DATA = small_dataset(600, seed=6)
WHO = Virtual("diurnal", 8.0, Faults(0.05, 0.05, 0.05, 0.05), 3)
KNOTS = np.zeros(0, np.float32)


def prepared(folder: Path, plan: TrainingPlan, who: Virtual | None = WHO, data: Dataset = DATA) -> Workspace:
    workspace = Workspace(folder)
    folder.mkdir()
    workspace.prepare(data, plan, [SigningKey.generate(), SigningKey.generate()], who)
    return workspace


def test_the_sum_is_that_of_the_counted_phones_and_phones_alone_add_up_to_it() -> None:
    task = Task("knots", 0, small_plan(DATA), None, KNOTS)
    told: list[dict[str, int]] = []
    farm = Farm(DATA, attendance=WHO, tell=lambda task, tally: told.append(dict(tally)))
    whole = farm.partial(task)
    train = np.flatnonzero(~DATA.holdout)
    roll = WHO.roll(DATA.ids[train], tiers_of(DATA)[train], 0)
    assert told == [roll.tally()] and whole.phones == roll.counted.sum() < len(train)
    kept = Farm(DATA.take(train[roll.counted])).partial(task)
    np.testing.assert_array_equal(whole.sum, kept.sum)
    alone = [Farm(DATA.part(i, DATA.phones), attendance=WHO).partial(task) for i in range(DATA.phones)]
    assert sum(one.phones for one in alone) == whole.phones
    np.testing.assert_array_equal(sum(one.sum for one in alone), whole.sum)
    assert Farm(DATA).partial(task).phones == len(train)  # the control: everybody


def test_only_those_asked_are_on_the_roll() -> None:
    plan = small_plan(DATA)
    charges = tuple(replace(c, sampling=0.3) if c.name == "knots" else c for c in plan.privacy.charges)
    task = Task("knots", 0, replace(plan, privacy=replace(plan.privacy, charges=charges)), None, KNOTS)
    told: list[dict[str, int]] = []
    Farm(DATA, attendance=WHO, tell=lambda task, tally: told.append(dict(tally))).partial(task)
    assert 0.2 < told[0]["asked"] / plan.phones < 0.4


def test_a_run_takes_its_attendance_from_the_workspace_and_tells_its_own_disk(tmp_path: Path) -> None:
    plan = small_plan(DATA, rounds=3, response=WHO.response(3))
    seen: list[Message] = []
    workspace = prepared(tmp_path / "w", plan)

    def watch(node: int, message: Message) -> bool:
        seen.append(message)
        return False

    result = federate(workspace, nodes=3, lose=watch)
    train = ~np.asarray(DATA.holdout)
    for release in result.releases:
        mine = train if release.kind != "evaluate" else ~train
        assert release.phones == WHO.roll(DATA.ids[mine], tiers_of(DATA)[mine], release.round).counted.sum()
    files = sorted(path.name for path in (workspace.folder / "simulation_only").glob("attendance-*.json"))
    assert len(files) == 6 * 3 and {name for message in seen for name in message.content} == {"task", "model"}
    columns, times = counted_updates(plan, DATA, WHO)
    assert list(columns) == ["handset"] and times.sum() == sum(r.phones for r in result.releases if r.kind == "train")
    everyone = federate(prepared(tmp_path / "all", plan, None))
    assert [r.phones for r in everyone.releases[:-1]] == [plan.phones] * 5
    assert not list((tmp_path / "all" / "simulation_only").glob("attendance-*"))


def test_the_ledger_and_the_noise_know_nothing_of_who_answered(tmp_path: Path) -> None:
    """Same charges, same ε, and with the test-seeded source the very same noise: it is drawn by plan and phase."""
    plan = small_plan(DATA, rounds=2)
    drawn, charged = [], []
    for name, who in (("all", None), ("few", WHO)):
        workspace = prepared(tmp_path / name, plan, who)
        result = federate(workspace)
        quiet = Farm(DATA, attendance=who).partial(Task("knots", 0, plan, None, KNOTS)).sum
        drawn.append(result.releases[0].noised - quiet)
        lines = workspace.ledger.read_text().splitlines()
        charged.append([line.count("reserved") for line in lines])
        assert rounds.noise_sd(rounds.schedule(plan)[0], plan) == result.noise_sd["knots"]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert charged[0] == charged[1] and observers(plan.privacy.charges, plan.privacy.delta).released_models is not None


def test_too_few_answers_release_nothing(tmp_path: Path) -> None:
    lost = replace(WHO, faults=Faults(drop=0.97))
    with pytest.raises(RoundError, match="below the minimum cohort of 30; nothing was released"):
        federate(prepared(tmp_path / "w", small_plan(DATA, rounds=2), lost), nodes=2)


def test_an_empty_farm_answers_zeros(tmp_path: Path) -> None:
    data = DATA.part(0, 40)
    farm = Farm(data, attendance=replace(WHO, faults=Faults(drop=1.0)))
    partial = farm.partial(Task("knots", 0, small_plan(DATA), None, KNOTS))
    assert partial.phones == 0 and not partial.sum.any()
    plan = small_plan(DATA, rounds=2)
    workspace = prepared(tmp_path / "w", plan)
    lost = replace(WHO, faults=Faults(drop=1.0))
    farms = [replace(workspace.farm(i, 2), attendance=None if i else lost) for i in range(2)]
    result = federate(workspace, nodes=2, phones=lambda i: farms[i])
    assert all(release.replied == 2 for release in result.releases)


def test_a_tally_is_refused_under_a_plan_that_is_no_simulation(tmp_path: Path) -> None:
    task = Task("knots", 0, small_plan(DATA, simulation=False), None, KNOTS)
    with pytest.raises(RunError, match="no simulation"):
        RecordAttendance(tmp_path, 0)(task, {"asked": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_paired_measurement_finds_a_group_nobody_reaches(tmp_path: Path) -> None:
    data = replace(small_dataset(3000, seed=9), protected={"handset": _handsets(3000)})
    plan = small_plan(data, rounds=3, response=0.5)
    options = Options(rounds=3, seed=5)
    assert measure(plan, data, options, {}, tmp_path / "x") is None
    options = replace(options, reach=Reach("diurnal", 8.0, 1.0, Faults(drop=0.1)))
    tally = {1: {"kind": "train", **WHO.roll(data.ids, tiers_of(data), 1).tally()}}
    found = measure(plan, data, options, tally, tmp_path / "x")
    assert found is not None and not (tmp_path / "x").exists()
    ratios = {row["group"]: row["ratio"] for row in found["groups"]}
    assert ratios["low"] < 0.8 < ratios["everyone"] < ratios["top"] and found["response"] < 1
    changes = {row["group"]: row for row in found["effect"]["groups"]}
    assert changes["everyone"]["rows"] > 300 and any(row["pd_change"] != 0 for row in changes.values())


def _handsets(phones: int) -> np.ndarray:
    return np.array(["low", "mid", "high", "top"])[np.arange(phones) % 4]
