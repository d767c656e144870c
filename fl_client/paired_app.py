"""The five steps of pairwise masking as Flower queries: what a step's message must look like, and its reply (13.15)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_client.pairing import Drawer, Node
from fl_client.phones import Task
from model.canonical import decode
from model.contract.pairing import MAX_ATTEMPT, STEPS
from model.contract.update import TaskHeader
from model.errors import ContractError, PocketScoreError
from model.secagg.pairwise_phone import PairwisePhone

PART = "pairing"
MAX_HEADER_BYTES = 4096
REFUSED = 0  # Flower's code for an unspecified error
_KEYS = {"attempt", "phones", "messages"}
log = logging.getLogger("pocketscore.node")
Live = dict[int, dict[bytes, list[PairwisePhone]]]


@dataclass(frozen=True)
class StateDrawer(Drawer):
    """A drawer in the node's Flower context, which stays on the node: for farms of simulated phones."""

    context: Context

    def get(self) -> bytes:
        """What was put last; empty at first."""
        kept = self.context.state.config_records.get(PART)
        data = kept["kept"] if kept is not None else b""
        return data if isinstance(data, bytes) else b""

    def put(self, data: bytes) -> None:
        """Keep this instead."""
        self.context.state[PART] = ConfigRecord({"kept": data})


def add_steps(
    app: ClientApp,
    read: Callable[[RecordDict, Context, str], Task],
    node: Callable[[Context, dict[bytes, list[PairwisePhone]]], Node],
) -> None:
    """Register a query a step. `read` believes a task of a kind; `node` finds a context's phones, given its memory."""
    live: Live = {}

    def answer(step: str) -> Callable[[Message, Context], Message]:
        def handler(message: Message, context: Context) -> Message:
            try:
                content, attempt, mail = read_step(message.content)
                task = read(content, context, _kind(content))
                own = live.setdefault(context.node_id, {})
                answers = node(context, own).answer(step, task, attempt, mail)
                return Message(write_step(attempt, answers), reply_to=message)
            except PocketScoreError as error:
                log.warning("refused to %s: %s", step, error)
                return Message(Error(REFUSED, type(error).__name__), reply_to=message)

        return handler

    for step in STEPS:
        app.query(step)(answer(step))


def read_step(content: RecordDict) -> tuple[RecordDict, int, dict[int, bytes]]:
    """(the task's records, attempt, messages by phone number) of a step. ContractError for any other form."""
    part = content.config_records.get(PART)
    if part is None or set(part) != _KEYS:
        raise ContractError("a step lacks its attempt, phones or messages; use the same release on both sides")
    rest = RecordDict({name: record for name, record in content.items() if name != PART})
    return rest, *_mail(part)


def write_step(attempt: int, mail: Mapping[int, bytes]) -> RecordDict:
    """The records of a step's messages, by phone number."""
    parts = ConfigRecord({"attempt": attempt, "phones": list(mail), "messages": list(mail.values())})
    return RecordDict({PART: parts})


def _mail(part: Mapping[str, object]) -> tuple[int, dict[int, bytes]]:
    attempt, phones, messages = part["attempt"], part["phones"], part["messages"]
    if type(attempt) is not int or not 0 <= attempt < MAX_ATTEMPT:
        raise ContractError("a step's attempt is a small number; ask again")
    if not isinstance(phones, list) or not isinstance(messages, list) or len(phones) != len(messages):
        raise ContractError("a step's phones and messages are lists of one length; ask again")
    mail: dict[int, bytes] = {}
    for number, data in zip(phones, messages, strict=True):
        if type(number) is not int or not isinstance(data, bytes) or number in mail:
            raise ContractError("a step names each phone once, with the bytes for it; ask again")
        mail[number] = data
    return attempt, mail


def _kind(content: RecordDict) -> str:
    """The kind a task's header states; what else it says is for `read` to judge."""
    task = content.config_records.get("task")
    header = task.get("header") if task is not None else None
    if not isinstance(header, bytes):
        raise ContractError("a step carries no task; use the same release on both sides")
    return TaskHeader.from_dict(decode(header, max_bytes=MAX_HEADER_BYTES)).kind
