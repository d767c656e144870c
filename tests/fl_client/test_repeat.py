"""A phone that is asked twice says the same twice, so no server can count it twice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.egress import MemoryEgress
from fl_client.phones import Partial, Task
from fl_client.repeat import Kept
from fl_client.replies import reply_of
from fl_client.store import SqliteStore
from model.contract.masked import split_seeds
from model.contract.sealed import RecipientKey
from model.errors import UpdateError
from model.privacy.noise import OsSource
from model.secagg.context import Context
from model.secagg.two_server import add, open_seeds, unshield
from simulation.small import small_dataset, small_plan

KEY = RecipientKey.from_private_bytes(bytes([7]) * 32)
DIM = 24
PLAN = small_plan(small_dataset(100, seed=1), rounds=2)
PLAN = replace(PLAN, privacy=replace(PLAN.privacy, mode="helper", helper_key=KEY.public_bytes.hex()))
TASK = Task("train", 1, PLAN, None, np.zeros(DIM, np.float32), "cd" * 32)
UNITS = np.arange(DIM) - 7


@dataclass
class Once:
    """A phone whose data may be looked at once only."""

    asked: list[Task] = field(default_factory=list)

    def partial(self, task: Task) -> Partial:
        if self.asked:
            raise UpdateError("this phone was trained twice")
        self.asked.append(task)
        return Partial(1, UNITS)


def parts(reply: object) -> tuple[bytes, bytes, bytes]:
    found = reply.config_records["masked"]  # type: ignore[attr-defined]
    return found["header"], found["seeds"], reply.array_records["sum"]["sum"].data  # type: ignore[attr-defined]


def test_asked_again_it_sends_the_same_bytes_also_after_a_restart(tmp_path: Path) -> None:
    path, phone, door = tmp_path / "store.sqlite", Once(), MemoryEgress(0)
    store = SqliteStore(path, b"r" * 32)
    first = parts(reply_of(phone, TASK, door, OsSource(), Kept(store)))
    assert parts(reply_of(phone, TASK, door, OsSource(), Kept(store))) == first
    store.close()
    assert parts(reply_of(phone, TASK, door, OsSource(), Kept(SqliteStore(path, b"r" * 32)))) == first
    assert len(phone.asked) == 1 and len(door.lines()) == 3  # every departure stands in the ledger


def test_another_question_is_answered_anew() -> None:
    kept = Kept(SqliteStore(":memory:", b"r" * 32))
    first = parts(reply_of(Once(), TASK, MemoryEgress(0), OsSource(), kept))
    for other in (replace(TASK, round=2), replace(TASK, model_digest="ef" * 32)):
        assert kept.find(other) is None
        assert parts(reply_of(Once(), other, MemoryEgress(0), OsSource(), kept))[1] != first[1]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_server_that_asks_twice_counts_one_message_and_without_keeping_two(keeps: bool) -> None:
    kept = Kept(SqliteStore(":memory:", b"r" * 32)) if keeps else None
    replies = [reply_of(Once(), TASK, MemoryEgress(0), OsSource(), kept) for _ in range(2)]
    messages = dict.fromkeys(
        (split_seeds(parts(reply)[1])[0], reply.array_records["sum"]["sum"].numpy().tobytes()) for reply in replies
    )
    context = Context(PLAN.digest, "train", 1, "cd" * 32, DIM)
    masks = open_seeds([seed for seed, _ in messages], KEY, context)
    total = unshield(add([np.frombuffer(vector, "<u4") for _, vector in messages], DIM), masks)
    np.testing.assert_array_equal(total, UNITS * (1 if keeps else 2))
