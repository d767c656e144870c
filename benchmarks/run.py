"""Every benchmark beside its target, one after the other: `python benchmarks/run.py`. The slow one is results.py."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Population, model file, then a device's own process on a home that a small run leaves behind."""
    codes = [_run("population.py"), _run("onnx_scoring.py")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        small = ["simulate", "--phones", "8000", "--no-baselines", "--score", "20", "--epsilon", "8", "--out", str(out)]
        subprocess.run([sys.executable, "-P", "-m", "simulation", *small], check=True)
        codes.append(_run("device_score.py", str(out.with_name("run.private") / "phone")))
    return max(codes)


def _run(name: str, *arguments: str) -> int:
    print(f"== {name}", flush=True)
    return subprocess.run([sys.executable, str(HERE / name), *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
