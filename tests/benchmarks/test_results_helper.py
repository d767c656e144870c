"""The section on two servers of docs/results.md."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from results import Found, Job, earlier, save
from results_helper import TITLE, section, with_section


@dataclass(frozen=True)
class Run:
    auc: float
    ece: float = 0.01
    released: float = 0.68
    coordinator: float = 0.99
    helper: float = 0.99


def test_the_row_says_what_the_runs_say() -> None:
    runs = {(1, 0): Run(0.76), (1, 1): Run(0.78), (2, 0): Run(0.77, ece=0.02, coordinator=1.0)}
    text = section(runs, {1: 0.775, 2: 0.771})
    row = text.splitlines()[-3]
    assert row == (
        "| 1.0000 | 0.9900 | 0.6800 | 2 × 2 (3 runs) | 0.7700 ± 0.0100 | 0.7600 | +0.0037 ± 0.0103 | 0.0133 | 0.0200 |"
    )
    assert "--only helper --splits 2 --draws 2" in text


def test_the_section_goes_before_the_others_and_is_replaced_where_it_was() -> None:
    page = "# Results\n\nfirst\n\n## Poisoning\n\nlast\n"
    once = with_section(page, f"{TITLE}\n\none\n")
    assert once == f"# Results\n\nfirst\n\n{TITLE}\n\none\n\n## Poisoning\n\nlast\n"
    assert with_section(once, f"{TITLE}\n\ntwo\n") == once.replace("one", "two")
    assert with_section("# Results\n", f"{TITLE}\n\none\n") == f"# Results\n\n{TITLE}\n\none\n"
    assert with_section(page, "") == page


def test_runs_come_back_from_the_json_as_they_went(tmp_path: Path) -> None:
    found = {
        Job("additive", 1.0, 9000, 0): Found(0.77, 0.01, math.nan, 0.02, 1.0),
        Job("additive", 1.0, 9000, 0, "helper"): Found(0.769, 0.01, 0.76, 0.02, 0.68, 0.99, 0.99),
    }
    save(tmp_path / "results.md", [], {9000: {"central": 0.77}}, found)
    back, bases = earlier([tmp_path / "results.json"])
    assert set(back) == set(found) and bases == {9000: {"central": 0.77}}
    for job, figure in found.items():
        assert str(back[job]) == str(figure)
    assert "NaN" not in (tmp_path / "results.json").read_text()
