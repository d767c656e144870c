"""Train a model while some phones lie: the system's own phones, rounds and server step, one lie put in (spec 13.13).

Knots are released from honest histograms, so that a table shows what lies in training do and nothing else. What every
phone sends is seen here, so all of this is simulation_only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import Task
from fl_server import rounds
from fl_server.aggregate import noised
from fl_server.alarm import Alarm, watch
from fl_server.robust import combine
from fl_server.rounds import Phase, Release, State
from model.contract.plan import TrainingPlan
from model.errors import RoundError
from model.privacy.noise import SeededSource, grid_sigma
from model.risk.metrics import auc
from model.risk.network import RiskNetwork
from simulation.bylevel import counted, logits_of
from simulation.engine.protocol import Crowd, Engine, Trained
from simulation.redteam.poisoning_attacks import NONE, Attack, View, hostile_of
from simulation.redteam.poisoning_scenes import Scene, triggered

Ints = NDArray[np.int64]
Step = Callable[[], None]
APPROVED = 0.7  # share of held-out rows that a lender would approve; a backdoor wants its bad rows among them


@dataclass(frozen=True)
class Outcome:
    """What came of a training. `auc` on held-out rows; `success`: share of held-out bad rows with the trigger that are
    approved; rounds in which the sum's norm was impossible or unusual; largest growth of its signal in one round;
    `pull`, the longest noised mean of a round in clip norms, its intercept left out. `auc` and `success` are None where
    the model left the finite numbers, which ends a real run.

    Hostile phones, a share f of all, that push against the honest mean with the whole clip norm turn it where its pull
    is below f / (1 - f)."""

    auc: float | None
    success: float | None
    hostile: int
    impossible: int
    unusual: int
    growth: float
    pull: float


@dataclass
class _Watch:
    """Alarms so far, and the pull of each round's mean."""

    alarms: list[Alarm] = field(default_factory=list)
    pulls: list[float] = field(default_factory=list)

    def see(self, release: Release, phase: Phase, scene: Scene) -> None:
        plan, scale = scene.plan, scene.plan.privacy.grid_scale
        sigma = grid_sigma(phase.charge, scale) if phase.charge and phase.charge.noise_multiplier else 0
        whole = scale * plan.local.clip_norm * max(release.phones, 1)
        self.pulls.append(float(np.linalg.norm(release.noised[1:].astype(np.float64))) / whole)
        self.alarms.append(
            watch(
                release.noised,
                phones=release.phones,
                clip=plan.local.clip_norm,
                scale=scale,
                sigma=float(sigma),
                earlier=[alarm.signal for alarm in self.alarms],
            )
        )

    def growth(self) -> float:
        """Largest ratio of a round's signal to the longest before it; 0 for one round."""
        signals = np.array([alarm.signal for alarm in self.alarms])
        before = np.maximum.accumulate(signals)[:-1]
        return float((signals[1:] / np.maximum(before, 1.0)).max(initial=0.0))


def train(scene: Scene, attack: Attack, share: float, seed: int, engine: Engine, step: Step = lambda: None) -> Outcome:
    """Every training round of the scene's plan with this share of hostile phones. `seed` chooses them and the noise."""
    random = np.random.Generator(np.random.Philox([seed, 2]))
    hostile = hostile_of(scene.train.phones, share, random)
    if attack is NONE:
        hostile[:] = False
    crowd, watched, state = poisoned(scene, attack, hostile), _Watch(), State()
    try:
        for phase in rounds.schedule(scene.plan):
            if phase.kind not in ("knots", "train"):
                break
            total = (
                _honest_knots(scene)
                if phase.kind == "knots"
                else _sum(scene, state, phase, crowd, hostile, attack, engine)
            )
            state, release = _released(scene, state, phase, total, seed)
            if phase.kind == "train":
                watched.see(release, phase, scene)
                step()
    except RoundError:
        return _outcome(None, None, hostile, watched)
    return _outcome(*figures(scene, state), hostile, watched)


def poisoned(scene: Scene, attack: Attack, hostile: NDArray[np.bool_]) -> Crowd:
    """The phones, hostile ones with the rows that the attack has them train on."""
    data = scene.train
    if not attack.poison:
        return scene.honest
    x, y = np.asarray(data.x), data.y
    lying = np.repeat(hostile, data.counts)
    if attack.poison == "labels":
        y = np.where(lying, 1 - y, y).astype(np.float32)
    if attack.poison == "backdoor":
        x, y = x.copy(), np.where(lying, 0, y).astype(np.float32)
        x[lying] = triggered(x[lying])
    return Crowd.of(data.ids, data.offsets, x, y)


def figures(scene: Scene, state: State) -> tuple[float, float]:
    """(AUC on held-out rows, share of held-out bad rows with the trigger that are approved)."""
    if state.knots is None or state.theta is None:
        raise RoundError("the model is not trained yet; close the training rounds first")
    network = RiskNetwork(scene.plan.schema, state.knots, scene.plan.model.hidden)
    network.load_flat(state.theta)
    x, y = np.asarray(scene.held.x), scene.held.y
    logits = logits_of(network, x)
    border = np.quantile(logits, APPROVED)
    marked = logits_of(network, triggered(x[y == 1]))
    return float(auc(logits, y)), float((marked < border).mean())


def _sum(
    scene: Scene, state: State, phase: Phase, crowd: Crowd, hostile: NDArray[np.bool_], attack: Attack, engine: Engine
) -> Ints:
    """What enters the round's release. Honest updates stay apart only where the rule or the attack needs each."""
    plan = scene.plan
    task = Task("train", phase.round, plan, state.knots, rounds.question(plan, state, "train"))
    honest, lying = crowd.take(~hostile), crowd.take(hostile)
    each = plan.aggregation != "mean" or attack.spread
    good = engine.train(honest, task, honest.phones if each else 0)
    bad = engine.train(lying, task, lying.phones)
    sent = attack.units(_view(good, bad, honest.phones, crowd.phones, attack, plan)) if lying.phones else bad.units
    return combine(plan, np.concatenate([good.units if each else good.sum[None, :], sent]))


def _view(good: Trained, bad: Trained, honest: int, phones: int, attack: Attack, plan: TrainingPlan) -> View:
    scale = plan.privacy.grid_scale
    spread = good.units.std(axis=0) if attack.spread else np.zeros(len(good.sum))
    return View(bad.raw, good.sum / (honest * scale), spread / scale, phones, plan.local.clip_norm, scale)


def _honest_knots(scene: Scene) -> Ints:
    if not scene.knots:
        task = Task("knots", 0, scene.plan, None, np.zeros(0, np.float32))
        scene.knots.append(counted(task, scene.honest))
    return scene.knots[0]


def _released(scene: Scene, state: State, phase: Phase, total: Ints, seed: int) -> tuple[State, Release]:
    plan, phones = scene.plan, scene.train.phones
    source = SeededSource(seed, f"poisoning-{phase.kind}", phase.round)
    drawn = noised(total, phase.charge, plan.privacy.grid_scale, source)
    release = Release(phase.kind, phase.round, phones, phones, phones, (), drawn)
    return rounds.close(plan, state, release), release


def _outcome(area: float | None, success: float | None, hostile: NDArray[np.bool_], watched: _Watch) -> Outcome:
    return Outcome(
        area,
        success,
        int(hostile.sum()),
        sum(alarm.impossible for alarm in watched.alarms),
        sum(alarm.unusual and not alarm.impossible for alarm in watched.alarms),
        watched.growth(),
        max(watched.pulls, default=0.0),
    )
