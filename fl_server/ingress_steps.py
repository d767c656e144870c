"""The same door for the steps of pairwise masking: phones' messages of one step, within the plan's size (13.14.4).

The state machines of model/secagg read a body once more; nothing reaches them that was not read here first.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from fl_server.ingress import one_line, only_bytes
from model.contract.pairing import ENVELOPE, PairingMessage
from model.contract.promise import Neighbours
from model.errors import ContractError
from model.secagg.context import Context
from model.secagg.messages import (
    BOX,
    CHECKS,
    COMMITMENT,
    HASH,
    SIGNATURE,
    TAG,
    Advert,
    Agreement,
    Deal,
    Reveal,
    Upload,
    Wire,
)
from model.secagg.shares import SHARE

PART = "pairing"
STEPS: dict[str, type[Wire]] = {
    "advertise": Advert,
    "share": Deal,
    "upload": Upload,
    "agree": Agreement,
    "unmask": Reveal,
}
_HEADS = 256  # names and lengths of parts within a body


@dataclass(frozen=True)
class OpenStep:
    """The step that is open: of which attempt at which sum, between phones with so many neighbours, of which a node
    has at most `most_phones`."""

    step: str
    place: Context
    attempt: int
    neighbours: Neighbours
    most_phones: int

    @property
    def most_bytes(self) -> int:
        """Most bytes of a body."""
        degree = self.neighbours.degree
        flags = degree // 8 + 1
        sizes = {
            "advertise": 3 * HASH + SIGNATURE,
            "share": degree * (BOX + COMMITMENT) + HASH,
            "upload": 4 * (self.place.dim + CHECKS) + degree * TAG + flags,
            "agree": SIGNATURE + degree * TAG,
            "unmask": degree * SHARE + flags,
        }
        return sizes[self.step] + _HEADS


@dataclass(frozen=True)
class Mail:
    """What a node's phones said, by number: bodies that follow their schema, and why others were left out."""

    bodies: dict[int, bytes]
    refused: tuple[str, ...]


def read_mail(content: RecordDict, asked: Container[int], open_step: OpenStep) -> Mail:
    """The messages of a node's reply from the phones `asked`; a message that is none costs only its phone.

    ContractError for any other record, key or type in the reply as a whole (cases 8, 11, 14).
    """
    bodies: dict[int, bytes] = {}
    refused: list[str] = []
    for number, data in _pairs(content, open_step.most_phones):
        try:
            bodies[number] = read_body(number, data, asked, open_step)
        except ContractError as error:
            refused.append(one_line(error))
    return Mail(bodies, tuple(refused))


def read_body(number: int, data: object, asked: Container[int], open_step: OpenStep) -> bytes:
    """One phone's body of this step. ContractError for another place, phone, schema, form or size."""
    step, place, most = open_step.step, open_step.place, open_step.most_bytes
    if not 0 <= number < open_step.most_phones or number not in asked:
        raise ContractError(f"an answer came for a phone that was not asked to {step}; answer for those asked")
    told = PairingMessage.from_bytes(only_bytes(data, "message", most + ENVELOPE), step)
    said = (told.plan_digest, told.kind, told.round, told.attempt, told.step)
    if said != (place.plan_digest, place.kind, place.round, open_step.attempt, step):
        raise ContractError(f"an answer to another step than {step} came; ask again in the next attempt")
    STEPS[step].from_bytes(told.body, most)
    return told.body


def _pairs(content: RecordDict, most: int) -> list[tuple[int, object]]:
    parts = content.config_records.get(PART, ConfigRecord()) if len(content) == 1 else ConfigRecord()
    if len(parts) != 3 or set(parts) != {"attempt", "phones", "messages"}:
        raise ContractError("a reply has other parts than spec 13.15 names; use the same release on both sides")
    phones, messages = parts["phones"], parts["messages"]
    if not isinstance(phones, list) or not isinstance(messages, list) or not len(phones) == len(messages) <= most:
        raise ContractError(f"a reply's phones and messages are lists of one length, at most {most}; send those asked")
    numbers = [number for number in phones if type(number) is int]
    if len(set(numbers)) != len(phones):
        raise ContractError("a reply names a phone twice, or by no number; neither of its answers is counted")
    return list(zip(numbers, messages, strict=True))
