"""Every benchmark beside its target, one after the other: `python benchmarks/run.py [--quick] [names…]`.

Names are population, onnx_scoring, device_score and engine; none means all. `--quick` takes less of everything and is
done in four minutes once the peers of engine.py are installed. The slow one, results.py, is not among them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def population(quick: bool) -> int:
    """Phones a second from nothing to rows."""
    return _run("population.py", *(["--phones", "8192", "--runs", "1"] if quick else []))


def onnx_scoring(quick: bool) -> int:
    """Size, speed and parity of the released file."""
    return _run("onnx_scoring.py", *(["--calls", "4000"] if quick else []))


def device_score(quick: bool) -> int:
    """A device's own process, on a home that a small run leaves behind."""
    phones, calls = ("4000", ["--runs", "5"]) if quick else ("8000", [])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        small = ["simulate", "--phones", phones, "--no-baselines", "--score", "20", "--epsilon", "8", "--out", str(out)]
        subprocess.run([sys.executable, "-P", "-m", "simulation", *small], check=True)
        return _run("device_score.py", str(out.with_name("run.private") / "phone"), *calls)


def engine(quick: bool) -> int:
    """Our engines beside Flower on Ray, pfl and FedJAX."""
    return _run("engine.py", *(["--quick"] if quick else []))


PARTS: dict[str, Callable[[bool], int]] = {
    part.__name__: part for part in (population, onnx_scoring, device_score, engine)
}


def main() -> int:
    """Run the named parts; the worst exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PARTS)}")
    given = parser.parse_args()
    if unknown := set(given.names) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: no such benchmark; choose of {', '.join(PARTS)}")
    return max(PARTS[name](given.quick) for name in given.names or PARTS)


def _run(name: str, *arguments: str) -> int:
    print(f"== {name}", flush=True)
    return subprocess.run([sys.executable, str(HERE / name), *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
