"""`pocketscore-review helper`: the second server's home, its process, and what it did (spec 13.6.6)."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fl_server.review.helper.home import NAMES, HelperHome, Settings, read_trust

app = typer.Typer(no_args_is_help=True, help="The second server of mode helper.", pretty_exceptions_enable=False)

WHOSE = (
    "ε is what the coordinator may learn: it is counted by this helper's noise, and the budget bounds it. The helper "
    "itself meets only the coordinator's noise; where a plan's coordinator_noise is below 1 that is less, so the "
    "helper may learn more about a phone than stands here. `pocketscore-review check` says how much."
)
Home = Annotated[Path, typer.Argument(metavar="HOME", help="The helper's own folder.")]
Keys = Annotated[Path, typer.Argument(metavar="KEYS", help="A run's keys.json: coordinator and reviewer are read.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("init", epilog="Example: pocketscore-review helper init helper --trust runs/demo/keys.json")
def init(
    home: Home,
    trust: Annotated[Path | None, typer.Option(help="A keys.json whose coordinator and reviewer sign plans.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="A host name or address of the certificate.")] = None,
    yearly_epsilon: Annotated[float | None, typer.Option(help="Most ε a year for plans of one name.", min=0)] = None,
    allow_test_noise: Annotated[bool, typer.Option(help="Serve simulations with seeded noise.")] = False,
    json_: AsJson = False,
) -> None:
    """Make a home: keys (0600), a certificate, an empty ledger."""
    held = read_trust(trust) if trust else None
    settings = Settings(allow_test_noise, yearly_epsilon)
    _about(HelperHome.init(home, held, settings, tuple(name or NAMES)), json_)


@app.command("trust", epilog="Example: pocketscore-review helper trust helper runs/demo/keys.json")
def trust(home: Home, keys: Keys) -> None:
    """Name, once, the coordinator and the reviewer whose plans are served."""
    HelperHome.open(home).trusting(read_trust(keys))
    print(f"{home} trusts the coordinator and the reviewer of {keys}")


@app.command("key", epilog="Example: pocketscore-review helper key helper --json")
def key(home: Home, json_: AsJson = False) -> None:
    """Print the key a plan must name, and what a coordinator must pin."""
    _about(HelperHome.open(home), json_)


@app.command("serve", epilog="Example: pocketscore-review helper serve helper --port 9443")
def serve(
    home: Home,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 9443,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    url: Annotated[str | None, typer.Option(help="What the coordinator dials, where it is not that address.")] = None,
) -> None:
    """Answer batches over HTTPS until interrupted; HOME/address.json is what a coordinator is given."""
    from fl_server.review.helper import service
    from fl_server.review.helper.address import url_of, write_address
    from fl_server.review.helper.desk import HelperDesk

    with HelperDesk(HelperHome.open(home)) as desk:
        for taken in service.serve(desk, host, port):
            told = write_address(desk.home, url or url_of(host, taken))
            print(f"helper listening on https://{host}:{taken}", flush=True)
            print(f"{told} is for the coordinator; its certificate is {desk.home.fingerprint}", flush=True)


@app.command("log", epilog="Example: pocketscore-review helper log helper --json")
def log(home: Home, json_: AsJson = False) -> None:
    """Show every decision, oldest first, after checking the log's chain and signed head."""
    from fl_server.review.helper.records import read_log

    opened = HelperHome.open(home)
    entries = read_log(opened.store, opened.signing.public_bytes)
    if json_:
        print(json.dumps({"entries": entries}, indent=2, ensure_ascii=False))
        return
    out = Console(soft_wrap=True, highlight=False)
    for each in entries:
        when = datetime.fromtimestamp(each["when"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        told = f": {each['code']}: {each['sentence']}" if each["code"] else ""
        what = f"{each['kind'] or 'request'} round {each['round']}, {each['phones']} messages"
        out.print(f"{each['index']} {when} {each['event']} {what}, plan {each['plan_digest'][:12]}{told}", markup=False)
    out.print(f"{len(entries)} entries, the chain holds", markup=False)


@app.command("ledger", epilog="Example: pocketscore-review helper ledger helper --json")
def ledger(home: Home, json_: AsJson = False) -> None:
    """Show the ε that the coordinator may have learned under each plan, unamplified, void releases too."""
    from fl_server.review.helper.ledger import spent_by_plan

    rows = [asdict(each) for each in spent_by_plan(HelperHome.open(home))]
    if json_:
        print(json.dumps({"plans": rows}, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("plan", "digest", "answered", "void", "phones", "ε spent", "budget", "δ"):
        table.add_column(name, justify="left" if name in ("plan", "digest") else "right")
    for each in rows:
        table.add_row(*_cells(each))
    out = Console(soft_wrap=True, highlight=False)
    out.print(table)
    if rows:
        out.print(WHOSE, markup=False)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (str(row["answered"]), str(row["void"]), str(row["messages"]))
    return (row["plan"], row["plan_digest"][:12], *counts, *(f"{row[n]:.4g}" for n in ("epsilon", "budget", "delta")))


def _about(home: HelperHome, json_: bool) -> None:
    told = home.about()
    if json_:
        print(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        print(f"{name}: {value}")
    print(f"certificate: {home.certificate}")
