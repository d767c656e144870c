"""The run as a pure state machine: knots → train 1 … T → calibrate → evaluate (spec 7.6).

A state is what the releases so far imply and nothing more, so a run is resumed by replaying its releases, and a
reviewer recomputes every model from the logged sums. No clock, file, socket or randomness is touched here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fl_server.aggregate import Iterate, advance
from model.contract.plan import TrainingPlan
from model.errors import RoundError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import grid_sigma
from model.risk import calibration
from model.risk.calibration import Platt
from model.risk.knots import Knots, histogram_layout, histogram_sensitivity
from model.risk.metrics import equal_count_edges
from model.risk.monotone import project
from model.risk.network import RiskNetwork
from model.risk.objective import penalised
from model.risk.precondition import Preconditioner

CHARGES = {"knots": "knots", "train": "training", "calibrate": "calibration", "evaluate": "evaluation"}
EVALUATION_CELLS = 20
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Phase:
    """One release to come. `charge` is None only where the plan's privacy mode is "off"."""

    kind: str
    round: int
    charge: GaussianRelease | None
    population: int
    participation: float

    @property
    def name(self) -> str:
        """For people and file names, such as `train-07`."""
        return f"{self.kind}-{self.round:04d}"


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


def schedule(plan: TrainingPlan) -> tuple[Phase, ...]:
    """Every phase of the plan. Calibration and evaluation happen where they are charged (or privacy is off).

    RoundError for a charge that does not fit what would be released under it.
    """
    charges = {charge.name: charge for charge in plan.privacy.charges}
    kinds = ["knots", *["train"] * plan.rounds, "calibrate", "evaluate"]
    phases = []
    for round_, kind in enumerate(kinds):
        charge = charges.get(CHARGES[kind])
        if charge is None and plan.privacy.mode != "off":
            if kind in ("knots", "train"):
                raise RoundError(f"the plan charges no release named {CHARGES[kind]!r}; add it and sign again")
            continue
        if kind == "evaluate" and charge is None and not plan.holdout_phones:
            continue
        if charge is not None:
            _check_charge(charge, kind, plan)
        phases.append(_phase(kind, round_, charge, plan))
    return tuple(phases)


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


def noise_sd(phase: Phase, plan: TrainingPlan) -> float:
    """Standard deviation of the noise of one number of a release, in its own unit."""
    if phase.charge is None or phase.charge.noise_multiplier == 0:
        return 0.0
    return grid_sigma(phase.charge, plan.privacy.grid_scale) / plan.privacy.grid_scale


def evaluation_edges(state: State) -> Vector:
    """Inner borders (EVALUATION_CELLS − 1,) of raw logits: about equal counts by the calibration release, if any."""
    if state.calibration is None:
        return np.linspace(calibration.EDGES[0], calibration.EDGES[-1], EVALUATION_CELLS + 1)[1:-1]
    both = state.calibration[: calibration.CELLS] + state.calibration[calibration.CELLS :]
    # As float32, since that is what a phone compares with.
    return equal_count_edges(both, calibration.EDGES, EVALUATION_CELLS).astype(np.float32).astype(np.float64)


def space(plan: TrainingPlan, knots: Knots) -> Space:
    """Network and coordinates of a plan with these knots."""
    return _space(plan, knots)


@lru_cache(maxsize=8)
def _space(plan: TrainingPlan, knots: Knots) -> Space:
    hidden = plan.model.hidden
    network = RiskNetwork(plan.schema, knots, hidden, seed=plan.seed)
    return Space(network, Preconditioner(plan.schema, knots, hidden), penalised(network).numpy().astype(np.float64))


def reach(plan: TrainingPlan, kind: str) -> float:
    """Largest L2 norm of what one phone adds to a sum of this kind: its sensitivity to zeroing that phone out."""
    return {"knots": histogram_sensitivity(plan.schema), "train": plan.local.clip_norm}.get(kind, 1.0)


def _phase(kind: str, round_: int, charge: GaussianRelease | None, plan: TrainingPlan) -> Phase:
    default = "holdout" if kind == "evaluate" else "train"
    split = charge.split if charge else default
    sizes = {"train": plan.phones, "holdout": plan.holdout_phones, "all": plan.phones + plan.holdout_phones}
    sampling = charge.sampling if charge else (plan.participation if kind == "train" else 1.0)
    return Phase(kind, round_, charge, sizes[split], sampling)


def _check_charge(charge: GaussianRelease, kind: str, plan: TrainingPlan) -> None:
    """A charge must cover what is released: as often, as sensitive and from the phones it says."""
    least = reach(plan, kind)
    if charge.sensitivity < least * (1 - 1e-12):
        raise RoundError(f"charge {charge.name!r} has sensitivity {charge.sensitivity:g}, below {least:g}; correct it")
    if charge.count != (plan.rounds if kind == "train" else 1):
        raise RoundError(f"charge {charge.name!r} covers {charge.count} releases, not what the plan does; correct it")
    if kind == "train" and not math.isclose(charge.sampling, plan.participation):
        raise RoundError(f"charge {charge.name!r} samples {charge.sampling:g}, the plan {plan.participation:g}; align")


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
