"""Joining a round: consent and ledger before data, and refusals that nobody can tell from absence (spec 13.11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_client.app import Trust, make_client_app, make_phone_app
from fl_client.consent import TrainingConsent
from fl_client.egress import MemoryEgress
from fl_client.joining import CRASHED, GRACE, LONGEST, WORDS, silent
from fl_client.ledger import Ledger
from fl_client.phones import Phone
from fl_client.single import OnePhone
from fl_client.store import SqliteStore
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Coordinator
from fl_server.rounds import Release
from fl_server.strategy import FederationStrategy
from model.contract.envelope import SigningKey, sign
from model.contract.plan import DOMAIN, TrainingPlan
from model.errors import ConsentError
from simulation.grid import InProcessGrid, identity, run_in_process
from simulation.small import small_dataset, small_plan

DATA = small_dataset(120, seed=1)
PLAN = small_plan(DATA, rounds=2)
KEYS = [SigningKey.generate(), SigningKey.generate()]
TRUST = Trust({key.keyid: key.public_bytes for key in KEYS}, tuple(key.keyid for key in KEYS))
TTL = 100.0


class FakeClock:
    """Time that passes only in `sleep`."""

    def __init__(self, now: float = 1e9) -> None:
        self.now, self.slept = now, list[float]()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds


def ask(mod_of: Callable[[Message, Context], Message], clock: FakeClock, ttl: float = TTL) -> Message:
    """One message through the mod at the clock's now."""
    with identity(2):
        message = Message(RecordDict(), 2, "train", ttl=ttl)
        message.metadata.__dict__["_created_at"] = clock.now
        return silent(clock)(message, Context(1, 2, {}, RecordDict(), {}), mod_of)


def answers(message: Message, context: Context) -> Message:
    return Message(RecordDict({"ok": ConfigRecord({"a": 1})}), reply_to=message)


def test_an_answer_in_time_passes_at_once() -> None:
    clock = FakeClock()
    assert ask(answers, clock).has_content() and clock.slept == []


def refuses(error: Exception) -> Callable[[Message, Context], Message]:
    def call(message: Message, context: Context) -> Message:
        raise error

    return call


def is_late(clock: FakeClock) -> Callable[[Message, Context], Message]:
    def call(message: Message, context: Context) -> Message:
        clock.now += 2 * TTL
        return answers(message, context)

    return call


def test_refusing_failing_and_being_late_are_one_answer_after_the_message_has_expired() -> None:
    replies, clocks = [], [FakeClock() for _ in range(3)]
    replies.append(ask(refuses(ConsentError("this person said no")), clocks[0]))
    replies.append(ask(refuses(ZeroDivisionError("row 17 of this person is empty")), clocks[1]))
    replies.append(ask(is_late(clocks[2]), clocks[2]))
    assert {(r.error.code, r.error.reason) for r in replies} == {(CRASHED, WORDS)}
    assert all(clock.now >= 1e9 + TTL + GRACE / 2 for clock in clocks) and clocks[0].now == clocks[1].now
    assert not any(r.has_content() for r in replies)


def test_no_message_holds_a_node_for_ever() -> None:
    clock = FakeClock()
    ask(refuses(ConsentError("no")), clock, ttl=1e12)
    assert clock.slept == [LONGEST + GRACE]


class SuperLinkLike(InProcessGrid):
    """Drops what comes after its message has expired, as a SuperLink does; `offline` nodes never see a message."""

    def __init__(self, app: ClientApp, clock: FakeClock, nodes: int, offline: set[int]) -> None:
        configs = [{"partition-id": index} for index in range(nodes)]
        super().__init__(app, configs, lose=lambda node, message: node - 2 in offline)
        self._clock = clock

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = []
        for message in messages:
            self._clock.now = message.metadata.created_at
            sent.append(self._push(message))
            if self._clock.now >= message.metadata.created_at + message.metadata.ttl:
                self._replies.pop(sent[-1], None)
        return sent


def phone_of(index: int) -> Phone:
    return Phone(DATA.x[index : index + 1], DATA.y[index : index + 1], index)


def silent_app(clock: FakeClock, capped: set[int], withdrawn: set[int]) -> ClientApp:
    """Every node's phone agrees and has room, but those named."""

    def ledger(context: Context) -> Ledger:
        index = int(context.node_config["partition-id"])
        return Ledger(SqliteStore(":memory:", b"r" * 32), yearly_rho=1e-9 if index in capped else 1e9)

    def phone(context: Context) -> Phone:
        index = int(context.node_config["partition-id"])
        if index in withdrawn:
            raise ConsentError("consent was withdrawn")
        return phone_of(index)

    return make_phone_app(
        phone, lambda c: TRUST, lambda c: MemoryEgress(0), ledger=ledger, agrees=lambda plan, now: None, clock=clock
    )


def first_release(folder: Path, app: ClientApp, clock: FakeClock, offline: set[int]) -> Release:
    """The knots of 40 phones through the real strategy and coordinator."""
    folder.mkdir()
    plan = replace(PLAN, phones=40, holdout_phones=40, privacy=replace(PLAN.privacy, noise_source="test-seeded"))
    signed = sign(DOMAIN, plan.to_dict(), KEYS)
    found: list[Release] = []
    with Budget(folder / "ledger.jsonl", plan) as budget, Checkpoint(folder / "releases", plan.digest) as checkpoint:
        coordinator = Coordinator(signed, plan, budget, checkpoint)
        strategy = FederationStrategy(coordinator, timeout=0.2)
        grid = SuperLinkLike(app, clock, 40, offline)

        def main(grid: Any, context: Context) -> None:
            messages = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))
            strategy.aggregate_train(1, strategy._exchange(grid, messages))
            found.append(coordinator.releases[0])

        from fl_server.app import make_server_app

        run_in_process(make_server_app(main), grid)
    return found[0]


def seen(release: Release) -> tuple[object, ...]:
    kept = (release.kind, release.round, release.phones, release.asked, release.replied, release.refused)
    return (*kept, release.noised.tobytes())


def test_two_refusals_and_an_absent_phone_leave_the_coordinator_the_same_release(tmp_path: Path) -> None:
    releases = []
    for name, capped, withdrawn, offline in (
        ("cap", {7}, set(), set()),
        ("no", set(), {7}, set()),
        ("off", set(), set(), {7}),
    ):
        clock = FakeClock()
        releases.append(first_release(tmp_path / name, silent_app(clock, capped, withdrawn), clock, offline))
    assert seen(releases[0]) == seen(releases[1]) == seen(releases[2])
    assert (releases[0].asked, releases[0].replied, releases[0].refused) == (40, 39, ())


def test_control_an_app_that_tells_is_found_out(tmp_path: Path) -> None:
    def load(context: Context) -> OnePhone:
        index = int(context.node_config["partition-id"])
        if index == 7:
            raise ConsentError("consent was withdrawn")
        return OnePhone(phone_of(index))

    telling = make_client_app(load, lambda c: TRUST)
    clock = FakeClock()
    told = first_release(tmp_path / "told", telling, clock, set())
    absent = first_release(tmp_path / "absent", telling, clock, {7})
    assert told.refused == ("node 9: ConsentError",) and seen(told) != seen(absent)


def task_of(plan: TrainingPlan, round_: int = 0) -> Any:
    from fl_client.phones import Task

    return Task("knots", round_, plan, None, np.zeros(0, np.float32), "m" * 64)


def test_consent_comes_first_then_the_ledger_then_the_data() -> None:
    from fl_client.joining import Joining

    store = SqliteStore(":memory:", b"r" * 32)
    consent, ledger, clock = TrainingConsent(store), Ledger(store, 1e9), FakeClock()
    looked: list[int] = []

    class Watched(OnePhone):
        def partial(self, task: Any) -> Any:
            looked.append(len(ledger.spends()))
            return super().partial(task)

    joining = Joining(Watched(phone_of(1)), "train", ledger, consent.require, clock)
    with pytest.raises(ConsentError, match="give it first"):
        joining.partial(task_of(PLAN))
    assert looked == [] and ledger.spends() == []
    consent.give(PLAN.purpose, PLAN.policy_pack, int(clock.now))
    joining.partial(task_of(PLAN))
    assert looked == [1] and ledger.spends()[0].question == "m" * 64
    consent.withdraw(PLAN.purpose, int(clock.now))
    with pytest.raises(ConsentError, match="withdrawn"):
        joining.partial(task_of(PLAN))


def test_a_superlink_drops_the_late_reply_by_its_own_rule() -> None:
    """Flower's own validator; the control is the same error in time, which it takes."""
    from flwr.server.utils.validator import validate_message

    found = []
    for age in (1000.0, 0.0):
        with identity(1):
            message = Message(RecordDict(), 2, "train", ttl=TTL)
            message.metadata.__dict__["_message_id"] = "asked"
            message.metadata.__dict__["_created_at"] -= age
        with identity(2):
            clock = FakeClock(message.metadata.created_at + 1)
            reply = silent(clock)(message, Context(1, 2, {}, RecordDict(), {}), refuses(ConsentError("no")))
        reply.metadata.__dict__["_message_id"] = "replied"
        found.append(validate_message(reply, is_reply_message=True))
    assert "Message TTL has expired" in found[0] and found[1] == []
