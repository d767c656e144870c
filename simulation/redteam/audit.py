"""The mechanism audit: many trials of a real release, and the privacy loss that they prove (spec 13.12).

A correct mechanism must be proved to lose nearly all it claims, and no more: a bound above the claim is a fault in the
mechanism, one far below it a fault in the audit. Only what protects nobody is seeded. Noise, masks and keys come from
the operating system, so the audit is a test that can err; `bounds.false_alarm` says how seldom. It is never run again.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from simulation.redteam.bounds import Bound, Claim, alpha_of, bound
from simulation.redteam.mechanisms import MECHANISMS
from simulation.redteam.mutants import MUTANTS
from simulation.redteam.trials import Parts

TRIALS = 50_000  # a side
MUTANT_TRIALS = 10_000  # the faintest fault, the clip that leaks on one axis of five, is proved eight deviations away
FEWEST, MOST = MUTANT_TRIALS, 10_000_000
BLOCK = 1_000
TIGHT = 0.90
Progress = Callable[[int, int], None]
Block = tuple[str, str, bool, int, tuple[int, int]]
Each = Callable[[Callable[[Block], NDArray[np.float64]], Sequence[Block]], Iterable[NDArray[np.float64]]]


def silent(done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Case:
    """What one audit is of: a mode, as it is or with a mutant in it, and how many trials a side."""

    mode: str
    mutant: str = ""
    trials: int = TRIALS

    def __post_init__(self) -> None:
        if self.mode not in MECHANISMS:
            raise InputError(f"no mode {self.mode!r} can be audited; use {', '.join(MECHANISMS)}")
        if self.mutant and self.mutant not in MUTANTS:
            raise InputError(f"no mutant is named {self.mutant!r}; use {', '.join(MUTANTS)}")
        if self.mutant and self.mode not in MUTANTS[self.mutant].modes:
            raise InputError(f"the mutant {self.mutant!r} does not fit mode {self.mode!r}; leave one of them out")
        if not FEWEST <= self.trials <= MOST:
            raise InputError(f"{self.trials} trials a side is outside {FEWEST} to {MOST}; {TRIALS} is usual")


@dataclass(frozen=True)
class Finding:
    """What a case came to against one observer; `seconds` are those of the whole case."""

    case: Case
    observer: str
    claim: Claim
    bound: Bound
    seconds: float

    @property
    def alpha(self) -> float:
        """How often the bound may be too high."""
        return alpha_of(self.claim, bool(self.case.mutant))

    @property
    def ratio(self) -> float:
        """The proved part of the claimed mu."""
        return self.bound.mu / self.claim.mu

    @property
    def exceeded(self) -> bool:
        """Whether more privacy loss is proved than claimed."""
        return self.ratio > 1.0

    @property
    def faulty(self) -> bool:
        """Whether this observer gains by the mutant, so that the audit must say so."""
        return bool(self.case.mutant) and self.observer not in MUTANTS[self.case.mutant].blind

    @property
    def sharp(self) -> bool:
        """Whether the bound must come near the claim as well: in full audits of a mechanism as it is."""
        return not self.case.mutant and self.case.trials >= TRIALS

    @property
    def passed(self) -> bool:
        """A fault is found; nothing is found where there is none; and the audit is not blind."""
        return self.exceeded == self.faulty and (self.ratio >= TIGHT or not self.sharp)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        named = {"mode": self.case.mode, "observer": self.observer, "mutant": self.case.mutant or None}
        proved = {"claim": asdict(self.claim), "bound": asdict(self.bound), "alpha": self.alpha, "ratio": self.ratio}
        verdict = {"exceeded": self.exceeded, "passed": self.passed, "trials": self.case.trials}
        return {**named, **proved, **verdict, "seconds": round(self.seconds, 2)}


def run(case: Case, *, seed: int = 0, each: Each = map, progress: Progress = silent) -> list[Finding]:
    """Audit one case, a finding an observer. `each` maps blocks to their trials, in order: see `shared`."""
    started = time.perf_counter()
    sides = _gather(case, seed, each, progress)
    seconds = time.perf_counter() - started
    mechanism = MECHANISMS[case.mode]
    claims = [mechanism.against(observer) for observer in mechanism.observers]
    return [
        Finding(case, observer, claim, _bound(sides, column, claim, alpha_of(claim, bool(case.mutant))), seconds)
        for column, (observer, claim) in enumerate(zip(mechanism.observers, claims, strict=True))
    ]


def cases(modes: Sequence[str], mutants: Sequence[str], trials: int = TRIALS) -> list[Case]:
    """Each mode as it is, and with each of the mutants that fit it."""
    plain = [Case(mode, "", trials) for mode in modes]
    few = min(trials, MUTANT_TRIALS)
    return plain + [Case(mode, name, few) for name in mutants for mode in MUTANTS[name].modes if mode in modes]


def _bound(sides: dict[bool, NDArray[np.float64]], column: int, claim: Claim, alpha: float) -> Bound:
    return bound(sides[False][:, column], sides[True][:, column], claim, alpha=alpha)


@contextmanager
def shared(processes: int) -> Iterator[Each]:
    """What maps blocks in so many processes of their own; in this one, if there is to be only one."""
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _gather(case: Case, seed: int, each: Each, progress: Progress) -> dict[bool, NDArray[np.float64]]:
    """The statistics without (False) and with (True) the canary, each (trials, observers)."""
    blocks = list(_blocks(case, seed))
    parts: dict[bool, list[NDArray[np.float64]]] = {False: [], True: []}
    for number, (block, result) in enumerate(zip(blocks, each(observe, blocks), strict=True), 1):
        parts[block[2]].append(result)
        progress(number, len(blocks))
    return {present: np.concatenate(found) for present, found in parts.items()}


def _blocks(case: Case, seed: int) -> Iterator[Block]:
    for start in range(0, case.trials, BLOCK):
        for present in (False, True):
            yield case.mode, case.mutant, present, min(BLOCK, case.trials - start), (seed, start)


def observe(block: Block) -> NDArray[np.float64]:
    """One block of trials, (trials, observers)."""
    mode, mutant, present, trials, seed = block
    parts = MUTANTS[mutant].put(Parts()) if mutant else Parts()
    mechanism = MECHANISMS[mode]
    rng = np.random.default_rng([*seed, int(present)])
    return mechanism.make(mechanism.claim, parts)(present, rng, trials)
