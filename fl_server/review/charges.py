"""The ε ledger read by the reviewer's own code: its hash chain, its charges, and what they cost (spec 6.7, 11.4)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.contract.plan import TrainingPlan
from model.errors import ContractError
from model.privacy.mechanism import GaussianRelease

START = "0" * 64


@dataclass(frozen=True)
class Charge:
    """One reserved release (count 1) with its round; `result` is the digest of what was released, if it was."""

    name: str
    round: int
    release: GaussianRelease
    state: str = "reserved"
    result: str = ""


def read_charges(path: Path, plan: TrainingPlan) -> list[Charge]:
    """Every charge, oldest first; ContractError for an edited, moved, cut or foreign line."""
    lines = _chain(path)
    if not lines or lines[0].get("kind") != "open" or lines[0].get("plan_digest") != plan.digest:
        raise ContractError("the ε ledger does not open with this plan's digest; it belongs to another run")
    charges: dict[int, Charge] = {}
    for line in lines[1:]:
        kind = line["kind"]
        if kind == "reserve":
            release = GaussianRelease.from_dict(line["release"])
            charges[line["index"]] = Charge(str(line["name"]), int(line["round"]), release)
        elif kind in ("commit", "void") and line["of"] in charges and charges[line["of"]].state == "reserved":
            state = "committed" if kind == "commit" else "void"
            charges[line["of"]] = replace(charges[line["of"]], state=state, result=str(line["result"]))
        else:
            raise ContractError(
                f"line {line['index'] + 1} of the ε ledger has no meaning; it was written by another hand"
            )
    return list(charges.values())


def merged(charges: list[Charge]) -> tuple[GaussianRelease, ...]:
    """Equal releases as one with their counts added."""
    counts = Counter(replace(charge.release, count=1) for charge in charges)
    return tuple(replace(release, count=count) for release, count in counts.items())


def unplanned(charges: list[Charge], plan: TrainingPlan) -> list[str]:
    """Names of charges that the plan does not have, or not so often."""
    planned: Counter[GaussianRelease] = Counter()
    for charge in plan.privacy.charges:
        planned[replace(charge, count=1)] += charge.count
    spent = Counter(replace(charge.release, count=1) for charge in charges)
    return sorted({release.name for release in spent - planned})


def _chain(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    lines: list[dict[str, Any]] = []
    previous = START
    for index, raw in enumerate(data.splitlines(keepends=True)):
        line = json.loads(raw)
        named = line.get("digest")
        body = {name: value for name, value in line.items() if name != "digest"}
        if raw != _form(line) or named != hashlib.sha256(_form(body)[:-1]).hexdigest():
            raise ContractError(f"line {index + 1} of the ε ledger was edited")
        if line["index"] != index or line["previous"] != previous:
            raise ContractError(f"line {index + 1} of the ε ledger was moved, or one before it removed")
        lines.append(line)
        previous = named
    head = path.with_name(path.name + ".head").read_text("utf-8")
    if not lines or head != f"{len(lines) - 1} {previous}\n":
        raise ContractError("the ε ledger does not end at its head; lines were cut off")
    return lines


def _form(line: dict[str, Any]) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
