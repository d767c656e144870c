"""The same door for the steps of pairwise masking: one message a reply, of one schema, within the plan's size (13.14).

The state machines of model/secagg read such bytes again; nothing reaches them that was not read here first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flwr.app import RecordDict

from fl_server.ingress import has_only, only_bytes
from model.contract.promise import Neighbours
from model.errors import ContractError
from model.secagg.messages import BOX, CHECKS, COMMITMENT, HASH, TAG, Advert, Agreement, Deal, Reveal, Upload, Wire
from model.secagg.shares import SHARE

STEPS: Final[dict[str, type[Wire]]] = {
    "advertise": Advert,
    "share": Deal,
    "upload": Upload,
    "agree": Agreement,
    "unmask": Reveal,
}
_HEADS = 256  # schema, names of parts and their lengths


@dataclass(frozen=True)
class Said:
    """What a phone said in one step: the message, and the bytes it came in, which the state machine takes."""

    step: str
    message: Wire
    data: bytes


def most_bytes(step: str, neighbours: Neighbours, dim: int) -> int:
    """Most bytes that a phone with so many neighbours says in a step of a sum of `dim` numbers."""
    degree = neighbours.degree
    flags = degree // 8 + 1
    sizes = {
        "advertise": Advert.MAX - _HEADS,
        "share": degree * (BOX + COMMITMENT) + HASH,
        "upload": 4 * (dim + CHECKS) + degree * TAG + flags,
        "agree": 64 + degree * TAG,
        "unmask": degree * SHARE + flags,
    }
    return sizes[step] + _HEADS


def read_step(content: RecordDict, step: str, neighbours: Neighbours, dim: int) -> Said:
    """The one message of a reply in this step. ContractError for any other record, key, schema, form or size."""
    if not has_only(content, {step: {"message"}}, {}):
        raise ContractError(f"a reply to {step} has other parts than its message; use the same release on both sides")
    most = most_bytes(step, neighbours, dim)
    data = only_bytes(content.config_records[step]["message"], "message", most)
    return Said(step, STEPS[step].from_bytes(data, most), data)
