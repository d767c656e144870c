"""Our `Strategy`: questions and answers as Flower messages. Translation only, no maths (spec 7.9)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fl_server.cohort import select
from fl_server.coordinator import Answer, Coordinator, Question
from fl_server.ingress import OpenSum, take_apart
from model.errors import ContractError, RoundError

MAX_REASON = 120
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.05, 1.0
MESSAGE_TYPES = {"knots": "query.knots", "train": "train", "calibrate": "query.calibrate", "evaluate": "query.evaluate"}


class Clock(Protocol):
    """What tells the time and lets it pass: the `time` module, or a virtual clock."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Let this much time pass."""
        ...


class FederationStrategy(Strategy):
    """One phase of the coordinator a Flower round. `run` drives every remaining phase; `start` works as well.

    A round closes when all have answered, or `timeout` seconds of `clock` after it opened: who answers later is a
    missing phone. Weights, counts and metrics a client sends are not read: a reply is a header and one integer vector.
    """

    def __init__(self, coordinator: Coordinator, *, timeout: float = 3600.0, clock: Clock = time) -> None:
        self._coordinator, self._timeout, self._clock = coordinator, timeout, clock
        self._question: Question | None = None
        self._sent: list[Message] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Open the next phase and address it to the nodes selected; empty when the run is complete."""
        question = self._question = self._coordinator.open()
        if question is None:
            self._sent = []
            return self._sent
        phase = question.phase
        nodes = select(grid.get_node_ids(), self._coordinator.plan, phase.round, phase.participation)
        kind = MESSAGE_TYPES[phase.kind]
        # A message lives as long as its round is open: a refusal that comes later is dropped with it (13.11).
        self._sent = [
            Message(write_question(question), node, kind, group_id=str(phase.round), ttl=self._timeout)
            for node in nodes
        ]
        return self._sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Close the open phase with the replies that carry an answer; errors and silence are missing phones."""
        if self._question is None:
            return None, None
        # Ids are given when messages are pushed. A lost node's error comes from node 1, so a reply is known by the
        # message it answers, never by its sender.
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in self._sent}
        known = [(nodes[r.metadata.reply_to_message_id], r) for r in replies if r.metadata.reply_to_message_id in nodes]
        answers = [self._answer(node, reply.content) for node, reply in known if reply.has_content()]
        errors = [f"node {node}: {reason(reply)}" for node, reply in known if reply.has_error()]
        release = self._coordinator.close(self._question, list(nodes.values()), answers, errors)
        self._question = None
        return None, MetricRecord({"phones": release.phones, "asked": release.asked, "replied": release.replied})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: evaluation is one charged phase of its own, not a part of each round."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """None; see `configure_evaluate`."""
        return None

    def summary(self) -> None:
        """Nothing to log: the plan says it all and is signed."""

    def run(self, grid: Grid) -> Result:
        """Every remaining phase, in order."""
        result, round_, empty = Result(), 0, ArrayRecord()
        while True:
            round_ += 1
            messages = list(self.configure_train(round_, empty, ConfigRecord(), grid))
            if self._question is None:
                return result
            replies = self._exchange(grid, messages)
            _, metrics = self.aggregate_train(round_, replies)
            if metrics is not None:
                result.train_metrics_clientapp[round_] = metrics

    def _answer(self, node: int, content: RecordDict) -> Answer:
        """A reply's bytes, or why there are none: the coordinator names both in the release."""
        if self._question is None:
            raise RoundError("an answer came while no round is open; open one first")
        phase, coordinator = self._question.phase, self._coordinator
        place = OpenSum(coordinator.plan, phase, coordinator.dimension(phase), self._question.model_digest)
        try:
            parts = take_apart(content, place)
        except ContractError as error:
            return Answer(node, b"", b"", refusal=str(error))
        return Answer(node, parts.header, parts.vector, parts.seeds)

    def _exchange(self, grid: Grid, messages: Sequence[Message]) -> list[Message]:
        """Push, then poll until all have answered or the time is up.

        Grid.send_and_receive sleeps three seconds between polls; a round of phones that answer at once need not.
        """
        waiting = {identifier for identifier in grid.push_messages(messages) if identifier} if messages else set()
        replies, end = list[Message](), self._clock.monotonic() + self._timeout
        pause = FIRST_POLL_SECONDS
        while waiting:
            arrived = list(grid.pull_messages(sorted(waiting)))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if not waiting or self._clock.monotonic() >= end:
                break
            if not arrived:
                self._clock.sleep(pause)
                pause = min(2 * pause, LAST_POLL_SECONDS)
        return replies


def reason(reply: Message) -> str:
    """One short printable line of whatever a node wrote as its error."""
    return "".join(c if c.isprintable() else " " for c in reply.error.reason or "no reason")[:MAX_REASON]


def write_question(question: Question) -> RecordDict:
    """The records of a task message: header, signed plan and knots as bytes; one flat float32 array."""
    return RecordDict(
        {
            "task": ConfigRecord({"header": question.header, "plan": question.plan, "knots": question.knots}),
            "model": ArrayRecord({"flat": Array(question.flat)}),
        }
    )
