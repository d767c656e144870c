"""The same apps in process, under `flwr run` and over a SuperLink with four SuperNodes: one round, then the model."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fl_server import rounds
from fl_server.budget import read_ledger
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import noise_for
from fl_server.rounds import Release
from model.canonical import decode
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.errors import RunError
from model.privacy.noise import discrete_gaussian, grid_sigma
from simulation.federate import federate
from simulation.small import small_dataset, small_plan
from simulation.superlink import environment, flwr_run, processes_of, run_deployed, run_simulated
from simulation.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
NODES = 4
ONE_ROUND, LAST_ROUND = 1e-6, 5e-5  # relative; of any weight
FEW = 2  # rounds over SuperNodes: each phase starts a process a node, and the twenty are those of `flwr run`


def workspace_at(folder: Path, **changes: int | float) -> Workspace:
    data = small_dataset(400)
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.prepare(data, small_plan(data, **changes), [SigningKey.generate(), SigningKey.generate()])
    return workspace


@dataclass(frozen=True)
class Run:
    """What one run left on disk: its first training release, the model after it, and the model at its end."""

    noised: np.ndarray
    summed: np.ndarray
    first: np.ndarray
    theta: np.ndarray

    @classmethod
    def of(cls, workspace: Workspace, nodes: int = NODES) -> Run:
        raw = decode(workspace.result.read_bytes())
        assert [r["replied"] for r in raw["releases"]] == [nodes] * len(raw["releases"])
        return cls(*first_round(workspace), np.array(raw["theta"]))


def first_round(workspace: Workspace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round 1 from the checkpoint: the noised sum, the same without its seeded noise, and the weights after it."""
    plan = TrainingPlan.from_dict(decode(workspace.signed().payload))
    releases = Checkpoint(workspace.releases, plan.digest).releases()[:2]
    state = rounds.replay(plan, releases)
    assert [r.kind for r in releases] == ["knots", "train"] and state.iterate is not None and state.knots is not None
    theta = rounds.space(plan, state.knots).precondition.to_theta(state.iterate.v)
    return releases[1].noised, releases[1].noised - noise_of(plan, releases[1]), np.asarray(theta)


def noise_of(plan: TrainingPlan, release: Release) -> np.ndarray:
    """The test-seeded noise of a training release, in grid units, drawn again."""
    phase = rounds.schedule(plan)[release.round]
    assert phase.charge is not None
    sigma = grid_sigma(phase.charge, plan.privacy.grid_scale)
    return discrete_gaussian(sigma, release.noised.size, noise_for(plan)(phase))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def agree_after_one_round(one: Run, other: Run) -> bool:
    """The release, the sum under its noise, which noise cannot make look alike, and the weights after it."""
    pairs = [(one.noised, other.noised), (one.summed, other.summed), (one.first, other.first)]
    return all(a.shape == b.shape and relative(a, b) <= ONE_ROUND for a, b in pairs)


def in_process(folder: Path, nodes: int, **changes: int | float) -> Run:
    workspace = workspace_at(folder, **changes)
    result = federate(workspace, nodes=nodes)
    return Run(*first_round(workspace), result.theta)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run in this process, all phones on one node."""
    return in_process(tmp_path_factory.mktemp("here") / "run", nodes=1)


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same of FEW rounds."""
    return in_process(tmp_path_factory.mktemp("shorter") / "run", nodes=1, rounds=FEW)


def test_one_round_is_the_same_on_one_farm_and_on_four(tmp_path: Path, here: Run) -> None:
    there = in_process(tmp_path / "four", nodes=NODES, rounds=1)
    # Round 1 of a plan of one round: the same phones, noise and first model, so the same release.
    assert agree_after_one_round(there, here)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"noise_multiplier": 3.01}])
def test_control_another_seed_or_plan_fails_the_comparison(
    tmp_path: Path, here: Run, changes: dict[str, int | float]
) -> None:
    other = in_process(tmp_path / "other", nodes=1, rounds=1, **changes)
    assert not agree_after_one_round(other, here)


def test_control_one_phone_less_fails_the_comparison(here: Run) -> None:
    # A phone's update has norm up to the clip of 0.5; a thousandth of that in one weight is seen.
    less = here.summed.copy()
    less[0] += (1 << 20) // 2000
    assert not agree_after_one_round(replace(here, summed=less), here)


@pytest.mark.integration
def test_flwr_run_ends_on_the_same_model(tmp_path: Path, here: Run) -> None:
    workspace, home = workspace_at(tmp_path / "there"), tmp_path / "home"
    run_simulated(PROJECT, workspace, home, NODES)
    there = Run.of(workspace)
    assert agree_after_one_round(there, here)
    assert np.abs(there.theta - here.theta).max() <= LAST_ROUND
    assert processes_of(home) == []


@pytest.mark.integration
def test_flwr_run_prepares_its_own_small_population(tmp_path: Path) -> None:
    log = run_simulated(PROJECT, None, tmp_path / "home", 2)
    assert "PocketScore: 23 releases" in log


@pytest.mark.integration
def test_four_supernodes_end_on_the_same_model(tmp_path: Path, shorter: Run) -> None:
    workspace, home = workspace_at(tmp_path / "there", rounds=FEW), tmp_path / "home"
    run_deployed(PROJECT, workspace, home, NODES, timeout=1200)
    there = Run.of(workspace)
    assert agree_after_one_round(there, shorter)
    assert np.abs(there.theta - shorter.theta).max() <= LAST_ROUND
    assert processes_of(home) == []


@pytest.mark.integration
def test_a_nodes_process_imports_no_torch(tmp_path: Path) -> None:
    """A process a message: importing torch would cost more than the rest of it (ADR 54)."""
    control = "import sys, simulation.flower; assert 'flwr' in sys.modules; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", control], cwd=PROJECT, env=environment(tmp_path), capture_output=True, check=True
    )
    assert done.stdout == b"False\n"


def test_a_folder_without_a_flower_app_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="repository's root"):
        flwr_run(tmp_path, None, tmp_path / "home", [], timeout=1)


KILLED = """
import os, signal, sys
from pathlib import Path
from simulation.federate import federate
from simulation.workspace import Workspace

def die(release, state):
    if release.round == 3:
        os.kill(os.getpid(), signal.SIGKILL)

federate(Workspace(Path(sys.argv[1])), nodes=2, on_progress=die)
"""


@pytest.mark.integration
def test_case_23_kill_nine_mid_run_and_resume(tmp_path: Path) -> None:
    whole = federate(workspace_at(tmp_path / "whole"), nodes=2)
    workspace = workspace_at(tmp_path / "killed")
    command = [sys.executable, "-c", KILLED, str(workspace.folder)]
    done = subprocess.run(command, cwd=PROJECT, env=environment(tmp_path / "home"), check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(list(workspace.releases.glob("release-*"))) == 4
    resumed = federate(workspace, nodes=2)
    np.testing.assert_array_equal(resumed.theta, whole.theta)
    assert len(read_ledger(workspace.ledger)) == 23
