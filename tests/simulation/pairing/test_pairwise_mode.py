"""Mode pairwise end to end: a masked run releases what an unmasked one would, in farms and in the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.pairing import Members, phone_noise
from fl_client.phones import Phone, Task
from fl_client.single import OnePhone
from fl_server import rounds
from fl_server.app import Result
from fl_server.rounds import Release, State
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.errors import ContractError, RunError
from model.privacy.noise import OsSource
from model.risk.registry import FEATURES
from model.risk.schema import Schema
from simulation.attendance import Virtual
from simulation.availability import tiers_of
from simulation.dataset import Dataset
from simulation.engine.reference import ReferenceEngine
from simulation.farm import Farm
from simulation.faults import Faults
from simulation.federate import federate
from simulation.fieldgrid import Field
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEYS = [SigningKey.generate(), SigningKey.generate()]
DATA = small_dataset(160, seed=2)
GRAPH = Neighbours(12, 7, 0.0, 0.05)


class Cut(Exception):
    """The process ends here."""


def paired(folder: Path, data: Dataset = DATA, **changes: object) -> Workspace:
    workspace = Workspace(folder)
    folder.mkdir()
    plan = small_plan(data, **{"rounds": 2, **changes})  # type: ignore[arg-type]
    charges = tuple(c for c in plan.privacy.charges if c.split == "train" or data.holdout.any())
    privacy = replace(plan.privacy, mode="pairwise", honest=20, neighbours=GRAPH, grid_scale=1 << 14, charges=charges)
    workspace.prepare(data, replace(plan, privacy=privacy), KEYS)
    return workspace


def own_data(phones: int) -> Dataset:
    """Phones that all train, with features that a phone in the field has."""
    own = [f for f in FEATURES.values() if f.permission == "O" and f.kind == "number"][:5]
    few = small_dataset(phones, seed=4)
    return replace(few, schema=Schema("own", "1", tuple(own)), holdout=np.zeros(phones, dtype=bool))


def phone_of(data: Dataset, index: int) -> Phone:
    rows = slice(int(data.offsets[index]), int(data.offsets[index + 1]))
    return Phone(data.x[rows], data.y[rows], int(data.ids[index]), bool(data.holdout[index]))


def unmasked(phones: Sequence[Members], plan: TrainingPlan, result: Result) -> list[np.ndarray]:
    """Answers and noise of all phones, added without masks, phase by phase, about the very models of the run."""
    state, sums = State(), []
    for release in result.releases:
        task = Task(release.kind, release.round, plan, state.knots, rounds.question(plan, state, release.kind))
        total = np.zeros(len(release.noised), dtype=np.int64)
        for part in phones:
            numbers, units = part.members(task), part.each(task)
            total += units.sum(axis=0)
            for number in numbers.tolist():
                total += phone_noise(task, number, 0, len(total), OsSource())
        sums.append(total)
        state = rounds.close(plan, state, release)
    return sums


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_masked_run_equals_the_unmasked_one_exactly(tmp_path: Path, nodes: int) -> None:
    result = federate(paired(tmp_path / "w"), nodes=nodes)
    assert [r.kind for r in result.releases] == ["knots", "train", "train", "calibrate", "evaluate"]
    for release, raw in zip(result.releases, unmasked([Farm(DATA)], result.plan, result), strict=True):
        np.testing.assert_array_equal(release.noised, raw)
        assert release.refused == () and not release.void and release.replied == nodes
    assert [r.phones for r in result.releases] == [result.plan.phones] * 4 + [result.plan.holdout_phones]


def test_what_each_phone_answers_adds_up_to_what_the_farm_answers(tmp_path: Path) -> None:
    result = federate(paired(tmp_path / "w"))
    state = State()
    for release in result.releases:
        flat = rounds.question(result.plan, state, release.kind)
        task = Task(release.kind, release.round, result.plan, state.knots, flat)
        for farm in (Farm(DATA), Farm(DATA, ReferenceEngine())):
            np.testing.assert_array_equal(farm.each(task).sum(axis=0), farm.partial(task).sum)
        state = rounds.close(result.plan, state, release)


def test_phones_in_the_field(tmp_path: Path) -> None:
    data = own_data(40)
    workspace = paired(tmp_path / "w", data, topology="field", rounds=1)
    phones = [OnePhone(phone_of(data, index)) for index in range(40)]
    result = federate(workspace, nodes=40, phones=lambda index: phones[index])
    for release, raw in zip(result.releases, unmasked(phones, result.plan, result), strict=True):
        np.testing.assert_array_equal(release.noised, raw)
        assert (release.phones, release.replied) == (40, 40)


def test_faults_in_the_field_cost_only_their_phones(tmp_path: Path) -> None:
    data = own_data(80)
    workspace = paired(tmp_path / "w", data, topology="field", rounds=1)
    phones = [OnePhone(phone_of(data, index)) for index in range(80)]
    faults = Virtual("always", 12.0, Faults(drop=0.08, slow=0.12, duplicate=0.1, hostile=0.05), 4)
    who = Field(data.ids, tiers_of(data), faults, 12.0, 4)
    result = federate(workspace, nodes=80, phones=lambda index: phones[index], field=who)
    state = State()
    for release in result.releases:
        roll = faults.roll(data.ids, tiers_of(data), release.round)
        counted = np.flatnonzero(roll.counted)
        flat = rounds.question(result.plan, state, release.kind)
        task = Task(release.kind, release.round, result.plan, state.knots, flat)
        raw = sum(
            phones[i].partial(task).sum + phone_noise(task, phones[i].phone.id, 0, len(release.noised), OsSource())
            for i in counted
        )
        np.testing.assert_array_equal(release.noised, raw)
        tally = roll.tally()
        assert release.phones == len(counted) and min(tally["dropped"], tally["duplicate"], tally["refused"]) > 0
        state = rounds.close(result.plan, state, release)


def test_a_run_cut_short_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = federate(paired(tmp_path / "whole"))

    def cut(release: Release, state: State) -> None:
        if release.round == 1:
            raise Cut

    workspace = paired(tmp_path / "cut")
    with pytest.raises(Cut):
        federate(workspace, on_progress=cut)
    again = federate(workspace)
    np.testing.assert_array_equal(whole.theta, again.theta)


def test_a_plan_without_its_witness_does_not_start(tmp_path: Path) -> None:
    workspace = paired(tmp_path / "w")
    (workspace.witness.home / "key").unlink()
    with pytest.raises(RunError, match="no readable key"):
        federate(workspace)


def test_no_unmasked_answer_under_a_pairwise_plan(tmp_path: Path) -> None:
    """A server that asks a pairwise plan's question in the old way gets an error from every node."""
    from fl_client.egress import MemoryEgress
    from fl_client.replies import write_partial
    from model.errors import UpdateError

    plan = paired(tmp_path / "w").trust().plan_of(Workspace(tmp_path / "w").signed().to_bytes())
    task = Task("knots", 0, plan, None, np.zeros(0, np.float32), "ab" * 32)
    with pytest.raises(UpdateError, match="without its mask"):
        write_partial(task, Farm(DATA).partial(task), MemoryEgress(0))


def test_the_witness_refuses_another_plan(tmp_path: Path) -> None:
    from model.secagg.context import Context

    workspace = paired(tmp_path / "w")
    seat = workspace.witness.seat(workspace.trust().plan_of(workspace.signed().to_bytes()))
    assert seat is not None
    with pytest.raises(ContractError.__base__, match="another plan"):  # type: ignore[arg-type]
        seat.witness.sign_roster(Context("ab" * 32, "knots", 0, "cd" * 32, 4), 0, [])
