"""Checks of what was released: model, gate, repository and log, each computed again (spec 11.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fl_server.review.evidence import Evidence
from fl_server.review.figures import gate_figures, verdict
from fl_server.review.findings import Finding, close, shown
from model.canonical import decode, sha256_hex
from model.contract import merkle
from model.contract.checkpoint import open_note
from model.contract.envelope import verify
from model.contract.release import DOMAIN as RELEASE
from model.contract.release import THRESHOLD
from model.contract.repository import Repository
from model.contract.repository import verify as verify_repository
from model.errors import ContractError, TrustError

ORIGIN = "pocketscore/log"
PARITY_ROWS = 2000
PARITY = 1e-6
_FRAME = struct.Struct(">I32s")


def check_model(evidence: Evidence) -> Iterator[Finding]:
    """Every round's model follows from the logged noised sums, and the last one is the released file."""
    again, rounds = evidence.recomputed, f"{len(evidence.recomputed.models)} rounds"
    named = _logged(evidence, "release")["model"]
    if sha256_hex(again.onnx) == named:
        which = "released file" if evidence.released else "model the gate refused"
        yield Finding("model", True, f"{rounds} recomputed from the logged sums give the {which}, byte for byte")
    elif evidence.released and (gap := _parity(again.onnx, evidence.bytes("release/model.onnx"))) <= PARITY:
        yield Finding("model", True, f"{rounds} recomputed give the released model within {gap:.1e} of a PD")
    else:
        yield Finding("model", False, f"{rounds} recomputed from the logged sums give another model than the released")


def check_gate(evidence: Evidence) -> Iterator[Finding]:
    """The gate's figures come from the charged evaluation, and its verdict from them alone."""
    value, se, gap = gate_figures(evidence.recomputed, evidence.plan)
    said = evidence.summary["auc"]["private"]
    same = close(value, said["value"], 1e-6) and close(se, said["se"], 1e-6)
    words = f"private AUC {shown(value)} ± {shown(se)}, ECE {shown(gap)} from the evaluation release"
    yield Finding("figures", same, words if same else f"{words}, but the summary says {shown(said['value'])}")
    failed = verdict(value, se, gap, evidence.summary["epsilon"]["released_models"], evidence.plan)
    fair = (not failed) == evidence.released
    if evidence.released:
        gate = evidence.manifest.gate
        pairs = ((value, gate.private_auc), (se, gate.private_auc_se), (gap, gate.private_ece))
        fair = fair and gate.passed and all(close(one, other, 1e-6) for one, other in pairs)
    right = "passes by its charged figures" if not failed else f"refuses: {failed[0]}"
    yield Finding("gate", fair, right if fair else f"the gate's verdict does not follow: recomputed, it {right}")


def check_release(evidence: Evidence) -> Iterator[Finding]:
    """The published repository verifies at the run's logged time, and the manifest says what the run shows."""
    if not evidence.released:
        yield Finding("release", None, "nothing was released")
        return
    at = int(_logged(evidence, "release")["at"])
    repository = _repository(evidence, at)
    manifest, plan = evidence.manifest, evidence.plan
    for kind in ("model.onnx", "manifest.cbor"):
        data = repository.check_target(f"{manifest.name}/{kind}", evidence.bytes(f"release/{kind}"))
        digest = sha256_hex(data)
        if evidence.bytes(f"tuf/targets/{manifest.name}/{digest}.{kind}") != data:
            raise TrustError(f"the published {kind} is not the released one")
    yield Finding(
        "repository", True, f"TUF metadata, {repository.targets_threshold} of 2 keys, verifies at the run's time"
    )
    ring = evidence.ring("release", "reviewer")
    verify(evidence.signed_manifest, RELEASE, ring, threshold=THRESHOLD, required=ring)
    onnx = evidence.bytes("release/model.onnx")
    facts = {
        "model_digest": sha256_hex(onnx),
        "onnx_bytes": len(onnx),
        "plan_digest": evidence.signed_plan.payload_digest,
        "schema_digest": plan.schema_digest,
        "policy_pack": plan.policy_pack,
        "features": plan.schema.names,
        "created_at": at,
    }
    wrong = [name for name, value in facts.items() if getattr(manifest, name) != value]
    wrong += [name for name in ("grid", "days") if getattr(manifest.score, name) != getattr(plan, f"score_{name}")]
    wrong += _card(evidence)
    sentence = f"{manifest.name} version {manifest.version}, signed 2 of 2, describes this model and this plan"
    yield Finding("manifest", not wrong, sentence if not wrong else f"the manifest's {wrong[0]} is not the run's")


def check_log(evidence: Evidence) -> Iterator[Finding]:
    """The log is whole under its signed head, and holds plan, charges and release."""
    frames = _frames(evidence.bytes("log/entries"))
    leaves = [merkle.leaf_hash(frame) for frame in frames]
    head = open_note(evidence.bytes("log/checkpoint"), {ORIGIN: evidence.keys["log"]})
    if head.origin != ORIGIN or head.size != len(leaves):
        raise ContractError(f"the log holds {len(leaves)} entries, its signed head counts {head.size}")
    for index, leaf in enumerate(leaves):
        if not merkle.verify_inclusion(leaf, index, head.size, merkle.inclusion_proof(leaves, index), head.root):
            raise ContractError(f"entry {index} is not under the log's signed head; one was edited")
    yield Finding("log", True, f"{head.size} entries stand under the signed head")
    plan = evidence.signed_plan.payload_digest
    digest = evidence.signed_manifest.payload_digest if evidence.released else ""
    entries = [decode(frame) for frame in frames]
    charges = [
        {k: v for k, v in entry.items() if k not in ("kind", "at")} for entry in entries if entry["kind"] == "charge"
    ]
    missing = [] if _logged(evidence, "plan")["digest"] == plan else ["plan"]
    missing += [] if _logged(evidence, "release")["digest"] == digest else ["release"]
    missing += [] if charges == [charge.to_dict() for charge in evidence.plan.privacy.charges] else ["charges"]
    whole = "holds this plan, its charges and this release"
    yield Finding("entries", not missing, whole if not missing else f"the log's {missing[0]} is not this run's")


def _repository(evidence: Evidence, at: int) -> Repository:
    metadata = evidence.folder / "tuf" / "metadata"
    roots = [path.read_bytes() for path in _versions(metadata, "root")]
    anchor = evidence.anchor.tuf_root if evidence.anchor else None
    if anchor is not None and anchor not in roots:
        raise TrustError("the repository does not start from the TUF root that --root trusts")
    start = roots.index(anchor) if anchor is not None else 0
    latest = [_versions(metadata, role)[-1].read_bytes() for role in ("snapshot", "targets")]
    stamp = (metadata / "timestamp.json").read_bytes()
    repository = verify_repository(roots[start:], stamp, *latest, now=at)
    if set(repository.targets_keys) != set(evidence.ring("release", "reviewer")):
        raise TrustError("the repository is signed by other keys than the run's release and reviewer keys")
    return repository


def _versions(metadata: Path, role: str) -> list[Path]:
    return sorted(metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))


def _card(evidence: Evidence) -> list[str]:
    """ε card of the manifest against the summary, which the ledger was held against."""
    card, said = evidence.manifest.epsilon, evidence.summary["epsilon"]
    numbers = ("released_models", "participation_viewer", "coordinator", "helper", "delta")
    words = ("relation", "unit", "coordinator_reason", "helper_reason", "condition")
    wrong = [f"epsilon.{name}" for name in numbers if not close(getattr(card, name), said[name])]
    return wrong + [f"epsilon.{name}" for name in words if getattr(card, name) != said[name]]


def _logged(evidence: Evidence, kind: str) -> dict[str, Any]:
    entries = [decode(frame) for frame in _frames(evidence.bytes("log/entries"))]
    found: list[dict[str, Any]] = [entry for entry in entries if entry["kind"] == kind]
    if len(found) != 1:
        raise ContractError(f"the log holds {len(found)} entries of kind {kind}, not one")
    return found[0]


def _frames(data: bytes) -> list[bytes]:
    """Entries of the log file: length (4 bytes), leaf hash (32), canonical bytes."""
    frames: list[bytes] = []
    at = 0
    while at < len(data):
        size, leaf = _FRAME.unpack_from(data, at) if at + _FRAME.size <= len(data) else (-1, b"")
        frame = data[at + _FRAME.size : at + _FRAME.size + max(size, 0)]
        if size < 0 or len(frame) != size or merkle.leaf_hash(frame) != leaf:
            raise ContractError(f"the log is cut or edited at entry {len(frames)}")
        frames.append(frame)
        at += _FRAME.size + size
    return frames


def _parity(one: bytes, other: bytes) -> float:
    """Largest difference in PD of two files over 2,000 rows: the same numbers may round apart on another machine."""
    import onnxruntime

    sessions = [onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]) for data in (one, other)]
    width = sessions[0].get_inputs()[0].shape[1]
    rng = np.random.Generator(np.random.Philox(7))
    rows = (rng.standard_normal((PARITY_ROWS, width)) * 10 ** rng.uniform(-1, 5, width)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    pds = [session.run(["pd"], {"features": rows})[0] for session in sessions]
    return float(np.abs(pds[0] - pds[1]).max())
