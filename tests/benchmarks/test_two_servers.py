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
    worse = [{**run, "auc": run["auc"] - 0.01} for run in runs]
    assert section(worse, central).strip() not in page
