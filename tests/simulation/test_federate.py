"""The whole federation in one process: the same model however the phones are spread, and what losses do to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from fl_client.answers import score_rows
from fl_client.phones import Partial, Phone, Phones, Task
from fl_client.single import OnePhone
from fl_server.rounds import Release, State
from model.contract.envelope import SigningKey
from model.contract.plan import ModelChoice, TrainingPlan
from model.errors import RoundError, RunError
from model.risk.metrics import auc, auc_from_histogram
from model.risk.network import RiskNetwork
from model.risk.registry import FEATURES
from model.risk.schema import Schema
from simulation.dataset import Dataset
from simulation.engine.reference import ReferenceEngine
from simulation.federate import federate
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEYS = [SigningKey.generate(), SigningKey.generate()]
DATA = small_dataset(300, seed=2)


def prepared(folder: Path, data: Dataset = DATA, plan: TrainingPlan | None = None) -> Workspace:
    workspace = Workspace(folder)
    folder.mkdir()
    workspace.prepare(data, plan or small_plan(data, rounds=4), KEYS)
    return workspace


def test_a_model_is_learnt_under_noise(tmp_path: Path) -> None:
    data = small_dataset(4000, seed=3)
    result = federate(prepared(tmp_path / "w", data, small_plan(data)), nodes=2)
    network = RiskNetwork(data.schema, result.knots)
    network.load_flat(result.theta)
    _, holdout = data.split()
    exact = auc(score_rows(network, holdout.x), holdout.y)
    assert exact > 0.74
    assert result.evaluation is not None
    good, bad = result.evaluation.reshape(2, -1)
    private = auc_from_histogram(good, bad, result.noise_sd["evaluate"])
    assert abs(private.value - exact) < 4 * private.se
    assert [r.phones for r in result.releases] == [result.plan.phones] * 22 + [result.plan.holdout_phones]


def test_four_farms_and_the_phone_loop_give_the_model_of_one_farm(tmp_path: Path) -> None:
    one = federate(prepared(tmp_path / "one"))
    four = federate(prepared(tmp_path / "four"), nodes=4)
    loop = federate(prepared(tmp_path / "loop"), nodes=2, engine=ReferenceEngine())
    for other in (four, loop):
        assert np.abs(one.theta - other.theta).max() <= 5e-5
        np.testing.assert_array_equal(one.releases[0].noised, other.releases[0].noised)
    changed = federate(prepared(tmp_path / "seed", plan=small_plan(DATA, rounds=4, seed=1)))
    assert changed.theta.shape != one.theta.shape or np.abs(one.theta - changed.theta).max() > 5e-5


@pytest.mark.parametrize("kind", ["mlp", "fedadam", "poisson", "off", "local"])
def test_other_plans_run_to_the_end(tmp_path: Path, kind: str) -> None:
    plan = small_plan(DATA, rounds=3)
    if kind == "mlp":
        plan = replace(plan, model=ModelChoice("mlp", (6, 3), 6))
    elif kind == "fedadam":
        plan = replace(plan, server=replace(plan.server, name="fedadam", learning_rate=0.1))
    elif kind == "poisson":
        charges = tuple(replace(c, sampling=0.5) if c.name == "training" else c for c in plan.privacy.charges)
        plan = replace(plan, participation=0.5, privacy=replace(plan.privacy, charges=charges))
    elif kind == "local":
        plan = replace(plan, privacy=replace(plan.privacy, mode="local"))
    else:
        plan = replace(plan, privacy=replace(plan.privacy, mode="off", charges=()))
    result = federate(prepared(tmp_path / "w", plan=plan), nodes=2)
    assert np.isfinite(result.theta).all() and len(result.releases) == 6
    assert all(r.refused == () for r in result.releases)
    asked = [r.phones for r in result.releases if r.kind == "train"]
    assert all(0.35 < n / plan.phones < 0.65 for n in asked) if kind == "poisson" else set(asked) == {plan.phones}


def test_a_lost_node_leaves_the_denominator_and_is_recorded(tmp_path: Path) -> None:
    def lose(node_id: int, message: Message) -> bool:
        return node_id == 3 and message.metadata.group_id == "2"

    workspace = prepared(tmp_path / "w")
    from fl_server.strategy import FederationStrategy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FederationStrategy, "_exchange", _without_waiting)
        result = federate(workspace, nodes=4, lose=lose)
    short = result.releases[2]
    assert (short.asked, short.replied) == (4, 3) and short.phones < result.releases[1].phones
    assert all(r.replied == r.asked for r in result.releases if r.round != 2)


def _without_waiting(self: object, grid: object, messages: list[Message]) -> list[Message]:
    return list(grid.send_and_receive(messages))  # type: ignore[attr-defined]


class Failing:
    """A node that refuses to train."""

    def __init__(self, inner: Phones) -> None:
        self.inner = inner

    def partial(self, task: Task) -> Partial:
        if task.kind == "train":
            raise RunError("this node will not train; ask another")
        return self.inner.partial(task)


def test_an_error_reply_does_not_discard_the_round(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "w")
    farms = [workspace.farm(i, 3) for i in range(3)]
    result = federate(workspace, nodes=3, phones=lambda i: Failing(farms[i]) if i == 0 else farms[i])
    assert [r.replied for r in result.releases] == [3, 2, 2, 2, 2, 3, 3]


def test_case_21_too_few_answers_abort_with_nothing_released(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "w")
    with pytest.raises(RoundError, match="nothing was released"):
        federate(workspace, nodes=2, phones=lambda i: Failing(workspace.farm(i, 2)))
    assert [p.name for p in sorted(workspace.releases.glob("release-*"))] == ["release-00000.cbor"]


def test_case_63_an_interrupted_run_resumes_to_the_same_model(tmp_path: Path) -> None:
    whole = federate(prepared(tmp_path / "whole"), nodes=2)
    workspace = prepared(tmp_path / "cut")

    def interrupt(release: Release, state: State) -> None:
        if release.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(workspace, nodes=2, on_progress=interrupt)
    asked: list[int] = []
    result = federate(workspace, nodes=2, on_progress=lambda release, state: asked.append(release.round))
    assert asked == [3, 4, 5, 6]
    np.testing.assert_array_equal(result.theta, whole.theta)


def test_in_the_field_each_node_is_one_phone(tmp_path: Path) -> None:
    train, _ = DATA.split()
    own = [f for f in FEATURES.values() if f.permission == "O" and f.kind == "number"][:5]
    few = replace(train, schema=Schema("own", "1", tuple(own)), **_cut(train, 60))  # type: ignore[arg-type]
    plan = small_plan(few, rounds=2)
    charges = tuple(c for c in plan.privacy.charges if c.name in ("knots", "training"))
    privacy = replace(plan.privacy, charges=charges)
    plan = replace(plan, topology="field", phones=60, holdout_phones=0, privacy=privacy)
    phones = [_phone(few, i) for i in range(60)]
    result = federate(prepared(tmp_path / "w", few, plan), nodes=60, phones=lambda i: OnePhone(phones[i]))
    assert [(r.phones, r.replied) for r in result.releases] == [(60, 60)] * 3
    farm_plan = replace(plan, topology="farm")
    farm = federate(prepared(tmp_path / "farm", few, farm_plan))
    assert np.abs(result.theta - farm.theta).max() <= 5e-5


def _cut(data: Dataset, count: int) -> dict[str, object]:
    rows = int(data.offsets[count])
    return {
        "ids": data.ids[:count],
        "offsets": data.offsets[: count + 1],
        "x": data.x[:rows],
        "y": data.y[:rows],
        "holdout": data.holdout[:count],
    }


def _phone(data: Dataset, i: int) -> Phone:
    rows = slice(int(data.offsets[i]), int(data.offsets[i + 1]))
    return Phone(data.x[rows], data.y[rows], int(data.ids[i]))


def test_a_farm_under_a_field_plan_is_refused_by_every_node(tmp_path: Path) -> None:
    plan = replace(small_plan(DATA, rounds=2), topology="field")
    with pytest.raises(RoundError, match="has 0 phones"):
        federate(prepared(tmp_path / "w", plan=plan), nodes=2)


def test_figures_of_single_phones_stay_on_the_farm(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "w")
    seen: list[Message] = []

    def watch(node_id: int, message: Message) -> bool:
        seen.append(message)
        return False

    federate(workspace, nodes=2, sample=3, lose=watch)
    files = sorted((workspace.folder / "simulation_only").glob("*.npz"))
    assert len(files) == 4 * 2
    with np.load(files[0]) as shown:
        assert shown["raw"].shape[0] == 3 and len(shown["norms"]) > 50
    assert {name for message in seen for name in message.content} == {"task", "model"}


def test_an_observer_refuses_a_plan_that_is_no_simulation(tmp_path: Path) -> None:
    plan = replace(small_plan(DATA, rounds=2), simulation=False)
    plan = replace(plan, privacy=replace(plan.privacy, noise_source="os", epsilon_budget=4.0))
    plan = replace(plan, privacy=replace(plan.privacy, charges=_loud(plan)))
    with pytest.raises(RoundError, match="has 0 phones"):
        federate(prepared(tmp_path / "w", plan=plan))


def _loud(plan: TrainingPlan) -> tuple[object, ...]:
    return tuple(replace(charge, noise_multiplier=30.0) for charge in plan.privacy.charges)
