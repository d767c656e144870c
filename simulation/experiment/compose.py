"""The whole run, in order: phones → plan → training → release → scores → lender → summary → page → bundle."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.errors import RunError
from simulation.experiment.children import environment, python
from simulation.experiment.folder import RunFolder, opened
from simulation.experiment.lender import Lender
from simulation.experiment.request import Progress, Request, require_utf8
from simulation.experiment.sources import Source, prepare
from simulation.pace import BESIDE_TRAINING
from simulation.planning import require_enough
from simulation.second import meet, read_address
from simulation.signers import held

if TYPE_CHECKING:  # torch must come after the population's processes were forked
    from simulation.experiment.outcome import Outcome

BASELINE_KNOTS = 16
RELEASES = "releases"  # of a federation's folder
PARITY_ROWS = 4096  # held-out rows on which the exported file is compared with the network


@dataclass(frozen=True)
class Finished:
    """A whole run: its folder, its summary, remarks for the person, the device home left behind (if any)."""

    out: Path
    summary: dict[str, Any]
    notes: tuple[str, ...]
    home: Path | None
    decisions: dict[str, int]


def execute(
    request: Request, out: Path, progress: Progress, *, overwrite: bool = False, now: int | None = None
) -> Finished:
    """Run `request` into `out`, or resume it. PocketScoreError in one sentence; `out` appears whole or not at all."""
    require_utf8("--out", str(out))
    moment = int(time.time()) if now is None else now
    clock = Clock()
    with opened(out, request.to_dict(), overwrite=overwrite) as place:
        _meet_helper(place, request)
        with clock("phones"):
            source = prepare(request, place.data, progress)
            require_enough(source.data)
        lender = Lender(place.private / "lender", place.partial / "lender" / "book.sqlite")
        with _baselines(request, source, place) as bases, ThreadPoolExecutor(1) as pool:
            card = pool.submit(lender.make if request.scored else bytes)
            outcome = _train_and_release(request, source, place, progress, clock, moment)
            return _lend_and_report(outcome, lender, card, bases, progress, clock)


def _meet_helper(place: RunFolder, request: Request) -> None:
    """A helper in its own process is asked who it is before anything is made; one that has answered all is not."""
    if request.helper is None or request.keys is None:
        return
    done = len(list((place.federation / RELEASES).glob("release-*.cbor")))
    if done < request.options.rounds + BESIDE_TRAINING:
        meet(read_address(request.helper), held(request.keys))


@dataclass
class Clock:
    """Seconds by stage, since the run began."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block to `stage`."""
        begun = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - begun, 3)

    def all(self) -> dict[str, float]:
        """Stages so far, and their total."""
        return {**self.seconds, "total": round(time.perf_counter() - self.began, 3)}


def _train_and_release(
    request: Request, source: Source, place: RunFolder, progress: Progress, clock: Clock, now: int
) -> Outcome:
    from model.contract.watchers import observers_of
    from simulation.experiment import figures, reach, releasing, training
    from simulation.experiment.outcome import Outcome

    plan = training.plan_of(place, source, request, now)
    with clock("training"):
        result, record = training.train(place, plan, request, progress)
    notes = list(source.notes)
    # A helper in its own process answers a plan once, so there is no second run of it to compare with.
    if request.grid == "superlink" and plan.privacy.noise_source != "os" and request.helper is None:
        with clock("same model"):
            gap = training.same_in_process(place, plan, result)
        notes.append(
            f"{request.farms} SuperNodes and this process end on the same model: weights differ by at most {gap:.1e}"
        )
    with clock("bias"):
        reached = reach.measure(plan, source.data, request.options, record.tallies, place.private / "bias")
    if reached is None:
        del clock.seconds["bias"]
    with clock("release"):
        watchers = observers_of(plan.privacy)
        held = source.data.split()[1]
        found = figures.exact(figures.network_of(result), result.platt, held)
        charged = figures.charged(result, watchers)
        released = releasing.release(place, result, charged, watchers, np.asarray(held.x[:PARITY_ROWS]), now)
    known = (request, source, place, plan, result, record, watchers, held, found, released, now, tuple(notes))
    return Outcome(*known, reach=reached)


def _lend_and_report(
    outcome: Outcome,
    lender: Lender,
    card: Future[bytes],
    bases: Callable[[], dict[str, Any] | None],
    progress: Progress,
    clock: Clock,
) -> Finished:
    from simulation.experiment import scoring, writing

    lent = scoring.Lent()
    if outcome.released.published is not None:
        with clock("scoring"):
            lent = scoring.lend(outcome, lender, card.result(), progress)
    known = bases()
    if known is not None:
        clock.seconds["baselines"] = known["seconds"]  # beside the rest, in a process of their own
    with clock("report"):
        summary = writing.write(outcome, lent, known, clock.all)
    outcome.place.finish()
    home = outcome.place.kept / "phone"
    notes = (*outcome.notes, *_raised(outcome))
    return Finished(outcome.place.out, summary, notes, home if home.exists() else None, lent.decisions)


def _raised(outcome: Outcome) -> list[str]:
    options, used = outcome.request.options, outcome.plan.participation
    notes = [f"participation rose from {options.asked:g} to {used:.3g}, so that no cohort falls short"]
    every = "every phone is asked already, so --over-select asks nobody more; lower --participation to leave it room"
    held_up = [every] if options.reach.over_select > 1 and options.participation == 1 else []
    return (notes if used > options.asked else []) + held_up


@contextmanager
def _baselines(request: Request, source: Source, place: RunFolder) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """Start the baselines beside the run; the call waits for them. They end with the block, whatever happens."""
    if not request.baselines:
        yield lambda: None
        return
    column = [source.silo_column] if source.silo_column else []
    arguments = (str(place.data), str(BASELINE_KNOTS), str(request.options.seed), *column)
    with open(place.private / "baselines.log", "w+b") as errors:
        process = subprocess.Popen(
            python("simulation.baselines", *arguments), stdout=subprocess.PIPE, stderr=errors, env=environment()
        )
        try:
            yield lambda: _answer(process)
        finally:
            process.kill()
            process.wait()


def _answer(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    printed, _ = process.communicate()
    if process.returncode:
        raise RunError(
            "the baselines failed; see baselines.log in the run's .partial.private folder, or pass --no-baselines"
        )
    found: dict[str, Any] = json.loads(printed)
    return found
