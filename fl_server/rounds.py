"""The run as a pure state machine: knots → train 1 … T → calibrate → evaluate (spec 7.6).

A state is what the releases so far imply and nothing more, so a run is resumed by replaying its releases, and a
reviewer recomputes every model from the logged sums. No clock, file, socket or randomness is touched here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fl_server.aggregate import Iterate, advance
from fl_server.schedule import Phase, noise_reach, noise_sd, reach, schedule
from model.contract.plan import TrainingPlan
from model.errors import RoundError
from model.risk import calibration
from model.risk.calibration import Platt
from model.risk.knots import Knots, histogram_layout
from model.risk.metrics import equal_count_edges
from model.risk.monotone import project
from model.risk.network import RiskNetwork
from model.risk.objective import penalised
from model.risk.precondition import Preconditioner

__all__ = ["Phase", "Release", "State", "close", "current", "noise_reach", "noise_sd", "reach", "replay", "schedule"]

EVALUATION_CELLS = 20
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Release:
    """A closed phase: the noised sum on the grid, or, if `void`, nothing but the fact that its ε is spent."""

    kind: str
    round: int
    phones: int
    asked: int
    replied: int
    refused: tuple[str, ...]
    noised: NDArray[np.int64]
    void: bool = False


@dataclass(frozen=True)
class State:
    """Everything known after `closed` phases."""

    closed: int = 0
    knots: Knots | None = None
    iterate: Iterate | None = None
    theta: Vector | None = None
    platt: Platt = field(default_factory=Platt)
    calibration: Vector | None = None
    edges: Vector | None = None
    evaluation: Vector | None = None


@dataclass(frozen=True)
class Space:
    """What the released knots fix: network shape, training coordinates, which weights L2 acts on."""

    network: RiskNetwork
    precondition: Preconditioner
    penalised: Vector


def current(plan: TrainingPlan, state: State) -> Phase | None:
    """The next phase, or None when the run is complete."""
    phases = schedule(plan)
    return phases[state.closed] if state.closed < len(phases) else None


def dimension(plan: TrainingPlan, state: State, kind: str) -> int:
    """Length of the integer vector that answers a task of this kind now."""
    if kind == "knots":
        return histogram_layout(plan.schema).total
    if kind == "train":
        return len(_iterate(state).v)
    return 2 * (calibration.CELLS if kind == "calibrate" else EVALUATION_CELLS)


def question(plan: TrainingPlan, state: State, kind: str) -> NDArray[np.float32]:
    """The one flat array a task carries: nothing, v, theta, or theta and the inner borders of evaluation cells."""
    if kind == "knots":
        return np.zeros(0, dtype=np.float32)
    if kind == "train":
        return _iterate(state).v.astype(np.float32)
    parts = [_theta(state)] if kind == "calibrate" else [_theta(state), evaluation_edges(state)]
    return np.concatenate(parts).astype(np.float32)


def close(plan: TrainingPlan, state: State, release: Release) -> State:
    """The state after a release. RoundError where it is not the release of the open phase."""
    phase = current(plan, state)
    if phase is None or (phase.kind, phase.round) != (release.kind, release.round):
        due = phase.name if phase else "none"
        raise RoundError(f"a {release.kind} release of round {release.round} came where {due} is due; check the run")
    if release.void and release.kind != "train":
        raise RoundError(f"the {release.kind} release is void, its noise was lost; start a new run with a new budget")
    learnt = state if release.void else _CLOSE[release.kind](plan, state, phase, release)
    after = replace(learnt, closed=state.closed + 1)
    last_training = release.kind == "train" and release.round == plan.rounds
    return replace(after, theta=_finished(plan, after)) if last_training else after


def replay(plan: TrainingPlan, releases: Iterable[Release]) -> State:
    """The state that these releases, in order, imply."""
    state = State()
    for release in releases:
        state = close(plan, state, release)
    return state


def counts(release: Release, plan: TrainingPlan) -> Vector:
    """A released histogram in units of phones, (cells,) float64; noise may make cells negative."""
    return release.noised.astype(np.float64) / plan.privacy.grid_scale


def evaluation_edges(state: State) -> Vector:
    """Inner borders (EVALUATION_CELLS − 1,) of raw logits: about equal counts by the calibration release, if any."""
    if state.calibration is None:
        return np.linspace(calibration.EDGES[0], calibration.EDGES[-1], EVALUATION_CELLS + 1)[1:-1]
    both = state.calibration[: calibration.CELLS] + state.calibration[calibration.CELLS :]
    # As float32, since that is what a phone compares with.
    return equal_count_edges(both, calibration.EDGES, EVALUATION_CELLS).astype(np.float32).astype(np.float64)


@lru_cache(maxsize=8)
def space(plan: TrainingPlan, knots: Knots) -> Space:
    """Network and coordinates of a plan with these knots."""
    hidden = plan.model.hidden
    network = RiskNetwork(plan.schema, knots, hidden, seed=plan.seed)
    return Space(network, Preconditioner(plan.schema, knots, hidden), penalised(network).numpy().astype(np.float64))


def _close_knots(plan: TrainingPlan, state: State, phase: Phase, release: Release) -> State:
    noise = noise_sd(phase, plan)
    knots = Knots.from_histogram(counts(release, plan), plan.schema, plan.model.knots, noise_sd=noise)
    room = space(plan, knots)
    v = room.precondition.to_v(room.network.flat().astype(np.float64))
    return replace(state, knots=knots, iterate=Iterate.start(np.asarray(v, dtype=np.float64)))


def _close_train(plan: TrainingPlan, state: State, phase: Phase, release: Release) -> State:
    room = space(plan, _knots(state))
    moved = advance(_iterate(state), release.noised, plan, room.precondition, room.penalised)
    if plan.model.hidden:
        # An MLP's sign clamps bind each round: put on once at the end they would cut what training relied on.
        v = project(moved.v, plan.schema, _knots(state), plan.model.hidden)
        moved = replace(moved, v=np.asarray(v, dtype=np.float64))
    return replace(state, iterate=moved)


def _close_calibrate(plan: TrainingPlan, state: State, phase: Phase, release: Release) -> State:
    histogram = counts(release, plan)
    return replace(state, calibration=histogram, platt=Platt.fit(histogram, noise_sd=noise_sd(phase, plan)))


def _close_evaluate(plan: TrainingPlan, state: State, phase: Phase, release: Release) -> State:
    return replace(state, edges=evaluation_edges(state), evaluation=counts(release, plan))


_CLOSE = {
    "knots": _close_knots,
    "train": _close_train,
    "calibrate": _close_calibrate,
    "evaluate": _close_evaluate,
}


def _finished(plan: TrainingPlan, state: State) -> Vector:
    """theta after the last round: the averaged iterate, projected onto the monotone cone (free post-processing)."""
    knots = _knots(state)
    theta = space(plan, knots).precondition.to_theta(_iterate(state).result)
    projected = project(theta, plan.schema, knots, plan.model.hidden)
    return np.asarray(projected, dtype=np.float32).astype(np.float64)


def _knots(state: State) -> Knots:
    if state.knots is None:
        raise RoundError("the knots are not released yet; close that phase first")
    return state.knots


def _iterate(state: State) -> Iterate:
    if state.iterate is None:
        raise RoundError("training has no model before the knots are released; close that phase first")
    return state.iterate


def _theta(state: State) -> Vector:
    if state.theta is None:
        raise RoundError("the model is not trained yet; close the training rounds first")
    return state.theta
