"""Train a plan on Flower, in process or over a SuperLink: the same workspace, the same apps, the same releases."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_server import rounds
from fl_server.app import Result, result_of
from fl_server.checkpoint import Checkpoint
from fl_server.keys import KeyRing, replace_file
from fl_server.rounds import Release, State
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from simulation.drawer import nodes_of
from simulation.experiment.folder import LEDGER, RunFolder
from simulation.experiment.request import Progress, Request
from simulation.experiment.sources import Source
from simulation.federate import federate
from simulation.pace import expected_seconds, require_bearable
from simulation.planning import build_plan
from simulation.second import read_address
from simulation.signers import adopt
from simulation.superlink import run_deployed
from simulation.workspace import ATTENDANCE, Workspace

SAMPLED = 8  # phones a farm whose stages a reviewer may look at
PROJECT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.5
LEAST_PATIENCE = 600.0


@dataclass
class Record:
    """By round: when it closed, who replied, the server's model so far; and, simulation_only, norms before clipping
    and the first phones' updates before and after clip and encode, and how many phones met which fate."""

    norms: dict[int, list[NDArray[np.float32]]] = field(default_factory=dict)
    sample: dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=dict)
    iterates: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    replied: dict[int, int] = field(default_factory=dict)
    tallies: dict[int, dict[str, Any]] = field(default_factory=dict)


def federation_of(place: RunFolder) -> Workspace:
    """The folder that server and farms share while the run works."""
    return Workspace(place.federation)


def keys_of(place: RunFolder) -> tuple[SigningKey, SigningKey]:
    """The coordinator's and the reviewer's plan keys; a simulated run makes both itself, unless it was given them."""
    ring = KeyRing(place.private / "keys")
    return ring.ensure("coordinator"), ring.ensure("reviewer")


def plan_of(place: RunFolder, source: Source, request: Request, now: int) -> TrainingPlan:
    """The plan, signed and written once; a resumed run takes the one that is there, and the helper's present address.

    InputError or RunError where the helper or the keys that were named are none, or others than the run began with.
    """
    shared, options = federation_of(place), request.options
    if request.keys is not None:
        adopt(request.keys, place.private / "keys")
    if request.helper is not None:
        shared.second.dial(read_address(request.helper), keys_of(place)[0])
    if not (place.partial / "plan.cbor").exists():
        key = shared.helper_key() if options.mode == "helper" else ""
        plan = build_plan(source.data, options, unit=source.unit, now=now, helper_key=key)
        shared.prepare(source.data, plan, keys_of(place), options.reach.attendance(options.seed))
        replace_file(place.partial / "plan.cbor", shared.signed().to_bytes())
    return shared.trust().plan_of(shared.signed().to_bytes())


def train(place: RunFolder, plan: TrainingPlan, request: Request, progress: Progress) -> tuple[Result, Record]:
    """Run or resume the plan; publish releases and ledger. BudgetError, RoundError, RunError in one sentence."""
    shared = federation_of(place)

    def closed(release: Release, state: State) -> None:
        progress("rounds", release.round, plan.rounds + 2)

    shared.take_engine(request.engine)
    try:
        if request.grid == "superlink":
            with _watched(shared, lambda number: progress("rounds", number, plan.rounds + 2)):
                run_deployed(PROJECT, shared, place.private / "flower", request.farms, timeout=patience(plan, request))
        else:
            federate(shared, nodes=request.farms, sample=SAMPLED, on_progress=closed)
    finally:
        _publish(place, shared)
    shutil.rmtree(nodes_of(shared.folder), ignore_errors=True)  # secrets of sums that are closed
    return finished(shared, plan)


def patience(plan: TrainingPlan, request: Request) -> float:
    """Seconds after which a run over a SuperLink is given up: five times what it takes. InputError over the most."""
    known = (plan.privacy.mode, plan.rounds, plan.phones, request.farms)
    require_bearable(*known)  # only now is it known how many phones a table holds
    return max(LEAST_PATIENCE, 5 * expected_seconds(*known))


def finished(shared: Workspace, plan: TrainingPlan) -> tuple[Result, Record]:
    """Result and record of a federation whose releases are all there, by replaying them."""
    with Checkpoint(shared.releases, plan.digest) as checkpoint:
        releases = checkpoint.releases()
    record, state, before = Record(), State(), 0.0
    for release in releases:
        state = rounds.close(plan, state, release)
        if release.kind == "train" and state.iterate is not None:
            record.iterates[release.round] = state.iterate.result
            record.replied[release.round] = release.phones
            record.seconds[release.round] = checkpoint.when(release) - before
        before = checkpoint.when(release)
    _simulation_only(shared.folder / "simulation_only", record)
    return result_of(plan, state, tuple(releases)), record


def same_in_process(place: RunFolder, plan: TrainingPlan, result: Result) -> float:
    """max |weight difference| to the same plan run in this process, meaningful where its noise is seeded for a test."""
    beside = Workspace(place.private / "beside")
    for old in (beside.folder, beside.helper, beside.witness.home):
        shutil.rmtree(old, ignore_errors=True)
    beside.folder.mkdir()
    (beside.folder / "data").symlink_to(place.data)
    shared = federation_of(place)
    for name in ("plan.cbor", "trust.cbor", *([ATTENDANCE] if shared.attendance() else [])):
        shutil.copy2(shared.folder / name, beside.folder / name)
    if shared.helper.exists():
        # The same keys, but a memory of its own: the first one has answered these releases.
        shutil.copytree(shared.helper, beside.helper, ignore=shutil.ignore_patterns("helper.sqlite*"))
    if plan.privacy.mode == "pairwise":
        beside.witness.take(keys_of(place)[1])
    other = federate(beside)
    shutil.rmtree(beside.folder)
    for home in (beside.helper, beside.witness.home):
        shutil.rmtree(home, ignore_errors=True)
    return float(np.abs(other.theta - result.theta).max())


def _publish(place: RunFolder, shared: Workspace) -> None:
    """What of the federation belongs to the run: noised sums and the ε ledger; the helper's refusals stay private."""
    shutil.rmtree(place.rounds, ignore_errors=True)
    if shared.releases.exists():
        shutil.copytree(shared.releases, place.rounds, ignore=shutil.ignore_patterns("lock", "batch-*", "attempt-*"))
    for path in shared.folder.glob(f"{LEDGER}*"):
        replace_file(place.partial / path.name, path.read_bytes())
    if (shared.folder / "refusals").exists():
        shutil.copytree(shared.folder / "refusals", place.private / "refusals", dirs_exist_ok=True)


def _simulation_only(folder: Path, record: Record) -> None:
    for path in sorted(folder.glob("round-*-farm-*.npz")):
        number = int(path.name.split("-")[1])
        with np.load(path, allow_pickle=False) as kept:
            record.norms.setdefault(number, []).append(kept["norms"])
            if len(kept["raw"]):
                record.sample.setdefault(number, (kept["raw"], kept["units"]))
    for path in sorted(folder.glob("attendance-*-farm-*.json")):
        told = json.loads(path.read_text("utf-8"))
        number, kind = told.pop("round"), told.pop("kind")
        before = record.tallies.setdefault(number, {"kind": kind})
        before |= {name: before.get(name, 0) + size for name, size in told.items()}


@contextmanager
def _watched(shared: Workspace, step: Callable[[int], None]) -> Iterator[None]:
    """Progress of a run in other processes, told by the releases that appear."""
    over = False

    def watch() -> None:
        while not over:
            step(max(len(list(shared.releases.glob("release-*.cbor"))) - 1, 0))
            time.sleep(POLL_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            yield
        finally:
            over = True
