"""`pocketscore-review`: check a run, look at a simulation's updates, make the page, be the helper (spec 11.9, 13.6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fl_server.review.helper.commands import app as helper
from model.errors import InputError, PocketScoreError

app = typer.Typer(no_args_is_help=True, help="The privacy reviewer's bench.", pretty_exceptions_enable=False)
app.add_typer(helper, name="helper")

Run = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a whole run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Root = Annotated[
    Path | None,
    typer.Option(help="What you trust already: the publisher's first TUF root, or a JSON file of public keys."),
]


@app.command("check", epilog="Example: pocketscore-review check runs/demo --root root.json")
def check(folder: Run, root: Root = None, json_: AsJson = False) -> None:
    """Check everything again from the run's own bytes: one line a finding, exit 0 only when every check holds."""
    from fl_server.review.checks import check_all, passed
    from fl_server.review.evidence import Anchor

    if root is not None and root.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{root} lies in the folder it is to judge; name a trust anchor that you hold yourself")
    findings = check_all(_folder(folder), Anchor.read(root) if root else None)
    good = passed(findings)
    if json_:
        rows = [{"check": each.check, "holds": each.holds, "sentence": each.sentence} for each in findings]
        print(json.dumps({"passed": good, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        colours = {"✓": "green", "✗": "bold red", "!": "yellow"}
        out = Console(soft_wrap=True, highlight=False)
        for each in findings:
            out.print(f"{each.mark} {each.check}: {each.sentence}", style=colours[each.mark], markup=False)
        wrong = sum(each.holds is False for each in findings)
        out.print(
            f"{len(findings)} findings, {wrong} failed" if wrong else f"{len(findings)} findings, every check holds"
        )
    if not good:
        raise typer.Exit(1)


@app.command("updates", epilog="Example: pocketscore-review updates runs/demo")
def updates(folder: Run, json_: AsJson = False) -> None:
    """Show sampled phones' updates at each stage, norms, clip rates and rows (simulations only)."""
    from fl_server.review.evidence import Evidence
    from fl_server.review.updates import read

    found = read(Evidence(_folder(folder)))
    if json_:
        print(json.dumps(found.to_dict(), indent=2))
        return
    out = Console(highlight=False)
    out.print("simulation only: no server of a real run sees any of this but the sum", style="yellow")
    table = Table(title=f"norms by round, clip {found.clip:g}", title_justify="left", box=None, pad_edge=False)
    for name in ("round", "phones", "5 %", "median", "95 %", "clipped", "the sum", "its noise"):
        table.add_column(name, justify="right")
    for each in found.rounds:
        cells = [f"{value:.3f}" for value in each.norms] or ["", "", ""]
        shares = (f"{100 * each.clip_rate:.1f} %", f"{each.sum_norm:.1f}", f"{each.noise_norm:.1f}")
        table.add_row(str(each.round), str(each.phones), *cells, *shares)
    out.print(table)
    last = found.rounds[-1] if found.rounds else None
    for number, stage in enumerate(zip(last.raw, last.clipped, last.encoded, strict=True) if last else (), 1):
        raw, clipped, encoded = (f"{norm:.4f}" for norm in stage)
        out.print(f"sampled phone {number}, last round: raw {raw} → clipped {clipped} → encoded {encoded}")
    rows = ", ".join(f"{count} phones with {rows}" for rows, count in enumerate(found.rows) if count)
    out.print(f"rows an update is made from: {rows or 'not kept'}", soft_wrap=True)


@app.command("page", epilog="Example: pocketscore-review page runs/demo --out report.html")
def page(folder: Run, out: Annotated[Path | None, typer.Option(help="Write the page here instead.")] = None) -> None:
    """Make the report: one static HTML file without scripts."""
    from fl_server.review.page import write

    print(write(_folder(folder), out))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{path} is no folder; name the folder of a whole run")
    return path


def main(run: Callable[[], object] = app) -> None:
    """The console script: one sentence and exit 2 for a person's mistake, never a traceback."""
    try:
        run()
    except PocketScoreError as error:
        Console(stderr=True).print(f"✗ {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
