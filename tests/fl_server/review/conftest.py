"""A small whole run, made by the coordinator's own code over invented sums: what the reviewer must be able to check."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_server import rounds
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Answer, Coordinator
from fl_server.keys import KeyRing
from fl_server.log import Log
from fl_server.release import ReleaseKeys, publish
from fl_server.review import bundle, page
from fl_server.review.checks import EXACT, EXACT_PLOTS
from fl_server.review.evidence import Evidence
from fl_server.review.figures import gate_figures
from model.canonical import encode, sha256_hex
from model.contract.envelope import sign
from model.contract.plan import DOMAIN, LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import PrivacyPlan
from model.contract.release import EpsilonCard, GateFigures, ReleaseManifest, ScoreScale
from model.contract.update import PARTIAL_SCHEMA, PartialHeader
from model.privacy.accountant import calibrate
from model.privacy.observers import lifetime, observers
from model.risk.calibration import logit_histogram, sigmoid
from model.risk.export import export
from model.risk.knots import histogram_sensitivity, rows_histogram
from model.risk.network import RiskNetwork
from model.risk.schema import Feature, Schema

NOW = 1_800_000_000
DAY = 86_400
N, HELD = 6000, 6000
ROLES = ("coordinator", "reviewer", "release", "online", "log")
SCHEMA = Schema(
    "table",
    "1",
    (
        Feature("income", lower=0.0, upper=1e6, sign=-1, reason="Income was low."),
        Feature("late <b>days</b>", lower=0.0, upper=100.0, grid="linear", sign=1, reason="Bills were late."),
        Feature("region", kind="category", buckets=4),
    ),
)


@dataclass(frozen=True)
class Made:
    """A run's folder and the private keys beside it."""

    folder: Path
    keys: KeyRing

    def reseal(self) -> None:
        """Sign the folder again as it is now: what a publisher who cheats would do."""
        bundle.write(self.folder, self.keys.load("reviewer"), NOW)

    def edit(self, name: str, change: Any) -> None:
        """Change a JSON file of the run and sign the folder again."""
        raw = json.loads((self.folder / name).read_text())
        change(raw)
        (self.folder / name).write_text(json.dumps(raw))
        self.reseal()


def make_plan(**privacy: Any) -> TrainingPlan:
    """A plan of three features; `privacy` changes its privacy part, `model` and `server` whole parts."""
    parts = {name: privacy.pop(name) for name in ("model", "server", "simulation") if name in privacy}
    charges = calibrate(
        2.0,
        1e-5,
        rounds=3,
        shares={"knots": 0.15, "training": 0.7, "calibration": 0.15},
        sensitivities={"knots": histogram_sensitivity(SCHEMA)},
    )
    base = PrivacyPlan("central", 1e-5, 2.0, "zero-out", "phone", charges)
    plan = TrainingPlan(
        name="pocketscore",
        purpose="credit scoring",
        created_at=NOW,
        schema=SCHEMA,
        review_features=(),
        policy_pack="in-rbi-2025",
        topology="farm",
        phones=N,
        holdout_phones=HELD,
        min_cohort=30,
        rounds=3,
        participation=1.0,
        model=ModelChoice(knots=6),
        local=LocalTraining(1, 1.0, 0, 0.0, 1.0),
        server=ServerOptimiser("fedavg", 4.0, 0.8, 0.5, 1e-3, 0.99, 1e-3),
        privacy=replace(base, **privacy),
        simulation=True,
    )
    return replace(plan, **parts)


def make_run(root: Path, plan: TrainingPlan, *, name: str = "run", with_page: bool = False) -> Made:
    """Train, judge, publish, log, describe and sign; the page, which takes seconds, where asked."""
    folder, keys = root / name, KeyRing(root / f"{name}.private" / "keys")
    folder.mkdir()
    for role in ROLES:
        keys.ensure(role)
    signed = sign(DOMAIN, plan.to_dict(), [keys.load("coordinator"), keys.load("reviewer")])
    (folder / "plan.cbor").write_bytes(signed.to_bytes())
    public = {role: {"keyid": keys.load(role).keyid, "public": keys.load(role).public_bytes.hex()} for role in ROLES}
    (folder / "keys.json").write_text(json.dumps(public))
    with Budget(folder / "ledger.jsonl", plan) as budget, Checkpoint(folder / "rounds", plan.digest) as checkpoint:
        coordinator = Coordinator(signed, plan, budget, checkpoint)
        rng = np.random.Generator(np.random.Philox(5))
        while question := coordinator.open():
            coordinator.close(question, [1], [_answer(plan, coordinator.state, question.phase, rng)])
        state = coordinator.state
    _publish(folder, keys, plan, state)
    _describe(folder, plan)
    if with_page:
        page.write(folder)
    made = Made(folder, keys)
    made.reseal()
    return made


def _answer(plan: TrainingPlan, state: rounds.State, phase: rounds.Phase, rng: np.random.Generator) -> Answer:
    """A farm's honest-looking partial sum over invented phones."""
    dim = rounds.dimension(plan, state, phase.kind)
    logit = rng.normal(-2.2, 1.4, phase.population)
    bad = (rng.random(phase.population) < sigmoid(logit)).astype(float)
    if phase.kind == "knots":
        x = np.column_stack([rng.lognormal(10, 1, N), rng.gamma(1, 9, N), rng.integers(0, 4, N)]).astype(np.float32)
        x[rng.random(x.shape) < 0.1] = np.nan
        total = rows_histogram(x, np.ones(N), plan.schema)
    elif phase.kind == "train":
        total = rng.normal(0, 1, dim) * 0.4 * N / np.sqrt(dim)
    elif phase.kind == "calibrate":
        total = logit_histogram(logit, bad)
    else:
        cell = np.searchsorted(rounds.evaluation_edges(state), logit, side="right")
        total = np.bincount(cell + 20 * bad.astype(int), minlength=40).astype(float)
    header = PartialHeader(PARTIAL_SCHEMA, plan.digest, phase.round, phase.kind, phase.population, dim)
    units = np.rint(total * plan.privacy.grid_scale).astype("<i8")
    return Answer(1, encode(header.to_dict()), units.tobytes())


def _publish(folder: Path, keys: KeyRing, plan: TrainingPlan, state: rounds.State) -> None:
    assert state.knots is not None and state.theta is not None
    network = RiskNetwork(plan.schema, state.knots, plan.model.hidden, seed=plan.seed)
    network.load_flat(state.theta)
    onnx = export(network, state.platt, plan.schema)
    seen = observers(plan.privacy.charges, plan.privacy.delta, plan.privacy.mode)
    auc, se, ece = gate_figures(Evidence(folder).recomputed, plan)
    manifest = ReleaseManifest(
        name="pocketscore",
        version=1,
        schema_digest=plan.schema_digest,
        plan_digest=plan.digest,
        model_digest=sha256_hex(onnx),
        onnx_bytes=len(onnx),
        epsilon=EpsilonCard(
            seen.released_models,
            seen.participation_viewer,
            None,
            seen.reason,
            plan.privacy.delta,
            "zero-out",
            "phone",
            condition=seen.condition,
        ),
        gate=GateFigures(auc, se, ece, True, ()),
        policy_pack=plan.policy_pack,
        score=ScoreScale(10, 30),
        reasons=tuple(feature.reason for feature in plan.schema.features),
        features=plan.schema.names,
        created_at=NOW,
        expires_at=NOW + 90 * DAY,
    )
    pair = ReleaseKeys(keys.load("release"), keys.load("reviewer"), keys.load("online"))
    published = publish(onnx, manifest, folder / "tuf", pair, now=NOW)
    (folder / "release").mkdir()
    (folder / "release" / "model.onnx").write_bytes(onnx)
    (folder / "release" / "manifest.cbor").write_bytes(published.manifest)
    log = Log(folder / "log")
    log.append({"kind": "plan", "at": NOW, "digest": plan.digest})
    for charge in plan.privacy.charges:
        log.append({"kind": "charge", "at": NOW, **charge.to_dict()})
    log.append({"kind": "release", "at": NOW, "digest": published.digest, "model": sha256_hex(onnx), "passed": True})
    log.checkpoint(keys.load("log"))


def _describe(folder: Path, plan: TrainingPlan) -> None:
    evidence = Evidence(folder)
    seen = observers(plan.privacy.charges, plan.privacy.delta, plan.privacy.mode)
    value, se, _ = gate_figures(evidence.recomputed, plan)
    egress = {"bytes_per_phone": {"analytics/1": 3600.0, "update/1": 2900.0, "score/1": 528.0}, "undeclared": 0}
    summary = {
        "schema": "pocketscore.summary/1",
        "phones": N + HELD,
        "labelled_rows": 9000,
        "rounds": plan.rounds,
        "participation": plan.participation,
        "clip": plan.local.clip_norm,
        "noise_multiplier": 8.0,
        "epsilon": {
            "released_models": seen.released_models,
            "participation_viewer": seen.participation_viewer,
            "coordinator": None,
            "coordinator_reason": seen.reason,
            "helper": seen.helper,
            "helper_reason": seen.helper_reason,
            "condition": seen.condition,
            "alone_round": seen.alone_round,
            "replace_one": seen.replace_one,
            "lifetime": lifetime(plan.privacy.charges, plan.privacy.delta, plan.privacy.mode),
            "budget": plan.privacy.epsilon_budget,
            "delta": plan.privacy.delta,
            "relation": "zero-out",
            "unit": plan.privacy.unit,
            "mode": plan.privacy.mode,
            "noise_source": plan.privacy.noise_source,
            "coordinator_noise": plan.privacy.coordinator_noise,
            "charges": [charge.to_dict() for charge in plan.privacy.charges],
        },
        "auc": {
            "federated": 0.72,
            "private": {"value": value, "se": se},
            "central": 0.724,
            "boosting": 0.71,
            "silo": None,
            "oracle": None,
        },
        "ks": 0.33,
        "ece": 0.016,
        "engine": {"name": "batched", "updates_per_second": 9000.0},
        "seconds": {"total": 12.5, "training": 9.0},
        "peak_rss_mb": 400.0,
        "release": {
            "digest": evidence.signed_manifest.payload_digest,
            "onnx_bytes": evidence.manifest.onnx_bytes,
            "parity_max_abs": 1e-7,
        },
        "scored": {"phones": 100, "p50_us": 17.0, "p99_us": 40.0, "envelopes_opened": 100},
        "egress": egress,
        "simulation_only": sorted(EXACT),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "egress.json").write_text(json.dumps(egress))
    (folder / "figures.json").write_text(json.dumps(_figures(plan)))
    (folder / "archive").mkdir()
    rng = np.random.Generator(np.random.Philox(6))
    arrays: dict[str, Any] = {"rows": np.array([100, 5000, 900])}
    for number in range(1, plan.rounds + 1):
        raw = rng.normal(0, 0.4, (3, 8))
        cut = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1)
        units = np.rint(cut * plan.privacy.grid_scale).astype(np.int64)
        arrays |= {f"raw-{number:04d}": raw, f"encoded-{number:04d}": units}
        arrays[f"norms-{number:04d}"] = np.linalg.norm(rng.normal(0, 0.4, (200, 8)), axis=1).astype(np.float32)
    np.savez_compressed(folder / "archive" / "updates.npz", **arrays)


def _figures(plan: TrainingPlan) -> dict[str, Any]:
    edges = list(range(300, 901, 20))
    good = np.exp(-(((np.array(edges[:-1]) - 630) / 70) ** 2)) * 500
    bad = np.exp(-(((np.array(edges[:-1]) - 560) / 70) ** 2)) * 80
    numbers = range(1, plan.rounds + 1)
    rows = [
        {"round": n, "norm_quantiles": [0.0, 0.1, 0.3, 0.8, 1.1], "clip_rate": 0.03, "auc": 0.7, "phones": N}
        for n in numbers
    ]
    return {
        "score_hist": {"edges": edges, "good": good.astype(int).tolist(), "bad": bad.astype(int).tolist()},
        "calibration": {"mean_pd": [0.05, 0.1, 0.3], "observed": [0.04, 0.12, 0.28], "count": [500, 500, 500]},
        "charged_calibration": {"mean_pd": [0.05, 0.3], "observed": [0.07, 0.25], "count": [900.0, -3.0]},
        "rounds": rows,
        "features": [{"feature": "late <b>days</b>", "sd": 0.3}, {"feature": "$income$", "sd": 0.1}],
        "egress": {"update/1": 2900.0},
        "decisions": {"approve": 60, "refer": 30, "decline": 10},
        "simulation_only": sorted(EXACT_PLOTS),
    }


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One run for the session; not to be changed."""
    return make_run(tmp_path_factory.mktemp("whole"), make_plan(), with_page=True)


@pytest.fixture
def made(whole_run: Made, tmp_path: Path) -> Made:
    """A copy of it to change."""
    shutil.copytree(whole_run.folder, tmp_path / "run")
    return Made(tmp_path / "run", whole_run.keys)


@pytest.fixture
def planned() -> Any:
    return make_plan


@pytest.fixture
def running() -> Any:
    return make_run
