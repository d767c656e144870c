"""One masked answer a sum, however often it is asked for (spec 13.4.7).

In mode helper a message counts by its sealed seed. A phone that made a second one, under another mask, would be counted
twice if a server asked twice: its update would weigh double against the same noise. So what a phone sent is kept, and
asked again it sends the same bytes, which the helper takes once.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_client.phones import Task
from fl_client.store import PhoneStore
from fl_client.update import Sealed, sealed_again
from model.secagg.context import Context


@dataclass(frozen=True)
class Kept:
    """The masked answers of one phone, in its encrypted store."""

    store: PhoneStore

    def find(self, task: Task) -> Sealed | None:
        """What this phone sent in answer to this very question, if it did."""
        entries = self.store.entries(_table(task))
        if not entries:
            return None
        last = entries[-1]
        place = Context(task.plan.digest, task.kind, task.round, task.model_digest, last["dim"])
        return sealed_again(1, last["vector"], last["seeds"], place)

    def keep(self, task: Task, sealed: Sealed) -> None:
        """Durable when this returns: call it before a byte of the answer leaves."""
        entry = {"dim": sealed.context.dim, "vector": sealed.vector, "seeds": sealed.seeds}
        self.store.append(_table(task), entry)


def _table(task: Task) -> str:
    return f"sent/{task.plan.digest}/{task.kind}/{task.round}/{task.model_digest}"
