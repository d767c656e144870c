"""Mode helper with the helper in a process of its own, over HTTPS: the same releases, also when it dies between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_server.checkpoint import Checkpoint
from fl_server.helper import HelperRefused
from fl_server.review.helper.home import HelperHome, Settings
from fl_server.review.helper.ledger import spent_by_plan
from fl_server.review.helper.records import read_log
from fl_server.rounds import Release, State
from model.canonical import decode
from model.contract.envelope import Signed, SigningKey, verify
from model.contract.masked import REFUSAL_DOMAIN, Refusal
from model.contract.plan import TrainingPlan
from model.errors import RoundError, RunError
from simulation import second
from simulation.federate import federate
from simulation.second import read_address
from simulation.small import small_dataset, small_plan
from simulation.superlink import run_deployed
from simulation.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
KEYS = [SigningKey.generate(), SigningKey.generate()]
DATA = small_dataset(300, seed=2)
ONE_ROUND, WEIGHT = 1e-6, 5e-5  # relative; of any weight


def home_at(path: Path, **settings: float) -> HelperHome:
    trust = {"coordinator": KEYS[0].public_bytes, "reviewer": KEYS[1].public_bytes}
    return HelperHome.init(path, trust, Settings(True, **settings))


@contextmanager
def serving(home: HelperHome, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """The helper's process, ready, its address written; killed by SIGKILL at the end."""
    command = [sys.executable, "-m", "fl_server.review", "helper", "serve", str(home.path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and "listening" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def planned(folder: Path, home: HelperHome | None = None, rounds: int = 2) -> Workspace:
    """Knots and `rounds` of training, seeded; by the helper that serves `home`, or by one in this process."""
    folder.mkdir()
    workspace = Workspace(folder)
    if home is not None:
        workspace.second.dial(read_address(home.path), KEYS[0])
    plan = small_plan(DATA, rounds=rounds)
    privacy = replace(plan.privacy, mode="helper", helper_key=workspace.helper_key(), charges=plan.privacy.charges[:2])
    workspace.prepare(DATA, replace(plan, privacy=privacy), KEYS)
    return workspace


def releases_of(workspace: Workspace) -> list[Release]:
    plan = workspace.trust().plan_of(workspace.signed().to_bytes())
    return Checkpoint(workspace.releases, plan.digest).releases()


def drawn(home: HelperHome) -> list[tuple[str, int]]:
    """Kind and round of each draw in the helper's log; each was reserved and answered once, and none is void."""
    log = [(e["event"], (e["kind"], e["round"])) for e in read_log(home.store, home.signing.public_bytes)]
    reserved, answered, void = ([at for event, at in log if event == n] for n in ("reserved", "answered", "void"))
    assert reserved == answered and void == []
    return answered


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Release], np.ndarray]:
    """The same plan by a helper in this process."""
    workspace = planned(tmp_path_factory.mktemp("here") / "w")
    theta = federate(workspace, nodes=2).theta
    return releases_of(workspace), theta


def refusal_of(workspace: Workspace, home: HelperHome) -> Refusal:
    """The one refusal that was kept, verified."""
    (file,) = (workspace.folder / "refusals").iterdir()
    ring = {home.signing.keyid: home.signing.public_bytes}
    return Refusal.from_dict(verify(Signed.from_bytes(file.read_bytes()), REFUSAL_DOMAIN, ring))


@pytest.mark.integration
def test_case_23_a_helper_killed_between_two_rounds_answers_the_rest_of_a_superlinks_run(
    tmp_path: Path, here: tuple[list[Release], np.ndarray]
) -> None:
    home = home_at(tmp_path / "helper")
    with ThreadPoolExecutor(1) as pool:
        with serving(home):
            port = int(read_address(home.path).url.split(":")[-1])
            workspace = planned(tmp_path / "there", home)
            running = pool.submit(run_deployed, PROJECT, workspace, tmp_path / "flower", 2)
            while not (workspace.releases / "release-00000.cbor").exists() and not running.done():
                time.sleep(0.05)
        time.sleep(0.5)  # nobody serves now
        with serving(home, port):
            running.result()
    there, (same, theta) = releases_of(workspace), here
    assert [r.kind for r in there] == ["knots", "train", "train"]
    assert drawn(home) == [("knots", 0), ("train", 1), ("train", 2)]
    assert all((r.replied, r.refused, r.void) == (2, (), False) for r in there)
    np.testing.assert_array_equal(there[0].noised, same[0].noised)
    gap = np.linalg.norm((there[1].noised - same[1].noised).astype(float))
    assert gap <= ONE_ROUND * np.linalg.norm(same[1].noised.astype(float))
    assert np.abs(np.array(_theta(workspace)) - theta).max() <= WEIGHT
    assert not list(workspace.releases.glob("batch-*"))


def _theta(workspace: Workspace) -> list[float]:
    return list(decode(workspace.result.read_bytes())["theta"])


@pytest.mark.integration
def test_case_24_a_run_whose_helper_died_is_resumed_at_another_port_with_the_same_releases(
    tmp_path: Path, here: tuple[list[Release], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second, "PATIENCE", 0.0)
    home = home_at(tmp_path / "helper")
    with serving(home) as process:
        workspace = planned(tmp_path / "there", home)

        def die(release: Release, state: State) -> None:
            if release.round == 1:
                process.kill()
                process.wait()

        with pytest.raises(RoundError, match="gave no answer twice"):
            federate(workspace, nodes=2, on_progress=die)
    assert len(releases_of(workspace)) == 2 and list(workspace.releases.glob("batch-*"))
    with serving(home):
        workspace.second.dial(read_address(home.path), KEYS[0])
        result = federate(workspace, nodes=2)
    for one, other in zip(result.releases, here[0], strict=True):
        np.testing.assert_array_equal(one.noised, other.noised)
    np.testing.assert_array_equal(result.theta, here[1])
    assert drawn(home) == [("knots", 0), ("train", 1), ("train", 2)]


@pytest.mark.integration
def test_a_helper_whose_budget_is_spent_ends_the_run_with_its_signed_sentence(tmp_path: Path) -> None:
    home = home_at(tmp_path / "helper", yearly_epsilon=1.7)  # knots cost 1.4, knots and a round 2.0
    with serving(home):
        first, other = planned(tmp_path / "first", home), planned(tmp_path / "other", home, rounds=1)
        with pytest.raises(HelperRefused, match=r"train round 1: plans named 'small' would come to ε .* in a year"):
            federate(first, nodes=2)
        assert [r.kind for r in releases_of(first)] == ["knots"]
        with pytest.raises(RunError, match=r"^the helper refused knots round 0: plans named 'small' .*\Z") as told:
            run_deployed(PROJECT, other, tmp_path / "flower", 2)
    assert "\n" not in str(told.value) and releases_of(other) == []
    assert (refusal_of(first, home).code, refusal_of(other, home).code) == ("yearly", "yearly")
    assert refusal_of(other, home).plan_digest == _plan(other).digest
    assert [row.answered for row in spent_by_plan(home)] == [1]


def _plan(workspace: Workspace) -> TrainingPlan:
    return workspace.trust().plan_of(workspace.signed().to_bytes())


@pytest.mark.integration
def test_a_helper_that_trusts_others_gives_nothing(tmp_path: Path) -> None:
    strangers = {"coordinator": SigningKey.generate().public_bytes, "reviewer": KEYS[1].public_bytes}
    home = HelperHome.init(tmp_path / "helper", strangers, Settings(True))
    with serving(home), pytest.raises(RoundError, match="HTTP 401"):
        federate(planned(tmp_path / "w", home))
    assert read_log(home.store, home.signing.public_bytes) == []


@pytest.mark.integration
def test_four_commands_make_a_run_with_two_servers(tmp_path: Path) -> None:
    def do(module: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    do("simulation", "keys", "keys")
    do("fl_server.review", "helper", "init", "helper", "--trust", "keys/keys.json")
    with serving(HelperHome.open(tmp_path / "helper")):
        run = ["--phones", "1500", "--rounds", "2", "--score", "0", "--no-baselines", "--privacy", "helper"]
        do("simulation", "simulate", *run, "--helper", "helper", "--keys", "keys", "--out", "run")
    assert "every check holds" in do("fl_server.review", "check", "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["one_hand"] is False
    rounds = [("train", 1), ("train", 2)]
    assert drawn(HelperHome.open(tmp_path / "helper")) == [("knots", 0), *rounds, ("calibrate", 3), ("evaluate", 4)]
