"""What may leave a phone: message types with closed fields, a rule for each, and byte budgets (spec 9.7.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from model.canonical import digest
from model.contract.masked import MAX_BATCH_BYTES
from model.contract.pairing import BODY, ENVELOPE, MAX_ATTEMPT
from model.errors import EgressError


@dataclass(frozen=True)
class Rule:
    """What one field may hold; `says` is part of the schema's digest."""

    says: str
    passes: Callable[[Any], bool]


def text(pattern: str) -> Rule:
    """Text that matches `pattern` in full."""
    form = re.compile(pattern, re.ASCII)
    return Rule(f"text {pattern}", lambda v: isinstance(v, str) and form.fullmatch(v) is not None)


def whole(low: int, high: int) -> Rule:
    """A whole number in low … high."""
    return Rule(f"whole {low}..{high}", lambda v: type(v) is int and low <= v <= high)


def blob(limit: int) -> Rule:
    """At most `limit` bytes."""
    return Rule(f"bytes {limit}", lambda v: isinstance(v, bytes) and len(v) <= limit)


def many(rule: Rule, limit: int) -> Rule:
    """A sorted list without repeats of at most `limit` items: a set, whose order tells nothing."""
    return Rule(f"set {limit} of {rule.says}", lambda v: _is_set(v, limit) and all(map(rule.passes, v)))


def maybe(rule: Rule) -> Rule:
    """The rule, or nothing."""
    return Rule(f"maybe {rule.says}", lambda v: v is None or rule.passes(v))


def _is_set(value: Any, limit: int) -> bool:
    if not isinstance(value, list) or len(value) > limit or not all(isinstance(item, str) for item in value):
        return False
    return all(a < b for a, b in pairwise(value))


@dataclass(frozen=True)
class Declared:
    """One message type that may leave: its fields, its largest size in bytes, and whether it must be sealed."""

    name: str
    budget: int
    sealed: bool
    fields: Mapping[str, Rule]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the declaration."""
        fields = {name: rule.says for name, rule in self.fields.items()}
        return digest({"name": self.name, "budget": self.budget, "sealed": self.sealed, "fields": fields})

    def check(self, message: Mapping[str, Any]) -> None:
        """EgressError for a field too many, too few, or outside its rule."""
        odd = sorted(set(message) ^ set(self.fields))
        if odd:
            which = "undeclared" if odd[0] in message else "missing"
            raise EgressError(f"a {self.name} message has the {which} field {odd[0]!r}; nothing left the phone")
        for name, rule in self.fields.items():
            if not rule.passes(message[name]):
                raise EgressError(f"field {name!r} of a {self.name} message is not {rule.says}; nothing left the phone")


_DIGEST, _ID, _WORD = text("[0-9a-f]{64}"), text("[0-9a-f]{32}"), text("[A-Za-z0-9._:/ -]{1,64}")
_TIME = whole(0, 1 << 40)
MAX_NUMBERS = 1 << 20  # of one sum (spec 3.2)
_SUM_BYTES = 8 * MAX_NUMBERS
_SUM_BUDGET = _SUM_BYTES + 4096
_SEEDS_BYTES = MAX_BATCH_BYTES  # one of SEED_BYTES a phone, so a farm has many
_PARTIAL = {
    "schema": text(r"pocketscore\.partial/1"),
    "plan_digest": _DIGEST,
    "round": whole(0, 1 << 31),
    "phones": whole(0, 1 << 40),  # exactly 1 in the field, which the reply checks against its plan
    "dim": whole(1, MAX_NUMBERS),
    "values": blob(_SUM_BYTES),
}
_PAIRING = {  # one type a step of pairwise masking, by what its body may weigh
    f"pairing-{step}/1": {
        "schema": text(r"pocketscore\.pairing/1"),
        "plan_digest": _DIGEST,
        "round": whole(0, 1 << 31),
        "kind": text("knots|train|calibrate|evaluate"),
        "attempt": whole(0, MAX_ATTEMPT - 1),
        "step": text(step),
        "body": blob(limit),
    }
    for step, limit in BODY.items()
}
DECLARED: Mapping[str, Declared] = {
    declared.name: declared
    for declared in (
        *(Declared(name, BODY[name[8:-2]] + ENVELOPE, False, fields) for name, fields in _PAIRING.items()),
        Declared(
            "score/1",
            2048,
            True,
            {
                "ref": text("[A-Za-z0-9._-]{1,64}"),
                "purpose": _WORD,
                "consent_id": _ID,
                "score": whole(300, 900),
                "band": text("[A-E]"),
                "model_digest": _DIGEST,
                "policy_pack": _WORD,
                "nonce": _ID,
                "counter": whole(1, 1 << 40),
                "issued_at": _TIME,
                "expires_at": _TIME,
                "audience": _WORD,
                "device_key": _DIGEST,
                "reasons": many(text(r"[^\x00-\x1f]{1,128}"), 4),
            },
        ),
        Declared(
            "consent/1",
            4096,
            True,
            {
                "consent_id": _ID,
                "purpose": _WORD,
                "audience": _WORD,
                "data_categories": many(text("score"), 1),
                "sources_allowed": many(_WORD, 0),  # what was refused stays between the person and the phone
                "sources_denied": many(_WORD, 0),
                "policy_pack": _WORD,
                "given_at": _TIME,
                "expires_at": _TIME,
                "withdrawn_at": maybe(_TIME),
                "language": text("[a-z]{2,3}(-[A-Za-z0-9]{2,8})?"),
                "controller": text("[A-Za-z' ]{1,64}"),
            },
        ),
        Declared("update/1", _SUM_BUDGET, False, {**_PARTIAL, "kind": text("train")}),
        Declared("analytics/1", _SUM_BUDGET, False, {**_PARTIAL, "kind": text("knots|calibrate|evaluate")}),
        Declared(
            "masked/1",
            _SUM_BYTES // 2 + _SEEDS_BYTES + 4096,
            False,  # as a whole; each seed in it is
            {
                **_PARTIAL,
                "schema": text(r"pocketscore\.masked/1"),
                "kind": text("knots|train|calibrate|evaluate"),
                "model_digest": _DIGEST,
                "values": blob(_SUM_BYTES // 2),
                "seeds": blob(_SEEDS_BYTES),
            },
        ),
    )
}
