"""The compiled kernel against the other two engines, its library's checks, and the choice among the three."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest

from fl_client.phones import Task
from fl_client.training import Learner
from model.contract.plan import LocalTraining, ModelChoice
from model.errors import RunError
from model.risk.knots import Knots, rows_histogram
from simulation.coded import Coded
from simulation.engine.batched import BatchedEngine
from simulation.engine.choice import choose
from simulation.engine.native import library as module
from simulation.engine.native.engine import NativeEngine
from simulation.engine.native.library import ABI, Library, _cut, available, library, places
from simulation.engine.protocol import Crowd
from simulation.engine.reference import ReferenceEngine
from simulation.processors import default_threads
from simulation.small import small_dataset, small_plan

BUILT = available() is None
needs_kernel = pytest.mark.skipif(not BUILT, reason=str(available()))
COMPILER = shutil.which("c++") or shutil.which("g++")
SOURCE = Path(module.__file__).parent / "src"
DATA = small_dataset(90, seed=5)
KNOTS = Knots.from_histogram(rows_histogram(DATA.x, np.ones(len(DATA.y)), DATA.schema), DATA.schema, 6)
MODELS = [ModelChoice("additive", (), 6), ModelChoice("mlp", (6, 4), 6)]
LOCALS = {
    "one step": LocalTraining(1, 0.6, 0, 0.0, 0.3),
    "four steps": LocalTraining(4, 0.4, 0, 0.2, 0.3),
    "batches of one": LocalTraining(3, 0.4, 1, 0.1, 5.0),
    "two epochs": LocalTraining(0, 0.4, 2, 0.1, 5.0, 2),
}


def crowd() -> Crowd:
    x = DATA.x if isinstance(DATA.x, Coded) else Coded.exact(np.asarray(DATA.x))
    return Crowd.of(DATA.ids, DATA.offsets, x, DATA.y)


def task_of(model: ModelChoice, local: LocalTraining) -> Task:
    plan = replace(small_plan(DATA), model=model, local=local)
    # A finer grid than a plan's own, so that rounding to it hides no difference.
    plan = replace(plan, privacy=replace(plan.privacy, grid_scale=1 << 32))
    size = Learner.of(plan, KNOTS).network.dimension
    flat = (0.3 * np.random.Generator(np.random.Philox(2)).normal(size=size)).astype(np.float32)
    return Task("train", 3, plan, KNOTS, flat)


@needs_kernel
@pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)
def test_native_equals_the_others(model: ModelChoice, local: LocalTraining) -> None:
    task = task_of(model, local)
    native = NativeEngine().train(crowd(), task, 4)
    for other in (ReferenceEngine(), BatchedEngine()):
        found = other.train(crowd(), task, 4)
        assert np.linalg.norm(native.sum - found.sum) <= 2e-6 * np.linalg.norm(found.sum), other.name
        np.testing.assert_allclose(native.norms, found.norms, rtol=5e-6, atol=1e-6)
        np.testing.assert_allclose(native.raw, found.raw, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(native.units, found.units, rtol=1e-4, atol=2e-6 * (1 << 32))


@needs_kernel
def test_the_comparison_can_fail() -> None:
    task = task_of(MODELS[0], LOCALS["two epochs"])
    other = replace(task, round=4)  # other shuffles
    one, two = NativeEngine().train(crowd(), task).sum, BatchedEngine().train(crowd(), other).sum
    assert np.linalg.norm(one - two) > 2e-6 * np.linalg.norm(two)


@needs_kernel
def test_how_it_is_asked() -> None:
    assert str(NativeEngine(3, 0)) == "baseline, 3 threads" and str(NativeEngine(1, 0)) == "baseline, 1 thread"
    with pytest.raises(RunError, match="instruction set 3"):
        NativeEngine(isa=3)
    assert library().fma_peak(1, 0.01) > 0.1


def test_threads_follow_the_process_and_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for value, wanted in (("1", 1), ("0", here), ("many", here), ("100000", here)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_threads() == wanted
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads() == here


@needs_kernel
def test_auto_takes_the_kernel() -> None:
    engine, reason = choose()
    assert engine.name == "native" and reason.startswith("native: compiled kernel, ")


@pytest.mark.parametrize("name", ["reference", "batched"])
def test_an_engine_by_name(name: str) -> None:
    engine, reason = choose(name)
    assert engine.name == name and reason.startswith(f"{name}: ")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(RunError, match=r"no engine 'fast'; choose one of auto, reference, batched, native"):
        choose("fast")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library.cache_clear()
    monkeypatch.setattr(module, "places", list)
    yield
    library.cache_clear()


@pytest.mark.usefixtures("nowhere")
def test_without_the_kernel() -> None:
    engine, reason = choose()
    assert engine.name == "batched" and "the compiled kernel is not there" in reason
    with pytest.raises(RunError, match=re.escape(f"build it by `{module.BUILD}`")):
        choose("native")
    with pytest.raises(RunError):
        NativeEngine()


def test_the_farm_that_adds_up_loads_no_torch() -> None:
    code = "import sys; from simulation.engine.choice import choose; choose(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def compiled(folder: Path, text: str) -> Path:
    """A little library from C++ text."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    (folder / "stub.cpp").write_text(text)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / "stub.so", folder / "stub.cpp"], check=True)
    return folder / "stub.so"


def test_a_library_of_another_version_is_refused(tmp_path: Path) -> None:
    stub = compiled(tmp_path, f'extern "C" int ps_abi(void) {{ return {ABI + 1}; }}')
    with pytest.raises(RunError, match=f"version {ABI + 1}, not {ABI}; build it again"):
        Library(stub)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f"int ps_abi(void) {{ return {ABI}; }}", "lacks a part"),
        ("int ps_other(void) { return 0; }", "cannot be loaded"),
        (
            f"int ps_abi(void) {{ return {ABI}; }} long ps_size(int) {{ return 8; }} int ps_isa(void) {{ return 0; }}"
            "double ps_fma_peak(int, double, int) { return 0; }"
            "int ps_mlp_round(void) { return 0; } int ps_additive_round(void) { return 0; }",
            "laid out in another way",
        ),
    ],
)
def test_a_damaged_library_is_refused(tmp_path: Path, body: str, words: str) -> None:
    stub = compiled(tmp_path, f'extern "C" {{ {body} }}')
    with pytest.raises(RunError, match=words):
        Library(stub)


@pytest.mark.integration
def test_another_processor_compiles_the_baseline(tmp_path: Path) -> None:
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    flags = ["-DPS_PORTABLE", "-std=c++17", "-O0", "-fPIC", "-shared", "-pthread", "-Wno-psabi"]
    built = tmp_path / "portable.so"
    subprocess.run([COMPILER, *flags, "-o", built, *SOURCE.glob("*.cpp")], check=True)
    assert Library(built).best_isa == 0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_library_that_was_cut_off_is_refused_before_it_is_loaded(tmp_path: Path, share: float) -> None:
    whole = compiled(tmp_path, 'extern "C" int ps_abi(void) { return 0; }')
    content = whole.read_bytes()
    assert not _cut(whole)
    (tmp_path / "part.so").write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match="is cut off; build it again"):
        Library(tmp_path / "part.so")


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stub.so").write_text("not a library")
    with pytest.raises(RunError, match="cannot be loaded"):
        Library(tmp_path / "stub.so")


def test_the_structures_are_those_of_the_header() -> None:
    header = re.sub(r"//.*", "", (SOURCE / "round.hpp").read_text())
    assert int(re.search(r"POCKETSCORE_ABI (\d+)", header)[1]) == ABI
    kinds = {
        "int32_t": ctypes.c_int32,
        "int64_t": ctypes.c_int64,
        "uint64_t": ctypes.c_uint64,
        "double": ctypes.c_double,
    }
    for part in (module.Phones, module.Local, module.Answer, module.Mlp, module.Additive):
        body = re.search(rf"struct ps_{part.__name__.lower()} \{{(.*?)\}};", header, re.S)[1]
        declared = [line.strip() for line in body.split(";") if line.strip()]
        fields = [
            (line.split()[-1].lstrip("*"), ctypes.c_void_p if "*" in line else kinds[line.split()[0]])
            for line in declared
        ]
        assert fields == list(part._fields_)


def test_a_bundle_elsewhere_finds_the_installed_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed(Distribution):
        def read_text(self, filename: str) -> str | None:
            return '{"url": "file:///some%20where", "dir_info": {"editable": true}}' if "direct" in filename else None

        def locate_file(self, path: object) -> Path:
            return tmp_path / "site-packages"

    monkeypatch.setattr(module, "distributions", lambda **_: [Installed()])
    roots = [path.parents[3].as_posix() for path in places()]
    assert roots[1:] == [(tmp_path / "site-packages").as_posix(), "/some where"]
    assert Path(roots[0]) == SOURCE.parents[3]


@needs_kernel
def test_a_bundle_elsewhere_really_loads_it(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "src")
    root = SOURCE.parents[3]
    for name in ("simulation", "model", "fl_client"):
        shutil.copytree(root / name, tmp_path / name, ignore=ignore)
    code = (
        "import simulation, sys; from simulation.engine.choice import choose; print(simulation.__file__, choose()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path)) and "native: compiled kernel" in done.stdout


def test_one_line_says_which_engine() -> None:
    done = subprocess.run([sys.executable, "-m", "simulation.engine"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"PocketScore engine: (native|batched): .+\n", done.stdout)
