"""Measure what hostile phones do to training on the Taiwan card table: the poisoning part of docs/results.md.

Five fresh splits, noise seeded. A long sweep can be made in parts: --blocks one,two --add earlier.json. Example:
python benchmarks/poisoning.py --seeds 5 --out docs/poisoning.json --page docs/results.md
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from poisoning_page import section, with_section
from results import FIRST_SPLIT, ID, PROTECTED, TARGET, table_path

from simulation.dataset import Dataset
from simulation.engine.choice import choose
from simulation.redteam.poisoning_attacks import ATTACKS, NONE
from simulation.redteam.poisoning_scenes import Setting
from simulation.redteam.poisoning_table import Cell, Run, cells, lines, sweep
from simulation.table import TableChoice, read_table

ROBUST = ("sign-flip", "label-flip", "alie", "ipm-10", "backdoor", "no-clip-1000")
RULES = ("median", "trimmed-mean", "multikrum", "rfa")
SHARES = (0.1, 0.2)
HELD = Setting(rows=24, clip=0.1)  # phones with a history: a tenth of hostile ones loses to the others' agreement
SAMPLE = 1_200  # of phones with one row, where a rule compares each with each


def blocks() -> dict[str, list[Cell]]:
    """Parts of the sweep by name."""
    one_phone = [Cell(Setting(), attack, 0.0) for attack in ("no-clip-10", "no-clip-1000")]
    few = ("sign-flip", "ipm-10", "backdoor")
    return {
        "row": [*cells(Setting(), ATTACKS, SHARES), *one_phone],
        "many": cells(HELD, ATTACKS, SHARES),
        "rules": [c for rule in RULES for c in cells(replace(HELD, rule=rule), ROBUST, SHARES)],
        "row-rules": [c for rule in ("mean", *RULES) for c in cells(Setting(phones=SAMPLE, rule=rule), few, (0.1,))],
        "noise": [c for setting in (Setting(), HELD) for c in cells(replace(setting, epsilon=1.5), ROBUST, (0.1,))],
        "clips": [
            cell
            for rows, clip in ((1, 0.3), (1, 0.1), (4, 0.1), (8, 0.1), (24, 0.2))
            for cell in cells(Setting(rows=rows, clip=clip), ("ipm-10",), (0.1,))
        ],
    }


def load(seed: int) -> Dataset:
    """The table under one split."""
    return read_table(TableChoice(table_path(), TARGET, None, ID, PROTECTED), split_seed=FIRST_SPLIT + seed).dataset


def write(path: Path, runs: list[Run]) -> None:
    """Lines and runs, one a line of the file."""
    parts = {
        "lines": [json.dumps(line.to_dict()) for line in lines(runs)],
        "runs": [json.dumps(run.to_dict()) for run in runs],
    }
    text = ",\n".join(f'"{name}": [\n' + ",\n".join(values) + "\n]" for name, values in parts.items())
    path.write_text("{" + text + "}\n")


def main() -> None:
    """Run what is asked for, write the JSON, and put the section into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--blocks", default=",".join(blocks()))
    parser.add_argument("--add", type=Path, action="append", default=[], help="JSON of earlier parts")
    parser.add_argument("--out", type=Path, default=Path("docs/poisoning.json"))
    parser.add_argument("--page", type=Path, help="the page whose section on poisoning is written anew")
    parser.add_argument("--quick", action="store_true", help="one seed")
    given = parser.parse_args()
    earlier = [Run.from_dict(raw) for path in given.add for raw in json.loads(path.read_text())["runs"]]
    runs = list({(run.cell, run.seed): run for run in earlier}.values())
    known = {(run.cell, run.seed) for run in runs if run.pull or run.cell.attack != NONE.name}
    engine = choose()[0]
    for name in [name for name in given.blocks.split(",") if name]:
        for seed in range(1 if given.quick else given.seeds):
            wanted = [cell for cell in blocks()[name] if (cell, seed) not in known]
            for run in sweep(load, wanted, [seed], engine):
                runs = [other for other in runs if (other.cell, other.seed) != (run.cell, run.seed)] + [run]
                print(
                    name, run.cell.setting.rule, run.cell.attack, run.cell.share, seed, run.auc, run.success, flush=True
                )
            write(given.out, runs)
    if given.page:
        given.page.write_text(with_section(given.page.read_text(), section(lines(runs))))


if __name__ == "__main__":
    main()
