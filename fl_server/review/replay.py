"""The model computed again from the logged noised sums, by the reviewer's own code (spec 7.7, 11.6).

Nothing of the coordinator is imported: knots, coordinates, projection, calibration and export are `model`'s, and the
server's step is written here a second time from the spec. What comes out must be the released file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.canonical import decode
from model.contract.plan import TrainingPlan
from model.contract.releases import noise_sd
from model.errors import ContractError
from model.risk import calibration
from model.risk.calibration import Platt
from model.risk.knots import Knots
from model.risk.metrics import equal_count_edges
from model.risk.monotone import project

EVALUATION_CELLS = 20
MAX_SUM_BYTES = 1 << 26
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Sum:
    """One logged release: the noised sum (dim,) int64 on the plan's grid, and how many phones were in it."""

    kind: str
    round: int
    phones: int
    noised: NDArray[np.int64]
    void: bool
    digest: str


@dataclass
class Recomputed:
    """What the sums imply. `models` holds v after each round, as phones were asked to train on it."""

    knots: Knots
    models: list[Vector] = field(default_factory=list)
    theta: Vector = field(default_factory=lambda: np.zeros(0))
    platt: Platt = field(default_factory=Platt)
    calibration: Vector | None = None
    edges: Vector | None = None
    evaluation: Vector | None = None
    evaluation_noise: float = 0.0
    onnx: bytes = b""


def read_sums(folder: Path, plan: TrainingPlan) -> list[Sum]:
    """The logged sums in order; ContractError for another plan's, a gap or a wrong order of kinds."""
    sums = [_read(path, plan) for path in sorted(folder.glob("release-*.cbor"))]
    kinds = [each.kind for each in sums]
    order = ["knots", *["train"] * plan.rounds, *(kind for kind in ("calibrate", "evaluate") if kind in kinds)]
    if kinds != order or [each.round for each in sums if each.kind == "train"] != list(range(1, plan.rounds + 1)):
        raise ContractError(
            f"the archive holds {len(sums)} sums, not the plan's knots, {plan.rounds} rounds and the rest"
        )
    return sums


def recompute(plan: TrainingPlan, sums: list[Sum]) -> Recomputed:
    """Knots → every round's model → projection → calibration → evaluation → ONNX bytes."""
    from model.risk.export import export
    from model.risk.network import RiskNetwork
    from model.risk.precondition import Preconditioner

    by_kind = {each.kind: each for each in sums if each.kind != "train"}
    histogram = _counts(by_kind["knots"], plan)
    knots = Knots.from_histogram(histogram, plan.schema, plan.model.knots, noise_sd=noise_sd(plan, "knots"))
    network = RiskNetwork(plan.schema, knots, plan.model.hidden, seed=plan.seed)
    coordinates = Preconditioner(plan.schema, knots, plan.model.hidden)
    done = Recomputed(knots)
    server = _Server(plan, knots, network, coordinates)
    for each in sums:
        if each.kind == "train":
            server.step(each)
            done.models.append(server.result)
    theta = project(coordinates.to_theta(server.result), plan.schema, knots, plan.model.hidden)
    done.theta = np.asarray(theta, dtype=np.float32).astype(np.float64)
    _calibrate(done, plan, by_kind)
    network.load_flat(done.theta)
    done.onnx = export(network, done.platt, plan.schema)
    return done


class _Server:
    """The server optimiser of spec 7.7: u = noised sum / (scale · qrN) − L2; FedAvg or FedAdam; then averaging."""

    def __init__(self, plan: TrainingPlan, knots: Knots, network: Any, coordinates: Any) -> None:
        from model.risk.objective import penalised

        self.plan, self.knots, self.coordinates = plan, knots, coordinates
        self.mask = penalised(network).numpy().astype(np.float64)
        self.v: Vector = np.asarray(coordinates.to_v(network.flat().astype(np.float64)), dtype=np.float64)
        self.m, self.s, self.sum = np.zeros_like(self.v), np.zeros_like(self.v), np.zeros_like(self.v)
        self.steps, self.kept = 0, 0
        self.mean = self.v

    @property
    def result(self) -> Vector:
        """The averaged iterate where averaging began, else the last."""
        return self.mean if self.kept else self.v

    def step(self, logged: Sum) -> None:
        """Take one round; a void one changes nothing, since nothing was released."""
        if logged.void:
            return
        plan, server = self.plan, self.plan.server
        expected = plan.participation * plan.response * plan.phones
        u = logged.noised.astype(np.float64) / (plan.privacy.grid_scale * expected)
        if server.l2:
            pull = self.coordinates.pull_back(self.coordinates.to_theta(self.v) * self.mask)
            u = u - plan.local.learning_rate * plan.local.turns * server.l2 * pull
        self.steps += 1
        self.v = self.v + server.learning_rate * self._direction(u)
        if server.average_from < 1.0 and self.steps > server.average_from * plan.rounds:
            self.kept += 1
            self.mean = self.v if self.kept == 1 else self.mean + (self.v - self.mean) / self.kept
        if plan.model.hidden:
            self.v = np.asarray(project(self.v, plan.schema, self.knots, plan.model.hidden), dtype=np.float64)

    def _direction(self, u: Vector) -> Vector:
        server = self.plan.server
        if server.name == "fedavg":
            self.m = server.momentum * self.m + u
            return self.m
        self.m = server.momentum * self.m + (1 - server.momentum) * u
        self.s = server.beta2 * self.s + (1 - server.beta2) * u**2
        lead = self.m / (1 - server.momentum**self.steps)
        return lead / (np.sqrt(self.s / (1 - server.beta2**self.steps)) + server.epsilon)


def _calibrate(done: Recomputed, plan: TrainingPlan, by_kind: dict[str, Sum]) -> None:
    if "calibrate" in by_kind:
        done.calibration = _counts(by_kind["calibrate"], plan)
        done.platt = Platt.fit(done.calibration, noise_sd=noise_sd(plan, "calibrate"))
    if "evaluate" in by_kind:
        done.evaluation = _counts(by_kind["evaluate"], plan)
        done.evaluation_noise = noise_sd(plan, "evaluate")
        done.edges = _edges(done.calibration)


def _edges(histogram: Vector | None) -> Vector:
    """Inner borders of the evaluation cells: equal counts by the calibration release, as the phones' float32."""
    if histogram is None:
        return np.linspace(calibration.EDGES[0], calibration.EDGES[-1], EVALUATION_CELLS + 1)[1:-1]
    both = histogram[: calibration.CELLS] + histogram[calibration.CELLS :]
    found: Vector = equal_count_edges(both, calibration.EDGES, EVALUATION_CELLS).astype(np.float32).astype(np.float64)
    return found


def _counts(logged: Sum, plan: TrainingPlan) -> Vector:
    if logged.void:
        raise ContractError(f"the {logged.kind} release is void, yet a model was made from it")
    return logged.noised.astype(np.float64) / plan.privacy.grid_scale


def _read(path: Path, plan: TrainingPlan) -> Sum:
    from model.canonical import sha256_hex

    raw = decode(path.read_bytes(), max_bytes=MAX_SUM_BYTES)
    if raw["plan_digest"] != plan.digest:
        raise ContractError(f"{path.name} belongs to another plan")
    vector = np.frombuffer(raw["noised"], dtype="<i8").astype(np.int64)
    digest = sha256_hex(raw["noised"])
    return Sum(str(raw["kind"]), int(raw["round"]), int(raw["phones"]), vector, bool(raw["void"]), digest)
