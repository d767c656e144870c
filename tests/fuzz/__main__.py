"""`make fuzz`: every door in turn for FUZZ_SECONDS altogether. What is found is kept in seeds/ and told; exit 1."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
import time
from random import Random

from .doors import SEEDS, Door, doors
from .drive import MAX_SECONDS, Finding, Hunt
from .good import good

TURN_SECONDS = 4.0


def main(argv: list[str] | None = None) -> int:
    """0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="names the run's random draws")
    parser.add_argument("--door", action="append", choices=sorted(doors()), help="only this one; may be repeated")
    parser.add_argument("--write-good", action="store_true", help="write the good inputs anew and stop")
    options = parser.parse_args(argv)
    if options.write_good:
        for name, data in good().items():
            keep(name, "good", data)
        return 0
    chosen = [door for name, door in doors().items() if not options.door or name in options.door]
    return 1 if hunt(chosen, options.seconds, options.seed) else 0


def hunt(chosen: list[Door], seconds: float, seed: int) -> list[Finding]:
    """Turns of a few seconds at each door until the time is up; tells inputs a second by door."""
    print(f"seed {seed}", flush=True)
    hunts = [Hunt(door, Random(f"{seed}/{door.name}"), seconds=MAX_SECONDS) for door in chosen]
    found: dict[tuple[str, str], Finding] = {}
    spent, end = dict.fromkeys(range(len(hunts)), 0.0), time.monotonic() + seconds
    turn = min(TURN_SECONDS, seconds / len(hunts) / 2)
    while time.monotonic() < end:
        for place, each in enumerate(hunts):
            begun = time.monotonic()
            for finding in each.findings(max(0.0, min(turn, end - begun))):
                report(finding, found)
            spent[place] += time.monotonic() - begun
    for place, each in enumerate(hunts):
        rate = each.tried / max(spent[place], 1e-9)
        print(f"{each.door.name:15} {each.tried:9} inputs {rate:8.0f} a second {len(each.answers):4} answers")
    print(f"{sum(each.tried for each in hunts)} inputs, {len(found)} findings")
    return list(found.values())


def report(finding: Finding, found: dict[tuple[str, str], Finding]) -> None:
    """Keep and tell the first of each kind."""
    kind = (finding.door, finding.what[:40])
    if kind not in found:
        found[kind] = finding
        name = keep(finding.door, f"found-{hashlib.sha256(finding.data).hexdigest()[:12]}", finding.data)
        print(f"FOUND at {finding.door}: {finding.what}\n      kept as {name}", flush=True)


def keep(door: str, name: str, data: bytes) -> str:
    """The file's path below this folder."""
    path = SEEDS / door / f"{name}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path.relative_to(SEEDS.parent))


if __name__ == "__main__":
    sys.exit(main())
