"""A good input for every door, the same bytes each time: the files seeds/*/good.bin."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array

from model.canonical import encode
from model.contract.caller import caller_header
from model.contract.envelope import sign
from model.contract.masked import BATCH_SCHEMA, MASKED_SCHEMA, SEED_BYTES, BatchRequest, MaskedHeader, Refusal, Share
from model.contract.pairing import PAIRING_SCHEMA, STEPS, PairingMessage
from model.contract.plan import DOMAIN
from model.contract.update import PARTIAL_SCHEMA, TASK_SCHEMA, PartialHeader, TaskHeader
from model.risk.knots import Knots
from model.secagg import messages as m
from model.secagg.shares import SHARE

from .doors import COORDINATOR, DIM, HELPER, MODEL, NEIGHBOURS, PLACE, REVIEWER, plan

DEGREE = NEIGHBOURS.degree
_FLAGS = bytes(DEGREE // 8 + 1)


def good() -> dict[str, bytes]:
    """By door."""
    signed, central, helped = (
        sign(DOMAIN, plan().to_dict(), [COORDINATOR, REVIEWER]),
        plan().digest,
        plan("helper").digest,
    )
    partial = PartialHeader(PARTIAL_SCHEMA, central, 1, "train", 3, DIM)
    local = PartialHeader(PARTIAL_SCHEMA, plan("local").digest, 1, "train", 3, DIM)
    masked = MaskedHeader(MASKED_SCHEMA, helped, 1, "train", 2, DIM, MODEL)
    seeds = bytes(range(SEED_BYTES)) + bytes(SEED_BYTES)
    task = TaskHeader(TASK_SCHEMA, central, 0, "knots")
    batch = BatchRequest(BATCH_SCHEMA, signed.to_bytes(), 1, "train", MODEL, DIM, seeds).to_bytes()
    steps = _steps()
    return {
        "canonical": encode({"list": [1, -2, 1.5, None, True, b"\1"], "map": {"a": {"b": ["text", "é"]}}}),
        "signed": signed.to_bytes(),
        "plan": signed.payload,
        "batch": batch,
        "header": encode(partial.to_dict()),
        "masked_header": encode(masked.to_dict()),
        "task_header": encode(task.to_dict()),
        "share": encode(Share(helped, 1, "train", MODEL, DIM, "cd" * 32, 2, 3.0, 40, bytes(4 * DIM)).to_dict()),
        "refusal": encode(
            Refusal(helped, 1, "train", "cd" * 32, "twice", "a message came twice.", 1, ("ef" * 32,)).to_dict()
        ),
        "reply": _reply({"partial": ["config", {"header": encode(partial.to_dict())}]}, "<i8"),
        "local_reply": _reply({"partial": ["config", {"header": encode(local.to_dict())}]}, "<i8"),
        "masked_reply": _reply({"masked": ["config", {"header": encode(masked.to_dict()), "seeds": seeds}]}, "<u4"),
        "task": _task(signed.to_bytes()),
        "body": encode(["300", [bytes(100), bytes(200)]]),
        "caller": caller_header(batch, HELPER.public_bytes, COORDINATOR).encode(),
        **{type(message).__name__.lower(): message.to_bytes() for message in steps.values()},
        **{f"step_{step}": _mail(_enveloped(step, steps[step])) for step in STEPS},
        "pairing": _enveloped("agree", steps["agree"]),
    }


def _steps() -> dict[str, m.Wire]:
    boxes, promised = bytes(DEGREE * m.BOX), bytes(DEGREE * m.COMMITMENT)
    vector, tags = bytes(4 * (DIM + m.CHECKS)), bytes(DEGREE * m.TAG)
    return {
        "advertise": m.Advert(bytes(32), bytes(32), bytes(32), bytes(64)),
        "place": m.Place(40, bytes(32), bytes(64), 7, bytes(DEGREE * m.ENTRY), bytes(5 * m.HASH)),
        "share": m.Deal(boxes, promised, bytes(m.HASH)),
        "deliver": m.Delivery(_FLAGS, boxes, promised),
        "upload": m.Upload(vector, _FLAGS, tags),
        "survivors": m.Survivors(_FLAGS, _FLAGS, tags),
        "agree": m.Agreement(bytes(64), tags),
        "certify": m.Certificate(bytes(64), _FLAGS, tags),
        "unmask": m.Reveal(_FLAGS, bytes(DEGREE * SHARE)),
    }


def _enveloped(step: str, message: m.Wire) -> bytes:
    return PairingMessage(PAIRING_SCHEMA, PLACE.plan_digest, 1, "train", 2, step, message.to_bytes()).to_bytes()


def _mail(message: bytes) -> bytes:
    return encode({"pairing": ["config", {"attempt": 2, "phones": [1], "messages": [message]}]})


def _array(values: Any) -> list[Any]:
    array = Array(values)
    return [array.dtype, list(array.shape), array.stype, array.data]


def _reply(parts: dict[str, Any], dtype: str) -> bytes:
    return encode({**parts, "sum": ["array", {"sum": _array(np.zeros(DIM, dtype=dtype))}]})


def _task(signed: bytes) -> bytes:
    """Round 1 under the plan."""
    knots = encode(Knots(((-1.0, 0.5, 2.0), (0.0, 1.0)), ((0.25, 0.25, 0.25, 0.25), (0.5, 0.25, 0.25))).to_dict())
    header = encode(TaskHeader(TASK_SCHEMA, plan().digest, 1, "train").to_dict())
    parts = {"header": header, "plan": signed, "knots": knots}
    return encode({"task": ["config", parts], "model": ["array", {"flat": _array(np.zeros(DIM, dtype="<f4"))}]})
