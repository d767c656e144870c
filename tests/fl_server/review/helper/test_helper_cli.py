"""`pocketscore-review helper`: init, trust, key, log and ledger, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fl_server.review.__main__ import app
from fl_server.review.helper import home as home_module
from fl_server.review.helper.home import HelperHome, Settings
from model.contract.envelope import SigningKey
from model.errors import InputError

from .conftest import Bench


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["helper", *(str(each) for each in arguments)])


def keys_file(folder: Path, **roles: bytes) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps({role: {"public": key.hex(), "keyid": "x"} for role, key in roles.items()}))
    return path


def test_init_makes_a_home_and_says_what_to_name(tmp_path: Path) -> None:
    a, b, c = (SigningKey.generate().public_bytes for _ in range(3))
    keys = keys_file(tmp_path, coordinator=a, reviewer=b, release=c)
    done = run("init", tmp_path / "h", "--trust", keys, "--yearly-epsilon", "2", "--name", "helper.example", "--json")
    told = json.loads(done.output)
    home = HelperHome.open(tmp_path / "h")
    assert done.exit_code == 0 and told == home.about() == json.loads(run("key", tmp_path / "h", "--json").output)
    assert set(told) == {"helper_key", "signing_key", "certificate_sha256"}
    assert home.trust == {"coordinator": a, "reviewer": b} and home.settings == Settings(False, 2.0)
    assert b"helper.example" in HelperHome.open(tmp_path / "h").certificate.read_bytes() or home.fingerprint
    assert f"helper_key: {told['helper_key']}" in run("key", tmp_path / "h").output


def test_a_home_is_never_made_over_anything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert run("init", tmp_path / "h").exit_code == 0
    for place in (tmp_path, tmp_path / "file", tmp_path / "h"):
        done = run("init", place)
        assert done.exit_code != 0 and "not an empty folder" in str(done.exception)
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_trust_is_named_once(tmp_path: Path) -> None:
    a, b, c = (SigningKey.generate().public_bytes for _ in range(3))
    run("init", tmp_path / "h")
    first = keys_file(tmp_path, coordinator=a, reviewer=b)
    assert run("trust", tmp_path / "h", first).exit_code == 0
    assert run("trust", tmp_path / "h", first).exit_code == 0
    other = keys_file(tmp_path, coordinator=c, reviewer=b)
    assert "already trusts other keys" in str(run("trust", tmp_path / "h", other).exception)
    assert HelperHome.open(tmp_path / "h").trust == {"coordinator": a, "reviewer": b}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"coordinator": {"public": "zz"}}', '{"coordinator": "00"}'])
def test_a_keys_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    done = run("init", tmp_path / "h", "--trust", tmp_path / "keys.json")
    assert isinstance(done.exception, InputError) and not (tmp_path / "h").exists()


def test_one_key_in_both_roles_is_no_second_pair_of_eyes(tmp_path: Path) -> None:
    key = SigningKey.generate().public_bytes
    done = run("init", tmp_path / "h", "--trust", keys_file(tmp_path, coordinator=key, reviewer=key))
    assert "two different keys" in str(done.exception)


def test_a_home_that_is_none_or_open_to_others(tmp_path: Path) -> None:
    assert "helper init" in str(run("key", tmp_path).exception)
    run("init", tmp_path / "h")
    (tmp_path / "h" / "keys" / "hpke.key").chmod(0o644)
    for command in ("key", "serve", "log", "ledger"):
        assert "chmod 600" in str(run(command, tmp_path / "h").exception)
    (tmp_path / "h" / "keys" / "hpke.key").chmod(0o600)
    (tmp_path / "h" / "settings.json").write_text("{}")
    assert run("key", tmp_path / "h").exit_code == 0
    (tmp_path / "h" / "settings.json").write_text('{"odd": 1}')
    assert "malformed" in str(run("key", tmp_path / "h").exception)


@pytest.mark.parametrize("name", ["héllo.example", "", " ", "a b", "a..b", "-a.example", "x" * 254, "a/b", "a\n"])
def test_a_host_name_that_is_none_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    done = run("init", tmp_path / "h", "--name", "fine.example", "--name", name)
    assert isinstance(done.exception, InputError) and "host name" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["h", "Helper-1.example", "_a.b", "10.0.0.1", "::1", "xn--hllo-bpa.example"])
def test_control_of_host_names(tmp_path: Path, name: str) -> None:
    assert run("init", tmp_path / "h", "--name", name).exit_code == 0


def test_an_init_that_fails_half_way_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(names: Any) -> Any:
        raise ValueError("in the middle")

    monkeypatch.setattr(home_module, "self_signed", fail)
    assert "in the middle" in str(run("init", tmp_path / "h").exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cap", ["nan", "inf", "-1"])
def test_a_yearly_cap_that_caps_nothing(tmp_path: Path, cap: str) -> None:
    assert run("init", tmp_path / "h", "--yearly-epsilon", cap).exit_code != 0
    assert not (tmp_path / "h").exists()
    assert run("init", tmp_path / "h", "--yearly-epsilon", "0.5").exit_code == 0


SETTINGS = [
    *(f'{{"yearly_epsilon": {cap}}}' for cap in ("NaN", "Infinity", "-1", '"2"', "true", "[]")),
    *(f'{{"allow_test_noise": {flag}}}' for flag in ("1", '"yes"', "null")),
    *("[]", "null", "", "[" * 100_000),
]


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_that_are_none(tmp_path: Path, text: str) -> None:
    run("init", tmp_path / "h")
    (tmp_path / "h" / "settings.json").write_text(text)
    assert isinstance(run("key", tmp_path / "h").exception, InputError)


@pytest.mark.parametrize("name", ["tls.pem", "keys/tls.key", "keys/signing.key", "keys/hpke.key"])
def test_a_home_with_a_file_damaged_or_gone(tmp_path: Path, name: str) -> None:
    run("init", tmp_path / "h")
    file = tmp_path / "h" / name
    file.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for command in ("key", "serve", "log", "ledger"):
        done = run(command, tmp_path / "h")
        assert isinstance(done.exception, InputError) and "malformed" in str(done.exception)
    file.unlink()
    done = run("serve", tmp_path / "h")
    assert isinstance(done.exception, InputError) and f"lacks {file}" in str(done.exception)


def test_a_certificate_of_another_key(tmp_path: Path) -> None:
    for name in ("h", "other"):
        run("init", tmp_path / name)
    (tmp_path / "h" / "tls.pem").write_bytes((tmp_path / "other" / "tls.pem").read_bytes())
    done = run("serve", tmp_path / "h")
    assert isinstance(done.exception, InputError) and "not the certificate of" in str(done.exception)


def test_log_and_ledger_of_a_helper_that_never_served(tmp_path: Path) -> None:
    run("init", tmp_path / "h")
    assert json.loads(run("log", tmp_path / "h", "--json").output) == {"entries": []}
    assert "coordinator" not in run("ledger", tmp_path / "h").output  # nothing to explain
    assert json.loads(run("ledger", tmp_path / "h", "--json").output) == {"plans": []}


def test_log_and_ledger_say_every_decision(bench: Bench) -> None:
    plan = bench.plan()
    with bench.desk() as desk:
        desk.share(bench.request(plan).to_bytes())
        desk.share(bench.request(plan, count=31).to_bytes())
    said = run("log", bench.home.path).output
    assert "1 2027-01-15 08:00:00 answered train round 1, 30 messages" in said and "3 entries, the chain holds" in said
    assert "refused train round 1, 31 messages" in said and "batch: train round 1 had another batch" in said
    entries = json.loads(run("log", bench.home.path, "--json").output)["entries"]
    assert [each["event"] for each in entries] == ["reserved", "answered", "refused"]
    names = {"plan_digest", "kind", "round", "batch_digest", "phones", "code", "sentence", "answer", "release"}
    assert set(entries[0]) == {"event", "when", "index", "previous", *names}
    (row,) = json.loads(run("ledger", bench.home.path, "--json").output)["plans"]
    assert row == {
        "plan": "small",
        "plan_digest": plan.digest,
        "answered": 1,
        "reserved": 0,
        "void": 0,
        "messages": 30,
        "epsilon": pytest.approx(0.4344, abs=1e-4),
        "budget": 4.0,
        "delta": 1e-5,
    }
    told = run("ledger", bench.home.path).output
    assert "0.4344" in told and "ε is what the coordinator may learn" in told
    assert "coordinator_noise is below 1" in told and "the helper may learn more" in told


def test_help_has_examples() -> None:
    for command in ("init", "trust", "key", "serve", "log", "ledger"):
        assert f"pocketscore-review helper {command}" in " ".join(run(command, "--help").output.split())
