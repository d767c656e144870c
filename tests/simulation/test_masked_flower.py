"""Masked modes over a real SuperLink: five questions a sum to processes that remember nothing but their own file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_server.app import Result
from fl_server.checkpoint import Checkpoint
from fl_server.review.helper.home import HelperHome, Settings
from fl_server.review.helper.records import read_log
from fl_server.rounds import Release
from model.canonical import decode
from model.contract.envelope import SigningKey
from model.contract.promise import Neighbours
from simulation.drawer import nodes_of
from simulation.experiment import training
from simulation.experiment.folder import opened
from simulation.experiment.request import Request
from simulation.experiment.sources import prepare
from simulation.federate import federate
from simulation.planning import Options
from simulation.signers import held, make
from simulation.small import small_dataset, small_plan
from simulation.superlink import run_deployed
from simulation.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
KEYS = [SigningKey.generate(), SigningKey.generate()]
PHONES, NODES = 36, 2


def paired(folder: Path) -> Workspace:
    """Knots and one round of training among 36 phones that all train, with seeded noise."""
    data = replace(small_dataset(PHONES, seed=2), holdout=np.zeros(PHONES, dtype=bool))
    workspace, plan = Workspace(folder), small_plan(data, rounds=1)
    graph, charges = Neighbours(12, 7, 0.0, 0.05), plan.privacy.charges[:2]
    folder.mkdir()
    privacy = replace(plan.privacy, mode="pairwise", honest=20, neighbours=graph, charges=charges, grid_scale=1 << 16)
    workspace.prepare(data, replace(plan, privacy=privacy), KEYS)
    return workspace


def releases_of(workspace: Workspace) -> list[Release]:
    plan = workspace.trust().plan_of(workspace.signed().to_bytes())
    return Checkpoint(workspace.releases, plan.digest).releases()


@pytest.mark.integration
def test_pairwise_over_supernodes_releases_the_sums_of_the_run_in_process(tmp_path: Path) -> None:
    """Each step meets a new process: what a node knows of a sum lies in its own file; masks cancel across both."""
    here, there = paired(tmp_path / "here"), paired(tmp_path / "there")
    theta = federate(here, nodes=NODES).theta
    run_deployed(PROJECT, there, tmp_path / "flower", NODES)
    releases = releases_of(there)
    assert [(r.kind, r.phones, r.replied, r.refused, r.void) for r in releases] == [
        ("knots", PHONES, NODES, (), False),
        ("train", PHONES, NODES, (), False),
    ]
    for same, other in zip(releases_of(here), releases, strict=True):
        np.testing.assert_array_equal(same.noised, other.noised)
    np.testing.assert_array_equal(theta, decode(there.result.read_bytes())["theta"])
    assert len(list(nodes_of(there.folder).iterdir())) == NODES


@contextmanager
def serving(home: HelperHome) -> Iterator[None]:
    """The helper's own process, ready, its address written."""
    command = [sys.executable, "-m", "fl_server.review", "helper", "serve", str(home.path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and "listening" in process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate(timeout=20)


def trained(request: Request, out: Path) -> Result:
    """A run as `pocketscore simulate` makes it, up to the trained model."""
    quiet = lambda stage, done, total: None  # noqa: E731
    with opened(out, request.to_dict()) as place:
        plan = training.plan_of(place, prepare(request, place.data, quiet), request, 1_790_000_000)
        return training.train(place, plan, request, quiet)[0]


@pytest.mark.integration
def test_supernodes_and_a_helpers_own_process_end_on_the_model_of_one_process(tmp_path: Path) -> None:
    """`simulate --flower --privacy helper --helper HOME --keys KEYS` against neither, with noise seeded in both."""
    keys = make(tmp_path / "keys").parent
    trust = {role: key.public_bytes for role, key in held(keys).items()}
    home = HelperHome.init(tmp_path / "helper", trust, Settings(allow_test_noise=True))
    options = Options(rounds=1, privacy="helper", test_seeded=True)
    common = {"phones": 300, "options": options, "farms": NODES, "scored": 0, "baselines": False}
    here = trained(Request(**common), tmp_path / "here")  # type: ignore[arg-type]
    with serving(home):
        asked = Request(**common, grid="superlink", helper=home.path, keys=keys)  # type: ignore[arg-type]
        there = trained(asked, tmp_path / "there")
    for same, other in zip(here.releases, there.releases, strict=True):
        np.testing.assert_array_equal(same.noised, other.noised)
    np.testing.assert_array_equal(here.theta, there.theta)
    answered = [e["kind"] for e in read_log(home.store, home.signing.public_bytes) if e["event"] == "answered"]
    assert answered == ["knots", "train", "calibrate", "evaluate"]
