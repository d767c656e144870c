"""A run that names a helper asks it who it is before it makes a phone, and leaves nothing where it is wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fl_server.review.helper.address import write_address
from fl_server.review.helper.home import HelperHome
from model.errors import InputError, RunError
from simulation.experiment import compose
from simulation.experiment.compose import execute
from simulation.experiment.folder import RunFolder
from simulation.experiment.request import Request
from simulation.planning import Options
from simulation.signers import make


class Began(Exception):
    """The run makes its phones."""


def begins(stage: str, done: int, total: int) -> None:
    raise Began(stage)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    home, keys = HelperHome.init(tmp_path / "helper"), make(tmp_path / "keys").parent
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write_address(home, f"https://127.0.0.1:{taken.getsockname()[1]}")  # nobody listens once it is closed
    return Request(400, options=Options(rounds=1, privacy="helper"), baselines=False, helper=home.path, keys=keys)


def test_a_helper_that_is_down_ends_the_run_before_it_begins(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^no helper answers at 127\.0\.0\.1:\d+ .*\Z"):
        execute(request_, tmp_path / "run", begins)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper", "keys"]


def test_a_helper_of_others_ends_the_run_before_it_begins(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(address: object, signers: object) -> None:
        raise InputError("the helper trusts others")

    monkeypatch.setattr(compose, "meet", other)
    with pytest.raises(InputError, match="trusts others"):
        execute(request_, tmp_path / "run", begins)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper", "keys"]


def test_control_a_helper_that_is_known_lets_the_run_begin(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(compose, "meet", lambda address, signers: asked.append((address.url, sorted(signers))))
    with pytest.raises(Began, match="phones"):
        execute(request_, tmp_path / "run", begins)
    assert [roles for _, roles in asked] == [["coordinator", "reviewer"]]


def test_a_run_whose_sums_are_all_released_needs_no_helper(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "meet", lambda address, signers: None)
    with pytest.raises(Began):
        execute(request_, tmp_path / "run", begins)
    releases = tmp_path / "run.partial.private" / "federation" / "releases"
    releases.mkdir(parents=True, exist_ok=True)
    monkeypatch.undo()
    for number in range(4):
        with pytest.raises(RunError, match="no helper answers"):  # one more is to be asked for
            compose._meet_helper(RunFolder(tmp_path / "run"), request_)
        (releases / f"release-{number:05d}.cbor").write_bytes(b"")
    compose._meet_helper(RunFolder(tmp_path / "run"), request_)
