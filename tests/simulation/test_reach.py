"""Availability from the command line to the plan and the report: refusals, over-selection, and a whole run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fl_server.review.__main__ import app as review
from model.errors import InputError
from model.privacy.accountant import epsilon
from simulation.attendance import Reach
from simulation.experiment.compose import Finished, execute
from simulation.experiment.request import Request
from simulation.faults import Faults
from simulation.planning import Options, build_plan
from simulation.report import _groups
from simulation.small import small_dataset

Cli = Any
NOW = 1_790_000_000
DATA = small_dataset(3000)
NIGHT = Reach("diurnal", 8.0, 1.3, Faults(0.05, 0.1, 0.01, 0.01))


def plan_of(**options: Any) -> Any:
    return build_plan(DATA, Options(**options), unit="phone", now=NOW)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--availability", "sometimes"), "--availability 'sometimes' is unknown; use always or diurnal"),
        (("--deadline", "0"), "--deadline 0 is outside 0 to 336 hours"),
        (("--deadline", "-2"), "--deadline -2 is outside"),
        (("--over-select", ".5"), "--over-select 0.5 is outside 1 to 10"),
        (("--faults", "explode=.1"), "--faults names 'explode', which is unknown"),
        (("--faults", "drop=1.2"), "--faults drop=1.2 is outside 0 to 1"),
        (("--faults", "drop=.7,hostile=.7"), "--faults add up to 1.4"),
        (("--faults", "drop=.95", "--availability", "diurnal"), "phones would answer by the deadline, too few"),
    ],
)
def test_a_mistake_is_one_sentence(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    assert words in cli("simulate", "--phones", 200, *arguments, "--out", tmp_path / "run").sentence
    assert not (tmp_path / "run").exists()


def test_help_names_the_options_and_an_example(cli: Cli) -> None:
    said = " ".join(cli("simulate", "--help").out.split())
    for word in ("--availability", "--deadline", "--over-select", "--faults", "--availability diurnal --deadline 8"):
        assert word in said


def test_the_plan_says_what_is_really_asked_and_is_charged_for_it() -> None:
    plain, more = plan_of(participation=0.5), plan_of(participation=0.5, reach=NIGHT)
    assert (plain.participation, plain.response) == (0.5, 1.0)
    assert more.participation == pytest.approx(0.65) and 0.3 < more.response < 0.7
    assert more.expected_cohort == pytest.approx(0.65 * more.response * more.phones)
    charge = {c.name: c for c in more.privacy.charges}["training"]
    assert charge.sampling == more.participation and charge.sensitivity == more.local.clip_norm
    assert epsilon(more.privacy.charges, more.privacy.delta, split="train") <= more.privacy.epsilon_budget
    same = {c.name: c for c in plain.privacy.charges}["training"]
    assert charge.noise_multiplier > same.noise_multiplier  # asking more is paid for, at the same ε, with more noise


def test_over_selection_changes_nothing_for_who_sees_participation() -> None:
    """Whoever sees who took part gains nothing from the coin: their ε is that of full rounds, whatever q is."""
    plans = [plan_of(noise=8.0, participation=0.5, reach=replace(NIGHT, over_select=f)) for f in (1.0, 1.3)]
    seen = [[replace(c, sampling=1.0) for c in plan.privacy.charges if c.name == "training"] for plan in plans]
    assert epsilon(seen[0], 1e-5) == epsilon(seen[1], 1e-5)
    asked = [epsilon([c for c in plan.privacy.charges if c.name == "training"], 1e-5) for plan in plans]
    assert asked[0] < asked[1] < epsilon(seen[0], 1e-5)


def test_all_are_asked_at_most_and_a_cohort_is_raised_for_those_who_stay_away() -> None:
    assert plan_of(reach=replace(NIGHT, over_select=3.0)).participation == 1.0
    few, fewer = plan_of(participation=0.01), plan_of(participation=0.01, reach=replace(NIGHT, over_select=1.0))
    assert fewer.participation == pytest.approx(few.participation / fewer.response, rel=1e-9)


def test_too_few_answers_are_refused_before_anything_is_asked() -> None:
    with pytest.raises(InputError, match="too few to be sure of a cohort of 30; give a longer --deadline"):
        build_plan(small_dataset(500), Options(reach=NIGHT), unit="phone", now=NOW)
    build_plan(small_dataset(500), Options(), unit="phone", now=NOW)  # the control: with everybody there it runs


def test_the_table_shows_everyone_and_the_least_reached_first() -> None:
    row = {"column": "side", "group": "[few]", "gap_everyone": 0.01, "gap_reached": 0.02, "auc_change": None}
    row |= {"ratio": 0.5, "pd_change": 0.01, "pd_change_ci": 0.004, "auc_change_ci": None}
    rows = [{**row, "group": f"g{n}", "ratio": 2 - n / 10} for n in range(12)] + [row]
    rows.append({**row, "column": "all", "group": "everyone", "ratio": 1.0})
    held = io.StringIO()
    Console(file=held, width=80).print(_groups(rows))
    lines = [line.split("  ")[0] for line in held.getvalue().splitlines() if "0.0100±0.0040" in line]
    assert lines[:3] == ["all everyone", "side [few]", "side g11"] and len(lines) == 9


def _quiet(*step: object) -> None:
    """No progress bar."""


@pytest.mark.integration
def test_a_run_says_who_was_reached_what_that_did_and_the_reviewer_recomputes_it(tmp_path: Path) -> None:
    """A small run in which phones answer at night and some misbehave."""
    options = Options(epsilon=50.0, rounds=3, seed=7, participation=0.7, reach=NIGHT)
    night = execute(Request(1500, options=options, scored=0, baselines=False), tmp_path / "run", _quiet)
    reach = night.summary["reach"]
    fates = reach["fates"]
    names = ("offline", "dropped", "late", "refused", "counted")
    assert fates["asked"] == sum(fates[name] for name in names) and min(fates.values()) > 0
    assert reach["response"] == pytest.approx(reach["expected_response"], abs=0.05)
    groups = {(row["column"], row["group"]): row for row in reach["groups"]}
    assert groups["handset", "low"]["ratio"] < 0.85 < 1.1 < groups["handset", "top"]["ratio"]
    assert {"gender", "age_band", "region", "handset", "all"} == {column for column, _ in groups}
    assert "reach" in night.summary["simulation_only"]
    figures = json.loads((night.out / "figures.json").read_text("utf-8"))
    assert [row["round"] for row in figures["reach"]["rounds"]] == [0, 1, 2, 3, 4, 5]
    trained = [row["phones"] for row in figures["rounds"]]
    assert trained == [row["counted"] for row in figures["reach"]["rounds"] if row["kind"] == "train"]
    assert not list((night.out.with_name("run.private")).glob("bias*"))
    assert not review(["check", str(night.out)], standalone_mode=False)
    assert "Who was reached" in (night.out / "report.html").read_text("utf-8")


@pytest.mark.integration
def test_supernodes_count_whom_this_process_counts(tmp_path: Path) -> None:
    options = Options(epsilon=50.0, rounds=1, seed=7, reach=NIGHT, test_seeded=True)
    made = execute(
        Request(1500, options=options, farms=2, scored=0, baselines=False, grid="superlink"), tmp_path / "run", _quiet
    )
    (same,) = [note for note in made.notes if "end on the same model" in note]
    assert float(same.rsplit(" ", 1)[1]) < 5e-5
    assert made.summary["reach"]["fates"]["offline"] > 0


@pytest.mark.integration
def test_where_everybody_answers_nothing_is_said(whole: Finished) -> None:
    assert whole.summary["reach"] is None
    assert "Who was reached" not in (whole.out / "report.html").read_text("utf-8")
