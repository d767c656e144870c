"""A small pairwise federation over real Flower messages, with a strategy that may be hostile and messages to lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_client.app import make_client_app
from fl_client.pairing import phone_noise
from fl_client.phones import Phone, Task
from fl_client.single import OnePhone
from fl_server import rounds
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Coordinator
from fl_server.paired import PairedStrategy
from fl_server.rounds import Release, State
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.privacy.noise import OsSource
from model.risk.registry import FEATURES
from model.risk.schema import Schema
from simulation.dataset import Dataset
from simulation.fieldgrid import VirtualClock
from simulation.grid import SERVER_NODE_ID, InProcessGrid, identity
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEYS = [SigningKey.from_private_bytes(bytes([7]) * 32), SigningKey.from_private_bytes(bytes([8]) * 32)]
PHONES, LEAST = 36, 30
OWN = [f for f in FEATURES.values() if f.permission == "O" and f.kind == "number"][:5]
Lose = Callable[[int, Message], bool]


def data_of(phones: int = PHONES) -> Dataset:
    """Phones that all train, with features that a phone in the field has."""
    few = small_dataset(phones, seed=4)
    return replace(few, schema=Schema("own", "1", tuple(OWN)), holdout=np.zeros(phones, dtype=bool))


def plan_of(
    data: Dataset, *, topology: str = "field", graph: Neighbours | None = None, **changes: object
) -> TrainingPlan:
    """A plan of knots and one training round in mode pairwise. Nobody is corrupt, so 30 of 36 phones may open a sum."""
    plan = small_plan(data, **{"rounds": 1, **changes})  # type: ignore[arg-type]
    charges = tuple(charge for charge in plan.privacy.charges if charge.name in ("knots", "training"))
    graph = graph or Neighbours(12, 7, 0.0, 0.05)
    privacy = replace(plan.privacy, mode="pairwise", honest=20, neighbours=graph, charges=charges, grid_scale=1 << 16)
    return replace(plan, privacy=privacy, topology=topology)


def phone_of(data: Dataset, index: int) -> Phone:
    rows = slice(int(data.offsets[index]), int(data.offsets[index + 1]))
    return Phone(data.x[rows], data.y[rows], int(data.ids[index]), bool(data.holdout[index]))


class Grid(InProcessGrid):
    """Loses questions (`lose`) and answers (`mute`), and keeps what every node was told and said."""

    def __init__(self, app: ClientApp, nodes: int, lose: Lose | None, mute: Lose | None) -> None:
        configs = [{"partition-id": index, "num-partitions": nodes} for index in range(nodes)]
        super().__init__(app, configs, lose=lose or (lambda node, message: False))
        self._mute = mute or (lambda node, message: False)
        self.said: list[tuple[str, int, Message]] = []

    def _push(self, message: Message) -> str:
        message_id = super()._push(message)
        node, kind = message.metadata.dst_node_id, message.metadata.message_type.removeprefix("query.")
        if message_id in self._replies:
            self.said.append((kind, node, self._replies[message_id]))
            if self._mute(node, message):
                del self._replies[message_id]
        return message_id

    def spoke(self, step: str) -> set[int]:
        """Nodes that answered a step with content, whether it arrived or not."""
        return {node for kind, node, reply in self.said if kind == step and reply.has_content()}

    def refused(self, step: str) -> set[int]:
        """Nodes that answered a step with an error."""
        return {node for kind, node, reply in self.said if kind == step and reply.has_error()}


@dataclass
class Scene:
    """A workspace with one phone a node, and a run of its plan under `strategy`, as often as asked."""

    workspace: Workspace
    data: Dataset
    strategy: type[PairedStrategy] = PairedStrategy
    lose: Lose | None = None
    mute: Lose | None = None
    trick: Callable[[Scene, PairedStrategy], None] | None = None
    nodes: int = PHONES
    releases: list[Release] = field(default_factory=list)
    app: ClientApp | None = None

    def __post_init__(self) -> None:
        self.plan = self.workspace.trust().plan_of(self.workspace.signed().to_bytes())
        self.phones = [OnePhone(phone_of(self.data, index)) for index in range(self.nodes)]
        trust = self.workspace.trust()

        def load(context: Context) -> OnePhone:
            return self.phones[int(context.node_config["partition-id"])]

        self.app = make_client_app(load, lambda context: trust, entropy=OsSource())
        self.grid = Grid(self.app, self.nodes, self._loses, self._mutes)

    def run(self, phases: int = 1) -> list[Release]:
        """Close this many phases, or raise what ends the run."""
        seat = self.workspace.witness.seat(self.plan)
        assert seat is not None
        with (
            Budget(self.workspace.ledger, self.plan) as budget,
            Checkpoint(self.workspace.releases, self.plan.digest) as checkpoint,
            identity(SERVER_NODE_ID),
        ):
            coordinator = Coordinator(self.workspace.signed(), self.plan, budget, checkpoint)
            strategy = self.strategy(coordinator, seat, timeout=60.0, clock=VirtualClock())
            strategy.scene = self  # type: ignore[attr-defined]
            for _ in range(phases):
                question = coordinator.open()
                assert question is not None
                nodes = list(self.grid.get_node_ids())
                self.releases.append(strategy._phase(self.grid, question, nodes))
        return self.releases

    def right(self, release: Release, counted: Sequence[int], attempt: int = 0) -> NDArray[np.int64]:
        """What the phones `counted` add up to with their own noise, in the first phase."""
        task = Task("knots", 0, self.plan, None, rounds.question(self.plan, State(), "knots"))
        total = np.zeros(len(release.noised), dtype=np.int64)
        for index in counted:
            phone = self.phones[index]
            noise = phone_noise(task, phone.phone.id, attempt, len(total), OsSource())
            total += phone.partial(task).sum + noise
        return total

    def _loses(self, node: int, message: Message) -> bool:
        return self.lose is not None and self.lose(node, message)

    def _mutes(self, node: int, message: Message) -> bool:
        return self.mute is not None and self.mute(node, message)


MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene(tmp_path: Path) -> MakeScene:
    """A fresh scene; keywords are the scene's."""
    count = [0]

    def make(phones: int = PHONES, graph: Neighbours | None = None, **changes: object) -> Scene:
        count[0] += 1
        folder = tmp_path / f"w{count[0]}"
        folder.mkdir()
        workspace, data = Workspace(folder), data_of(phones)
        workspace.prepare(data, plan_of(data, graph=graph), KEYS)
        return Scene(workspace, data, nodes=phones, **changes)  # type: ignore[arg-type]

    return make
