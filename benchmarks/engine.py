"""Workload W on our engines and on the peers, in turn on one machine: ratios, shares of the FMA peak, scaling.

    python benchmarks/engine.py [--quick] [--peers flower,pfl,fedjax|none] [--engines native,batched] [--out FILE]
    python benchmarks/engine.py --install

Each peer lives in its own environment under benchmarks/.peers, made here from PyPI; running needs no network. Every
figure is a median of alternating turns, and only ratios inside one run mean anything: the machine's speed moves.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from engines.headline import Plan, measure
from engines.peers import KINDS, PeerError, install
from engines.scaling import million, sections
from engines.table import document, show
from rich.console import Console

QUIET = 0.7  # load average above which a run is not worth quoting


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer settings, shorter blocks, no 10⁶ phones")
    parser.add_argument("--peers", default=",".join(KINDS), help="by comma, or none")
    parser.add_argument("--install", action="store_true", help="only make the peers' environments")
    parser.add_argument("--engines", default="native,batched")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/engine.json"))
    given = parser.parse_args()
    given.peers = [] if given.peers == "none" else given.peers.split(",")
    given.engines = tuple(given.engines.split(","))
    if not set(given.peers) <= set(KINDS) or not set(given.engines) <= {"native", "batched"}:
        parser.error(f"peers are {', '.join(KINDS)} or none; engines are native and batched")
    return given


def main() -> int:
    """Measure, show, write; 1 if a peer that was asked for gave no figure."""
    given, begun, load = options(), time.perf_counter(), os.getloadavg()[0]
    if load > QUIET:
        print(
            f"others keep {load:.1f} processors busy: ratios to peers that mostly wait are too low; run it again later"
        )
    failed = {}
    for name in given.peers:
        try:
            install(KINDS[name])
        except PeerError as error:
            failed[name] = str(error)
    if given.install:
        print("\n".join(failed.values()), end="")
        return int(bool(failed))
    kinds = tuple(KINDS[name] for name in given.peers if name not in failed)
    plan = Plan(usable(given.engines), kinds, given.quick, given.out.resolve().parent)
    found = measure(plan)
    found.failed |= failed
    whole = None if given.quick else million(plan.engines)
    report = document(found, sections(plan), whole, plan)
    report["seconds"] = round(time.perf_counter() - begun, 1)
    report["load_before"] = load
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=1, ensure_ascii=False))
    show(report, Console(width=120))
    print(f"{report['seconds']:.0f} s; {given.out}")
    return int(bool(found.failed))


def usable(engines: tuple[str, ...]) -> tuple[str, ...]:
    """Without `native` where there is no compiled kernel, which is said."""
    from simulation.engine.native.library import available

    reason = available() if "native" in engines else None
    if reason:
        print(f"native is left out: {reason}", file=sys.stderr)
    return tuple(name for name in engines if name != "native" or not reason)


if __name__ == "__main__":
    sys.exit(main())
