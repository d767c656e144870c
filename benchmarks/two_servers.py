"""Two servers' noise on the Taiwan card table: the section "Two servers" of docs/results.md.

The plan is that of `--privacy helper` at a coordinator's ε of 1; what is run is its sum without masks under a noise of
√2 times its multipliers, which is what both servers add. A masked run releases the unmasked one's sums to the last
unit (tests/simulation/test_helper_mode.py), and two equal discrete Gaussians are one of √2 σ within 2⁻¹¹⁰ (spec
13.10.1), so the figures are those of the protocol at a tenth of its cost; `results.py --only helper` runs all of it.
Runs are kept in docs/two_servers.json as they are done. Example: python benchmarks/two_servers.py --draws 2
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from results import FIRST_SPLIT, ID, PROTECTED, TARGET, interval, table_path
from results_helper import HELPER_EPSILON, with_section

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = """
The same table under the noise of mode `helper`: each server adds noise by itself, the coordinator's ε is that of the
helper's noise alone, with every charge and no amplification, and releases carry both. ε: coordinator {coordinator:.4f},
helper {helper:.4f}, releases {released:.4f}. Same splits and charges as above, {splits} splits × {draws} draws, by
`python benchmarks/two_servers.py` (unmasked sums under both noises, equal to the masked ones to the last unit).

| runs | AUC, mean ± 95 % | least | gap to central, paired ± 95 % | ECE, mean | ECE, worst |
|---|---|---|---|---|---|
| {runs} | {auc:.4f} ± {half:.4f} | {least:.4f} | {gap:+.4f} ± {gap_half:.4f} | {ece:.4f} | {worst:.4f} |

One run with every message masked and sealed, 24,000 phones and 22 sums (split 9000): AUC .7711, ECE .0126.
About 30 other settings (server rate and momentum, L2, clip, rounds, averaging, shares, knots) were tried on other
splits and other tables; none was better beyond the sampling error without costing elsewhere, so the default plan
stands. Without noise the first five of these splits give .7718: at this ε the noise costs about .002.
"""


def one(split: int) -> dict[str, Any]:
    """One training: exact AUC and ECE on held-out rows, and ε by observer."""
    from model.privacy.observers import observers
    from simulation.experiment import figures, training
    from simulation.experiment.folder import opened
    from simulation.experiment.request import Request
    from simulation.experiment.sources import Source
    from simulation.planning import Options, build_plan
    from simulation.table import TableChoice, read_table

    choice = TableChoice(table_path(), TARGET, None, ID, PROTECTED)
    data = read_table(choice, split_seed=split).dataset
    wish = Options(epsilon=HELPER_EPSILON, privacy="helper", seed=split)
    promised = build_plan(data, wish, unit="row", now=0, helper_key="ab" * 32)
    z = {charge.name: charge.noise_multiplier for charge in promised.privacy.charges}
    options = Options(noise=math.sqrt(2) * z["training"], seed=split)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "run", {}) as place:
        data.save(place.data)
        plan = training.plan_of(place, Source(data, "row"), Request(None, choice, options=options, farms=1), 0)
        result, _ = training.train(place, plan, Request(None, choice, options=options, farms=1), lambda *told: None)
    found = figures.exact(figures.network_of(result), result.platt, data.split()[1])
    seen = observers(promised.privacy.charges, promised.privacy.delta, "helper", 0)
    shown = {"coordinator": seen.coordinator, "helper": seen.helper, "released": seen.released_models}
    return {"split": split, "auc": found.auc, "ece": found.ece, **shown}


def section(runs: list[dict[str, Any]], central: dict[int, float]) -> str:
    """Markdown of all runs; intervals are Student's t over splits, draws averaged within one."""
    splits = sorted({run["split"] for run in runs})
    means = [sum(r["auc"] for r in runs if r["split"] == s) / sum(r["split"] == s for r in runs) for s in splits]
    auc, half = interval(means)
    gap, gap_half = interval([central[s] - mean for s, mean in zip(splits, means, strict=True)])
    eces = [run["ece"] for run in runs]
    seen = {name: max(run[name] for run in runs) for name in ("coordinator", "helper", "released")}
    numbers = {"auc": auc, "half": half, "gap": gap, "gap_half": gap_half, "least": min(r["auc"] for r in runs)}
    counted = {"runs": len(runs), "splits": len(splits), "draws": len(runs) // len(splits)}
    ece = {"ece": sum(eces) / len(eces), "worst": max(eces)}
    return "## Two servers\n" + TEXT.format(**seen, **numbers, **counted, **ece)


def main() -> None:
    """Make the runs that are missing, then the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2)
    asked = parser.parse_args()
    kept = DOCS / "two_servers.json"
    runs = json.loads(kept.read_text()) if kept.exists() else []
    for split in range(FIRST_SPLIT, FIRST_SPLIT + asked.splits):
        while sum(run["split"] == split for run in runs) < asked.draws:
            begun = time.monotonic()
            runs.append(one(split))
            kept.write_text(json.dumps(runs, indent=1) + "\n")
            print(f"split {split} AUC {runs[-1]['auc']:.4f} in {time.monotonic() - begun:.0f} s", flush=True)
    bases = json.loads((DOCS / "results.json").read_text())["baselines"]
    central = {int(split): float(base["central"]) for split, base in bases.items()}
    page = DOCS / "results.md"
    page.write_text(with_section(page.read_text(), section(runs, central)))


if __name__ == "__main__":
    main()
