"""Every check of a run, each an independent statement that holds or does not (spec 11.4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fl_server.review import bundle, leaks
from fl_server.review.charges import unplanned
from fl_server.review.evidence import Anchor, Evidence
from fl_server.review.findings import Check, Finding
from fl_server.review.observed import check_epsilon, said_of_observers
from fl_server.review.releases import check_gate, check_log, check_model, check_release
from model.contract.envelope import verify
from model.contract.plan import DOMAIN as PLAN
from model.errors import PocketScoreError
from model.policy.rules import load_pack, violations

_PAIRING = {f"pairing-{step}/1" for step in ("advertise", "share", "upload", "agree", "unmask")}
MESSAGES = frozenset({"update/1", "analytics/1", "masked/1", "score/1", "consent/1"} | _PAIRING)


def check_all(folder: Path, anchor: Anchor | None = None) -> list[Finding]:
    """Every finding, in a fixed order. What cannot be read is a finding too: a folder cannot stop its own review."""
    evidence = Evidence(folder, anchor)
    found: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            found += check(evidence)
        except (PocketScoreError, OSError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            found.append(Finding(name, False, f"cannot be checked: {error or type(error).__name__}"))
    return found


def passed(findings: list[Finding]) -> bool:
    """Whether every check holds."""
    return all(finding.holds is not False for finding in findings)


def check_identity(evidence: Evidence) -> Iterator[Finding]:
    """The run's keys are the ones the reviewer already trusts."""
    anchor = evidence.anchor
    if anchor is None:
        yield Finding("identity", None, "self-signed, identity not established; pass --root to establish it")
        return
    wrong = sorted(role for role, key in anchor.roles.items() if evidence.keys.get(role) != key)
    trusted = {evidence.keys["reviewer"], evidence.keys["release"]} <= anchor.keys
    if anchor.roles and not wrong and "release" not in anchor.roles:
        yield Finding("identity", False, "your --root names no release key; give one that names who publishes")
        return
    if wrong or not trusted:
        who = wrong[0] if wrong else "release or reviewer"
        yield Finding("identity", False, f"the run's {who} key is not the one your --root trusts")
        return
    yield Finding("identity", True, "release and reviewer keys are those your --root trusts")


def check_bundle(evidence: Evidence) -> Iterator[Finding]:
    """The folder is byte for byte what was signed."""
    signers = ("reviewer",) if evidence.anchor and not evidence.anchor.roles else ("reviewer", "coordinator")
    listed = bundle.read(evidence.folder, evidence.ring(*signers))
    wrong = bundle.differences(evidence.folder, listed)
    for sentence in wrong[:20]:
        yield Finding("bundle", False, sentence)
    if len(wrong) > 20:
        yield Finding("bundle", False, f"and {len(wrong) - 20} more files differ")
    if not wrong:
        yield Finding("bundle", True, f"{len(listed.files)} files are as signed; none is unlisted")


def check_plan(evidence: Evidence) -> Iterator[Finding]:
    """Coordinator and reviewer both signed the plan, and it breaks no rule of its pack."""
    ring = evidence.ring("coordinator", "reviewer")
    verify(evidence.signed_plan, PLAN, ring, threshold=2, required=ring)
    yield Finding("plan", True, "signed 2 of 2 by coordinator and reviewer")
    plan = evidence.plan
    broken = violations(plan, load_pack(plan.policy_pack))
    for each in broken:
        yield Finding("policy", False, f"{each.sentence} [{each.rule_id}: {each.citation}]")
    if not broken:
        yield Finding(
            "policy", True, f"no rule of {plan.policy_pack} is broken by {len(plan.schema.features)} features"
        )


def check_ledger(evidence: Evidence) -> Iterator[Finding]:
    """The ledger is whole, charges every logged sum before it existed, and nothing the plan does not name."""
    charges, plan = evidence.charges, evidence.plan
    strange = unplanned(charges, plan)
    whole = f"{len(charges)} charges in an unbroken chain, all named by the plan"
    yield Finding("ledger", not strange, f"charge {strange[0]!r} is not in the plan" if strange else whole)
    if plan.privacy.mode == "off":
        return
    results = {charge.result for charge in charges if charge.state == "committed"}
    logged = {each.digest for each in evidence.sums if not each.void}
    free = [f"{each.kind} {each.round}" for each in evidence.sums if not each.void and each.digest not in results]
    if free:
        yield Finding("charged", False, f"the release {free[0]} was not charged as it is ({len(free)} in all)")
    elif results != logged:
        yield Finding("charged", False, f"{len(results - logged)} charged releases are not in the archive")
    else:
        yield Finding("charged", True, f"each of {len(logged)} releases is charged, and each charge has its release")


EXACT = {
    *("auc.federated", "auc.central", "auc.boosting", "auc.silo", "auc.oracle"),
    *("ks", "ece", "labelled_rows", "scored", "reach"),
}
EXACT_PLOTS = {
    "score_hist",
    "calibration",
    "rounds.norm_quantiles",
    "rounds.clip_rate",
    "rounds.auc",
    "decisions",
    "audit",
    "reach",
}


def check_summary(evidence: Evidence) -> Iterator[Finding]:
    """Null where a thing has no meaning, the plan's own numbers, and single phones' figures only in simulation."""
    plan, summary = evidence.plan, evidence.summary
    said = summary["epsilon"]
    yield said_of_observers(plan.privacy, said)
    facts = {
        "rounds": plan.rounds,
        "participation": plan.participation,
        "clip": plan.local.clip_norm,
        "phones": plan.phones + plan.holdout_phones,
    }
    wrong = [name for name, value in facts.items() if summary[name] != value]
    wrong += [name for name in ("delta", "relation", "unit") if said[name] != getattr(plan.privacy, name)]
    wrong += [] if (summary["release"] is not None) == evidence.released else ["release"]
    yield Finding("summary", not wrong, f"{wrong[0]!r} is not what the run shows" if wrong else "agrees with the plan")
    tagged = set(summary.get("simulation_only", []))
    exact = EXACT - tagged
    exact |= EXACT_PLOTS - set(evidence.json("figures.json").get("simulation_only", []))
    honest = plan.simulation and not exact
    words = "figures of single phones are tagged simulation_only" if honest else f"{sorted(exact)} lack their tag"
    yield Finding("tags", honest, words if plan.simulation else "a field run shows figures of single phones")


def check_egress(evidence: Evidence) -> Iterator[Finding]:
    """No byte left a phone without a declaration."""
    said = evidence.summary["egress"]
    strange = sorted(set(said["bytes_per_phone"]) - MESSAGES)
    undeclared = said["undeclared"]
    fine = undeclared == 0 and not strange and evidence.json("egress.json") == said
    sentence = f"0 undeclared bytes; {len(said['bytes_per_phone'])} declared message types"
    yield Finding("egress", fine, sentence if fine else f"{undeclared} undeclared bytes, undeclared types {strange}")


def check_secrets(evidence: Evidence) -> Iterator[Finding]:
    """No private key and no phone's store lies in the folder, its uncovered parts included."""
    found = leaks.find(evidence.folder, evidence.keys)
    for sentence in found:
        yield Finding("secrets", False, sentence)
    if not found:
        yield Finding("secrets", True, "no private key and no phone store inside")


CHECKS: dict[str, Check] = {
    "identity": check_identity,
    "bundle": check_bundle,
    "plan": check_plan,
    "ledger": check_ledger,
    "epsilon": check_epsilon,
    "model": check_model,
    "gate": check_gate,
    "release": check_release,
    "log": check_log,
    "summary": check_summary,
    "egress": check_egress,
    "secrets": check_secrets,
}
