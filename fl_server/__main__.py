"""`pocketscore-server`: the lender's own process (spec 10.10)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fl_server.keys import replace_file
from fl_server.lending.book import Book
from fl_server.lending.decision import Application
from fl_server.lending.desk import Desk
from fl_server.lending.intake import Intake
from fl_server.lending.keys import LenderHome, read_json, read_keyring
from model.contract.envelope import Signed
from model.errors import InputError, PocketScoreError

MAX_FILE = 1 << 20

app = typer.Typer(no_args_is_help=True, help="The servers of PocketScore.", pretty_exceptions_enable=False)
lender = typer.Typer(no_args_is_help=True, help="A lender: opens sealed scores, decides, keeps its own book.")
app.add_typer(lender, name="lender")

Home = Annotated[Path, typer.Argument(help="The lender's home folder.")]
Database = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the book; HOME/book.sqlite by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _root() -> None:
    """The servers of PocketScore."""


@lender.command("init", epilog="Example: pocketscore-server lender init runs/lender --name 'Example Finance'")
def init(
    home: Home,
    name: Annotated[str, typer.Option(help="The lender's name, as borrowers read it.")] = "Example Finance",
    audience: Annotated[str, typer.Option(help="Id that envelopes are addressed to.")] = "example-finance",
    purpose: Annotated[list[str] | None, typer.Option(help="A purpose to lend for; may be repeated.")] = None,
) -> None:
    """Make a lender's home with fresh keys (0600)."""
    made = LenderHome.init(home, name, audience, purpose or ["personal-loan"])
    print(f"lender {made.name} ({made.audience}) is ready in {home}")


@lender.command(
    "trust", epilog="Example: pocketscore-server lender trust HOME DIR/release/manifest.cbor --keyring FILE"
)
def trust(
    home: Home,
    manifest: Annotated[Path, typer.Argument(help="A release manifest, signed 2 of 2.")],
    keyring: Annotated[Path | None, typer.Option(help="JSON of the release keys; needed the first time.")] = None,
) -> None:
    """Take a release: scores of its model are accepted from now on."""
    keys = read_keyring(keyring) if keyring else None
    release = LenderHome.open(home).trust(Signed.from_bytes(_bytes(manifest)), keys)
    print(f"release {release.name} version {release.version}, model {release.model_digest[:16]}…, is trusted")


@lender.command("card", epilog="Example: pocketscore-server lender card HOME --out lender.cbor")
def card(
    home: Home,
    out: Annotated[Path | None, typer.Option(help="Write the signed card here.")] = None,
    json_: AsJson = False,
) -> None:
    """Show the lender's signed card: id, keys, purposes and rates by band."""
    opened = LenderHome.open(home)
    made = opened.card(int(time.time()))
    if out:
        replace_file(out, made.signed(opened.signing).to_bytes())
    if json_ or not out:
        print(json.dumps(made.to_dict(), indent=2, ensure_ascii=False))


@lender.command("serve", epilog="Example: pocketscore-server lender serve HOME --port 8443")
def serve(
    home: Home,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback address.")] = 8600,
    database: Database = None,
) -> None:
    """Take envelopes over HTTP on the loopback address until interrupted."""
    from fl_server.lending.app import make_app, run

    with _intake(home, database) as (opened, intake):
        Console(stderr=True).print(f"lender {opened.name} listens on http://127.0.0.1:{port}; Ctrl-C ends it")
        run(make_app(opened, intake), port)


@lender.command("open", epilog="Example: pocketscore-server lender open HOME outbox/*.sealed")
def open_(
    home: Home,
    files: Annotated[list[Path], typer.Argument(help="Sealed envelopes, or folders of them.")],
    database: Database = None,
    json_: AsJson = False,
) -> None:
    """Open, verify and store sealed envelopes; exit 1 if any was refused."""
    paths = [inner for path in files for inner in (sorted(path.iterdir()) if path.is_dir() else [path])]
    batch = [_bytes(path) for path in paths]
    with _intake(home, database) as (_, intake):
        answers = intake.take_all(batch, int(time.time()))
    counts: dict[str, int] = {}
    for path, taken in zip(paths, answers, strict=True):
        counts[taken.status] = counts.get(taken.status, 0) + 1
        if taken.status == "refused" and not json_:
            Console(stderr=True).print(f"✗ {path.name}: {taken.sentence} ({taken.error})", markup=False)
    print(json.dumps(counts) if json_ else ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    if counts.get("refused"):
        raise typer.Exit(1)


@lender.command("decide", epilog="Example: pocketscore-server lender decide HOME --applications declared.json")
def decide(
    home: Home,
    applications: Annotated[
        Path | None, typer.Option(help='JSON by reference: {"REF": {"amount": 50000, "monthly_income": 30000}}.')
    ] = None,
    database: Database = None,
    json_: AsJson = False,
) -> None:
    """Decide every open application: approve, refer or decline."""
    told = read_applications(applications) if applications else {}
    now = int(time.time())
    with _intake(home, database) as (opened, intake):
        documents = Desk(opened.cards(now), intake.releases, intake.book).decide_all(told, now)
    if json_:
        print(json.dumps(documents, indent=2, ensure_ascii=False))
        return
    for document in documents:
        print(f"{document['ref']}: {document['outcome']}. {document['sentence']}")
    print(f"{len(documents)} decided")


@lender.command("book", epilog="Example: pocketscore-server lender book HOME --json")
def book(home: Home, database: Database = None, json_: AsJson = False) -> None:
    """Count what lies in the book."""
    with _book(LenderHome.open(home, database)) as held:
        summary = held.summary()
    print(json.dumps(summary, indent=2) if json_ else "\n".join(f"{name}: {value}" for name, value in summary.items()))


def read_applications(path: Path) -> dict[str, Application]:
    """What borrowers declared, by reference; InputError names what is wrong."""
    raw: Any = read_json(path)
    try:
        return {str(ref): Application(**told) for ref, told in raw.items()}
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"{path} is no map of references to declarations ({error}); see `lender decide --help`"
        ) from error


@contextmanager
def _book(home: LenderHome) -> Iterator[Book]:
    held = home.book()
    try:
        yield held
    finally:
        held.close()


@contextmanager
def _intake(path: Path, database: str | None) -> Iterator[tuple[LenderHome, Intake]]:
    home = LenderHome.open(path, database)
    with _book(home) as held:
        yield home, Intake(home.audience, home.purposes, home.hpke, home.releases(), held)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{path} is over {MAX_FILE} bytes, too large for what belongs here; name another file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a file that can") from error


def main(run: Callable[[], object] = app) -> None:
    """The console script: one sentence and exit 1 for a person's mistake, never a traceback."""
    try:
        run()
    except PocketScoreError as error:
        Console(stderr=True).print(f"✗ {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
