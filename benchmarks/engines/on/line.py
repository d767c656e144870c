"""The line protocol of a peer's program: "ready", then for each "go K C" the seconds that K rounds of C phones took.

`--fresh` skips the warm-up, so that "go 1 C" and "save PATH" show one round from the starting weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np


@dataclass(frozen=True)
class Request:
    """What a peer is asked: a data file, the cohort to warm up with, its own setting, and whether to warm up."""

    data: str
    cohort: int
    setting: str
    fresh: bool


def requested() -> Request:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--cohort", type=int, required=True)
    parser.add_argument("--setting", default="")
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args()
    return Request(given.data, given.cohort, given.setting, given.fresh)


def speaker() -> IO[str]:
    """The real standard output; what libraries print from now on goes to standard error."""
    kept = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return kept


def turns(lines: Iterator[str], out: IO[str], flat: Callable[[], np.ndarray[Any, Any]]) -> Iterator[tuple[int, int]]:
    """(rounds, cohort) to run, one a "go"; each is timed from here until the next is asked for."""
    print("ready", file=out, flush=True)
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "save":
            np.save(rest, flat())
            print("saved", file=out, flush=True)
        elif word == "go":
            begun = time.perf_counter()
            count, cohort = rest.split()
            yield int(count), int(cohort)
            print(time.perf_counter() - begun, file=out, flush=True)
        else:
            return


def serve(request: Request, rounds: Callable[[int, int], None], flat: Callable[[], np.ndarray[Any, Any]]) -> None:
    """Warm up, then answer until standard input closes. `rounds(k, c)` runs k rounds of c phones, `flat()` is (d,)."""
    out = speaker()
    if not request.fresh:
        rounds(2, request.cohort)
    for count, cohort in turns(iter(sys.stdin.readline, ""), out, flat):
        rounds(count, cohort)
