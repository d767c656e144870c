"""The only room whose bytes leave the phone: closed schemas, byte budgets, and a ledger of what left (spec 9.7).

A message leaves only if its type is declared, it has exactly the declared fields, each field passes its rule, and
the finished bytes fit the budget. The ledger line is on disk before the bytes are handed out.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fl_client.declared import DECLARED, Declared
from model.canonical import encode, sha256_hex
from model.contract.envelope import SigningKey, sign
from model.contract.masked import SEED_BYTES
from model.contract.sealed import seal
from model.errors import EgressError

LEDGER_NAME = "egress.jsonl"


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
        audience = to.info.get("audience", "") if to else ""
        self._leave(declared, data, consent_id, audience)
        return data

    def partial(self, header: Mapping[str, Any], vector: bytes) -> tuple[bytes, bytes]:
        """A sum's header and vector on their way into a Flower message, checked and recorded as one message.

        `header` is a `PartialHeader` as a dict, `vector` its `dim` little-endian 64-bit integers. Returns the
        canonical header and the vector. EgressError as `release`, and where the vector is not `dim` numbers.
        """
        kind = "update/1" if header.get("kind") == "train" else "analytics/1"
        DECLARED[kind].check({**header, "values": vector})
        if len(vector) != 8 * header["dim"]:
            raise EgressError(f"a vector of {len(vector)} bytes is not {header['dim']} numbers; nothing left the phone")
        head = encode(dict(header))
        self._leave(DECLARED[kind], head + vector, "", "")
        return head, vector

    def masked(self, header: Mapping[str, Any], vector: bytes, seeds: bytes) -> tuple[bytes, bytes, bytes]:
        """A masked sum on its way into a Flower message, checked and recorded as one message.

        `header` is a `MaskedHeader` as a dict. Returns the canonical header, the vector and the seeds. EgressError as
        `release`, where the vector is not `dim` residues, and where there is not one sealed seed a phone.
        """
        declared = DECLARED["masked/1"]
        declared.check({**header, "values": vector, "seeds": seeds})
        sizes = (4 * header["dim"], SEED_BYTES * header["phones"])
        if (len(vector), len(seeds)) != sizes:
            raise EgressError(
                f"a masked sum of {len(vector)} bytes with {len(seeds)} bytes of seeds is not the {sizes[0]} and "
                f"{sizes[1]} of its header; nothing left the phone"
            )
        head = encode(dict(header))
        self._leave(declared, head + vector + seeds, "", "")
        return head, vector, seeds

    def lines(self) -> list[Departure]:
        """Every departure so far; EgressError if the ledger was cut or edited."""
        return _read(self._path.read_bytes()) if self._path.exists() else []

    def summary(self) -> dict[str, dict[str, int]]:
        """Messages and bytes by type, and what was undeclared."""
        return summary(self.lines())

    def _leave(self, declared: Declared, data: bytes, consent_id: str, audience: str) -> None:
        if len(data) > declared.budget:
            raise EgressError(
                f"a {declared.name} of {len(data)} bytes is over its {declared.budget}; nothing left the phone"
            )
        self._record(declared.name, declared.digest, data, consent_id, audience)

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
