"""What a run prints: the summary as tables for people, and the commands to go on with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.privacy.mechanism import GaussianRelease
from model.privacy.observers import PROMISED_TO
from model.privacy.yearly import said_of_cap

MOST_GROUPS = 8
ONLY = "[dim]simulation only[/dim]"
OTHERS = "under the noise it does not make"
MONTHLY = "if a phone took part every month"
LEDGER = "against the helper, which meets the lesser noise: a phone's own ledger counts by that"
ONE_HAND = "simulation: both servers in one hand, so nothing was really held apart"
CHARGED = "[green]charged[/green]"


def show(console: Console, summary: Mapping[str, Any], notes: Sequence[str], decisions: Mapping[str, int]) -> None:
    """Print model, privacy, scores and time; test-seeded noise and missing privacy in red."""
    for table in (_model(summary), _privacy(summary), _use(summary, decisions), *_reach(summary), _time(summary)):
        console.print(table)
    if summary["epsilon"]["mode"] == "off":
        console.print("[bold red]privacy is off: this model must not be released[/bold red]")
    if summary["epsilon"]["noise_source"] != "os":
        console.print("[bold red]the noise is seeded for a test: it protects nobody[/bold red]")
    if summary.get("aggregation", "mean") != "mean":
        seen = f"every update was seen in the clear, for {summary['aggregation']}"
        console.print(f"[bold red]{seen}[/bold red]")
    for alarm in summary["alarms"]:
        console.print(f"[bold red]round {alarm['round']}: {escape(alarm['sentence'])}[/bold red]")
    if summary["release"] is None:
        reasons = "; ".join(summary["gate"]["reasons"])
        console.print(f"[bold yellow]no release: the gate refused the model: {escape(reasons)}[/bold yellow]")
    for note in (*([ONE_HAND] if summary.get("one_hand") else []), *notes):
        console.print(f"[yellow]•[/yellow] {escape(note)}")


def next_steps(console: Console, out: Path, home: Path | None) -> None:
    """The exact commands to go on with."""
    anchor = out.with_name(f"{out.name}.private") / "root.json"
    root = f" --root {_word(anchor)}" if home is not None else ""
    lines = [f"pocketscore-review check {_word(out)}{root}"]
    lines += [f"pocketscore-review {command} {_word(out)}" for command in ("updates", "page")]
    if home is not None:
        private = home.parent
        here = Path(*out.parts[:-1]) / private.name if not out.is_absolute() else private
        phone, lender = here / "phone", here / "lender"
        book = f"sqlite:///{(out / 'lender' / 'book.sqlite').absolute()}"
        lines = [
            f"pocketscore-device update {_word(phone)}",
            f"pocketscore-device score {_word(phone)}",
            f"pocketscore-server lender open {_word(lender)} {_word(phone / 'outbox')} --database {_word(book)}",
            f"pocketscore-server lender book {_word(lender)} --database {_word(book)}",
            *lines,
        ]
    console.print(f"\nThe report is [bold]{escape(str(out / 'report.html'))}[/bold]. Go on with:", soft_wrap=True)
    for line in lines:
        console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)


def _grid(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(min_width=26)
    table.add_column(justify="right", min_width=12)
    table.add_column()
    return table


def _model(summary: Mapping[str, Any]) -> Table:
    table, auc = _grid("[bold]Model[/bold]"), summary["auc"]
    private = auc["private"]
    value = f"{_number(private['value'])} ± {_number(private['se'])}" if private["value"] is not None else "–"
    table.add_row("AUC, evaluated privately", value, CHARGED if private["value"] is not None else "")
    for name, label in (
        ("federated", "AUC, federated"),
        ("central", f"AUC, central ({auc.get('central_model') or '–'})"),
        ("boosting", "AUC, boosting"),
        ("silo", "AUC, one silo"),
        ("oracle", "AUC, oracle"),
    ):
        table.add_row(label, _number(auc[name]), ONLY)
    table.add_row("KS", _number(summary["ks"]), ONLY)
    table.add_row("calibration error (ECE)", _number(summary["ece"]), ONLY)
    release = summary["release"]
    if release:
        table.add_row("ONNX", f"{release['onnx_bytes']:,} bytes", f"parity {release['parity_max_abs']:.1e}")
    return table


def _privacy(summary: Mapping[str, Any]) -> Table:
    table, eps = _grid("[bold]Privacy[/bold]"), summary["epsilon"]
    table.add_row("ε against releases", _number(eps["released_models"]), f"δ {eps['delta']:g}, {eps['relation']}")
    table.add_row("ε, participation seen", _number(eps["participation_viewer"]), f"a {eps['unit']} is protected")
    table.add_row("ε against coordinator", _number(eps["coordinator"]), escape(eps["coordinator_reason"] or OTHERS))
    table.add_row("ε against helper", _number(eps["helper"]), escape(eps["helper_reason"] or OTHERS))
    if eps["condition"]:
        table.add_row("holds", "", escape(eps["condition"]))
    if eps["alone_round"] is not None:
        table.add_row("ε of one release", _number(eps["alone_round"]), "if every other phone is hostile")
    against = f"against {PROMISED_TO[eps['mode']]}, " if eps["mode"] in PROMISED_TO else ""
    table.add_row("ε in 1 and 5 years", _years(eps["lifetime"]), against + MONTHLY)
    if eps["helper"] not in (None, eps["coordinator"]):
        table.add_row("the same, helper", _years(eps["lifetime"], "helper"), LEDGER)
    charged = [GaussianRelease.from_dict(charge) for charge in eps["charges"]]
    if capped := said_of_cap(charged, eps["coordinator_noise"]):
        table.add_row("under a phone's own cap", "", capped)
    charges = ", ".join(f"{c['name']} z {c['noise_multiplier']:.3g}×{c['count']}" for c in eps["charges"])
    table.add_row("charged", str(sum(c["count"] for c in eps["charges"])), escape(charges))
    return table


def _years(lifetime: Mapping[str, Any] | None, against: str = "composed") -> str:
    """Exact composition of a plan repeated every month; `against` "helper" that against the helper."""
    if lifetime is None:
        return "–"
    values = (lifetime[name][against] for name in ("one_year", "five_years"))
    return " / ".join("–" if value is None else f"{value:.1f}" for value in values)


def _use(summary: Mapping[str, Any], decisions: Mapping[str, int]) -> Table:
    table, scored, egress = _grid("[bold]Scores[/bold]"), summary["scored"], summary["egress"]
    p50, p99 = (_micro(scored[name]) for name in ("p50_us", "p99_us"))
    table.add_row("phones scored", f"{scored['phones']:,}", f"model p50 {p50}, p99 {p99}")
    table.add_row("opened by the lender", f"{scored['envelopes_opened']:,}", _counts(decisions))
    sent = ", ".join(f"{name} {size:,.0f} B" for name, size in egress["bytes_per_phone"].items())
    table.add_row("undeclared bytes", f"{egress['undeclared']:,}", f"a phone sends: {sent}")
    return table


def _reach(summary: Mapping[str, Any]) -> list[Table]:
    """Who answered in time, and which groups did less; nothing where everybody does."""
    reach = summary.get("reach")
    if reach is None:
        return []
    table, fates = _grid("[bold]Reach[/bold]"), reach["fates"]
    within = f"{reach['availability']}, {reach['deadline_hours']:g} h, expected {reach['expected_response']:.1%}"
    share = "–" if reach["response"] is None else f"{reach['response']:.1%}"
    table.add_row("answered in time", share, f"{within} · {ONLY}")
    told = ", ".join(f"{fates[name]:,} {name}" for name in fates if name != "asked")
    table.add_row("phones asked, all rounds", f"{fates['asked']:,}", told)
    return [table, _groups(reach["groups"])]


def _groups(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Everyone and the groups reached least: what the absence did to mean PD, calibration and AUC."""
    title = f"Counted ÷ share of phones, and what changed (± 95 %) · {ONLY}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("group", "ratio", "mean PD", "calibration", "AUC"):
        table.add_column(name, justify="left" if name == "group" else "right", no_wrap=name != "group")
    for row in sorted(rows, key=lambda row: (row["column"] != "all", float(row["ratio"])))[: MOST_GROUPS + 1]:
        table.add_row(
            escape(f"{row['column']} {row['group']}"),
            f"{row['ratio']:.2f}",
            _change(row["pd_change"], row["pd_change_ci"]),
            f"{row['gap_everyone']:+.3f} → {row['gap_reached']:+.3f}",
            _change(row["auc_change"], row["auc_change_ci"]),
        )
    return table


def _change(value: float | None, half: float | None) -> str:
    return "–" if value is None or half is None else f"{value:+.4f}±{half:.4f}"


def _time(summary: Mapping[str, Any]) -> Table:
    table, engine = _grid("[bold]Time[/bold]"), summary["engine"]
    stages = ", ".join(f"{name} {spent:.1f}" for name, spent in summary["seconds"].items() if name != "total")
    table.add_row("seconds", f"{summary['seconds']['total']:.1f}", stages)
    rate = engine["updates_per_second"]
    table.add_row("phone-updates a second", f"{rate:,.0f}" if rate else "–", f"engine {engine['why']}")
    table.add_row("peak memory", f"{summary['peak_rss_mb']:,.0f} MB", f"{summary['phones']:,} phones")
    return table


def _word(value: object) -> str:
    """As one word of a shell's command line."""
    return shlex.quote(str(value))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _micro(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} µs"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
