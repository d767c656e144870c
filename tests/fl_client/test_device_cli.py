"""`pocketscore-device` as a person uses it: whole stories, one-sentence refusals, nothing half-written."""

import json
import re
import shutil
import struct
import tomllib

import pytest

from fl_client.__main__ import EXAMPLES, build, main
from fl_client.home import DeviceHome, Settings
from model.canonical import sha256_hex
from model.contract.score import open_score
from model.errors import InputError

NOW = 1_900_000_000
PURPOSE = "personal loan"


class Shell:
    """Runs commands at a fixed time; `ok` gives their JSON, `refused` the one sentence."""

    def __init__(self, capsys, home) -> None:
        self.capsys, self.home = capsys, str(home)

    def ok(self, command, *args, now=NOW):
        code = main([command, self.home, "--json", *map(str, args)], now=now)
        out, err = self.capsys.readouterr()
        assert (code, err) == (0, "")
        return json.loads(out)

    def refused(self, command, *args, now=NOW):
        code = main([command, self.home, *map(str, args)], now=now)
        out, err = self.capsys.readouterr()
        assert code == 2
        assert out == ""
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err


@pytest.fixture
def shell(capsys, tmp_path) -> Shell:
    return Shell(capsys, tmp_path / "home")


def start(shell, world, *options):
    return shell.ok(
        "init", "--repo", world.repo, "--root", world.root, "--lender", world.card, "--schema", world.schema, *options
    )


@pytest.fixture
def ready(shell, world, first_home, row) -> Shell:
    """Initialised, updated, with a row in its store and consent given."""
    shutil.copytree(first_home, shell.home)
    home = DeviceHome(world.repo.parent / "home")
    home.store.put_row(row)
    home.store.close()
    shell.ok("consent")
    return shell


def test_a_whole_story(shell, world, row):
    assert start(shell, world)["lenders"] == 1
    home = world.repo.parent / "home"
    assert {p.name for p in home.iterdir()} >= {"device.toml", "key", "store.sqlite", "tuf", "outbox", "lenders"}
    assert (home / "key").stat().st_mode & 0o777 == 0o600
    assert shell.ok("update")["version"] == 1
    DeviceHome(home).store.put_row(row)
    consent = shell.ok("consent", "--deny", "upi")
    assert consent["sources_denied"] == ["upi"]
    preview = shell.ok("score", "--preview", "--ref", "loan-17")
    assert preview["left_the_phone"] == "nothing"
    scored = shell.ok("score", "--ref", "loan-17")
    assert scored["score"] == preview["score"]
    assert scored["reasons_sent"] == []
    sealed = (home / "outbox" / scored["sealed"].rsplit("/", 1)[1]).read_bytes()
    envelope = open_score(sealed, world.lender.hpke, purpose=PURPOSE, audience="lender-one", now=NOW)
    assert (envelope.score, envelope.ref, envelope.reasons) == (scored["score"], "loan-17", ())
    own = shell.ok("reasons")
    assert own["reasons"][0]["text"]
    explained = shell.ok("score", "--after-decline", "--ref", "loan-17")
    assert explained["reasons_sent"] == own["lender_would_get"]
    egress = shell.ok("egress")
    assert egress["types"]["score/1"]["messages"] == 2
    assert egress["types"]["consent/1"]["messages"] == 1
    left = {sha256_hex(path.read_bytes()) for path in (home / "outbox").iterdir()}
    assert left == {line["sha256"] for line in egress["entries"]}
    state = shell.ok("status")
    assert state["release"] == "test 1"
    assert state["consents"] == {"lender-one": "in force"}
    assert state["row"] == 5
    shown = shell.ok("ledger")
    assert shown["lifetime_rho"] == shown["lifetime_epsilon"] == 0 < shown["cap_epsilon"]
    assert shown["five_years_at_the_cap"] == pytest.approx(14.3, abs=0.1)
    shell.ok("withdraw")
    assert "withdrawn" in shell.refused("score")
    assert shell.ok("status")["consents"] == {"lender-one": "withdrawn"}


def test_nothing_the_phone_knows_is_readable_in_its_folder(ready, world):
    home = world.repo.parent / "home"
    store = DeviceHome(home).store
    store.put_row({"income": 123456.789, "PLANTED": 7654321.0, "late": 9.0, "tenure": 2.0})
    ready.ok("score", "--ref", "CONTROL")
    store.close()
    public = {home / "schema.cbor", home / "tuf" / "installed.cbor"}
    files = [path for path in home.rglob("*") if path.is_file() and path not in public]
    data = b"|".join(path.read_bytes() for path in files)
    planted = [struct.pack(f, v) for f in ("<d", ">d", "<f", ">f") for v in (123456.789, 7654321.0)]
    planted += [b"PLANTED", b"CONTROL", b"Bills were paid late."]
    assert [marker for marker in planted if marker in data] == []
    assert DeviceHome(home).settings.repo.encode() in data  # the control: what is public is found


def test_a_lost_store_is_not_silently_replaced(ready, world):
    (world.repo.parent / "home" / "store.sqlite").unlink()
    assert "is gone" in ready.refused("score")
    assert not (world.repo.parent / "home" / "store.sqlite").exists()


def test_tables_are_plain_text(ready, capsys):
    for command in ("score", "status", "egress", "ledger", "reasons"):
        assert main([command, ready.home], now=NOW) == 0
        out = capsys.readouterr().out
        assert out.strip()
        assert "{" not in out


def test_case_58_consent_withdrawn_at_the_command_line(ready, world):
    outbox = world.repo.parent / "home" / "outbox"
    ready.ok("withdraw")
    before = sorted(outbox.iterdir())
    assert "withdrawn" in ready.refused("score")
    assert sorted(outbox.iterdir()) == before
    ready.ok("consent")
    assert ready.ok("score")["score"] >= 300


def test_case_54_required_missing_at_the_command_line(ready, world, row, capsys):
    store = DeviceHome(world.repo.parent / "home").store
    store.put_row({**row, "income": float("nan")})
    assert main(["score", ready.home, "--json"], now=NOW) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["no_score"] == "required_missing"
    assert err == "no score: income is required and missing; add it first\n"
    store.put_row(row)
    assert ready.ok("score")["score"] >= 300


def test_an_expired_release_is_refused_offline(ready):
    later = NOW + 400 * 86_400
    assert "expired" in ready.refused("score", now=later)
    assert ready.ok("score")["score"] >= 300


def test_scoring_before_update_or_consent_says_which(shell, world, row):
    start(shell, world)
    assert "run update" in shell.refused("score")
    shell.ok("update")
    assert "give it first" in shell.refused("score")


@pytest.mark.parametrize(
    ("command", "args", "says"),
    [
        ("consent", ["--deny", "contacts"], "is no source here"),
        ("consent", ["--purpose", "marketing"], "is no purpose here"),
        ("consent", ["--to", "nobody"], "no lender 'nobody'"),
        ("score", ["--ref", "x" * 65], "field 'ref'"),
        ("score", ["--out", "/nowhere/at/all.sealed"], "cannot be written"),
        ("score", ["--after-decline"], "keeps no score"),
        ("reasons", ["--ref", "none"], "keeps no score"),
        ("update", ["--repo", "/nowhere"], ""),
        ("consent", ["--lender", "/nowhere.card"], "cannot be read"),
    ],
)
def test_refusals_are_one_sentence(ready, command, args, says):
    assert says in ready.refused(command, *args)


def test_no_home_and_a_broken_home_are_one_sentence(shell, world, tmp_path):
    assert "is no device home" in shell.refused("status")
    start(shell, world)
    settings = tmp_path / "home" / "device.toml"
    for text in ("not toml at [", 'repo = "x"\nsurprise = 1\n', 'repo = "x"\nretention_days = "many"\n'):
        settings.write_text(text)
        assert "device.toml" in shell.refused("status")


def test_case_62_an_existing_home_is_not_touched(shell, world, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "photo.jpg").write_bytes(b"x")
    init = ["init", "--repo", world.repo, "--root", world.root]
    assert "is not empty" in shell.refused(*init)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["photo.jpg"]
    shell.home = "/proc/none/home"
    assert "cannot be written" in shell.refused(*init)


def test_a_refused_init_leaves_nothing(shell, world, tmp_path):
    before = sorted(p.name for p in tmp_path.iterdir())
    (tmp_path / "lender.card").write_bytes(b"no card")
    error = shell.refused("init", "--repo", world.repo, "--root", world.root, "--lender", world.card)
    assert error
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert "cannot be read" in shell.refused("init", "--repo", world.repo, "--root", tmp_path / "none.json")
    assert "not a feature schema" in shell.refused(
        "init", "--repo", world.repo, "--root", world.root, "--schema", world.root
    )


def test_a_passphrase_home(shell, world, tmp_path, monkeypatch):
    monkeypatch.setattr("fl_client.keystore.SCRYPT_N", 1 << 8)
    (tmp_path / "phrase").write_text("correct horse\n")
    assert start(shell, world, "--passphrase", "--passphrase-file", tmp_path / "phrase")["key"] == "passphrase"
    assert shell.ok("status", "--passphrase-file", tmp_path / "phrase")["attested"] is False
    monkeypatch.setenv("POCKETSCORE_PASSPHRASE", "battery staple")
    assert "passphrase does not open" in shell.refused("status")
    monkeypatch.setenv("POCKETSCORE_PASSPHRASE", "correct horse")
    shell.ok("status")
    monkeypatch.delenv("POCKETSCORE_PASSPHRASE")

    def closed(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", closed)
    assert "--passphrase-file" in shell.refused("status")
    monkeypatch.setattr("getpass.getpass", lambda _: "correct horse")
    shell.ok("status")


def test_several_lenders_need_a_choice_and_a_changed_key_is_refused(ready, lenders, tmp_path):
    second = lenders("lender-two")
    (tmp_path / "two.card").write_bytes(second.card_bytes)
    ready.ok("consent", "--lender", tmp_path / "two.card")
    assert "choose one with --to: lender-one, lender-two" in ready.refused("score")
    assert ready.ok("score", "--to", "lender-two")["lender"] == "Test Lender"
    (tmp_path / "two.card").write_bytes(lenders("lender-two").card_bytes)
    assert "another lender uses the id" in ready.refused("consent", "--lender", tmp_path / "two.card")


def test_update_drops_events_past_their_retention(ready, world):
    import numpy as np

    home = DeviceHome(world.repo.parent / "home")
    today = home.day(NOW)
    home.store.append_events("bill", {"day": np.array([today - 400, today - 10])})
    assert ready.ok("update")["events_dropped"] == 1
    assert ready.ok("status")["events"] == {"bill": 1}


def test_the_clock_of_a_home_can_start_elsewhere(tmp_path, world):
    home = DeviceHome.create(
        tmp_path / "h",
        repo="r",
        root=world.root.read_bytes(),
        cards=[],
        now=NOW,
        settings=Settings("r", epoch_day=21_000),
    )
    assert home.day(NOW) == NOW // 86_400 - 21_000
    with pytest.raises(InputError, match="no lender 'at all'"):
        home.lender("", NOW)


def test_settings_round_trip(tmp_path):
    settings = Settings('C:\\tuf "quoted" ü', yearly_rho=0.25)
    assert tomllib.loads(settings.to_toml())["repo"] == settings.repo
    (tmp_path / "device.toml").write_text(settings.to_toml(), "utf-8")
    assert Settings.read(tmp_path / "device.toml") == settings


def test_wrong_options_are_one_sentence_with_code_2(capsys):
    for argv in (["score"], ["fly", "HOME"], ["init", "HOME"], []):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "--help" in err


def test_every_command_has_help_and_examples_that_parse(capsys):
    commands = re.findall(r"^  pocketscore-device (.+)$", EXAMPLES, re.MULTILINE)
    for line in commands:
        assert build().parse_args(line.split()).run
    for name in (
        "init",
        "consent",
        "withdraw",
        "update",
        "score",
        "reasons",
        "ledger",
        "egress",
        "status",
        "join",
        "leave",
    ):
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert f"pocketscore-device {name} HOME" in capsys.readouterr().out


def test_ctrl_c_ends_cleanly(ready, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fl_client.home.DeviceHome.lender", interrupted)
    assert main(["score", ready.home], now=NOW) == 130
    assert capsys.readouterr().err.startswith("stopped")


def test_a_full_disk_leaves_no_half_file(ready, world, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    outbox = world.repo.parent / "home" / "outbox"
    before = sorted(outbox.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("fl_client.home.os.replace", full)
        assert "No space left" in ready.refused("score", "--ref", "loan-17")
    assert sorted(outbox.iterdir()) == before
    assert ready.ok("score", "--ref", "loan-17")["score"] >= 300  # the application stayed open
    assert "has its score already" in ready.refused("score", "--ref", "loan-17")


def test_joining_is_a_choice_that_can_be_taken_back(shell, world):
    start(shell, world)
    purpose = "credit risk scoring on the phone"
    assert "never joined" in shell.refused("leave") and shell.ok("status")["training"] == {}
    assert "no policy pack 'nope'" in shell.refused("join", "--pack", "nope")
    joined = shell.ok("join")
    assert joined["audience"] == "the federation" and shell.ok("join") == joined
    assert shell.ok("status")["training"] == {purpose: "in force, under in-rbi-2025"}
    assert shell.ok("join", "--pack", "eu-2026")["consent_id"] != joined["consent_id"]
    assert shell.ok("leave")["withdrawn_at"] is not None
    assert "already left" in shell.refused("leave")
    assert shell.ok("status")["training"] == {purpose: "withdrawn, under eu-2026"}
