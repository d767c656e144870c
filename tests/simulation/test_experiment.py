"""One whole run: what it leaves, what its summary says, and what a reviewer finds when one byte is changed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_server.review.__main__ import app as review
from simulation.experiment.compose import Finished, execute
from simulation.experiment.request import Request
from simulation.planning import Options

Cli = Any
NUMBER = (int, float)
FIELDS: dict[str, Any] = {  # of the summary: the type, a tuple of types, or the fields below
    "schema": str, "phones": int, "labelled_rows": int, "rounds": int, "participation": NUMBER, "clip": NUMBER,
    "noise_multiplier": NUMBER,
    "epsilon": {
        "released_models": NUMBER, "participation_viewer": NUMBER, "coordinator": type(None),
        "coordinator_reason": str, "helper": type(None), "helper_reason": str,
        "condition": str, "alone_round": type(None), "lifetime": dict, "delta": float, "coordinator_noise": float,
        "relation": str, "unit": str, "charges": list,
    },
    "auc": {
        "federated": float, "private": {"value": float, "se": float}, "central": type(None), "boosting": type(None),
        "silo": type(None), "oracle": float,
    },
    "ks": float, "ece": float, "engine": {"name": str, "updates_per_second": NUMBER}, "seconds": dict,
    "peak_rss_mb": NUMBER, "release": {"digest": str, "onnx_bytes": int, "parity_max_abs": float},
    "scored": {"phones": int, "p50_us": NUMBER, "p99_us": NUMBER, "envelopes_opened": int},
    "egress": {"bytes_per_phone": dict, "undeclared": int},
}  # fmt: skip


def assert_fields(found: Any, wanted: Any, where: str = "summary") -> None:
    if isinstance(wanted, dict):
        for name, kind in wanted.items():
            assert name in found, f"{where}.{name} is missing"
            assert_fields(found[name], kind, f"{where}.{name}")
    else:
        assert isinstance(found, wanted) and not isinstance(found, bool), f"{where} is {found!r}, not {wanted}"


def quiet(*step: object) -> None:
    """No progress bar."""


def run(folder: Path, phones: int = 400, **changes: Any) -> Finished:
    """A small run without scores; what `changes` names goes to the options, else to the request."""
    asked = {name: changes.pop(name) for name in ("regime", "farms") if name in changes}
    options = Options(**{"rounds": 2, **changes})
    return execute(Request(phones, options=options, scored=0, baselines=False, **asked), folder / "run", quiet)


def code_of(folder: Path) -> int:
    """Exit code of `pocketscore-review check`; typer hands an Exit's code back instead of raising it."""
    found = review(["check", str(folder)], standalone_mode=False)
    return int(found or 0)


@pytest.mark.integration
def test_the_summary_has_every_field_of_its_kind(whole: Finished) -> None:
    printed = json.loads((whole.out / "summary.json").read_text("utf-8"))
    assert_fields(printed, FIELDS)
    assert printed["schema"] == "pocketscore.summary/1"
    with pytest.raises(AssertionError, match=r"summary\.ks is missing"):
        assert_fields({k: v for k, v in printed.items() if k != "ks"}, FIELDS)


@pytest.mark.integration
def test_what_the_summary_says_of_privacy(whole: Finished) -> None:
    epsilon = whole.summary["epsilon"]
    assert epsilon["coordinator"] is None and "coordinator" in epsilon["coordinator_reason"]
    assert epsilon["released_models"] == epsilon["participation_viewer"] <= 100.0
    assert {c["name"] for c in epsilon["charges"]} == {"knots", "training", "calibration", "evaluation"}
    assert (epsilon["relation"], epsilon["unit"], epsilon["noise_source"]) == ("zero-out", "phone", "os")
    assert set(whole.summary["simulation_only"]) >= {"auc.federated", "auc.central", "auc.oracle", "ks", "ece"}


@pytest.mark.integration
def test_every_scored_phone_reached_the_lender_and_nothing_else_left(whole: Finished) -> None:
    scored, egress = whole.summary["scored"], whole.summary["egress"]
    assert 5 <= scored["phones"] == scored["envelopes_opened"] <= 10
    assert sum(whole.decisions.values()) == scored["phones"]
    assert egress["undeclared"] == 0
    assert set(egress["bytes_per_phone"]) == {"update/1", "analytics/1", "score/1", "consent/1"}
    assert whole.summary["release"]["parity_max_abs"] <= 1e-6


@pytest.mark.integration
def test_the_run_folder_is_whole_and_keys_lie_outside(whole: Finished) -> None:
    files = {str(path.relative_to(whole.out)) for path in whole.out.rglob("*") if path.is_file()}
    assert files >= {
        "plan.cbor", "ledger.jsonl", "summary.json", "figures.json", "egress.json", "keys.json", "bundle.cbor",
        "report.html", "release/model.onnx", "release/manifest.cbor", "archive/updates.npz", "lender/book.sqlite",
    }  # fmt: skip
    secrets = [path for path in files if path.endswith((".key", "device.toml", "store.sqlite")) or "private" in path]
    assert secrets == []
    private = whole.out.with_name("run.private")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert list(private.rglob("*.key")) and whole.home == private / "phone"
    beside = sorted(path.name for path in whole.out.parent.iterdir())
    assert beside == ["run", "run.private"]  # no lock, no partial folder, no rows of phones
    assert not (private / "data").exists() and not list(private.rglob("*.npy"))


@pytest.mark.integration
def test_a_reviewer_finds_the_run_whole_and_one_flipped_byte(
    whole: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(whole.out) == 0
    for name in ("release/model.onnx", "ledger.jsonl", "summary.json"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(whole.out, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        assert code_of(copy) == 1
    capsys.readouterr()


def test_noise_0_turns_privacy_off_says_so_in_red_and_releases_nothing(cli: Cli, tmp_path: Path) -> None:
    arguments = ("--phones", 300, "--noise", 0, "--rounds", 2, "--score", 0, "--no-baselines", "--out")
    said = cli("simulate", *arguments, tmp_path / "run")
    assert said.code == 0 and "privacy is off" in said.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert summary["release"] is None and summary["scored"]["phones"] == 0
    assert (summary["epsilon"]["mode"], summary["epsilon"]["released_models"]) == ("off", None)
    assert summary["noise_multiplier"] == 0 and not (tmp_path / "run" / "tuf").exists()
    assert "no release" in said.out and "no finite epsilon" in said.out
    assert summary["one_hand"] is False and "in one hand" not in said.out


def test_two_servers_in_one_process_are_said_to_be_in_one_hand(cli: Cli, tmp_path: Path) -> None:
    arguments = ("--phones", 300, "--privacy", "helper", "--rounds", 1, "--score", 0, "--no-baselines", "--out")
    said = cli("simulate", *arguments, tmp_path / "run")
    assert said.code == 0 and "both servers in one hand, so nothing was really held apart" in said.out
    assert json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))["one_hand"] is True
    assert "nothing was really held apart" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.integration
def test_the_weak_regime_has_less_to_find(tmp_path: Path) -> None:
    weak, default = (
        run(tmp_path / regime, 1500, regime=regime, seed=3).summary["auc"]["oracle"] for regime in ("weak", "default")
    )
    assert weak < default - 0.03


@pytest.mark.integration
def test_the_mlp_trains_and_is_smaller_than_150_kb(tmp_path: Path) -> None:
    made = run(tmp_path, model="mlp")
    assert made.summary["model"]["kind"] == "mlp" and 0 <= made.summary["auc"]["federated"] <= 1


@pytest.mark.integration
def test_half_of_the_phones_a_round_costs_less_epsilon_to_releases_than_to_who_sees_them_come(tmp_path: Path) -> None:
    summary = run(tmp_path, participation=0.5, farms=3).summary
    assert summary["participation"] == 0.5
    assert summary["epsilon"]["released_models"] <= 1.5 < summary["epsilon"]["participation_viewer"]


@pytest.mark.integration
def test_a_participation_too_small_for_a_cohort_is_raised_and_said(tmp_path: Path) -> None:
    made = run(tmp_path, participation=0.01)
    assert 0.1 < made.summary["participation"] < 1
    assert any("participation rose from 0.01" in note for note in made.notes)
    rounds = json.loads((made.out / "figures.json").read_text("utf-8"))["rounds"]
    assert all(30 <= row["phones"] < 300 for row in rounds)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--phones", "300", "--epsilon", "1", "--noise", "2"), "--epsilon and --noise both set the noise"),
        (("--phones", "300", "--model", "forest"), "--model 'forest' is unknown"),
        (("--phones", "300", "--regime", "odd"), "no population regime 'odd'"),
        (("--phones", "20"), "20 phones leave"),
        (("--phones", "0"), "--phones 0 is outside"),
        (("--phones", "300", "--farms", "0"), "--farms must be 1 to 64"),
        (("--phones", "300", "--rounds", "x"), "'x' is not a valid integer; see pocketscore simulate --help"),
        (("--phones", "300", "--bogus", "1"), "No such option"),
        ((), "--phones N or --data FILE"),
        (("--phones", "300", "--target", "y"), "--target goes with --data FILE"),
        (("--phones", "300", "--data", "t.csv", "--target", "y"), "and not both"),
        (("--data", "t.csv"), "--data needs --target COLUMN"),
        (("--data", "nowhere.csv", "--target", "y"), "nowhere.csv is not a file"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in cli("simulate", *arguments, "--out", tmp_path / "run").sentence
    assert list(tmp_path.iterdir()) == []


def test_a_missing_out_and_an_unknown_command(cli: Cli) -> None:
    assert "'--out'; see pocketscore simulate --help" in cli("simulate", "--phones", "300").sentence
    assert "'simulat'" in cli("simulat").sentence


@pytest.mark.parametrize("command", ["simulate", "demo"])
def test_help_shows_an_example(cli: Cli, command: str) -> None:
    said = cli(command, "--help")
    assert said.code == 0 and f"pocketscore {command} --" in " ".join(said.out.split())


def test_no_argument_is_help(cli: Cli) -> None:
    said = cli()
    assert said.code == 2 and "simulate" in said.out + said.err and "✗" not in said.err


def test_the_audit_shows_large_groups_of_held_out_rows_and_no_small_ones() -> None:
    from simulation.experiment.figures import Exact, audit
    from simulation.small import small_dataset

    held = small_dataset(400).split()[1]
    group = np.array(["rare" if i < 5 else "common" for i in range(held.phones)])
    held = dataclasses.replace(held, protected={"group": group})
    pd = np.full(len(held.y), 0.2)
    rows = audit(Exact(0.5, 0.0, 0.0, pd, held.y), held)
    assert [row["group"] for row in rows] == ["common"]  # five phones are about nobody in general
    mine = np.repeat(group, held.counts) == "common"
    assert rows[0]["rows"] == mine.sum() and rows[0]["observed"] == pytest.approx(float(held.y[mine].mean()))
