"""The section on two servers of docs/results.md, from runs of mode helper (benchmarks/results.py --only helper)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

TITLE = "## Two servers"
HELPER_EPSILON = 1.0  # against the coordinator, the strongest observer that mode helper promises anything (ADR 96)

BEFORE = """
The same table through `--privacy helper`: every message masked, its seed sealed to the second server, and the whole
protocol run for every one of 24,000 phones and 22 sums, the helper in the same process. Each server adds noise by
itself; ε asked is the coordinator's, which sees who took part and the sum under the helper's noise alone, with every
charge. Releases carry both noises. Same splits and charges as above; made by `{command}`.
"""
AFTER = "The standard deviation is over all runs, splits and draws. Everything but ε is simulation_only."
COMMAND = "python benchmarks/results.py --only helper --splits {splits} --draws {draws}"
HEAD = (
    "| coordinator's ε | helper's ε | releases' ε | splits × draws | AUC, mean ± sd | least "
    "| gap to central, paired ± sd | ECE, mean | ECE, worst |"
)


class Figures(Protocol):
    """What a run is read for."""

    @property
    def auc(self) -> float: ...
    @property
    def ece(self) -> float: ...
    @property
    def released(self) -> float: ...
    @property
    def coordinator(self) -> float: ...
    @property
    def helper(self) -> float: ...


def section(runs: Mapping[tuple[int, int], Figures], central: Mapping[int, float]) -> str:
    """Markdown from runs by (split, draw) and the central AUC of every split."""
    splits, draws = {s for s, _ in runs}, {d for _, d in runs}
    found = list(runs.values())
    auc, spread = _spread([f.auc for f in found])
    gap, gap_spread = _spread([central[s] - f.auc for (s, _), f in runs.items()])
    seen = [max(getattr(f, name) for f in found) for name in ("coordinator", "helper", "released")]
    eces = [f.ece for f in found]
    row = [*(f"{e:.4f}" for e in seen), _count(len(splits), len(draws), len(found)), f"{auc:.4f} ± {spread:.4f}"]
    row += [f"{min(f.auc for f in found):.4f}", f"{gap:+.4f} ± {gap_spread:.4f}"]
    row += [f"{sum(eces) / len(eces):.4f}", f"{max(eces):.4f}"]
    before = BEFORE.format(command=COMMAND.format(splits=len(splits), draws=len(draws)))
    rule = "|" + "---|" * len(row)
    return "\n".join([TITLE, before, HEAD, rule, "| " + " | ".join(row) + " |", "", AFTER, ""])


def with_section(page: str, text: str) -> str:
    """The page with this section replaced, or put before the first other section, or at the end; "" changes nothing."""
    if not text:
        return page
    before, mark, rest = page.partition(f"\n{TITLE}\n")
    if not mark:
        before, mark, rest = page.partition("\n## ")
        rest = f"\n## {rest}" if mark else ""
    _, other, after = rest.partition("\n## ")
    tail = f"\n## {after}" if other else ""
    return f"{before.rstrip()}\n\n{text.rstrip()}\n{tail}"


def _count(splits: int, draws: int, runs: int) -> str:
    """Splits × draws, and how many runs that is where some are missing."""
    return f"{splits} × {draws}" + ("" if runs == splits * draws else f" ({runs} runs)")


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over runs; nan for one run."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
