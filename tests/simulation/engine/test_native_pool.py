"""The threads the kernel keeps between calls: forks, several callers, growing and an end that waits for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.contract.plan import LocalTraining
from simulation.engine.native.engine import NativeEngine
from simulation.engine.native.library import available
from simulation.engine.problem import Dense, Problem

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

TASKS = Path("/proc/self/task")


def problem() -> Problem:
    """200 phones of 5 rows each, more than a few blocks of them."""
    random = np.random.Generator(np.random.Philox(3))
    return Problem(
        ids=np.arange(200, dtype=np.uint64),
        first=np.arange(200, dtype=np.int64) * 5,
        counts=np.full(200, 5, np.int64),
        y=(random.random(1000) < 0.4).astype(np.float32),
        rows=Dense(random.normal(size=(1000, 7)).astype(np.float32)),
        flat=(0.3 * random.normal(size=8 * 9 + 10)).astype(np.float32),
        hidden=(9,),
        local=LocalTraining(0, 0.1, 2, 0.0, 0.2, 1),
        seed=1,
        round=2,
        scale=1 << 20,
    )


def total(threads: int) -> NDArray[np.int64]:
    return NativeEngine(threads).solve(problem()).sum


def running() -> int:
    """Threads of this process."""
    if not TASKS.is_dir():
        pytest.skip("no /proc to count threads in")
    return len(list(TASKS.iterdir()))


def test_threads_are_kept_and_no_more_are_made() -> None:
    wanted = total(1)
    np.testing.assert_array_equal(total(5), wanted)
    before = running()
    for threads in (2, 5, 3, 1, 4):
        np.testing.assert_array_equal(total(threads), wanted)
    assert running() == before
    np.testing.assert_array_equal(total(8), wanted)
    assert running() > before  # the count sees a thread that was made


def test_callers_at_once_all_get_their_sum() -> None:
    wanted = total(1)
    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(total, [2, 3, 2, 5] * 15):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own() -> None:
    wanted = total(3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if (total(3) == wanted).all() and (total(2) == wanted).all() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(total(3), wanted)


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_a_process_ends_with_threads_waiting(end: str) -> None:
    code = f"import os, runpy, signal\nrunpy.run_path({__file__!r})['total'](3)\n{end}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode in ((0,) if "kill" not in end else (1, 130, -2)), done.stderr
    assert not done.stderr or b"KeyboardInterrupt" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
def test_threads_follow_the_processors_of_their_caller() -> None:
    wanted, all_ = total(2), os.sched_getaffinity(0)
    try:
        for one in sorted(all_):
            os.sched_setaffinity(0, {one})
            np.testing.assert_array_equal(total(2), wanted)
    finally:
        os.sched_setaffinity(0, all_)
    np.testing.assert_array_equal(total(2), wanted)
