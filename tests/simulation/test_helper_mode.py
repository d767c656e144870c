"""Mode helper over the real apps: a masked run releases what an unmasked one would, to the last unit (13.4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_client.egress import MemoryEgress
from fl_client.phones import Phone, Phones, Task
from fl_client.replies import write_reply
from fl_client.single import OnePhone
from fl_server import rounds
from fl_server.app import Result
from fl_server.review.checks import check_all, passed
from fl_server.rounds import Release, State
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.contract.releases import charge_of, coordinator_sigma, noise_sd, noise_sigma, share_sigma
from model.errors import RoundError, RunError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import OsSource, SeededSource, discrete_gaussian
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

Cli = Any
KEYS = [SigningKey.generate(), SigningKey.generate()]
DATA = small_dataset(200, seed=2)


class Cut(Exception):
    """The process ends here."""


def helped(
    folder: Path,
    data: Dataset = DATA,
    scale: int = 1 << 20,
    charges: tuple[GaussianRelease, ...] = (),
    share: float = 1.0,
    **changes: object,
) -> Workspace:
    workspace = Workspace(folder)
    folder.mkdir()
    plan = small_plan(data, **{"rounds": 3, **changes})  # type: ignore[arg-type]
    privacy = replace(plan.privacy, mode="helper", helper_key=workspace.helper_key(), grid_scale=scale)
    privacy = replace(privacy, charges=charges or privacy.charges, coordinator_noise=share)
    workspace.prepare(data, replace(plan, privacy=privacy), KEYS)
    return workspace


def phone_of(data: Dataset, index: int) -> Phone:
    rows = slice(int(data.offsets[index]), int(data.offsets[index + 1]))
    return Phone(data.x[rows], data.y[rows], int(data.ids[index]), bool(data.holdout[index]))


def own_dataset(phones: int) -> Dataset:
    """Phones that all train, with features that a phone in the field has."""
    own = [f for f in FEATURES.values() if f.permission == "O" and f.kind == "number"][:5]
    few = small_dataset(phones, seed=4)
    return replace(few, schema=Schema("own", "1", tuple(own)), holdout=np.zeros(phones, dtype=bool))


def both_noises(plan: TrainingPlan, release: Release) -> np.ndarray:
    """Coordinator's minus helper's noise, drawn again from the plan's test seeds."""
    charge = charge_of(plan, release.kind)
    assert charge is not None
    size = len(release.noised)
    own = discrete_gaussian(coordinator_sigma(plan, charge), size, SeededSource(plan.seed, release.kind, release.round))
    from_helper = SeededSource(plan.seed, f"helper/{release.kind}", release.round)
    helpers = discrete_gaussian(share_sigma(plan, charge), size, from_helper)
    return np.asarray(own - helpers)


def unmasked(phones: Sequence[Phones], plan: TrainingPlan, result: Result) -> list[np.ndarray]:
    """What the phones' raw answers add up to in each phase, asked about the very models of the run."""
    state, sums = State(), []
    for release in result.releases:
        flat = rounds.question(plan, state, release.kind)
        task = Task(release.kind, release.round, plan, state.knots, flat)
        sums.append(sum(phone.partial(task).sum for phone in phones))
        state = rounds.close(plan, state, release)
    return sums


@pytest.mark.parametrize(("nodes", "share"), [(1, 1.0), (3, 1.0), (2, 0.5)])
def test_a_masked_run_equals_the_unmasked_one_exactly(tmp_path: Path, nodes: int, share: float) -> None:
    workspace = helped(tmp_path / "w", share=share)
    result = federate(workspace, nodes=nodes)
    farm = Farm(DATA)
    assert [r.kind for r in result.releases] == ["knots", "train", "train", "train", "calibrate", "evaluate"]
    for release, raw in zip(result.releases, unmasked([farm], result.plan, result), strict=True):
        np.testing.assert_array_equal(release.noised - both_noises(result.plan, release), raw)
        assert release.refused == () and not release.void
    assert not list(workspace.releases.glob("batch-*")) and not (workspace.folder / "refusals").exists()


def test_phones_in_the_field_are_masked_one_by_one(tmp_path: Path) -> None:
    data = own_dataset(60)
    charges = tuple(c for c in small_plan(data, rounds=2).privacy.charges if c.name in ("knots", "training"))
    workspace = helped(tmp_path / "w", data, charges=charges, topology="field", rounds=2)
    phones = [OnePhone(phone_of(data, index)) for index in range(60)]
    result = federate(workspace, nodes=60, phones=lambda index: phones[index])
    for release, raw in zip(result.releases, unmasked(phones, result.plan, result), strict=True):
        np.testing.assert_array_equal(release.noised - both_noises(result.plan, release), raw)
        assert (release.phones, release.replied) == (60, 60)


def test_faults_in_the_field_cost_only_their_phones(tmp_path: Path) -> None:
    data = own_dataset(80)
    charges = tuple(c for c in small_plan(data, rounds=1).privacy.charges if c.name in ("knots", "training"))
    workspace = helped(tmp_path / "w", data, charges=charges, topology="field", rounds=1)
    phones = [OnePhone(phone_of(data, index)) for index in range(80)]
    faults = Virtual("always", 12.0, Faults(drop=0.08, slow=0.12, duplicate=0.1, hostile=0.1), 4)
    who = Field(data.ids, tiers_of(data), faults, 12.0, 4)
    result = federate(workspace, nodes=80, phones=lambda index: phones[index], field=who)
    state = State()
    for release in result.releases:
        roll = faults.roll(data.ids, tiers_of(data), release.round)
        flat = rounds.question(result.plan, state, release.kind)
        task = Task(release.kind, release.round, result.plan, state.knots, flat)
        raw = sum(phones[index].partial(task).sum for index in np.flatnonzero(roll.counted))
        np.testing.assert_array_equal(release.noised - both_noises(result.plan, release), raw)
        tally = roll.tally()
        assert len(release.refused) == tally["refused"] > 0 and min(tally["dropped"], tally["duplicate"]) > 0
        state = rounds.close(result.plan, state, release)


def test_the_engine_does_not_matter(tmp_path: Path) -> None:
    fast = federate(helped(tmp_path / "fast"), nodes=2)
    loop = federate(helped(tmp_path / "loop"), nodes=2, engine=ReferenceEngine())
    np.testing.assert_array_equal(fast.releases[0].noised, loop.releases[0].noised)
    assert np.abs(fast.theta - loop.theta).max() <= 5e-5


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_what_is_told_of_the_noise_is_two_servers(tmp_path: Path, share: float) -> None:
    result = federate(helped(tmp_path / "w", share=share))
    plan = result.plan
    charge = charge_of(plan, "train")
    assert charge is not None
    one = share_sigma(plan, charge)
    assert noise_sigma(plan, "train") == pytest.approx(np.sqrt(1 + share**2) * one, rel=1e-5)
    assert coordinator_sigma(plan, charge) == pytest.approx(share * one, rel=1e-5)
    assert result.noise_sd["train"] == noise_sd(plan, "train") == noise_sigma(plan, "train") / (1 << 20)
    drawn = np.concatenate([both_noises(plan, r) for r in result.releases if r.kind == "knots"])
    knots = noise_sigma(plan, "knots")
    assert abs(drawn.std() / knots - 1) < 5 / np.sqrt(2 * len(drawn))


def test_twenty_thousand_phones_in_one_sum(tmp_path: Path) -> None:
    data = small_dataset(20_000, seed=5)
    held = replace(data, holdout=np.zeros(data.phones, dtype=bool))
    charges = tuple(c for c in small_plan(held, rounds=3).privacy.charges if c.split == "train")
    workspace = helped(tmp_path / "w", held, 1 << 14, charges=charges)
    releases: list[Release] = []

    def first(release: Release, state: State) -> None:
        releases.append(release)
        raise Cut

    with pytest.raises(Cut):
        federate(workspace, nodes=2, on_progress=first)
    plan = workspace.trust().plan_of(workspace.signed().to_bytes())
    task = Task("knots", 0, plan, None, np.zeros(0, np.float32))
    assert releases[0].phones == 20_000
    np.testing.assert_array_equal(releases[0].noised - both_noises(plan, releases[0]), Farm(held).partial(task).sum)


def test_case_41_a_plan_that_could_wrap_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    data = small_dataset(6000, seed=5)
    with pytest.raises(RoundError, match="could wrap"):
        federate(helped(tmp_path / "w", data))


def test_a_run_cut_short_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = federate(helped(tmp_path / "whole"))

    def cut(release: Release, state: State) -> None:
        if release.round == 2:
            raise Cut

    workspace = helped(tmp_path / "cut")
    with pytest.raises(Cut):
        federate(workspace, on_progress=cut)
    again = federate(workspace)
    np.testing.assert_array_equal(whole.theta, again.theta)


def test_a_workspace_refuses_another_helpers_plan(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.folder.mkdir()
    plan = small_plan(DATA)
    privacy = replace(plan.privacy, mode="helper", helper_key="ab" * 32)
    with pytest.raises(RunError, match="another helper"):
        workspace.prepare(DATA, replace(plan, privacy=privacy), KEYS)


def test_the_same_answer_twice_gives_unrelated_vectors() -> None:
    """The same question put to a farm twice; unmasked, both answers are the same (control)."""
    plan = small_plan(DATA)
    plan = replace(plan, privacy=replace(plan.privacy, mode="helper", helper_key="09" + 31 * "00"))
    task = Task("knots", 0, plan, None, np.zeros(0, np.float32), "ab" * 32)
    first, second = (masked_vector(task) for _ in range(2))
    raw = Farm(DATA).partial(task).sum
    np.testing.assert_array_equal(raw, Farm(DATA).partial(task).sum)
    assert (first == second).mean() < 0.01 and (first == raw.astype(np.uint32)).mean() < 0.01
    assert abs(np.corrcoef(first, raw)[0, 1]) < 4 / np.sqrt(len(raw))


def masked_vector(task: Task) -> np.ndarray:
    reply = write_reply(task, Farm(DATA).partial(task), MemoryEgress(0), OsSource())
    assert set(reply.config_records) == {"masked"} and set(reply.config_records["masked"]) == {"header", "seeds"}
    return reply.array_records["sum"]["sum"].numpy()


def test_a_larger_epsilon_against_the_helper_is_asked_for_by_a_number_and_said_everywhere(
    cli: Cli, tmp_path: Path
) -> None:
    """13.16: summary, printed table, page and the reviewer's own arithmetic; --helper-epsilon is mode helper's."""
    arguments = ("--phones", 300, "--epsilon", 1, "--helper-epsilon", 2, "--rounds", 1, "--score", 0, "--no-baselines")
    run = tmp_path / "run"
    said = cli("simulate", "--privacy", "helper", *arguments, "--out", run)
    epsilon = json.loads((run / "summary.json").read_text("utf-8"))["epsilon"]
    assert said.code == 0 and 0.99 < epsilon["coordinator"] <= epsilon["budget"] == 1 < 1.98 < epsilon["helper"] <= 2
    assert epsilon["lifetime"]["one_year"]["helper"] > epsilon["lifetime"]["one_year"]["composed"]
    assert f"{epsilon['helper']:.4f}" in said.out and "the same, helper" in said.out
    page = (run / "report.html").read_text("utf-8")
    assert f"{epsilon['helper']:.2f}" in page and "less hidden from the helper" in page and "against the helper" in page
    findings = check_all(run)
    assert passed(findings) and any("against the helper, which meets" in found.sentence for found in findings)
    refused = cli("simulate", *arguments, "--out", tmp_path / "none")
    assert refused.code == 2 and "add --privacy helper" in refused.err and not (tmp_path / "none").exists()
