"""`pocketscore-server lender …` from init to book, one sentence a mistake; and the example without torch or flwr."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fl_server.__main__ import app, main
from fl_server.lending.keys import LenderHome
from model.contract.envelope import Signed

DAY = 86_400
ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["lender", *map(str, arguments)])


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as end:
        main(lambda: app(["lender", *map(str, arguments)], standalone_mode=False))
    assert end.value.code == 1
    return capsys.readouterr().err


@pytest.fixture
def today(make_phone: Any, keys: Any, make_manifest: Any, home: LenderHome) -> Any:
    """A phone of today, and the release it scores with."""
    phone, now = make_phone(), int(time.time())
    manifest = make_manifest(created_at=now - DAY, expires_at=now + 90 * DAY)
    home.trust(keys.sign(manifest))
    times = {"issued_at": now, "expires_at": now + DAY}
    phone.today_consent = phone.consent(given_at=now - 1, expires_at=now + DAY)
    phone.today_score = lambda points, **more: phone.score(points, **times, **more)
    return phone


def test_from_init_to_book(tmp_path: Path, today: Any, home: LenderHome) -> None:
    box = tmp_path / "outbox"
    box.mkdir()
    (box / "1.sealed").write_bytes(today.today_score(640, ref="loan-1"))
    (box / "2.sealed").write_bytes(today.today_consent)
    opened = run("open", home.path, box)
    assert opened.exit_code == 0 and "1 accepted, 1 consent" in opened.output
    (tmp_path / "bad").write_bytes(b"junk")
    refused = run("open", home.path, tmp_path / "bad", "--json")
    assert refused.exit_code == 1 and json.loads(refused.stdout) == {"refused": 1}
    told = tmp_path / "told.json"
    told.write_text('{"loan-1": {"amount": 30000, "monthly_income": 40000}, "loan-2": {"amount": 5000}}')
    decided = run("decide", home.path, "--applications", told)
    assert "loan-1: approve" in decided.output and "loan-2: refer" in decided.output
    assert json.loads(run("decide", home.path, "--json").output) == []
    book = json.loads(run("book", home.path, "--json").output)
    assert book["envelopes_opened"] == 1 and book["decisions"] == {"approve": 1, "refer": 1}
    assert "devices: 1" in run("book", home.path).output


def test_init_trust_and_card(tmp_path: Path, keys: Any, make_manifest: Any) -> None:
    home = tmp_path / "new"
    assert run("init", home, "--name", "Fresh", "--audience", "fresh").exit_code == 0
    (tmp_path / "ring.json").write_text(json.dumps([key.hex() for key in keys.ring.values()]))
    (tmp_path / "manifest.cbor").write_bytes(keys.sign(make_manifest()).to_bytes())
    trusted = run("trust", home, tmp_path / "manifest.cbor", "--keyring", tmp_path / "ring.json")
    assert trusted.exit_code == 0 and "is trusted" in trusted.output
    assert run("card", home, "--out", tmp_path / "card.cbor").exit_code == 0
    assert Signed.from_bytes((tmp_path / "card.cbor").read_bytes()).domain == "lender/1"
    assert json.loads(run("card", home).output)["audience"] == "fresh"


def test_another_database_can_be_named(tmp_path: Path, home: LenderHome) -> None:
    url = f"sqlite:///{tmp_path / 'other.sqlite'}"
    assert run("book", home.path, "--database", url).exit_code == 0
    assert (tmp_path / "other.sqlite").exists() and not (home.path / "book.sqlite").exists()


def test_a_mistake_is_one_sentence(tmp_path: Path, home: LenderHome, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lender init" in sentence(capsys, "book", tmp_path / "nowhere")
    assert "cannot be read" in sentence(capsys, "open", home.path, tmp_path / "missing")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    assert "too large" in sentence(capsys, "open", home.path, tmp_path / "large")
    (tmp_path / "told.json").write_text("[]")
    assert "no map" in sentence(capsys, "decide", home.path, "--applications", tmp_path / "told.json")
    assert "as JSON" in sentence(capsys, "decide", home.path, "--applications", tmp_path / "none.json")


def test_the_example_opens_verifies_and_refuses_replays(tmp_path: Path, today: Any, home: LenderHome) -> None:
    now = int(time.time())
    first = replace(today.envelope(640), issued_at=now, expires_at=now + DAY)
    (tmp_path / "first").write_bytes(today.seal(first))
    (tmp_path / "second").write_bytes(today.seal(replace(first, ref="other")))
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "stranger").write_bytes(today.today_score(640, model_digest="ef" * 32))
    names = ["first", "first", "second", "junk", "stranger"]
    code = "import runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "finally: print(sorted({'torch', 'flwr'} & set(sys.modules)), file=sys.stderr)"
    files = [str(tmp_path / name) for name in names]
    command = [sys.executable, "-c", code, "examples/lender_verify.py", str(home.path), *files]
    done = subprocess.run(
        [*command, "--seen", str(tmp_path / "seen")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["accepted", "duplicate", "refused", "refused", "refused"]
    assert [line.get("error") for line in lines[2:]] == ["ReplayError", "ContractError", "IntakeError"]
    assert done.returncode == 1 and done.stderr.strip() == "[]"
