"""`pocketscore attack poisoning`: hostile phones against the training of made-up phones or of a table (spec 13.13)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from fl_server.robust import IN_THE_CLEAR, RULES
from model.errors import InputError
from simulation.dataset import Dataset
from simulation.redteam.poisoning_attacks import ATTACKS, attack_of, require_share
from simulation.redteam.poisoning_scenes import Setting, synthetic
from simulation.table import TableChoice, read_table

if TYPE_CHECKING:  # what trains loads torch, which a --help should not
    from simulation.redteam.poisoning_table import Line, Load, Progress, Run

app = typer.Typer(add_completion=False)

PHONES = 2_000


@app.command(
    epilog="Examples:  pocketscore attack poisoning --phones 2000   ·   "
    "pocketscore attack poisoning --data loans.csv --target defaulted --protected sex,age --rows 24 --clip .1 "
    "--attacks sign-flip,ipm-10 --shares .1   ·   "
    "pocketscore attack poisoning --phones 1000 --rules mean,median,multikrum --json"
)
def poisoning(
    phones: Annotated[int, typer.Option(help="Make up so many (0: 2,000), or train on so many of --data (0: all)")] = 0,
    data: Annotated[Path | None, typer.Option(help="Your own table, .csv or .parquet: rows become phones.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of --data to predict.")] = None,
    positive: Annotated[str | None, typer.Option(help="Value of --target that is the bad outcome.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Column that says whose row it is.")] = None,
    protected: Annotated[str, typer.Option(help="Columns never used as features, by comma.")] = "",
    attacks: Annotated[str, typer.Option(help=f"By comma, of {', '.join(ATTACKS)}.")] = ",".join(ATTACKS),
    shares: Annotated[str, typer.Option(help="Hostile shares of the phones, by comma; 0 is one phone.")] = ".1,.2",
    rules: Annotated[str, typer.Option(help=f"By comma, of {', '.join(RULES)}; all but mean in the clear.")] = "mean",
    rows: Annotated[int, typer.Option(help="Rows a phone, drawn at random; 0 leaves them as they are.")] = 0,
    clip: Annotated[float, typer.Option(help="Clip norm; 0 is the plan's own.")] = 0.0,
    epsilon: Annotated[float, typer.Option(help="ε of the whole run, with central noise; 0 is without noise.")] = 0.0,
    rounds: Annotated[int, typer.Option(help="Training rounds.")] = 20,
    model: Annotated[str, typer.Option(help="additive or mlp.")] = "additive",
    seeds: Annotated[int, typer.Option(help="Trainings of each kind, on fresh splits.")] = 3,
    seed: Annotated[int, typer.Option(help="The first seed: of phones, split, hostile phones and noise.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print every run and line as JSON.")] = False,
) -> None:
    """Train while some phones lie, and show what that costs: AUC, backdoors, and whether the sums gave it away."""
    from simulation.engine.choice import choose
    from simulation.redteam.poisoning_table import cells, lines, sweep

    load, own = _source(phones, data, target, positive, id_, protected)
    names = [attack_of(name).name for name in _list(attacks)]
    wanted = [
        cell
        for rule in _list(rules)
        for cell in cells(_setting(rows, clip, own, epsilon, rule, rounds, model), names, _shares(shares))
    ]
    if seeds < 1:
        raise InputError(f"--seeds {seeds} trains nothing; use 1 or more")
    with _bar() as progress:
        runs = list(sweep(load, wanted, range(seed, seed + seeds), choose()[0], progress))
    found = lines(runs)
    if as_json:
        print(json.dumps(document(runs, found), indent=1))
    else:
        show(Console(), found)


def document(runs: list[Run], found: list[Line]) -> dict[str, object]:
    """Everything as plain values; all of it exists in a simulation only."""
    from simulation.redteam.poisoning_table import GATE, GATED, missed

    gate = {"auc_loss": GATE, "attacks": list(GATED), "missed": [line.to_dict() for line in missed(found)]}
    return {
        "simulation_only": True,
        "gate": gate,
        "lines": [line.to_dict() for line in found],
        "runs": [run.to_dict() for run in runs],
    }


def show(console: Console, found: list[Line]) -> None:
    """A table a rule; rules that need single updates say so in red. The last columns are shares of rounds whose sum's
    norm was impossible or unusual; "backdoor" is the share of bad rows with the trigger that are approved."""
    from simulation.redteam.poisoning_table import GATE, missed

    for rule in dict.fromkeys(line.cell.setting.rule for line in found):
        mine = [line for line in found if line.cell.setting.rule == rule]
        table = Table(title=f"{rule} of {mine[0].phones:,} phones' updates, {mine[0].runs} seeds · simulation_only")
        for name in ("attack", "hostile", "AUC", "AUC lost ± sd", "backdoor", "impossible", "unusual"):
            table.add_column(name, justify="left" if name == "attack" else "right")
        for line in mine:
            table.add_row(*_row(line))
        console.print(table)
        if rule != "mean":
            console.print(f"[red]{IN_THE_CLEAR}[/red]")
        for line in mine:
            if rule == "mean" and line.cell.attack == "none" and not line.cell.setting.epsilon:
                console.print(
                    f"honest phones pull at most {line.pull:.3f} clip norms one way; hostile ones turn that from "
                    f"{line.pull / (1 + line.pull):.1%} of the phones on"
                )
    for line in missed(found):
        console.print(f"[red]{line.cell.attack} at a tenth of the phones costs {line.loss:.3f}, above {GATE:g}[/red]")


def _row(line: Line) -> list[str]:
    alone = line.cell.attack == "none"
    share = "" if alone else f"{line.cell.share:.0%}" if line.cell.share else "one phone"
    loss = "" if alone else f"{line.loss:+.4f} ± {line.loss_sd:.4f}"
    flags = [f"{line.flagged:.0%}", f"{line.odd:.0%}"]
    return [line.cell.attack, share, f"{line.auc:.4f}", loss, f"{line.success:.2f}", *flags]


def _source(
    phones: int, data: Path | None, target: str | None, positive: str | None, id_: str | None, protected: str
) -> tuple[Load, int]:
    """(a seed's phones, how many of them to sample)."""
    if phones < 0:
        raise InputError(f"--phones {phones} is negative; use a few hundred or more")
    if data is None:
        if target or positive or id_ or protected:
            raise InputError("--target, --positive, --id and --protected go with --data FILE; give the file")
        made = phones or PHONES
        return (lambda seed: synthetic(made, seed)), 0
    if target is None:
        raise InputError("--data needs --target COLUMN, the outcome to predict")
    choice = TableChoice(data, target, positive, id_, tuple(_list(protected)))

    def load(seed: int) -> Dataset:
        return read_table(choice, split_seed=seed).dataset

    return load, phones


def _setting(rows: int, clip: float, phones: int, epsilon: float, rule: str, rounds: int, model: str) -> Setting:
    if rule not in RULES:
        raise InputError(f"there is no rule {rule!r}; choose among {', '.join(RULES)}")
    return Setting(rows, clip, phones, epsilon, rule, rounds, model)


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _shares(text: str) -> list[float]:
    try:
        found = [float(part) for part in _list(text)]
    except ValueError as error:
        raise InputError(f"--shares {text!r} is no list of numbers; write .1,.2") from error
    for share in found:
        require_share(share)
    return found


@contextmanager
def _bar() -> Iterator[Progress]:
    """One bar on stderr."""
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
