"""The section on two servers is what its runs say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from results_helper import TITLE  # noqa: E402
from two_servers import section  # noqa: E402


def test_page_and_runs_agree() -> None:
    runs = json.loads((ROOT / "docs" / "two_servers.json").read_text())
    bases = json.loads((ROOT / "docs" / "results.json").read_text())["baselines"]
    central = {int(split): float(base["central"]) for split, base in bases.items()}
    text, page = section(runs, central), (ROOT / "docs" / "results.md").read_text()
    assert TITLE in text and text.strip() in page
    for setting in (None, 2.0):
        worse = [{**r, "auc": r["auc"] - 0.01 * (r.get("helper_epsilon") == setting)} for r in runs]
        assert section(worse, central).strip() not in page


def test_each_setting_has_the_same_splits_as_often_and_holds_its_epsilons() -> None:
    runs = json.loads((ROOT / "docs" / "two_servers.json").read_text())
    equal, larger = ([r for r in runs if r.get("helper_epsilon") == asked] for asked in (None, 2.0))
    assert len(equal) == len(larger) == 20 and sorted(r["split"] for r in equal) == sorted(r["split"] for r in larger)
    assert all(r["released"] < r["coordinator"] == r["helper"] <= 1 for r in equal)
    assert all(r["released"] < r["coordinator"] <= 1 < r["helper"] <= 2 and r["share"] < 1 for r in larger)
