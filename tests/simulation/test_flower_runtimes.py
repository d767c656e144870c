"""The same apps under `flwr run` and over a real SuperLink with four SuperNodes end on the same model."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_server.budget import read_ledger
from model.canonical import decode
from model.contract.envelope import SigningKey
from model.errors import RunError
from simulation.federate import federate
from simulation.small import small_dataset, small_plan
from simulation.superlink import environment, flwr_run, processes_of, run_deployed, run_simulated
from simulation.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
NODES = 4


def workspace_at(folder: Path) -> Workspace:
    data = small_dataset(400)
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.prepare(data, small_plan(data), [SigningKey.generate(), SigningKey.generate()])
    return workspace


def theta_in(workspace: Workspace) -> np.ndarray:
    raw = decode(workspace.result.read_bytes())
    assert [r["replied"] for r in raw["releases"]] == [NODES] * 23
    return np.array(raw["theta"])


@pytest.mark.integration
def test_flwr_run_ends_on_the_same_model(tmp_path: Path) -> None:
    here = federate(workspace_at(tmp_path / "here"), nodes=1)
    workspace, home = workspace_at(tmp_path / "there"), tmp_path / "home"
    run_simulated(PROJECT, workspace, home, NODES)
    assert np.abs(theta_in(workspace) - here.theta).max() <= 5e-5
    assert processes_of(home) == []


@pytest.mark.integration
def test_flwr_run_prepares_its_own_small_population(tmp_path: Path) -> None:
    log = run_simulated(PROJECT, None, tmp_path / "home", 2)
    assert "PocketScore: 23 releases" in log


@pytest.mark.integration
def test_four_supernodes_end_on_the_same_model(tmp_path: Path) -> None:
    here = federate(workspace_at(tmp_path / "here"), nodes=1)
    workspace, home = workspace_at(tmp_path / "there"), tmp_path / "home"
    run_deployed(PROJECT, workspace, home, NODES)
    assert np.abs(theta_in(workspace) - here.theta).max() <= 5e-5
    assert processes_of(home) == []


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
