"""The only room whose bytes leave the phone: closed schemas, byte budgets, and a ledger of what left (spec 9.7).

A message leaves only if its type is declared, it has exactly the declared fields, each field passes its rule, and
the finished bytes fit the budget. The ledger line is on disk before the bytes are handed out.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from model.contract.canonical import digest, encode, sha256_hex
from model.contract.envelope import SigningKey, sign
from model.contract.sealed import seal
from model.errors import EgressError

LEDGER_NAME = "egress.jsonl"


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
_MIB = 1 << 20
_PARTIAL = {
    "schema": text(r"pocketscore\.partial/1"),
    "plan_digest": _DIGEST,
    "round": whole(0, 10_000),
    "phones": whole(1, 1_000_000),
    "dim": whole(1, _MIB // 8),
    "values": blob(_MIB),
}
DECLARED: Mapping[str, Declared] = {
    declared.name: declared
    for declared in (
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
                "reasons": many(text("[A-Za-z0-9_.-]{1,64}"), 4),
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
                "data_categories": many(_WORD, 16),
                "sources_allowed": many(_WORD, 32),
                "sources_denied": many(_WORD, 32),
                "policy_pack": _WORD,
                "given_at": _TIME,
                "expires_at": _TIME,
                "withdrawn_at": maybe(_TIME),
                "language": text("[a-z]{2,3}(-[A-Za-z0-9]{2,8})?"),
                "controller": _WORD,
            },
        ),
        Declared("update/1", _MIB, False, {**_PARTIAL, "kind": text("train")}),
        Declared("analytics/1", _MIB, False, {**_PARTIAL, "kind": text("knots|calibrate|evaluate")}),
    )
}


@dataclass(frozen=True)
class Recipient:
    """Whom a message is sealed to: HPKE public key, and the info it is bound to (purpose and audience)."""

    public: bytes
    info: Mapping[str, str]


@dataclass(frozen=True)
class Departure:
    """One ledger line: what left, in whose name and when. `previous` chains it to the line before."""

    when: int
    type: str
    schema: str
    bytes: int
    sha256: str
    consent_id: str
    to: str
    previous: str


class Egress:
    """The door of one phone's home, at Unix second `now`."""

    def __init__(self, home: Path, now: int) -> None:
        self._path, self._now = home / LEDGER_NAME, now

    def release(
        self,
        kind: str,
        message: Mapping[str, Any],
        *,
        consent_id: str = "",
        key: SigningKey | None = None,
        to: Recipient | None = None,
    ) -> bytes:
        """Check, sign, seal and record `message`; the bytes that may leave.

        `score/1` and `consent/1` need the pairwise key and the recipient. EgressError, and nothing leaves, for an
        undeclared type or field, a value outside its rule, a message over its budget, or a ledger that cannot
        be written.
        """
        declared = DECLARED.get(kind)
        if declared is None:
            raise EgressError(f"messages of type {kind!r} are not declared; nothing left the phone")
        declared.check(message)
        data = _finish(declared, message, key, to)
        if len(data) > declared.budget:
            raise EgressError(
                f"a {kind} message of {len(data)} bytes is over its {declared.budget}; nothing left the phone"
            )
        audience = to.info.get("audience", "") if to else ""
        self._record(kind, declared.digest, data, consent_id, audience)
        return data

    def lines(self) -> list[Departure]:
        """Every departure so far; EgressError if the ledger was cut or edited."""
        return _read(self._path.read_bytes()) if self._path.exists() else []

    def summary(self) -> dict[str, dict[str, int]]:
        """Messages and bytes by type, and what was undeclared."""
        return summary(self.lines())

    def _record(self, kind: str, schema: str, data: bytes, consent_id: str, audience: str) -> None:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # two commands at once must not fork the chain
                before = file.read()
                line = _line(before, self._now, kind, schema, data, consent_id, audience)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EgressError(
                f"the egress ledger {self._path} cannot be written ({error.strerror}); nothing left the phone"
            ) from error


class MemoryEgress(Egress):
    """The same door without a file, shared by many simulated phones."""

    def __init__(self, now: int) -> None:
        super().__init__(Path("."), now)
        self._lines: list[Departure] = []

    def lines(self) -> list[Departure]:
        """Every departure so far."""
        return self._lines

    def _record(self, kind: str, schema: str, data: bytes, consent_id: str, audience: str) -> None:
        digest_ = sha256_hex(data)
        self._lines.append(Departure(self._now, kind, schema, len(data), digest_, consent_id, audience, ""))


def summary(lines: Iterable[Departure]) -> dict[str, dict[str, int]]:
    """type → messages and bytes; the type "undeclared" gathers lines that fit no declaration."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        known = DECLARED.get(line.type)
        kind = line.type if known and known.digest == line.schema else "undeclared"
        row = found.setdefault(kind, {"messages": 0, "bytes": 0})
        row["messages"] += 1
        row["bytes"] += line.bytes
    return found


def _finish(declared: Declared, message: Mapping[str, Any], key: SigningKey | None, to: Recipient | None) -> bytes:
    if not declared.sealed:
        return encode(dict(message))
    if key is None or to is None:
        raise EgressError(f"a {declared.name} message leaves signed and sealed only; give its key and recipient")
    return seal(sign(declared.name, message, [key]).to_bytes(), to.public, to.info)


def _line(before: bytes, now: int, kind: str, schema: str, data: bytes, consent_id: str, audience: str) -> bytes:
    _read(before)
    previous = sha256_hex(before.splitlines()[-1]) if before else ""
    line = Departure(now, kind, schema, len(data), sha256_hex(data), consent_id, audience, previous)
    return json.dumps(asdict(line), sort_keys=True).encode() + b"\n"


def _read(raw: bytes) -> list[Departure]:
    lines, previous = [], ""
    if raw and not raw.endswith(b"\n"):
        raise EgressError("the egress ledger ends within a line; keep it aside and start a new phone home")
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            departure = Departure(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise EgressError(f"line {number} of the egress ledger is not a departure; keep it aside") from error
        if departure.previous != previous:
            raise EgressError(f"line {number} of the egress ledger does not follow the one before; keep it aside")
        lines.append(departure)
        previous = sha256_hex(line)
    return lines
