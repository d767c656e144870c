"""Where a workspace's helper is found, and the signers it was told of."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fl_server.keys import KeyRing
from fl_server.review.helper.address import url_of, write_address
from fl_server.review.helper.home import HelperHome, read_trust
from model.contract.envelope import SigningKey
from model.errors import InputError, RunError
from simulation import signers
from simulation.__main__ import app
from simulation.experiment.request import Request
from simulation.planning import Options
from simulation.second import Second, read_address
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEY = SigningKey.generate()


@pytest.fixture
def home(tmp_path: Path) -> HelperHome:
    made = HelperHome.init(tmp_path / "helper")
    write_address(made, "https://127.0.0.1:9443")
    return made


def test_the_address_a_helper_writes_is_read_from_its_folder_or_file(home: HelperHome) -> None:
    address = read_address(home.path)
    assert address == read_address(home.path / "address.json") and address.url == "https://127.0.0.1:9443"
    told = {"helper_key": address.helper_key, "signing_key": address.signing_key}
    assert {**told, "certificate_sha256": address.certificate_sha256} == home.about()
    assert stat.S_IMODE((home.path / "address.json").stat().st_mode) == 0o644
    for key in (home.path / "keys").iterdir():  # nothing private is in it
        assert key.read_bytes().hex() not in (home.path / "address.json").read_text()


def test_an_address_is_one_that_can_be_dialled(home: HelperHome) -> None:
    assert (url_of("helper.example", 1), url_of("::1", 2)) == ("https://helper.example:1", "https://[::1]:2")
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InputError, match="--url"):
            url_of(host, 1)
    with pytest.raises(InputError, match="no https address"):
        write_address(home, "http://helper.example")


@pytest.mark.parametrize("text", [None, "", "{}", "\xff"])
def test_a_file_that_is_no_address_is_one_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "address.json").write_text(text, "latin-1")
    with pytest.raises(InputError, match="address"):
        read_address(tmp_path)


def test_a_run_keeps_to_its_helper_and_follows_it_to_another_port(home: HelperHome, tmp_path: Path) -> None:
    second = Second(tmp_path / "w")
    second.dial(read_address(home.path), KEY)
    assert second.key() == home.hpke.public_bytes.hex() and not second.home.exists()
    assert stat.S_IMODE((second.line / "coordinator.key").stat().st_mode) == 0o600
    write_address(home, "https://127.0.0.1:9444")
    second.dial(read_address(home.path), KEY)
    found = second.address()
    assert found is not None and found.url == "https://127.0.0.1:9444"
    other = HelperHome.init(tmp_path / "other")
    write_address(other, "https://127.0.0.1:9444")
    with pytest.raises(RunError, match="another helper"):
        second.dial(read_address(other.path), KEY)


def test_a_plan_for_another_helper_than_the_one_dialled_is_refused(home: HelperHome, tmp_path: Path) -> None:
    workspace, data = Workspace(tmp_path / "w"), small_dataset(200)
    workspace.folder.mkdir()
    workspace.second.dial(read_address(home.path), KEY)
    plan = small_plan(data, rounds=1)
    privacy = replace(plan.privacy, mode="helper", helper_key="ab" * 32)
    with pytest.raises(RunError, match="another helper"):
        workspace.prepare(data, replace(plan, privacy=privacy), [KEY, SigningKey.generate()])


def test_keys_are_made_once_and_a_helper_reads_their_public_halves(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["keys", str(tmp_path / "keys")])
    assert done.exit_code == 0 and "keys.json" in done.output
    ring = KeyRing(tmp_path / "keys")
    assert read_trust(tmp_path / "keys" / "keys.json") == {role: ring.load(role).public_bytes for role in signers.ROLES}
    private = [ring.load(role).private_bytes().hex() for role in signers.ROLES]
    assert not any(key in (tmp_path / "keys" / "keys.json").read_text() for key in private)
    with pytest.raises(InputError, match="not an empty folder"):
        signers.make(tmp_path / "keys")


def test_a_run_takes_the_keys_it_is_given(tmp_path: Path) -> None:
    signers.make(tmp_path / "keys")
    signers.adopt(tmp_path / "keys", tmp_path / "run" / "keys")
    for role in signers.ROLES:
        taken, given = (KeyRing(tmp_path / name).load(role) for name in ("run/keys", "keys"))
        assert taken.private_bytes() == given.private_bytes()
    (tmp_path / "keys" / "reviewer.key").chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        signers.adopt(tmp_path / "keys", tmp_path / "run" / "keys")


def test_options_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    helped = Options(privacy="helper")
    with pytest.raises(InputError, match="--privacy helper"):
        Request(100, helper=tmp_path, keys=tmp_path)
    with pytest.raises(InputError, match="--keys DIR"):
        Request(100, options=helped, helper=tmp_path)
    request = Request(100, options=helped, helper=tmp_path, keys=tmp_path)
    assert json.loads(json.dumps(request.to_dict()["helper"])) == str(tmp_path.absolute())
    assert Request(100).to_dict()["helper"] is None
