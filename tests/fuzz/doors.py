"""Every place where bytes of strangers are read, as a function of bytes: what it may do is return or refuse.

A Flower reply or task, and a request to the helper, are written as CBOR trees, so that one mutator fits all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cbor2
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_client.app import Trust, read_task
from fl_server.ingress import MAX_HEADER_BYTES, OpenSum, flat_map, read, take_apart
from fl_server.ingress_steps import STEPS, OpenStep, read_mail
from fl_server.review.helper.service import body
from fl_server.schedule import schedule
from model.canonical import decode, encode
from model.contract.caller import named_body
from model.contract.envelope import MAX_SIGNED_BYTES, Signed, SigningKey
from model.contract.masked import BatchRequest, MaskedHeader, Refusal, Share
from model.contract.pairing import PairingMessage
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.contract.update import PartialHeader, TaskHeader
from model.errors import ContractError
from model.secagg import messages as m
from model.secagg.context import Context
from simulation.small import small_dataset, small_plan

SEEDS = Path(__file__).parent / "seeds"
COORDINATOR, REVIEWER, HELPER = (SigningKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
TRUST = Trust({key.keyid: key.public_bytes for key in (COORDINATOR, REVIEWER)}, (COORDINATOR.keyid, REVIEWER.keyid))
NEIGHBOURS = Neighbours(degree=10, threshold=6, corrupt=0.05, dropout=0.1)
DIM, MODEL = 12, "ab" * 32
BODY_LIMIT = 1 << 16
PLACE = Context("cd" * 32, "train", 1, MODEL, DIM)
_KINDS = {"config": ConfigRecord, "array": ArrayRecord, "metric": MetricRecord}


class Unwritable(Exception):
    """A tree that is no Flower record or request: nothing of ours was asked."""


@dataclass(frozen=True)
class Door:
    """`call` reads an input, after `prepare` made of it what Flower or a web server would hand over; it may use `times`
    bytes of memory for each of the input, and 256 KiB."""

    name: str
    call: Callable[[Any], object]
    prepare: Callable[[bytes], Any] = bytes
    times: int = 24

    @property
    def seeds(self) -> list[bytes]:
        """What is kept for this door: good inputs, and everything that once broke it."""
        return [path.read_bytes() for path in sorted((SEEDS / self.name).glob("*.bin"))]


@cache
def plan(mode: str = "central") -> TrainingPlan:
    """A small plan of a farm, in one of the modes in which replies are vectors."""
    made = small_plan(small_dataset(200, seed=1), rounds=2)
    key = HELPER.public_bytes.hex() if mode == "helper" else ""
    return replace(made, privacy=replace(made.privacy, mode=mode, helper_key=key))


@cache
def open_sum(mode: str) -> OpenSum:
    """Its first training round, over DIM numbers."""
    return OpenSum(plan(mode), schedule(plan(mode))[1], DIM, MODEL)


def doors() -> dict[str, Door]:
    """All of them, by name."""
    headers = {"header": PartialHeader, "masked_header": MaskedHeader, "task_header": TaskHeader}
    records_ = {"share": Share, "refusal": Refusal}
    wires = (m.Advert, m.Place, m.Deal, m.Delivery, m.Upload, m.Survivors, m.Agreement, m.Certificate, m.Reveal)
    modes = {"reply": "central", "local_reply": "local", "masked_reply": "helper"}
    found = [
        Door("canonical", _canonical, times=96),
        Door("signed", partial(_again, Signed)),
        Door("plan", lambda data: TrainingPlan.from_dict(decode(data, max_bytes=MAX_SIGNED_BYTES)), times=128),
        Door("batch", partial(_again, BatchRequest)),
        Door("task", lambda content: read_task(content, TRUST, "train"), records, times=128),
        Door("pairing", lambda data: PairingMessage.from_bytes(data, "agree")),
        Door("body", _body, _request),
        Door("caller", _caller),
        *(Door(name, partial(_reply, mode), records) for name, mode in modes.items()),
        *(Door(name, partial(_header_of, kind)) for name, kind in headers.items()),
        *(Door(name, partial(_record_of, kind), times=96) for name, kind in records_.items()),
        *(Door(kind.__name__.lower(), partial(_again, kind)) for kind in wires),
        *(Door(f"step_{step}", partial(_step_of, step), records) for step in STEPS),
    ]
    return {door.name: door for door in found}


def records(data: bytes) -> RecordDict:
    """A Flower message's content from its tree {name: [kind, {key: value}]}; Unwritable where Flower has no such."""
    try:
        tree = cbor2.loads(data)
        return RecordDict({name: _record(*record) for name, record in tree.items()})
    except (
        cbor2.CBORError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise Unwritable from error


def _record(kind: str, parts: dict[str, Any]) -> Any:
    if kind == "array":
        return ArrayRecord({key: Array(a[0], tuple(a[1]), a[2], a[3]) for key, a in parts.items()})
    return _KINDS[kind](parts)


def _reply(mode: str, content: RecordDict) -> object:
    return read(take_apart(content, open_sum(mode)), open_sum(mode))


def _canonical(data: bytes) -> None:
    if encode(decode(data)) != data:
        raise AssertionError("decoded to something else")


def _header_of(kind: Any, data: bytes) -> object:
    return kind.from_dict(flat_map(data, MAX_HEADER_BYTES))


def _record_of(kind: Any, data: bytes) -> object:
    return kind.from_dict(decode(data, max_bytes=MAX_SIGNED_BYTES))


def _again(kind: Any, data: bytes) -> None:
    if kind.from_bytes(data).to_bytes() != data:
        raise AssertionError("read and written again, it is another message")


def _step_of(step: str, content: RecordDict) -> None:
    mail = read_mail(content, {0, 1}, OpenStep(step, PLACE, 2, NEIGHBOURS, 3))
    if mail.refused:
        raise ContractError(mail.refused[0])


def _caller(data: bytes) -> str:
    return named_body(data.decode("latin-1"), HELPER.public_bytes, COORDINATOR.public_bytes)


@dataclass(frozen=True)
class _Request:
    headers: dict[str, str]
    chunks: list[bytes]

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


def _request(data: bytes) -> _Request:
    try:
        announced, chunks = cbor2.loads(data)
        text = "" if announced is None else str(announced).encode("latin-1").decode("latin-1")
        return _Request({"content-length": text}, [bytes(chunk) for chunk in chunks if isinstance(chunk, bytes)])
    except (cbor2.CBORError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise Unwritable from error


def _body(request: Any) -> None:
    if len(asyncio.run(body(request, BODY_LIMIT))) > BODY_LIMIT:
        raise AssertionError("a body over its limit was read")
