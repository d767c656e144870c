"""Phones of the field in mode pairwise: secrets in the sealed store, consent and ledger first, refusal like absence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import Context, Message

from fl_client.app import make_phone_app
from fl_client.drawers import TABLE, StoreDrawer
from fl_client.egress import MemoryEgress
from fl_client.ledger import Ledger
from fl_client.pairing import OPENED, Sitting
from fl_client.phones import Phone
from fl_client.store import SqliteStore
from model.contract.plan import TrainingPlan
from model.errors import ConsentError, ContractError
from model.secagg.pairwise_phone import PairwisePhone
from simulation.experiment.paired_bytes import pairing_bytes

MakeScene = Callable[..., Any]
LATE = 4  # a node whose owner has not agreed


class Clock:
    """Time that passes when someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


def in_the_field(scene: Any, unwilling: Iterable[int] = (), yearly: float = 1e9) -> tuple[list[SqliteStore], list[Any]]:
    """Give every node a store of its own, and a new ClientApp for every message: nothing else is remembered."""
    stores = [SqliteStore(":memory:", bytes([i]) * 32) for i in range(scene.nodes)]
    doors, refusing = [MemoryEgress(0) for _ in range(scene.nodes)], set(unwilling)
    clock, trust = Clock(), scene.workspace.trust()

    def number(context: Context) -> int:
        return int(context.node_config["partition-id"])

    def phone(context: Context) -> Phone:
        one: Phone = scene.phones[number(context)].phone
        return one

    def app() -> Any:
        def agrees(plan: TrainingPlan, now: int) -> None:
            if scene.asking in refusing:
                raise ConsentError("this person said no")

        return make_phone_app(
            phone,
            lambda c: trust,
            lambda c: doors[number(c)],
            ledger=lambda c: Ledger(stores[number(c)], yearly_rho=yearly),
            agrees=agrees,
            clock=clock,
        )

    answer = scene.grid._answer

    def fresh(message: Message, context: Context) -> Message:
        clock.now, scene.asking = message.metadata.created_at, context.node_id
        scene.grid._client_app = app()
        reply: Message = answer(message, context)
        if clock.now >= message.metadata.created_at + message.metadata.ttl:
            scene.late.append((message.metadata.message_type, context.node_id))
        return reply

    scene.grid._answer, scene.late = fresh, []
    return stores, doors


def test_a_round_by_processes_that_forget(make_scene: MakeScene) -> None:
    scene = make_scene(33)
    stores, doors = in_the_field(scene)
    (release,) = scene.run()
    assert (release.noised == scene.right(release, range(33))).all() and not scene.late
    sizes = pairing_bytes(scene.plan, release.kind, release.round, release.noised.size, 33)
    for store, door in zip(stores, doors, strict=True):
        kept = Sitting.from_bytes(StoreDrawer(store).get())
        assert kept.states == [] and set(kept.last.values()) == {OPENED}
        assert len(store.entries(TABLE)) == 1
        assert len(Ledger(store).spends()) == 1
        left = door.summary()
        assert left == {kind: {"messages": 1, "bytes": size} for kind, size in sizes.items()}


def test_secrets_lie_in_the_store_only_under_its_seal(make_scene: MakeScene) -> None:
    scene = make_scene(33)
    stores, _ = in_the_field(scene)
    seen: list[bytes] = []
    plain = PairwisePhone.upload

    def look(self: PairwisePhone, *told: Any) -> bytes:
        seen.append(self.state.mask_key)
        return plain(self, *told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairwisePhone, "upload", look)
        scene.run()
    assert len(seen) == 33
    for store in stores:
        dumped = "\n".join(store._db.iterdump())
        assert not any(key.hex() in dumped.lower() for key in seen)
        assert seen[0] not in StoreDrawer(store).get()  # and after the sum not even there


def test_a_phone_that_refuses_is_late_and_empty_like_one_that_is_gone(make_scene: MakeScene) -> None:
    scene, control = make_scene(33), make_scene(33)
    stores, _ = in_the_field(scene, unwilling={LATE})
    in_the_field(control)
    control.lose = lambda node, message: node == LATE
    (release,), (same,) = scene.run(), control.run()
    assert scene.late == [("query.advertise", LATE)]
    assert (release.phones, release.asked, release.replied) == (same.phones, same.asked, same.replied) == (32, 33, 32)
    assert not Ledger(stores[LATE - 2]).spends() and not stores[LATE - 2].entries(TABLE)


def test_what_it_costs_is_charged_before_the_upload_and_never_beyond_the_cap(make_scene: MakeScene) -> None:
    from model.errors import RoundError

    scene = make_scene(33)
    stores, _ = in_the_field(scene, yearly=1e-9)
    with pytest.raises(RoundError, match="no sum"):
        scene.run()
    assert not scene.grid.spoke("upload")
    assert not any(Ledger(store).spends() for store in stores)


def test_no_other_question_is_answered_or_charged(make_scene: MakeScene) -> None:
    """A server that asks a pairwise plan's task in the old way has no answer, and it costs the phone nothing."""
    from flwr.app import ConfigRecord, RecordDict

    from fl_server.paired import PairedStrategy
    from simulation.grid import identity

    class Plain(PairedStrategy):
        def message(self, question: Any, node: int, step: str, parts: ConfigRecord) -> Message:
            content = super().message(question, node, step, parts).content
            bare = RecordDict({name: record for name, record in content.items() if name != "pairing"})
            with identity(1):
                return Message(bare, node, "query.knots", group_id="0", ttl=60.0)

    from model.errors import RoundError

    scene = make_scene(33, strategy=Plain)
    stores, _ = in_the_field(scene)
    with pytest.raises(RoundError, match="no sum"):
        scene.run()
    assert scene.grid.said and not any(reply.has_content() for _, _, reply in scene.grid.said)
    assert not any(Ledger(store).spends() for store in stores)


def test_a_farms_process_may_end_between_messages(make_scene: MakeScene) -> None:
    """What its phones keep lies in the node's Flower context: a new ClientApp goes on from there."""
    from fl_client.app import make_client_app

    scene = make_scene(33)
    trust, answer = scene.workspace.trust(), scene.grid._answer

    def fresh(message: Message, context: Context) -> Message:
        phones = scene.phones[int(context.node_config["partition-id"])]
        scene.grid._client_app = make_client_app(lambda c: phones, lambda c: trust)
        reply: Message = answer(message, context)
        return reply

    scene.grid._answer = fresh
    (release,) = scene.run()
    assert (release.noised == scene.right(release, range(33))).all()


def test_a_damaged_drawer_is_an_error_of_its_own() -> None:
    with pytest.raises(ContractError):
        Sitting.from_bytes(b"\xa0")
