"""The kernels' tests once more under AddressSanitizer and UBSan: python tests/sanitize/kernels.py [pytest options].

The library is built again with both, the processes run with the sanitizer's allocator, so a read past any array's end
stops them. Controls come first: arrays shorter than the kernel is told must be caught, in either model.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "simulation" / "engine" / "native" / "src"
TESTS = [ROOT / "tests" / "simulation" / "engine" / f"test_native_{name}.py" for name in ("additive", "mlp")]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]
FLAGS = ["-std=c++17", "-fPIC", "-pthread", "-Wno-psabi", "-Wno-maybe-uninitialized"]
CONTROLS = {"additive": ("codes", "y"), "mlp": ("x", "y")}


def main(options: list[str]) -> int:
    """Build, prove that an error is seen, run the tests; the process's exit status."""
    compiler = shutil.which("c++")
    if compiler is None:
        print("sanitize: no C++ compiler here, nothing was checked")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        built = build(compiler, Path(folder))
        under = environment(compiler)
        for model, arrays in CONTROLS.items():
            for array in arrays:
                done = child(under, built, "control", model, array, capture_output=True)
                if done.returncode == 0 or "heap-buffer-overflow" not in done.stderr:
                    print(f"sanitize: a read past {model}'s {array} went unseen", done.stderr[-2000:], sep="\n")
                    return 1
        print("sanitize: reads past an array's end are seen")
        return child(under, built, "tests", *options).returncode


def build(compiler: str, folder: Path) -> Path:
    """The library with both sanitizers, its files compiled side by side."""
    objects = {folder / f"{source.stem}.o": source for source in sorted(SOURCE.glob("*.cpp"))}
    jobs = [
        subprocess.Popen([compiler, *CHECKS, *FLAGS, "-c", "-o", str(made), str(source)])
        for made, source in objects.items()
    ]
    statuses = [job.wait() for job in jobs]
    if any(statuses):
        raise SystemExit("sanitize: the kernels did not compile")
    built = folder / "kernels.so"
    subprocess.run([compiler, *CHECKS, "-shared", "-pthread", "-o", str(built), *map(str, objects)], check=True)
    return built


def environment(compiler: str) -> dict[str, str]:
    """With the sanitizer's allocator before any other, and no report of what Python itself never frees."""
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    quiet = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "PYTHONMALLOC": "malloc"}
    return {**os.environ, **quiet, "LD_PRELOAD": found.stdout.strip(), "OMP_NUM_THREADS": "1"}


def child(
    under: dict[str, str], built: Path, *arguments: str, capture_output: bool = False
) -> subprocess.CompletedProcess[str]:
    """This file again, with the sanitizers."""
    command = [sys.executable, __file__, "--with", str(built), *arguments]
    return subprocess.run(command, env=under, cwd=ROOT, capture_output=capture_output, text=True, check=False)


def use(built: Path) -> None:
    """Let this process take the sanitized library for the installed one."""
    sys.path[:0] = [str(ROOT), str(TESTS[0].parent)]
    library = import_module("simulation.engine.native.library")
    library.places = lambda: [built]


def control(model: str, array: str) -> None:
    """Hand over an array with fewer rows than are claimed. Reached the end: nothing was seen."""
    made = import_module(f"test_native_{model}").made
    engine = import_module("simulation.engine.native.engine")
    addresses = engine._addresses

    def shorter(arrays: dict[str, object]) -> dict[str, int]:
        cut = {name: each[: len(each) // 2].copy() if name == array else each for name, each in arrays.items()}  # type: ignore[index]
        kept.append(cut)
        found: dict[str, int] = addresses(cut)
        return found

    kept: list[object] = []
    engine._addresses = shorter
    engine.NativeEngine(1).solve(made(1, phones=30))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--with"]:
        use(Path(sys.argv[2]))
        if sys.argv[3] == "control":
            control(*sys.argv[4:])
        else:
            import pytest

            sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *map(str, TESTS), *sys.argv[4:]]))
    else:
        sys.exit(main(sys.argv[1:]))
