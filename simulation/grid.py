"""A Flower Grid without processes or sockets: the same ServerApp and ClientApp, called in turn (spec 7.9)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from model.errors import PocketScoreError, RunError

RUN_ID = 1
SERVER_NODE_ID = 1
CLIENT_RAISED = 0  # flwr's ErrorCode.UNKNOWN; the node's sentence travels as the reason


class InProcessGrid(Grid):
    """Nodes 2, 3, … each hold a Context of their own; a message is answered when it is pushed.

    `node_configs` has one mapping a node (what `--node-config` would carry). A ClientApp's refusal (one of our
    errors) becomes an error reply, as it would on a SuperLink; a bug escapes to the caller. `lose` lets a test
    drop a message: called with (node_id, message), True means no reply ever comes.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Any]],
        *,
        run_config: Mapping[str, Any] | None = None,
        lose: Callable[[int, Message], bool] = lambda node_id, message: False,
    ) -> None:
        self._client_app = client_app
        self._lose = lose
        self._contexts = {
            node_id: Context(RUN_ID, node_id, dict(config), RecordDict(), dict(run_config or {}))
            for node_id, config in enumerate(node_configs, start=SERVER_NODE_ID + 1)
        }
        self._replies: dict[str, Message] = {}
        self._run: Any = None

    def set_run(self, run: Any) -> None:
        """Set the run this grid operates in."""
        self._run = run

    @property
    def run(self) -> Any:
        """Run information, as set."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server; kept for ServerApps that still create messages through the grid."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Node ids, ascending."""
        return sorted(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer each message at once; returns message ids in order."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that exist to these messages; each is handed out once."""
        found = [self._replies.pop(message_id, None) for message_id in list(message_ids)]
        return [reply for reply in found if reply is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull; `timeout` never passes, since nodes answer while they are pushed to."""
        return self.pull_messages(self.push_messages(messages))

    def _push(self, message: Message) -> str:
        message_id = uuid.uuid4().hex
        _set_message_id(message, message_id)
        node_id = message.metadata.dst_node_id
        if node_id in self._contexts and not self._lose(node_id, message):
            reply = self._answer(message, self._contexts[node_id])
            _set_message_id(reply, uuid.uuid4().hex)
            self._replies[message_id] = reply
        return message_id

    def _answer(self, message: Message, context: Context) -> Message:
        # The ClientApp's mods may change a message in place, so each node gets records of its own.
        arriving = Message(RecordDict(dict(message.content)), reply_to=message)
        arriving.__dict__["_metadata"] = message.metadata
        with identity(context.node_id):
            try:
                return self._client_app(arriving, context)
            except PocketScoreError as error:
                return Message(Error(CLIENT_RAISED, f"{type(error).__name__}: {error}"), reply_to=message)


def run_in_process(server_app: ServerApp, grid: Grid, run_config: Mapping[str, Any] | None = None) -> None:
    """Call a ServerApp on a grid as Flower's own runner would."""
    with identity(SERVER_NODE_ID):
        server_app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), dict(run_config or {})))


@contextmanager
def identity(node_id: int) -> Iterator[None]:
    """Who this process speaks as while messages are made. Flower keeps that in a private class (1.41, 1.42)."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError as error:
        raise RunError("this Flower release has no in-process identity; install flwr 1.41 or 1.42") from error
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, node_id
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


def _set_message_id(message: Message, message_id: str) -> None:
    # The id is the SuperLink's to set; a Message has no setter for it.
    message.metadata.__dict__["_message_id"] = message_id
