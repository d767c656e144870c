"""A Flower Grid of phones that are late, lost, doubled or hostile: real messages on a virtual clock (spec 7.13).

Node 2 + i carries phone i. What the phones do is an `Attendance`'s to say; what becomes of their messages is decided by
the real Strategy and coordinator, which poll this grid under its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from model.canonical import decode, encode
from simulation.attendance import DROPPED, OFFLINE, REFUSED, Attendance, Roll
from simulation.availability import opening
from simulation.faults import trick
from simulation.grid import SERVER_NODE_ID, InProcessGrid, identity

HOUR = 3600.0
PART = "pairing"  # the record of a step of pairwise masking


@dataclass
class VirtualClock:
    """Seconds that pass only when someone sleeps; a sleeper wakes at the next thing due, however soon or late that is.

    `due` holds the moments at which something happens: an answer comes in, a round is over.
    """

    now: float = 0.0
    due: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        """The virtual second."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time until the next thing due pass; `seconds` where nothing is."""
        coming = [moment for moment in self.due if moment > self.now]
        self.now = min(coming, default=self.now + seconds)
        self.due = [moment for moment in coming if moment > self.now]


@dataclass(frozen=True)
class Field:
    """Phones of a field run: ids and handsets (P,), who attends, and the hours a round waits for them."""

    ids: NDArray[np.uint64]
    tiers: NDArray[np.int8]
    attendance: Attendance
    deadline: float
    seed: int = 0


class FieldGrid(InProcessGrid):
    """An `InProcessGrid` on which a reply exists only once its time has come.

    Offline phones never see a message; dropped ones work and their reply is lost; the others' replies arrive when the
    attendance says, twice where it says so, and a hostile phone's is spoilt on the way out.
    """

    def __init__(self, client_app: ClientApp, node_configs: Sequence[Mapping[str, Any]], phones: Field) -> None:
        super().__init__(client_app, node_configs, lose=self._offline)
        self.clock = VirtualClock()
        self._phones = phones
        self._roll: Roll | None = None
        self._opened, self._round = 0.0, 0
        self._arriving: dict[str, list[tuple[float, Message]]] = {}

    @property
    def seconds(self) -> float:
        """How long a round stays open."""
        return HOUR * self._phones.deadline

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Open the messages' round at its virtual hour, call the roll, and put each reply on its way."""
        batch = list(messages)
        if batch:
            self._round, phones = int(batch[0].metadata.group_id), self._phones
            self._opened = max(self.clock.now, HOUR * opening(self._round, phones.deadline))
            self.clock.now, self.clock.due = self._opened, [self._opened + self.seconds]
            self._roll = phones.attendance.roll(phones.ids, phones.tiers, self._round)
        return [self._send(message) for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have arrived by now; each is handed out once."""
        found: list[Message] = []
        for message_id in list(message_ids):
            waiting = self._arriving.pop(message_id, [])
            found += [reply for moment, reply in waiting if moment <= self.clock.now]
            if late := [each for each in waiting if each[0] > self.clock.now]:
                self._arriving[message_id] = late
        return found

    def _send(self, message: Message) -> str:
        message_id = self._push(message)
        node_id = message.metadata.dst_node_id
        reply, roll, phone = self._replies.pop(message_id, None), self._roll, node_id - SERVER_NODE_ID - 1
        if reply is None or roll is None or roll.fate[phone] == DROPPED or not np.isfinite(roll.answer[phone]):
            return message_id
        if roll.fate[phone] == REFUSED and reply.has_content():
            played = trick(int(self._phones.ids[phone]), self._phones.seed, self._round)
            spoil = _cut if PART in reply.content.config_records else SPOIL[played]
            reply = _again(message, spoil(reply.content), node_id)
        moment = self._opened + HOUR * float(roll.answer[phone])
        self.clock.due.append(moment)
        twice = roll.twice[phone] and reply.has_content()
        copies = [reply, _again(message, reply.content, node_id)] if twice else [reply]
        self._arriving[message_id] = [(moment, copy) for copy in copies]
        return message_id

    def _offline(self, node_id: int, message: Message) -> bool:
        return self._roll is not None and bool(self._roll.fate[node_id - SERVER_NODE_ID - 1] == OFFLINE)


def _again(message: Message, content: RecordDict, node_id: int) -> Message:
    with identity(node_id):
        return Message(RecordDict(dict(content)), reply_to=message)


def _vector(content: RecordDict) -> NDArray[Any]:
    return content.array_records["sum"]["sum"].numpy()


def _with(content: RecordDict, vector: NDArray[Any]) -> RecordDict:
    return RecordDict({**dict(content), "sum": ArrayRecord({"sum": Array(vector)})})


def _cut(content: RecordDict) -> RecordDict:
    """A step's messages without their last bytes: what follows the contract nowhere."""
    parts = dict(content.config_records[PART])
    messages = parts["messages"]
    cut = [data[:-1] for data in messages if isinstance(data, bytes)] if isinstance(messages, list) else []
    return RecordDict({PART: ConfigRecord({**parts, "messages": cut})})


def _other_round(content: RecordDict) -> RecordDict:
    """The same answer under the header of the round after."""
    ((name, parts),) = content.config_records.items()  # "partial", or "masked" in mode helper
    data = parts["header"]
    header = decode(data if isinstance(data, bytes) else b"", max_bytes=4096)
    other = encode({**header, "round": header["round"] + 1})
    return RecordDict({**dict(content), name: ConfigRecord({**dict(parts), "header": other})})


SPOIL: dict[str, Callable[[RecordDict], RecordDict]] = {
    "nan": lambda content: _with(content, np.full(len(_vector(content)), np.nan)),
    "length": lambda content: _with(content, _vector(content)[:-1]),
    "beyond": lambda content: _with(content, np.full(len(_vector(content)), 1 << 40, dtype=np.int64)),
    "stale": _other_round,
}
"""What each of `faults.TRICKS` makes of an honest answer."""
