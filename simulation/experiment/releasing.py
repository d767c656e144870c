"""From a trained model to what phones may run: gate, ONNX, manifest, TUF repository, log (spec 8)."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_server import gate
from fl_server.alarm import watched
from fl_server.app import Result
from fl_server.gate import ChargedFigures, Thresholds, Verdict
from fl_server.keys import KeyRing, replace_file
from fl_server.log import Log
from fl_server.release import DAY, Lifetimes, Published, ReleaseKeys, publish
from model.canonical import sha256_hex
from model.contract.release import EpsilonCard, ReleaseManifest, ScoreScale
from model.privacy.observers import Observers
from model.risk.export import export, parity
from simulation.experiment.figures import network_of
from simulation.experiment.folder import RunFolder

LIFE = Lifetimes(timestamp=7 * DAY)  # long enough to go on with a demo for a week
RELEASE_DAYS = 90
KEY_NAMES = ("coordinator", "reviewer", "release", "online", "log")


@dataclass(frozen=True)
class Released:
    """The gate's verdict, and the release if it passed."""

    verdict: Verdict
    figures: ChargedFigures
    onnx: bytes
    parity: float
    manifest: ReleaseManifest
    published: Published | None


def release(
    place: RunFolder, result: Result, figures: ChargedFigures, observers: Observers, rows: NDArray[np.float32], now: int
) -> Released:
    """Export, judge, publish, log. A model the gate refuses is logged and not published."""
    plan, network = result.plan, network_of(result)
    onnx = export(network, result.platt, plan.schema)
    verdict = gate.decide(figures, Thresholds(max_epsilon=plan.privacy.epsilon_budget))
    manifest = _manifest(result, onnx, verdict, figures, observers, now)
    keys = keyring(place)
    published = None
    if verdict.passed:
        shutil.rmtree(place.partial / "tuf", ignore_errors=True)
        pair = ReleaseKeys(keys.ensure("release"), keys.ensure("reviewer"), keys.ensure("online"))
        published = publish(onnx, manifest, place.partial / "tuf", pair, now=now, lifetimes=LIFE)
        folder = place.partial / "release"
        folder.mkdir(exist_ok=True)
        replace_file(folder / "model.onnx", onnx)
        replace_file(folder / "manifest.cbor", published.manifest)
        replace_file(
            place.private / "root.json", published.root
        )  # the reviewer's own copy: a folder vouches for nothing
    write_public_keys(place)
    _log(place, result, manifest, published, now)
    return Released(verdict, figures, onnx, parity(network, result.platt, onnx, rows), manifest, published)


def keyring(place: RunFolder) -> KeyRing:
    """All of the run's signing keys; a demo holds both sides' and says so."""
    return KeyRing(place.private / "keys")


def write_public_keys(place: RunFolder) -> None:
    """keys.json: each key's id and public half, by role. What vouches for it is the reviewer's own --root."""
    ring = keyring(place)
    keys = {name: ring.ensure(name) for name in KEY_NAMES}
    public = {name: {"keyid": key.keyid, "public": key.public_bytes.hex()} for name, key in keys.items()}
    replace_file(place.partial / "keys.json", json.dumps(public, indent=2).encode())


def lender_keyring(place: RunFolder) -> dict[str, str]:
    """The two release keys, id to hex, as a lender is told to trust them."""
    keys = [keyring(place).ensure(name) for name in ("release", "reviewer")]
    return {key.keyid: key.public_bytes.hex() for key in keys}


def _manifest(
    result: Result, onnx: bytes, verdict: Verdict, figures: ChargedFigures, observers: Observers, now: int
) -> ReleaseManifest:
    plan = result.plan
    return ReleaseManifest(
        name=plan.name,
        version=1,
        schema_digest=plan.schema_digest,
        plan_digest=plan.digest,
        model_digest=sha256_hex(onnx),
        onnx_bytes=len(onnx),
        epsilon=EpsilonCard(
            observers.released_models,
            observers.participation_viewer,
            observers.coordinator,
            observers.reason,
            plan.privacy.delta,
            plan.privacy.relation,
            plan.privacy.unit,
            observers.helper,
            observers.helper_reason,
            observers.condition,
        ),
        gate=verdict.figures(figures),
        policy_pack=plan.policy_pack,
        score=ScoreScale(plan.score_grid, plan.score_days),
        reasons=tuple(feature.reason for feature in plan.schema.features),
        features=plan.schema.names,
        created_at=now,
        expires_at=now + RELEASE_DAYS * DAY,
    )


def _log(place: RunFolder, result: Result, manifest: ReleaseManifest, published: Published | None, now: int) -> None:
    """Plan, ε charges and release as entries of the run's Merkle log, under a signed head."""
    shutil.rmtree(place.partial / "log", ignore_errors=True)
    log = Log(place.partial / "log")
    log.append({"kind": "plan", "at": result.plan.created_at, "digest": result.plan.digest})
    for charge in result.plan.privacy.charges:
        log.append({"kind": "charge", "at": now, **charge.to_dict()})
    for round_, sentence in watched(result.plan, result.releases):
        log.append({"kind": "alarm", "at": now, "round": round_, "sentence": sentence})
    digest = published.digest if published else ""
    log.append({"kind": "release", "at": now, "digest": digest, "model": manifest.model_digest, "passed": bool(digest)})
    log.checkpoint(keyring(place).ensure("log"))
