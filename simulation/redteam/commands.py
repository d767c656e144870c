"""`pocketscore attack`: attacks on our own system, with what they come to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from model.errors import InputError
from simulation.processors import processors
from simulation.redteam import poisoning_command

if TYPE_CHECKING:
    from simulation.redteam.audit import Case, Finding

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.add_typer(poisoning_command.app)
FAILED = 1


@app.callback()
def _root() -> None:
    """Attacks on our own system, each with a control that shows it can succeed."""


@app.command(epilog="Example: pocketscore attack audit --mode helper --mutant helper-silent")
def audit(
    mode: Annotated[str, typer.Option(help="Modes by comma, or all.")] = "all",
    mutant: Annotated[str, typer.Option(help="Faults to put in and find: by comma, all or none.")] = "all",
    trials: Annotated[int, typer.Option(help="Releases a side, 10,000 or more; mutants take 10,000.")] = 50_000,
    seed: Annotated[int, typer.Option(min=0, help="Orders what protects nobody; never the noise, masks or keys.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes (default: the processors, at most 4).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prove from many releases how much privacy the mechanisms lose, and find the faults put into them."""
    from simulation.redteam.audit import cases
    from simulation.redteam.mechanisms import MECHANISMS
    from simulation.redteam.mutants import MUTANTS

    chosen = cases(_names(mode, MECHANISMS), _names(mutant, MUTANTS), trials)
    if not chosen:
        raise InputError(f"--mode {mode} with --mutant {mutant} leaves nothing to run; name a mode")
    findings = _run(chosen, seed, min(processors(), 4) if workers is None else workers)
    if as_json:
        print(json.dumps([finding.to_dict() for finding in findings], indent=2, allow_nan=False))
    else:
        show(Console(), findings)
    if not all(finding.passed for finding in findings):
        raise typer.Exit(FAILED)


def show(console: Console, findings: list[Finding]) -> None:
    """A table of findings: what is claimed, what is proved, and whether that is as it should be."""
    table = Table(title="Mechanism audit", caption="proved: mu is at least this, with confidence 99.9 %")
    for name in ("mode", "against", "mutant"):
        table.add_column(name, no_wrap=True)
    for name in ("mu", "proved", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for f in findings:
        figures = (f"{f.claim.mu:.2f}", f"{f.bound.mu:.2f}", f"{f.ratio:.3f}")
        table.add_row(f.case.mode, f.observer, f.case.mutant or "—", *figures, verdict(f))
    console.print(table)


def verdict(finding: Finding) -> str:
    """One word on a finding, and a mark that needs no colour; "blunt" is an audit that proves too little."""
    if finding.faulty:
        return "✓ found" if finding.passed else "✗ missed"
    if finding.exceeded:
        return "✗ over"
    return "✓ holds" if finding.passed else "✗ blunt"


def _run(chosen: list[Case], seed: int, workers: int) -> list[Finding]:
    """Every case, with a bar on stderr."""
    from simulation.redteam.audit import run, shared

    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    findings: list[Finding] = []
    with shared(workers) as each, Progress(*columns, console=Console(stderr=True)) as bars:
        for case in chosen:
            task = bars.add_task(f"{case.mode} {case.mutant}", total=None)
            findings += run(
                case,
                seed=seed,
                each=each,
                progress=lambda done, total, task=task: bars.update(task, completed=done, total=total),  # type: ignore[misc]
            )
    return findings


def _names(wanted: str, known: Mapping[str, object]) -> list[str]:
    """Names of a comma-separated option. InputError for one that is not known."""
    if wanted in ("all", "none"):
        return list(known) if wanted == "all" else []
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    odd = [name for name in names if name not in known]
    if odd or not names:
        raise InputError(f"{(odd or [wanted])[0]!r} is not known here; use {', '.join(known)} or all")
    return names
