"""Whether a phone takes part, charged before it answers; and a refusal that looks like absence (spec 13.11).

Flower gives every message an answer: a node takes one message, waits for its ClientApp's reply, and sends it before it
takes the next. An error reply carries a code and a sentence, an exception its whole text, a crash "ClientApp stopped
responding." So silence is not to be had, and lateness is: what arrives after a message has expired, the SuperLink
drops, and the coordinator's strategy meets the same expired message as for a phone that never answered. Hence a phone
that refuses, fails, or is not done in time waits until the message has expired and then sends one constant error, the
bytes that Flower itself sends for an app that was killed. Nothing in it depends on the reason.

What remains to be seen by whoever runs the SuperLink: that the node was connected, and that its late reply was empty. A
phone whose owner has not agreed at all runs no node.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from numpy.typing import NDArray

from fl_client.ledger import Ledger
from fl_client.pairing import Members
from fl_client.phones import Partial, Phones, Task
from model.contract.plan import TrainingPlan

GRACE = 600.0  # seconds: clocks may differ by ten minutes, and an error that comes early would be seen
LONGEST = 14 * 86_400.0  # seconds: no round waits longer (spec 7.13.2), and no message may hold a node for ever
CRASHED = 8  # flwr's ErrorCode.CLIENT_APP_CRASHED
WORDS = "ClientApp stopped responding."
log = logging.getLogger("pocketscore.node")


class Clock(Protocol):
    """What tells the time and lets it pass: the `time` module, or a test's."""

    def time(self) -> float:
        """Unix seconds."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Let this much time pass."""
        ...


class Single(Phones, Members, Protocol):
    """One phone, whichever way it is asked."""


@dataclass(frozen=True)
class Joining:
    """One phone that asks its owner's consent and its lifetime ledger before it looks at its data.

    `agrees(plan, now)` raises ConsentError where the owner has not agreed. `split` is "train" or "holdout".
    """

    phones: Single
    split: str
    ledger: Ledger
    agrees: Callable[[TrainingPlan, int], None]
    clock: Clock = time

    def partial(self, task: Task) -> Partial:
        """The phone's answer, charged before it is computed. ConsentError, BudgetError or UpdateError otherwise."""
        now = int(self.clock.time())
        self.agrees(task.plan, now)
        self.ledger.admit(task.plan, task.kind, task.round, self.split, now, task.model_digest)
        return self.phones.partial(task)

    def members(self, task: Task) -> NDArray[np.uint64]:
        """The one phone in pairwise masking, if its owner agrees; what it costs is charged where it answers."""
        self.agrees(task.plan, int(self.clock.time()))
        return self.phones.members(task)

    def each(self, task: Task) -> NDArray[np.int64]:
        """`partial`, as (1, d)."""
        return self.partial(task).sum[None, :]


def silent(clock: Clock = time) -> Mod:
    """A Flower mod around a phone's ClientApp: an answer in time passes; whatever else happens looks the same."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = _attempt(message, context, call_next)
        end = message.metadata.created_at + message.metadata.ttl
        if reply is not None and clock.time() < end:
            return reply
        wait = min(end - clock.time(), LONGEST) + GRACE
        if wait > 0:
            clock.sleep(wait)
        return Message(Error(CRASHED, WORDS), reply_to=message)

    return mod


def _attempt(message: Message, context: Context, call_next: ClientAppCallable) -> Message | None:
    """The answer, or None for an error of any kind; the reason stays in the phone's own log."""
    try:
        reply = call_next(message, context)
    except Exception:  # Flower would send a bug's text to the coordinator, and it may speak of the person
        log.exception("a %s task failed", message.metadata.message_type)
        return None
    return reply if reply.has_content() else None
