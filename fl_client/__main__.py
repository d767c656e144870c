"""`pocketscore-device`: the borrower's own command line; a refusal is one sentence and exit code 2 (spec 9.10)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fl_client import commands
from model.errors import NoScore, PocketScoreError

# argparse, because typer alone would take a fifth of the 500 ms from start to sealed score.
EXAMPLES = """examples:
  pocketscore-device init HOME --repo https://example.org/tuf --root root.json --lender lender.card
  pocketscore-device update HOME
  pocketscore-device consent HOME --deny upi
  pocketscore-device score HOME --preview
  pocketscore-device score HOME --ref loan-17
  pocketscore-device score HOME --ref loan-17 --after-decline
  pocketscore-device reasons HOME
  pocketscore-device withdraw HOME
  pocketscore-device egress HOME --json
  pocketscore-device join HOME
  pocketscore-device leave HOME
  pocketscore-device ledger HOME
"""
TRAINING, PACK = "credit risk scoring on the phone", "in-rbi-2025"


class _Parser(argparse.ArgumentParser):
    """One sentence instead of a usage block."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}; see {self.prog} --help\n")


def build() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(
        prog="pocketscore-device",
        description="Score yourself on your own device. The score leaves the phone; the data never does.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = _add(added, commands.init)
    made.add_argument("--repo", required=True, help="address or folder of the release repository")
    made.add_argument("--root", required=True, type=Path, help="first TUF root you trust (root.json)")
    made.add_argument("--lender", action="append", default=[], type=Path, help="a lender's signed card; repeatable")
    made.add_argument("--schema", type=Path, help="feature schema of a phone made from a table")
    made.add_argument("--passphrase", action="store_true", help="keep the key under a passphrase")
    agreed = _lender_options(_add(added, commands.consent))
    agreed.add_argument("--deny", action="append", default=[], metavar="SOURCE", help="do not read SOURCE; repeatable")
    agreed.add_argument("--lender", type=Path, help="card of a lender this home does not know yet")
    _lender_options(_add(added, commands.withdraw))
    _add(added, commands.update).add_argument("--repo", default="", help="another address or folder, this once")
    scored = _lender_options(_add(added, commands.score))
    scored.add_argument("--ref", default="", help="the application the score is for")
    scored.add_argument("--preview", action="store_true", help="show your own copy; nothing leaves")
    scored.add_argument("--after-decline", action="store_true", help="send the reasons of a declined score")
    scored.add_argument("--out", type=Path, help="write the sealed score here instead of the outbox")
    shown = _lender_options(_add(added, commands.reasons))
    shown.add_argument("--ref", default="", help="the application; default the last score")
    for command in (commands.join, commands.leave):
        trained = _add(added, command)
        trained.add_argument("--purpose", default=TRAINING, help=f"the plan's purpose; default {TRAINING!r}")
        trained.add_argument("--pack", default=PACK, help="policy pack you agree under")
    for command in (commands.ledger, commands.egress, commands.status):
        _add(added, command)
    return parser


def main(argv: Sequence[str] | None = None, *, now: int | None = None) -> int:
    """Run one command; 0, or 2 after one sentence on stderr. `now` (Unix s) stands in for the clock in tests."""
    args = build().parse_args(argv)
    try:
        result = args.run(args, int(time.time()) if now is None else now)
    except NoScore as error:
        if args.json:
            print(json.dumps({"no_score": error.code, "sentence": str(error)}))
        print(error, file=sys.stderr)
        return 2
    except PocketScoreError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was sent that the egress ledger does not show", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=2) if args.json else "\n".join(_table(result)))
    return 0


Command = Callable[[argparse.Namespace, int], commands.Result]


def _add(added: Any, run: Command) -> argparse.ArgumentParser:
    name, about = run.__name__, run.__doc__ or ""
    examples = [line for line in EXAMPLES.splitlines() if f"pocketscore-device {name} " in line]
    parser: argparse.ArgumentParser = added.add_parser(
        name,
        help=about.split(":")[0].split(".")[0],
        description=about,
        epilog="\n".join(["examples:", *(examples or [f"  pocketscore-device {name} HOME --json"])]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("home", metavar="HOME", type=Path, help="the device's folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--passphrase-file", type=Path, help="file with the passphrase of the key")
    parser.set_defaults(run=run)
    return parser


def _lender_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--to", default="", metavar="AUDIENCE", help="the lender's id, where several are known")
    parser.add_argument("--purpose", default="", help="the purpose; default the first on the lender's card")
    return parser


def _table(result: Mapping[str, Any], indent: str = "") -> list[str]:
    """Two columns; nested values below their name."""
    width = max((len(name) for name in result), default=0)
    lines = []
    for name, value in result.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *_table(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += [f"{indent}{name}:", *(f"{indent}  {_row(item)}" for item in value)]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            lines.append(f"{indent}{name:<{width}}  {shown if shown not in ('', {}, None) else '–'}")
    return lines


def _row(item: Mapping[str, Any]) -> str:
    return "  ".join(str(value) for value in item.values() if value != "")


if __name__ == "__main__":
    sys.exit(main())
