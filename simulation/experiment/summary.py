"""`summary.json`: one stable set of figures a run, null where a thing has no meaning (spec 12)."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence
from typing import Any

from fl_server.alarm import watched
from fl_server.app import Result
from fl_server.rounds import Release
from model.canonical import encode
from model.contract.masked import MASKED_SCHEMA, SEED_BYTES, MaskedHeader
from model.contract.plan import TrainingPlan
from model.contract.update import PARTIAL_SCHEMA, PartialHeader
from model.contract.watchers import lifetime_of
from model.privacy.observers import Observers
from simulation.experiment.figures import Exact
from simulation.experiment.paired_bytes import pairing_bytes
from simulation.experiment.releasing import Released
from simulation.experiment.scoring import Lent, Scores

SCHEMA = "pocketscore.summary/1"
SIMULATION_ONLY = (
    "auc.federated", "auc.central", "auc.boosting", "auc.silo", "auc.oracle", "ks", "ece", "labelled_rows", "scored",
    "reach", "baseline_rows",
)  # fmt: skip


def summarise(
    *,
    plan: TrainingPlan,
    labelled_rows: int,
    result: Result,
    observers: Observers,
    found: Exact,
    bases: Mapping[str, Any],
    oracle: float | None,
    released: Released,
    lent: Lent,
    engine: Mapping[str, Any],
    seconds: Mapping[str, float],
    reached: Mapping[str, Any] | None = None,
    one_hand: bool = False,
) -> dict[str, Any]:
    """All of spec 12, plain values. `one_hand`: both servers of mode helper were this simulation's own (13.10.8)."""
    training = {charge.name: charge for charge in plan.privacy.charges}.get("training")
    charged, scores = released.figures, lent.scores
    return {
        "schema": SCHEMA,
        "phones": plan.phones + plan.holdout_phones,
        "labelled_rows": labelled_rows,
        "rounds": plan.rounds,
        "participation": plan.participation,
        "clip": plan.local.clip_norm,
        "aggregation": plan.aggregation,
        "one_hand": one_hand,
        "noise_multiplier": training.noise_multiplier if training else 0.0,
        "epsilon": {
            "released_models": observers.released_models,
            "participation_viewer": observers.participation_viewer,
            "coordinator": observers.coordinator,
            "coordinator_reason": observers.reason,
            "helper": observers.helper,
            "helper_reason": observers.helper_reason,
            "condition": observers.condition,
            "alone_round": observers.alone_round,
            "replace_one": observers.replace_one,
            "lifetime": lifetime_of(plan.privacy),
            "budget": plan.privacy.epsilon_budget if plan.privacy.mode != "off" else None,
            "delta": plan.privacy.delta,
            "relation": plan.privacy.relation,
            "unit": plan.privacy.unit,
            "mode": plan.privacy.mode,
            "noise_source": plan.privacy.noise_source,
            "coordinator_noise": plan.privacy.coordinator_noise,
            "charges": [charge.to_dict() for charge in plan.privacy.charges],
        },
        "auc": {
            "federated": found.auc,
            "private": {"value": charged.private_auc, "se": charged.private_auc_se},
            "central": bases.get("central"),
            "boosting": bases.get("boosting"),
            "silo": bases.get("silo"),
            "oracle": oracle,
            "central_model": bases.get("central_model"),
        },
        "baseline_rows": bases.get("rows"),
        "ks": found.ks,
        "ece": found.ece,
        "ece_private": charged.private_ece,
        "model": {"kind": plan.model.kind, "dimension": int(result.theta.size), "features": len(plan.schema.features)},
        "engine": dict(engine),
        "seconds": dict(seconds),
        "peak_rss_mb": peak_rss_mb(),
        "gate": {"passed": released.verdict.passed, "reasons": list(released.verdict.reasons)},
        "release": _release(released),
        "scored": {
            "phones": len(scores.envelopes),
            "without_score": scores.without,
            "p50_us": percentile(scores.model_us, 50),
            "p99_us": percentile(scores.model_us, 99),
            "sealed_p50_us": percentile(scores.total_us, 50),
            "envelopes_opened": lent.opened,
        },
        "egress": egress(plan, result, scores),
        "reach": dict(reached) if reached else None,
        "alarms": [{"round": round_, "sentence": sentence} for round_, sentence in watched(plan, result.releases)],
        "simulation_only": list(SIMULATION_ONLY),
    }


def egress(plan: TrainingPlan, result: Result, scores: Scores) -> dict[str, Any]:
    """Bytes a phone sends, by message type, and bytes that reached the lender without a line in an egress ledger."""
    answers = dict[str, int]()
    for release in result.releases:
        if release.kind != "evaluate":  # asked of held-out phones, which train nothing
            for kind, size in answer_bytes(plan, release).items():
                answers[kind] = answers.get(kind, 0) + size
    by_type = {kind: float(size) for kind, size in answers.items()}
    for departure in scores.departures:
        by_type[departure.type] = by_type.get(departure.type, 0.0) + departure.bytes / max(len(scores.consents), 1)
    declared = sum(departure.bytes for departure in scores.departures)
    return {
        "bytes_per_phone": {kind: round(size, 1) for kind, size in sorted(by_type.items())},
        "undeclared": max(scores.sent_bytes - declared, 0),
    }


def answer_bytes(plan: TrainingPlan, release: Release) -> dict[str, int]:
    """Type → bytes of one phone's answer: header and int64 vector; in mode helper header, 32-bit residues and one seed;
    in mode pairwise five messages."""
    kind, round_, size = release.kind, release.round, release.noised.size
    if plan.privacy.mode == "pairwise":
        return pairing_bytes(plan, kind, round_, size, max(release.phones, 2))
    if plan.privacy.mode == "helper":
        masked = MaskedHeader(MASKED_SCHEMA, plan.digest, round_, kind, 1, size, "0" * 64)
        return {"masked/1": len(encode(masked.to_dict())) + 4 * size + SEED_BYTES}
    header = PartialHeader(PARTIAL_SCHEMA, plan.digest, round_, kind, 1, size)
    name = "update/1" if kind == "train" else "analytics/1"
    return {name: len(encode(header.to_dict())) + 8 * size}


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Nearest-rank percentile, None of nothing."""
    if not values:
        return None
    rank = max(math.ceil(percent / 100 * len(values)), 1)
    return round(sorted(values)[rank - 1], 1)


def peak_rss_mb() -> float:
    """Largest resident memory of this process or of one of its children so far, in MB."""
    usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(usage) / 1024, 1)


def _release(released: Released) -> dict[str, Any] | None:
    if released.published is None:
        return None
    return {
        "digest": released.published.digest,
        "model_digest": released.manifest.model_digest,
        "onnx_bytes": len(released.onnx),
        "parity_max_abs": released.parity,
    }
