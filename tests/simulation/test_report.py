"""What a run prints for a person."""

from __future__ import annotations

import copy
import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from model.privacy.mechanism import GaussianRelease
from simulation.report import next_steps, show

SUMMARY: dict[str, Any] = {
    "phones": 1500,
    "epsilon": {
        "released_models": 1.5, "participation_viewer": 1.5, "coordinator": None,
        "coordinator_reason": "it sees [sums]", "delta": 1e-5, "relation": "zero-out", "unit": "phone",
        "mode": "central", "noise_source": "os", "helper": None, "helper_reason": "no helper", "condition": "",
        "alone_round": None, "lifetime": {
            "one_year": {"composed": 6.13, "helper": 11.27}, "five_years": {"composed": 16.05, "helper": 31.24},
        },
        "coordinator_noise": 1.0, "charges": [GaussianRelease("training", 5.35, 1.0, 20, 1.0, "train").to_dict()],
    },
    "auc": {
        "federated": 0.71, "private": {"value": 0.70, "se": 0.01}, "central": 0.72, "boosting": None, "silo": None,
        "oracle": None, "central_model": "additive",
    },
    "ks": 0.3, "ece": 0.02, "engine": {"name": "batched", "why": "batched: as asked", "updates_per_second": 4000.0},
    "seconds": {"phones": 1.0, "total": 9.0}, "peak_rss_mb": 400.0,
    "gate": {"passed": True, "reasons": []},
    "release": {"onnx_bytes": 21000, "parity_max_abs": 1e-7},
    "scored": {"phones": 10, "p50_us": 17.0, "p99_us": 30.0, "envelopes_opened": 10},
    "egress": {"bytes_per_phone": {"score/1": 900.0}, "undeclared": 0}, "alarms": [], "aggregation": "mean",
}  # fmt: skip


def shown(summary: dict[str, Any], notes: tuple[str, ...] = (), width: int = 120, colour: bool = False) -> str:
    held = io.StringIO()
    console = Console(file=held, width=width, force_terminal=colour, color_system="standard" if colour else None)
    show(console, summary, notes, {"approved": 9, "declined": 1})
    return held.getvalue()


def changed(**paths: Any) -> dict[str, Any]:
    summary = copy.deepcopy(SUMMARY)
    for path, value in paths.items():
        *outer, last = path.split("__")
        place = summary
        for name in outer:
            place = place[name]
        place[last] = value
    return summary


def test_every_figure_says_whether_it_is_charged_or_of_a_simulation() -> None:
    lines = {line.split("  ")[0]: line for line in shown(SUMMARY).splitlines()}
    assert lines["AUC, evaluated privately"].rstrip().endswith("charged") and "± 0.0100" in shown(SUMMARY)
    for name in ("AUC, federated", "AUC, central (additive)", "KS"):
        assert lines[name].rstrip().endswith("simulation only")
    assert "–" in lines["AUC, boosting"]


def test_reasons_and_notes_are_text_and_never_markup() -> None:
    text = shown(SUMMARY, ("column '[bold]x[/bold]' is empty",))
    assert "it sees [sums]" in text and "'[bold]x[/bold]'" in text


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (changed(epsilon__mode="off"), "privacy is off"),
        (changed(epsilon__noise_source="test-seeded"), "the noise is seeded for a test"),
    ],
)
def test_what_protects_nobody_is_red(summary: dict[str, Any], words: str) -> None:
    line = next(line for line in shown(summary, colour=True).splitlines() if words in line)
    assert "\x1b[1;31m" in line
    assert words not in shown(SUMMARY)


def test_every_observer_is_shown_with_its_reason_or_its_condition() -> None:
    central = shown(SUMMARY)
    assert "no helper" in central and "6.1 / 16.1" in central and "alone" not in central
    assert "against whoever reads releases, if a phone took part every month" in central
    helper = changed(
        epsilon__coordinator=0.98, epsilon__coordinator_reason="", epsilon__helper=1.97, epsilon__helper_reason="",
        epsilon__condition="unless both collude", epsilon__mode="helper",
    )  # fmt: skip
    text = shown(helper)
    assert all(
        words in text for words in ("0.9800", "1.9700", "unless both collude", "under the noise it does not make")
    )
    equal = shown(changed(epsilon__coordinator=0.98, epsilon__helper=0.98))
    for said, over_years in ((text, True), (equal, False), (central, False)):
        assert ("11.3 / 31.2" in said and "lesser noise" in said) == over_years
    assert "in one hand" not in text and "nothing was really held apart" in shown(helper | {"one_hand": True})
    assert "99.7000" in shown(changed(epsilon__alone_round=99.7)) and "1 and 5 years" in central
    assert "–" in shown(changed(epsilon__lifetime=None))


def test_the_years_say_against_whom_and_how_often_a_phones_cap_allows_the_plan() -> None:
    """ρ of 20 answers at z 5.35 is .349: once a year; at half the noise, which the phone counts then, 1.4: never."""
    helper = {"epsilon__mode": "helper", "epsilon__coordinator": 0.98, "epsilon__helper": 1.97}
    once, never = (
        shown(changed(**helper), width=160),
        shown(changed(**helper, epsilon__coordinator_noise=0.5), width=160),
    )
    assert "against the coordinator, if a phone took part every month" in once and "reads releases" not in once
    assert "(ρ .5) takes part once a year: one plan costs it ρ 0.349" in once
    assert "(ρ .5) would not take part: one plan costs it ρ 1.4" in never and "takes part once" not in never
    off = shown(changed(epsilon__mode="off", epsilon__lifetime=None, epsilon__charges=[]))
    assert "yearly cap" not in off  # control: nothing is said where nothing is charged


def test_a_run_without_a_release_or_figures_is_shown_too() -> None:
    bare = changed(release=None, ks=None, ece=None, epsilon__released_models=None, engine__updates_per_second=None)
    bare["auc"] |= {"federated": None, "private": {"value": None, "se": None}, "central": None, "central_model": None}
    bare["scored"] |= {"phones": 0, "p50_us": None, "p99_us": None}
    text = shown(bare)
    assert "no release: the gate refused the model" in text and "AUC, central (–)" in text


def test_the_commands_to_go_on_with_are_lines_a_shell_can_run() -> None:
    held = io.StringIO()
    out = Path("my runs/[first]")
    next_steps(Console(file=held, width=40), out, Path("my runs/[first].private/phone").absolute())
    lines = [line.strip() for line in held.getvalue().splitlines() if line.startswith("  ")]
    assert [shlex.split(line)[0] for line in lines] == [
        *["pocketscore-device"] * 2, *["pocketscore-server"] * 2, *["pocketscore-review"] * 3,
    ]  # fmt: skip
    assert shlex.split(lines[0]) == ["pocketscore-device", "update", "my runs/[first].private/phone"]
    assert shlex.split(lines[-1]) == ["pocketscore-review", "page", "my runs/[first]"]
    assert "The report is my runs/[first]/report.html." in held.getvalue()
    next_steps(Console(file=(short := io.StringIO()), width=40), out, None)
    assert "pocketscore-device" not in short.getvalue() and "pocketscore-review check" in short.getvalue()


def test_alarms_and_updates_in_the_clear_stand_in_red() -> None:
    alarm = {"round": 3, "sentence": "the sum's norm 9 exceeds the 8 that clipped phones and noise can give"}
    text = shown(changed(alarms=[alarm], aggregation="median"), colour=True)
    plain = shown(changed(alarms=[alarm], aggregation="median"))
    assert "round 3: the sum's norm 9" in plain and "every update was seen in the clear, for median" in plain
    assert text.count("\x1b[1;31m") > shown(SUMMARY, colour=True).count("\x1b[1;31m")
    assert "clear" not in shown(SUMMARY) and "the sum's norm" not in shown(SUMMARY)
