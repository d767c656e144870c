"""What was found, as JSON with stable keys and as a table beside the targets."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from engines.headline import Found
from engines.scaling import Section
from engines.timing import Rate

FORMULA = "a row: 4·Σ in·out over all layers (forward, weight gradient) + 2·Σ in·out over all but the first (inputs)"
W, TINY = "W, C = 1,000", "tiny, C = 1,000"


def document(found: Found, sections: dict[str, Section], million: dict[str, Any] | None, plan: Any) -> dict[str, Any]:
    """The JSON: rates, ratios, checks, targets."""
    titles = {title: {name: rate.to_dict() for name, rate in rates.items()} for title, rates in found.rates.items()}
    return {
        "quick": plan.quick,
        "unit": "updates a second; the peak in FLOP/s",
        "flops": {"formula": FORMULA, "a_row": 22_720, "an_update": found.flops},
        "headline": titles,
        "ratios": {title: ratios(rates) for title, rates in found.rates.items()},
        "share_of_peak": {title: share(found, title) for title, rates in found.rates.items() if "peak" in rates},
        "best_settings": found.best,
        "checks": found.checks,
        "failed": found.failed,
        "sections": {
            name: {v: {n: r.to_dict() for n, r in rates.items()} for v, rates in section.items()}
            for name, section in sections.items()
        },
        "million": million,
        "targets": targets(found, sections),
    }


def ratios(rates: dict[str, Rate]) -> dict[str, dict[str, float]]:
    """Ours ÷ each peer."""
    ours = [name for name in ("native", "batched") if name in rates]
    peers = [name for name in rates if " " in name]
    return {mine: {peer: round(rates[mine].over(rates[peer]), 2) for peer in peers} for mine in ours}


def share(found: Found, title: str) -> float:
    """native's FLOP/s as a share of the peak measured in the same turns."""
    rates = found.rates[title]
    return round(rates["native"].over(rates["peak"]) * found.flops[title], 4)


def targets(found: Found, sections: dict[str, Section]) -> list[dict[str, Any]]:
    """Each figure beside its target; a figure that was not measured is left out."""
    lines: list[tuple[str, str, float | None, float, bool]] = []
    for mine, flower, pfl, slow, additive in (("native", 1000, 130, 1.06, 1e6), ("batched", 200, 20, 1.15, 2e5)):
        over = ratios(found.rates.get(W, {})).get(mine, {})
        lines.append(("÷ Flower on Ray, best setting", mine, _least(over, "flower "), flower, True))
        lines.append(("÷ pfl, two processes", mine, _least(over, "pfl 2,"), pfl, True))
        section = sections.get("N, at C = 1,000", {})
        lines.append(("N = 100,000 ÷ N = 1,000", mine, _over(section, "100,000", "1,000", mine), 0.9, True))
        lines.append(("slow-down by clip + noise", mine, _over(sections.get("privacy", {}), "off", "on", mine), slow,
                      False))  # fmt: skip
        rows = sections.get("additive, 40 × 16, mean 8 rows", {})
        rate = max((rates[mine].middle for rates in rows.values() if mine in rates), default=None)
        lines.append(("additive, tiny phones, updates/s", mine, rate, additive, True))
        scale, least = (150_000, 400_000) if mine == "native" else (26_000, 206_000)
        lines.append((f"tiny MLP, updates/s where W is {scale:,}", mine, _tiny(found, mine, scale), least, True))
    if "peak" in found.rates.get(W, {}):
        lines.append(("share of the FMA peak", "native", share(found, W), 0.5, True))
    return [
        {"figure": figure, "engine": mine, "found": value, "target": target,
         "met": value >= target if high else value <= target}
        for figure, mine, value, target, high in lines
        if value is not None
    ]  # fmt: skip


def _least(over: dict[str, float], start: str) -> float | None:
    return min((ratio for name, ratio in over.items() if name.startswith(start)), default=None)


def _over(section: Section, above: str, below: str, mine: str) -> float | None:
    if mine not in section.get(above, {}) or mine not in section.get(below, {}):
        return None
    return section[above][mine].over(section[below][mine])


def _tiny(found: Found, mine: str, scale: float) -> float | None:
    w, tiny = found.rates.get(W, {}), found.rates.get(TINY, {})
    return tiny[mine].middle / w[mine].middle * scale if mine in w and mine in tiny else None


def show(report: dict[str, Any], console: Console) -> None:
    """Tables for a person."""
    for title, rates in report["headline"].items():
        columns = [name for name in ("native", "batched") if name in rates]
        table = Table(title=title, title_justify="left")
        for column in ("", "updates/s", "range", *(f"{name} ÷" for name in columns)):
            table.add_column(column, justify="left" if not column else "right")
        for name, rate in rates.items():
            over = [f"{report['ratios'][title][mine][name]:,.1f}" if " " in name else "" for mine in columns]
            unit = 1e9 if name == "peak" else 1
            figures = [f"{rate[key] / unit:,.1f}" for key in ("median", "lowest", "highest")]
            label = "FMA peak, GFLOP/s" if name == "peak" else name
            table.add_row(label, figures[0], f"{figures[1]} – {figures[2]}", *over)
        console.print(table)
        if title in report["share_of_peak"]:
            console.print(f"native: {report['share_of_peak'][title]:.1%} of the peak\n")
    for title, section in report["sections"].items():
        names = list(dict.fromkeys(name for rates in section.values() for name in rates if name != "peak"))
        table = Table("", *names, title=f"updates/s by {title}", title_justify="left")
        for variant, rates in section.items():
            table.add_row(variant, *(f"{rates[n]['median']:,.0f}" if n in rates else "" for n in names))
        console.print(table)
    goals = Table("figure", "engine", "found", "target", "", title="targets", title_justify="left")
    for line in report["targets"]:
        goals.add_row(
            line["figure"], line["engine"], f"{line['found']:,.3f}" if line["found"] < 10 else f"{line['found']:,.0f}",
            f"{line['target']:,.10g}", "met" if line["met"] else "missed",
        )  # fmt: skip
    console.print(goals)
    if report["million"]:
        console.print("10⁶ phones, one full round:", report["million"])
    for name, reason in report["failed"].items():
        console.print(f"[red]{name}: {reason}[/red]")
