"""Poisoned trainings: the attacks as their papers give them, the clip they keep or break, and what remains."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fl_client.phones import Task
from fl_server import rounds
from fl_server.rounds import Release, State
from model.errors import InputError
from simulation.bylevel import counted
from simulation.engine.batched import BatchedEngine
from simulation.engine.choice import choose
from simulation.federate import federate
from simulation.redteam import poisoning_command
from simulation.redteam.poisoning import Outcome, poisoned, train
from simulation.redteam.poisoning_attacks import ATTACKS, NONE, Attack, View, alie_z, attack_of, hostile_of
from simulation.redteam.poisoning_scenes import TRIGGERED, Scene, Setting, grouped, scene, synthetic
from simulation.redteam.poisoning_table import Cell, Run, cells, lines, missed, sweep
from simulation.small import small_dataset

ENGINE = choose()[0]
SHORT = Setting(rounds=4)


@pytest.fixture(scope="module")
def small() -> Scene:
    """Some 1,900 phones, four rounds, no noise."""
    return scene(small_dataset(2400, seed=1), SHORT, 0)


@pytest.fixture(scope="module")
def clean(small: Scene) -> Outcome:
    return train(small, NONE, 0.0, 0, ENGINE)


def view(hostile: int = 3, honest: int = 17, dim: int = 6, clip: float = 1.0) -> View:
    """A round of honest updates around a mean of norm about .5."""
    random = np.random.Generator(np.random.Philox(3))
    rows = 0.2 + 0.05 * random.normal(size=(honest, dim))
    return View(random.normal(size=(hostile, dim)), rows.mean(axis=0), rows.std(axis=0), honest + hostile, clip, 2**20)


@pytest.mark.parametrize("attack", [a for a in ATTACKS.values() if a.clipped], ids=lambda a: a.name)
def test_a_hostile_phone_that_respects_the_clip_does(attack: Attack) -> None:
    seen = view(clip=0.3)
    units = attack.units(seen)
    assert units.shape == seen.own.shape and units.dtype == np.int64
    assert np.linalg.norm(units, axis=1).max() <= seen.clip * seen.scale


@pytest.mark.parametrize(("name", "times"), [("no-clip-10", 10), ("no-clip-1000", 1000)])
def test_control_one_that_ignores_the_clip_does_not(name: str, times: int) -> None:
    seen = view(clip=0.3)
    norms = np.linalg.norm(ATTACKS[name].units(seen), axis=1) / (seen.clip * seen.scale)
    assert np.allclose(norms, times, rtol=1e-4)


def test_each_attack_points_where_its_paper_says() -> None:
    seen = view(clip=1e3)
    sent = {name: attack.units(seen) / seen.scale for name, attack in ATTACKS.items()}
    assert np.allclose(sent["sign-flip"], -4 * seen.own, atol=1e-5)
    assert np.allclose(sent["ipm-10"], -10 * seen.mean, atol=1e-5)
    assert np.allclose(sent["alie-1.5"], seen.mean - 1.5 * seen.spread, atol=1e-5)
    assert np.allclose(sent["label-flip"], seen.own, atol=1e-5)
    assert np.allclose(sent["alie"], seen.mean - alie_z(20, 3) * seen.spread, atol=1e-5)


def test_how_far_alie_hides_is_the_papers() -> None:
    # Baruch et al., section 3.3: 50 workers, 24 of them corrupt: s = 2 supporters, z = Φ⁻¹(24/26) ≈ 1.43.
    assert alie_z(50, 24) == pytest.approx(1.4261, abs=1e-3)
    assert alie_z(10, 1) == pytest.approx(0.0, abs=0.2)
    assert alie_z(10, 8) == 0.0


def test_a_share_is_of_all_phones_and_never_none() -> None:
    random = np.random.Generator(np.random.Philox(0))
    assert hostile_of(200, 0.1, random).sum() == 20
    assert hostile_of(200, 0.0, random).sum() == 1
    with pytest.raises(InputError, match="outside"):
        hostile_of(200, 0.5, random)


def test_hostile_phones_train_on_what_the_attack_gives_them_and_others_on_their_own(small: Scene) -> None:
    data = small.train
    hostile = np.arange(data.phones) < 50
    lying = np.repeat(hostile, data.counts)
    flipped = poisoned(small, ATTACKS["label-flip"], hostile)
    assert np.array_equal(flipped.y != data.y, lying)
    door = poisoned(small, ATTACKS["backdoor"], hostile)
    assert np.isnan(door.x[lying][:, :TRIGGERED]).all() and not door.y[lying].any()
    assert np.array_equal(np.asarray(door.x[~lying]), np.asarray(data.x)[~lying], equal_nan=True)
    assert np.array_equal(door.y[~lying], data.y[~lying])
    assert poisoned(small, ATTACKS["ipm-10"], hostile) is small.honest


def test_without_hostile_phones_it_is_the_systems_own_training(small: Scene, clean: Outcome, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from model.contract.envelope import SigningKey
    from model.risk.metrics import auc
    from model.risk.network import RiskNetwork
    from simulation.bylevel import logits_of
    from simulation.dataset import Dataset
    from simulation.workspace import Workspace

    train_, held = small.train, small.held
    data = Dataset(
        train_.schema,
        np.concatenate([train_.ids, held.ids]),
        np.concatenate([train_.offsets, train_.offsets[-1] + held.offsets[1:]]),
        np.concatenate([np.asarray(train_.x), np.asarray(held.x)]),
        np.concatenate([train_.y, held.y]),
        {},
        np.repeat([False, True], [train_.phones, held.phones]),
    )
    place = Workspace(tmp_path)
    place.prepare(data, small.plan, (SigningKey.generate(), SigningKey.generate()))
    result = federate(place, engine=ENGINE)
    network = RiskNetwork(small.plan.schema, result.knots)
    network.load_flat(result.theta)
    assert auc(logits_of(network, np.asarray(held.x)), held.y) == clean.auc


@pytest.mark.parametrize("name", ["sign-flip", "label-flip", "alie", "ipm-1"])
def test_a_tenth_that_respects_the_clip_costs_little_here(small: Scene, clean: Outcome, name: str) -> None:
    found = train(small, ATTACKS[name], 0.1, 0, ENGINE)
    assert clean.auc is not None and found.auc is not None
    assert clean.auc - found.auc < 0.02 and not found.impossible


def test_control_phones_that_ignore_the_clip_destroy_the_model_and_are_seen(small: Scene, clean: Outcome) -> None:
    found = train(small, ATTACKS["no-clip-1000"], 0.1, 0, ENGINE)
    assert clean.auc is not None and (found.auc is None or found.auc < clean.auc - 0.1)
    assert found.impossible == SHORT.rounds and clean.impossible == clean.unusual == 0


def test_a_robust_rule_withstands_them(small: Scene) -> None:
    robust = replace(small, plan=replace(small.plan, aggregation="multikrum"), knots=[])
    alone, found = (train(robust, attack, 0.1, 0, ENGINE) for attack in (NONE, ATTACKS["no-clip-1000"]))
    assert alone.auc is not None and found.auc is not None
    assert found.auc > alone.auc - 0.05


def test_a_backdoor_opens() -> None:
    place = scene(synthetic(700, 3), Setting(rounds=6), 0)
    shut, opened = (train(place, attack, 0.1, 0, ENGINE) for attack in (NONE, ATTACKS["backdoor"]))
    assert shut.success is not None and opened.success is not None
    assert opened.success > shut.success + 0.2


def test_the_same_seed_gives_the_same_figures_on_another_engine(small: Scene) -> None:
    one, two = (train(small, ATTACKS["sign-flip"], 0.1, 5, engine) for engine in (ENGINE, BatchedEngine(threads=1)))
    assert one.auc == pytest.approx(two.auc, abs=1e-4) and one.hostile == two.hostile
    assert train(small, ATTACKS["sign-flip"], 0.1, 6, ENGINE).auc != one.auc


def test_noise_is_put_on_where_the_plan_promises_some() -> None:
    noisy = scene(small_dataset(2400, seed=1), Setting(rounds=4, epsilon=8.0, clip=0.5), 0)
    charge = next(c for c in noisy.plan.privacy.charges if c.name == "training")
    assert charge.sensitivity == noisy.plan.local.clip_norm == 0.5
    assert rounds.noise_sd(rounds.schedule(noisy.plan)[1], noisy.plan) > 0
    found = train(noisy, NONE, 0.0, 0, ENGINE)
    assert not found.impossible and not found.unusual


def test_rows_are_grouped_into_phones_without_loss_of_order() -> None:
    data = small_dataset(600, seed=2)
    found = grouped(replace(data, x=np.asarray(data.x[:])), 5, np.random.Generator(np.random.Philox(0)))
    assert set(found.counts.tolist()) == {5} and found.phones == len(data.y) // 5
    with pytest.raises(InputError, match="do not fill"):
        grouped(data, 10**6, np.random.Generator(np.random.Philox(0)))


@pytest.mark.parametrize("wrong", [{"rows": -1}, {"clip": -0.1}, {"rule": "median", "epsilon": 1.0}])
def test_a_setting_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Setting(**wrong)  # type: ignore[arg-type]


def test_lines_pair_each_seed_with_its_own_clean_training() -> None:
    cell = Cell(SHORT, "ipm-10", 0.1)
    alone = Cell(SHORT, "none", 0.0)
    areas = {(alone, 0): 0.8, (alone, 1): 0.7, (cell, 0): 0.75, (cell, 1): None}
    runs = [Run(c, seed, 10, area, area, 1, 4, 0, 0.5) for (c, seed), area in areas.items()]
    found = {line.cell: line for line in lines(runs)}[cell]
    assert found.loss == pytest.approx(((0.8 - 0.75) + (0.7 - 0.5)) / 2) and found.flagged == 1.0
    assert [line.cell for line in missed(lines(runs))] == [cell]
    assert [Run.from_dict(json.loads(json.dumps(run.to_dict()))) for run in runs] == runs


def test_a_sweep_is_every_cell_under_every_seed() -> None:
    wanted = cells(SHORT, ["sign-flip"], [0.1, 0.2])
    told: list[tuple[int, int]] = []
    found = list(sweep(lambda seed: small_dataset(600, seed), wanted, [0, 1], ENGINE, lambda *at: told.append(at)))
    assert [(run.cell, run.seed) for run in found] == [(cell, seed) for seed in (0, 1) for cell in wanted]
    assert told[-1] == (6, 6)


def call(*arguments: str):  # type: ignore[no-untyped-def]
    """The command as it is mounted: beside others."""
    root = typer.Typer()
    root.add_typer(poisoning_command.app)
    root.command("other")(lambda: None)
    return CliRunner().invoke(root, ["poisoning", *arguments])


def test_the_command_prints_json() -> None:
    said = call("--phones", "600", "--rounds", "2", "--seeds", "1", "--attacks", "ipm-clip", "--shares", ".1", "--json")
    assert said.exit_code == 0, said
    found = json.loads(said.stdout)
    assert found["simulation_only"] is True and [line["cell"]["attack"] for line in found["lines"]] == [
        "none",
        "ipm-clip",
    ]


def test_the_command_says_in_red_what_is_seen_in_the_clear() -> None:
    short = ("--phones", "400", "--rounds", "1", "--seeds", "1", "--attacks", "sign-flip", "--shares", "0")
    assert "in the clear" in call(*short, "--rules", "mean,median").stdout
    assert "in the clear" not in call(*short).stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ("--attacks", "gossip"),
        ("--rules", "kindness"),
        ("--rules", "median", "--epsilon", "1"),
        ("--shares", "some"),
        ("--shares", "2"),
        ("--target", "y"),
        ("--data", "x.csv"),
        ("--seeds", "0"),
        ("--phones", "-1"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence_before_training(
    wrong: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulation.redteam.poisoning_table.train", lambda *_: pytest.fail("trained"))
    assert isinstance(call(*wrong).exception, InputError)


def test_an_unknown_attack_is_named() -> None:
    assert attack_of("none") is NONE
    with pytest.raises(InputError, match="gossip"):
        attack_of("gossip")


def test_the_commands_module_alone_loads_no_torch() -> None:
    import subprocess

    code = "import sys, simulation.redteam.poisoning_command; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_pull_is_the_longest_mean_of_a_round_without_its_intercept(small: Scene, clean: Outcome) -> None:
    """Of the first round, by hand; and longer trainings find no shorter one."""
    once = replace(small, plan=replace(small.plan, rounds=1))
    task = Task("knots", 0, once.plan, None, np.zeros(0, np.float32))
    phones = once.train.phones
    release = Release("knots", 0, phones, phones, phones, (), counted(task, once.honest))
    state = rounds.close(once.plan, State(), release)
    asked = Task("train", 1, once.plan, state.knots, rounds.question(once.plan, state, "train"))
    mean = ENGINE.train(once.honest, asked, 0).sum / (once.plan.privacy.grid_scale * phones)
    by_hand = float(np.linalg.norm(mean[1:])) / once.plan.local.clip_norm
    alone = train(once, NONE, 0.0, 0, ENGINE).pull
    assert alone == pytest.approx(by_hand, rel=1e-9)
    assert alone < float(np.linalg.norm(mean)) / once.plan.local.clip_norm
    assert clean.pull >= alone * (1 - 1e-6)
