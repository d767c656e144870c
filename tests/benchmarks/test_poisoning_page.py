"""The section on poisoning: one place on its page, made of whatever lines there are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from poisoning_page import TITLE, section, with_section  # noqa: E402

from simulation.redteam.poisoning_table import GATED, Run, lines  # noqa: E402

PAGE = "# Results\n\nBefore.\n"
FOUND = lines([Run.from_dict(raw) for raw in json.loads((ROOT / "docs" / "poisoning.json").read_text())["runs"]])


def test_the_section_stands_once_and_nothing_else_moves() -> None:
    once = with_section(PAGE, f"{TITLE}\n\nFirst.\n")
    assert once == f"{PAGE}\n{TITLE}\n\nFirst.\n"
    later = once + "\n## Later\n\nStays.\n"
    again = with_section(later, f"{TITLE}\n\nSecond.\n")
    assert again == f"{PAGE}\n{TITLE}\n\nSecond.\n\n## Later\n\nStays.\n"
    assert with_section(again, f"{TITLE}\n\nSecond.\n") == again


def test_the_page_holds_what_the_figures_say() -> None:
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert with_section(page, section(FOUND)) == page


def test_what_is_claimed_of_many_rows_holds_and_what_is_admitted_of_one_row_is_so() -> None:
    mine = [line for line in FOUND if _plain(line.cell.setting) and line.cell.share == 0.1]
    loss = {(line.cell.setting.rows, line.cell.attack): line for line in mine}
    assert all(loss[24, attack].loss <= 0.02 for attack in GATED)
    assert [attack for attack in GATED if loss[0, attack].loss > 0.02] == ["ipm-10"]
    assert all(line.runs >= 5 for line in FOUND)


def test_no_alarm_was_raised_without_hostile_phones() -> None:
    assert {line.flagged + line.odd for line in FOUND if line.cell.attack == "none"} == {0.0}


def _plain(setting) -> bool:  # type: ignore[no-untyped-def]
    held = (setting.rows, setting.clip) in ((0, 0.0), (24, 0.1))
    return held and not setting.epsilon and not setting.phones and setting.rule == "mean"
