"""Cases 62 to 64: folders that cannot be written or are taken, Ctrl-C and resuming, two runs in one folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import InputError, RunError
from simulation.experiment.folder import BLOCKS, LEDGER, RunFolder, opened

ROOT = Path(__file__).parents[2]
REQUEST = {"phones": 300}
SMALL = ("--phones", "300", "--rounds", "2", "--score", "0", "--no-baselines", "--noise", "0", "--json")
Cli = Any
HELD = """
import sys, time
from fl_server.checkpoint import Checkpoint
from simulation.__main__ import main
from simulation.experiment import scoring

def held(call, after):
    left = [after]
    def one(*told, **named):
        result = call(*told, **named)
        left[0] -= 1
        if not left[0]:
            time.sleep(600)  # until the test's signal
        return result
    return one

if sys.argv.pop(1) == "training":
    Checkpoint.commit = held(Checkpoint.commit, 4)
else:
    scoring.score_phone = held(scoring.score_phone, 20)
main()
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that end with the test, whatever it comes to."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(running: list[subprocess.Popen[str]], out: Path, *options: str, held: str = "") -> subprocess.Popen[str]:
    """`pocketscore simulate` as a terminal would start it: a process group of its own. One that is `held` in "training"
    or in "scoring" waits there, so that how busy the machine is decides nothing."""
    program = ["-c", HELD, held] if held else ["-m", "simulation"]
    process = subprocess.Popen(
        [sys.executable, *program, "simulate", *options, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=out.parent,
        start_new_session=True,
    )
    running.append(process)
    return process


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str, count: int) -> None:
    """Until `count` files match: what the test does next depends on them, and on nothing else."""
    deadline = time.monotonic() + 120
    while len(found(folder, pattern)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.02)


def found(folder: Path, pattern: str) -> list[Path]:
    """What matches now; folders may be renamed while they are walked."""
    try:
        return list(folder.rglob(pattern))
    except FileNotFoundError:
        return []


def lines_of(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.strip() and "━━━" not in line]


@pytest.mark.parametrize(
    "place", ["file/run", "file/deep/run", "/proc/run", "/proc/self/run", "x" * 300, "y" * 250], ids=lambda p: p[:12]
)
def test_case_62_an_unwritable_out(cli: Cli, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    said = cli("simulate", *SMALL, "--out", tmp_path / place)
    assert "cannot be written" in said.sentence and "choose a folder" in said.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "link"])
def test_case_62_something_stands_at_out(cli: Cli, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    else:
        (tmp_path / "there").mkdir()
        out.symlink_to("nowhere" if kind == "dangling link" else "there")
    before = sorted(tmp_path.rglob("*"))
    assert "exists already" in cli("simulate", *SMALL, "--out", out).sentence
    assert "no run of PocketScore" in cli("simulate", *SMALL, "--overwrite", "--out", out).sentence
    assert sorted(tmp_path.rglob("*")) == before
    if kind == "folder":
        assert (out / "thesis.txt").read_text() == "mine"


def test_case_62_an_earlier_run_is_replaced_only_on_demand_and_only_by_a_whole_one(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()  # an empty folder is as good as none
    first = cli("simulate", *SMALL, "--out", out).summary
    private = sorted(path.name for path in (tmp_path / "run.private").rglob("*.key"))
    assert "pass --overwrite" in cli("simulate", *SMALL, "--out", out).sentence
    refused = cli("simulate", "--phones", "40", "--overwrite", "--out", out)
    assert "40 phones" in refused.sentence
    kept = json.loads((out / "summary.json").read_text("utf-8"))
    assert kept == first and sorted(p.name for p in (tmp_path / "run.private").rglob("*.key")) == private
    second = cli("simulate", *SMALL, "--seed", "5", "--overwrite", "--out", out).summary
    assert json.loads((out / "summary.json").read_text("utf-8")) == second != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.private"]


def test_case_63_what_was_charged_is_kept_and_what_was_not_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), opened(out, REQUEST) as place:
        (place.partial / "plan.cbor").write_bytes(b"plan")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), opened(out, REQUEST) as place:
        place.federation.mkdir()
        (place.federation / LEDGER).write_text("spent")
        raise KeyboardInterrupt
    with pytest.raises(RunError, match="other options"), opened(out, {"phones": 301}):
        pass
    with opened(out, REQUEST) as place:
        assert (place.federation / LEDGER).read_text() == "spent"


def test_case_63_phones_are_kept_when_interrupted_and_removed_when_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for error, kept in ((RunError("refused"), False), (KeyboardInterrupt(), True), (RunError("refused"), True)):
        with pytest.raises(type(error)), opened(out, REQUEST) as place:
            block = place.federation / BLOCKS / "block-000000.npz"
            block.parent.mkdir(parents=True, exist_ok=True)
            block.write_bytes(b"made")
            raise error
        assert block.exists() is kept
    with opened(out, REQUEST) as place:
        assert (place.federation / BLOCKS / "block-000000.npz").read_bytes() == b"made"


def test_case_63_all_the_phones_are_kept_when_interrupted_before_the_first_charge(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for error, kept in ((RunError("refused"), False), (KeyboardInterrupt(), True), (RunError("refused"), True)):
        with pytest.raises(type(error)), opened(out, REQUEST) as place:
            place.data.mkdir(parents=True, exist_ok=True)
            raise error
        assert place.data.exists() is kept


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_case_63_interrupt_resumes(
    started: list[subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    """Stopped in training: one sentence, no DIR; the same command goes on, with the releases and the ε it has."""
    out = tmp_path / "run"
    options = ("--phones", "1500", "--rounds", "6", "--epsilon", "2", "--score", "0", "--no-baselines", "--json")
    first = start(started, out, *options, held="training")
    wait_for(first, tmp_path, "release-*.cbor", 4)
    os.killpg(first.pid, number)
    printed, said = first.communicate(timeout=60)
    assert (first.returncode, printed) == (130, "")
    assert lines_of(said) == ["interrupted; the same command goes on where it stopped"]
    assert not out.exists()
    place = RunFolder(out)
    before = {path.name: path.read_bytes() for path in place.rounds.glob("release-*.cbor")}
    ledger = (place.partial / LEDGER).read_bytes()
    assert len(before) == 4 and ledger

    second = start(started, out, *options)
    printed, said = second.communicate(timeout=240)
    assert second.returncode == 0, said
    after = {path.name: path.read_bytes() for path in (out / "rounds").glob("release-*.cbor")}
    assert {name: after[name] for name in before} == before and len(after) == 9  # knots, 6, calibration, evaluation
    whole = (out / LEDGER).read_bytes()
    assert whole.startswith(ledger.rstrip(b"\n"))
    charged = Counter((line["name"], line["round"]) for line in entries(whole) if line["kind"] == "reserve")
    assert len(charged) == 9 and set(charged.values()) == {1}
    assert json.loads(printed)["epsilon"]["released_models"] <= 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.private"]


def entries(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.integration
def test_case_63_interrupted_while_scoring(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    """A released model, a lender's book and a phone's home stand half-made; the same command still ends whole."""
    out = tmp_path / "run"
    options = ("--phones", "1500", "--rounds", "3", "--seed", "7", "--epsilon", "100", "--score", "300")
    options = (*options, "--no-baselines", "--json")
    first = start(started, out, *options, held="scoring")
    wait_for(first, tmp_path, "lender.log", 1)
    os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130 and "Traceback" not in said
    assert not out.exists()
    second = start(started, out, *options)
    printed, said = second.communicate(timeout=240)
    assert second.returncode == 0, said
    scored = json.loads(printed)["scored"]
    assert scored["envelopes_opened"] == scored["phones"] > 200


def test_case_64_two_runs_in_one_folder(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with opened(out, REQUEST) as place:
        (place.partial / "plan.cbor").write_bytes(b"mine")
        for more in ((), ("--overwrite",)):
            assert "another run is writing" in cli("simulate", *SMALL, *more, "--out", out).sentence
        with pytest.raises(RunError, match="another run"), opened(out, REQUEST):
            pass
        assert (place.partial / "plan.cbor").read_bytes() == b"mine"  # the refused run touched nothing of the first
        with opened(tmp_path / "other", REQUEST):
            pass
    with opened(out, REQUEST):  # the lock goes with its holder
        pass


def test_case_64_the_lock_of_a_killed_run_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / ".run.lock").touch()
    with opened(tmp_path / "run", REQUEST):
        assert (tmp_path / ".run.lock").exists()
    assert not (tmp_path / ".run.lock").exists()


def test_a_folder_that_goes_away_under_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((InputError, OSError)), opened(tmp_path / "run", REQUEST) as place:
        shutil.rmtree(place.partial)
        place.finish()


@pytest.mark.parametrize("name", ["run.private", "run.partial", "run.partial.private"])
def test_case_62_what_lies_beside_the_run_and_is_not_ours_stays(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes").write_text("mine")
    said = cli("simulate", *SMALL, "--out", tmp_path / "run")
    assert said.code == 2 and "move it" in said.sentence
    assert (tmp_path / name / "notes").read_text() == "mine"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kept", ["data", f"{BLOCKS}/block-0.npz"])
def test_case_63_a_refused_command_removes_no_phones_of_another(tmp_path: Path, kept: str) -> None:
    """With other options, or with the same and refused later, such as by a helper that is down."""
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), opened(out, REQUEST) as place:
        phones = place.federation / kept
        phones.parent.mkdir(parents=True)
        phones.write_bytes(b"phones")
        raise KeyboardInterrupt
    with pytest.raises(RunError, match="other options"), opened(out, {"phones": 301}):
        raise AssertionError("not reached")
    assert phones.read_bytes() == b"phones"
    with pytest.raises(RunError, match="no helper"), opened(out, REQUEST):
        raise RunError("no helper answers")
    assert phones.read_bytes() == b"phones"
    with pytest.raises(RunError, match="no helper"), opened(tmp_path / "fresh", REQUEST) as place:
        (place.federation / kept).parent.mkdir(parents=True)
        (place.federation / kept).write_bytes(b"phones")
        raise RunError("no helper answers")
    assert not place.partial.exists() and not place.private.exists()  # its own it removes
