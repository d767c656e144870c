"""The coordinator's Flower side: a run over a Grid, from a signed plan to a calibrated model (spec 7.6, 7.9)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from fl_server import rounds
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Coordinator, Progress
from fl_server.helper import SecondServer
from fl_server.paired import PairedStrategy
from fl_server.rounds import Phase, Release, State
from fl_server.seat import Seat
from fl_server.strategy import Clock, FederationStrategy
from model.canonical import decode
from model.contract.envelope import Signed
from model.contract.plan import TrainingPlan
from model.errors import RunError
from model.privacy.noise import ByteSource
from model.risk.calibration import Platt
from model.risk.knots import Knots

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """A finished run. Everything here is released: noised and charged, or computed from what is.

    theta (d,) float64; calibration (2·CELLS,) and evaluation (2·EVALUATION_CELLS,) counts in phones, repaid then
    defaulted; edges are the evaluation cells' inner borders in raw logits; noise_sd per phase kind.
    """

    plan: TrainingPlan
    knots: Knots
    theta: Vector
    platt: Platt
    calibration: Vector | None
    evaluation: Vector | None
    edges: Vector | None
    noise_sd: dict[str, float]
    releases: tuple[Release, ...]


def run(
    grid: Grid,
    signed: Signed,
    budget: Budget,
    folder: Path,
    *,
    source: Callable[[Phase], ByteSource] | None = None,
    second: SecondServer | None = None,
    seat: Seat | None = None,
    on_progress: Progress = lambda release, state: None,
    timeout: float = 3600.0,
    clock: Clock = time,
) -> Result:
    """Run, or resume, the plan in `signed` with its releases under `folder`; rounds close `timeout` seconds after they
    open.

    `second` is the helper of a plan of mode helper, `seat` the witness of one of mode pairwise. The coordinator is its
    own signer, so signatures are for phones to check. RunError, RoundError or BudgetError in one sentence; what was
    released before stays in `folder`, and calling again resumes.
    """
    plan = TrainingPlan.from_dict(decode(signed.payload, max_bytes=1 << 22))
    with Checkpoint(folder, plan.digest) as checkpoint:
        coordinator = Coordinator(
            signed, plan, budget, checkpoint, source=source, second=second, on_progress=on_progress
        )
        strategy_of(coordinator, seat, timeout, clock).run(grid)
        return result_of(plan, coordinator.state, tuple(coordinator.releases))


def strategy_of(coordinator: Coordinator, seat: Seat | None, timeout: float, clock: Clock) -> FederationStrategy:
    """How the plan's answers are asked for. RunError where mode pairwise has no witness."""
    if coordinator.plan.privacy.mode != "pairwise":
        return FederationStrategy(coordinator, timeout=timeout, clock=clock)
    if seat is None:
        raise RunError("the plan is of mode pairwise and no witness was named; ask the plan's reviewer for one")
    return PairedStrategy(coordinator, seat, timeout=timeout, clock=clock)


def result_of(plan: TrainingPlan, state: State, releases: tuple[Release, ...]) -> Result:
    """The result that a complete state holds; RunError before the last training round."""
    if state.knots is None or state.theta is None:
        raise RunError("the run is not complete; start it again in the same folder to resume")
    noise = {phase.kind: rounds.noise_sd(phase, plan) for phase in rounds.schedule(plan)}
    return Result(
        plan=plan,
        knots=state.knots,
        theta=state.theta,
        platt=state.platt,
        calibration=state.calibration,
        evaluation=state.evaluation,
        edges=state.edges,
        noise_sd=noise,
        releases=releases,
    )


def make_server_app(main: Callable[[Grid, Context], None]) -> ServerApp:
    """A ServerApp around `main`, which calls `run` with what it finds in the context."""
    app = ServerApp()
    app.main()(main)
    return app
