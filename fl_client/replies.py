"""An answer on its way into a Flower message, in the form its plan's privacy mode asks for (spec 7.9, 13.5)."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl_client.answers import answer_size
from fl_client.egress import Egress
from fl_client.local import own_noise
from fl_client.phones import Partial, Phones, Task
from fl_client.repeat import Kept
from fl_client.update import Sealed, seal_sum
from model.contract.masked import MASKED_SCHEMA, MaskedHeader
from model.contract.update import PARTIAL_SCHEMA, PartialHeader, check_vector
from model.errors import UpdateError
from model.privacy.noise import ByteSource
from model.secagg.context import Context
from model.secagg.room import MASKED


def reply_of(phones: Phones, task: Task, door: Egress, entropy: ByteSource, kept: Kept | None = None) -> RecordDict:
    """What these phones answer; where `kept` holds the masked answer given before, that one again."""
    before = kept.find(task) if kept else None
    if before is not None:
        return write_masked(task, before, door)
    return write_reply(task, phones.partial(task), door, entropy, kept)


def write_reply(
    task: Task, partial: Partial, door: Egress, entropy: ByteSource, kept: Kept | None = None
) -> RecordDict:
    """The reply in the form that the plan's privacy mode asks for, out through `door`; a masked one is `kept` first."""
    plan = task.plan
    if plan.privacy.mode == "helper":
        sealed = _sealed(task, partial, entropy)
        if kept is not None:
            kept.keep(task, sealed)
        return write_masked(task, sealed, door)
    if plan.privacy.mode == "local":
        dim = answer_size(task)
        noise = own_noise(plan, task.kind, partial.phones, dim, entropy)
        partial = Partial(partial.phones, check_vector(partial.sum, dim, float("inf")) + noise)
    return write_partial(task, partial, door)


def write_masked(task: Task, sealed: Sealed, door: Egress) -> RecordDict:
    """A masked reply: header and sealed seeds, and one vector of 32-bit residues."""
    place, phones = sealed.context, sealed.phones
    head = MaskedHeader(
        MASKED_SCHEMA, place.plan_digest, place.round, place.kind, phones, place.dim, place.model_digest
    )
    header, body, seeds = door.masked(head.to_dict(), sealed.vector, sealed.seeds)
    leaving = np.frombuffer(body, dtype="<u4").astype(np.uint32)
    parts = ConfigRecord({"header": header, "seeds": seeds})
    return RecordDict({"masked": parts, "sum": ArrayRecord({"sum": Array(leaving)})})


def _sealed(task: Task, partial: Partial, entropy: ByteSource) -> Sealed:
    _check_count(task, partial)
    dim = answer_size(task)
    place = Context(task.plan.digest, task.kind, task.round, task.model_digest, dim)
    units = check_vector(partial.sum, dim, float("inf"))
    return seal_sum(units, partial.phones, bytes.fromhex(task.plan.privacy.helper_key), place, entropy)


def _check_count(task: Task, partial: Partial) -> None:
    if task.plan.topology == "field" and partial.phones != 1:
        raise UpdateError(f"a field node answers for one phone, not {partial.phones}; run farms under a farm plan")


def write_partial(task: Task, partial: Partial, door: Egress) -> RecordDict:
    """The reply, out through `door`: header and vector. UpdateError where the topology's count is broken or the plan
    masks every answer, EgressError where the egress refuses; nothing leaves then."""
    if task.plan.privacy.mode in MASKED:
        raise UpdateError(f"under a plan of mode {task.plan.privacy.mode} no answer leaves without its mask; seal it")
    _check_count(task, partial)
    dim = answer_size(task)
    vector = check_vector(partial.sum, dim, float("inf"))
    header = PartialHeader(PARTIAL_SCHEMA, task.plan.digest, task.round, task.kind, partial.phones, dim)
    head, body = door.partial(header.to_dict(), np.ascontiguousarray(vector, dtype="<i8").tobytes())
    leaving = np.frombuffer(body, dtype="<i8").astype(np.int64)
    return RecordDict({"partial": ConfigRecord({"header": head}), "sum": ArrayRecord({"sum": Array(leaving)})})
