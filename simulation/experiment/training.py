"""Train a plan on Flower: sign it, give every farm its phones, run the ServerApp, keep what a reviewer may look at."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fl_client.app import Trust, make_client_app
from fl_client.phones import Task
from fl_server.app import Result, run
from fl_server.budget import Budget
from fl_server.keys import KeyRing, replace_file
from fl_server.rounds import Release, State
from model.contract.envelope import Signed, SigningKey, sign
from model.contract.plan import DOMAIN, TrainingPlan
from simulation.dataset import Dataset
from simulation.engine.batched import BatchedEngine
from simulation.engine.protocol import Trained
from simulation.experiment.request import Progress, Request
from simulation.experiment.sources import Source
from simulation.experiment.workspace import LEDGER, Workspace
from simulation.farm import Farm
from simulation.grid import InProcessGrid, identity
from simulation.planning import Options, build_plan

SAMPLED = 8  # phones whose stages a reviewer may look at, from the first farm


@dataclass
class Record:
    """What the farms saw of single phones, by round (simulation_only): norms before clipping, and a few updates."""

    norms: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)
    sample: dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=dict)
    iterates: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    replied: dict[int, int] = field(default_factory=dict)

    def note(self, task: Task, trained: Trained) -> None:
        """One farm's round."""
        self.norms.setdefault(task.round, []).append(trained.norms)
        if len(trained.raw):
            self.sample.setdefault(task.round, (trained.raw, trained.units))


def keys_of(place: Workspace) -> tuple[SigningKey, SigningKey]:
    """The coordinator's and the reviewer's plan keys; the demo makes both itself, and says so."""
    ring = KeyRing(place.private / "keys")
    return ring.ensure("coordinator"), ring.ensure("reviewer")


def plan_of(place: Workspace, source: Source, options: Options, now: int) -> tuple[TrainingPlan, Signed]:
    """The plan and its signed form, written to the run once; a resumed run takes the one that is there."""
    path = place.partial / "plan.cbor"
    if not path.exists():
        plan = build_plan(source.data, options, unit=source.unit, now=now)
        replace_file(path, sign(DOMAIN, plan.to_dict(), list(keys_of(place))).to_bytes())
    signed = Signed.from_bytes(path.read_bytes())
    trust = trust_of(place)
    return trust.plan_of(signed.to_bytes()), signed


def trust_of(place: Workspace) -> Trust:
    """What the farms believe: both keys, both required."""
    keys = keys_of(place)
    return Trust({key.keyid: key.public_bytes for key in keys}, tuple(key.keyid for key in keys))


def train(
    place: Workspace, signed: Signed, plan: TrainingPlan, data: Dataset, request: Request, progress: Progress
) -> tuple[Result, Record]:
    """Run or resume the plan in process. BudgetError, RoundError, RunError in one sentence."""
    record, trust, farms = Record(), trust_of(place), request.farms
    nodes = {
        number: Farm(data.part(number, farms), BatchedEngine(), record.note, SAMPLED if number == 0 else 0)
        for number in range(farms)
    }
    app = make_client_app(lambda context: nodes[int(context.node_config["partition-id"])], lambda context: trust)
    grid = InProcessGrid(app, [{"partition-id": number, "num-partitions": farms} for number in range(farms)])
    last = time.perf_counter()

    def closed(release: Release, state: State) -> None:
        nonlocal last
        record.seconds[release.round], last = time.perf_counter() - last, time.perf_counter()
        record.replied[release.round] = release.phones
        if state.iterate is not None and release.kind == "train":
            record.iterates[release.round] = state.iterate.result
        progress("rounds", release.round, plan.rounds + 2)

    with identity(1), budget_of(place, plan) as budget:
        return run(grid, signed, budget, place.rounds, on_progress=closed), record


def budget_of(place: Workspace, plan: TrainingPlan) -> Budget:
    """The run's durable ε ledger."""
    return Budget(place.partial / LEDGER, plan)
