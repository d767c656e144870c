"""A million phones from nothing, watched: `python benchmarks/million.py [--phones N] [--out FILE.json]`.

Runs `pocketscore simulate` in a fresh folder and samples the memory of its whole process tree: PSS, so that pages which
processes share count once, and RSS, which counts them again for each. Prints stages and targets; writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SECONDS, PEAK_MB, EPSILON, GAP = 300.0, 4096.0, 0.1, 0.003
EVERY = 0.25


@dataclass
class Memory:
    """Largest sums over the processes alive at one time, in MB, and when the largest PSS was seen."""

    pss_mb: float = 0.0
    rss_mb: float = 0.0
    at_second: float = 0.0
    samples: int = 0


@dataclass
class Watch:
    """Samples a process and all its descendants until told to stop."""

    root: int
    seen: Memory = field(default_factory=Memory)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample every quarter of a second."""
        began = time.perf_counter()
        while not self.over.wait(EVERY):
            pss, rss = tree_mb(self.root)
            self.seen.samples += 1
            self.seen.rss_mb = max(self.seen.rss_mb, round(rss, 1))
            if pss > self.seen.pss_mb:
                self.seen.pss_mb, self.seen.at_second = round(pss, 1), round(time.perf_counter() - began, 1)


def tree_mb(root: int) -> tuple[float, float]:
    """(PSS, RSS) in MB of `root` and its descendants, as the kernel counts them now."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text("utf-8", "replace")
        except OSError:
            continue
        parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    tree = {root}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    found = [_rollup(process) for process in tree]
    return sum(pss for pss, _ in found) / 1024, sum(rss for _, rss in found) / 1024


def _rollup(process: int) -> tuple[int, int]:
    try:
        lines = Path("/proc", str(process), "smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0, 0  # it has just ended
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return kb.get("Pss", 0), kb.get("Rss", 0)


def measure(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run it; the summary, wall and CPU seconds, memory."""
    script = Path(sys.executable).with_name("pocketscore")
    command = [str(script), "simulate", "--phones", options.phones, "--rounds", options.rounds, "--out", out, "--json"]
    command += ["--epsilon", EPSILON, "--delta", options.delta, "--score", options.score, "--seed", options.seed]
    command += ["--engine", options.engine]
    load, before, began = os.getloadavg()[0], os.times(), time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as process:
        watch = Watch(process.pid)
        watcher = threading.Thread(target=watch.run)
        watcher.start()
        try:
            printed, _ = process.communicate()
        finally:
            watch.over.set()
            watcher.join()
    wall, after = time.perf_counter() - began, os.times()
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}; its message is above")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "command": " ".join(map(str, command[1:])),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "memory": asdict(watch.seen),
        "summary": json.loads(printed),
    }


def targets(found: Mapping[str, Any]) -> list[tuple[str, float | None, float, bool]]:
    """(what, reached, asked, good) of each goal."""
    summary = found["summary"]
    auc, spent = summary["auc"], summary["epsilon"]
    gap = None if auc["central"] is None or auc["federated"] is None else auc["central"] - auc["federated"]
    rows: list[tuple[str, float | None, float]] = [
        ("seconds from nothing", found["wall_seconds"], SECONDS),
        ("peak memory of the process tree, MB", found["memory"]["pss_mb"], PEAK_MB),
        ("ε against releases", spent["released_models"], EPSILON),
        ("ε against participation viewers", spent["participation_viewer"], EPSILON),
        ("AUC below central", gap, GAP),
    ]
    return [(what, reached, asked, reached is not None and reached <= asked) for what, reached, asked in rows]


def show(found: Mapping[str, Any]) -> None:
    """Stages, then goals."""
    summary = found["summary"]
    for stage, seconds in summary["seconds"].items():
        print(f"{stage:<42}{seconds:>12.1f} s")
    print(f"{'CPU, all processes':<42}{found['cpu_seconds']:>12.1f} s")
    print(f"{'summary: peak_rss_mb':<42}{summary['peak_rss_mb']:>12.1f}")
    print(f"{'RSS of the tree, shared pages twice, MB':<42}{found['memory']['rss_mb']:>12.1f}")
    print(f"{'engine':<42}{summary['engine']['why']}")
    print(f"{'AUC':<42}{json.dumps(summary['auc'])}")
    for what, reached, asked, good in targets(found):
        shown = "–" if reached is None else f"{reached:.4g}"
        print(f"{what:<42}{shown:>12}   goal ≤ {asked:g}   {'✓' if good else '✗'}")


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phones", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--delta", default="1e-10")
    parser.add_argument("--score", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="million-", dir=os.environ.get("TMPDIR")) as folder:
        found = measure(options, Path(folder) / "run")
    show(found)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
