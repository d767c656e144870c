"""Process start to sealed score of `pocketscore-device score`: wall time and peak memory, each run a new process.

    python benchmarks/device_score.py HOME [--runs 20] [--max-ms 500] [--max-mb 100] [--max-ratio 2.5]

HOME is a device home with consent, an installed release and features (`pocketscore demo` leaves one). Each run makes a
real score in HOME, beside a process that only imports onnxruntime and numpy: the ratio of the two, a median of pairs,
tells more on a machine that others use. Exit code 1 when median time, median ratio or peak is over its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCORE = [sys.executable, "-m", "fl_client", "score"]
UNIT = [sys.executable, "-c", "import onnxruntime, numpy"]
# An installed device has compiled modules; without this, a developer's setting would compile them at every start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(home: Path, out: Path) -> tuple[float, float, float]:
    """(milliseconds, milliseconds of CPU, MiB) of one process from start to the sealed file."""
    command = [*SCORE, str(home), "--json", "--out", str(out)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not out.is_file():
        raise SystemExit(f"{home} gave no score; see the sentence above")
    wall = time.perf_counter() - begun
    out.unlink()
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3, usage.ru_maxrss / 1024


def unit() -> float:
    """Milliseconds of a process that imports what a score must import, and does nothing."""
    begun = time.perf_counter()
    subprocess.run(UNIT, check=True, env=ENVIRONMENT)
    return (time.perf_counter() - begun) * 1e3


def over(figures: dict[str, float], limits: dict[str, float]) -> list[str]:
    """A sentence for each figure beyond its limit."""
    return [f"{name} is {figures[name]:.2f}, over {limit:g}" for name, limit in limits.items() if figures[name] > limit]


def main() -> int:
    """Print one JSON line; 1, and why, if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--max-ms", type=float, default=500.0)
    parser.add_argument("--max-mb", type=float, default=100.0)
    parser.add_argument("--max-ratio", type=float, default=2.5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sealed = Path(folder) / "score.sealed"
        unit(), measure(args.home, sealed)  # files are read, modules compiled
        units, runs = zip(*((unit(), measure(args.home, sealed)) for _ in range(args.runs)), strict=True)
    wall, cpu, sizes = zip(*runs, strict=True)
    figures = {
        "runs": args.runs,
        "ms_best": min(wall),
        "ms_median": statistics.median(wall),
        "cpu_ms_best": min(cpu),
        "mib_peak": max(sizes),
        "ratio_median": statistics.median(score / alone for score, alone in zip(wall, units, strict=True)),
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
    missed = over(figures, {"ms_median": args.max_ms, "mib_peak": args.max_mb, "ratio_median": args.max_ratio})
    print(*missed, sep="\n", end="\n" if missed else "", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
