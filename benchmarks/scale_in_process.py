"""Scale-out in process: what one more node costs in a round of messages, and how many bytes its messages have."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fl_client.answers import answer_size
from fl_client.phones import Partial, Phones, Task
from fl_server.rounds import Release
from fl_server.strategy import FederationStrategy
from simulation.dataset import Dataset
from simulation.farm import Farm
from simulation.federate import federate
from simulation.workspace import Workspace

Figures = dict[str, Any]


@dataclass
class Idle:
    """A farm whose training costs nothing: the right count and a sum of zeros. Other tasks are answered truly."""

    farm: Farm

    def partial(self, task: Task) -> Partial:
        """The node's answer."""
        if task.kind != "train":
            return self.farm.partial(task)
        return Partial(int((~self.farm.data.holdout).sum()), np.zeros(answer_size(task), dtype=np.int64))


def in_process(workspace: Workspace, nodes: int) -> Figures:
    """Median seconds and CPU seconds of a training round over an InProcessGrid; the coordinator's part of those."""
    data = Dataset.load(workspace.folder / "data")

    def phones(index: int) -> Phones:
        return Idle(Farm(data.part(index, nodes)))

    marks: list[tuple[str, float, float]] = []

    def mark(release: Release, _: object) -> None:
        marks.append((release.kind, time.perf_counter(), time.process_time()))

    with _timed_aggregation() as aggregation:
        federate(workspace, nodes=nodes, phones=phones, on_progress=mark)
    rounds = [(now[1] - last[1], now[2] - last[2]) for last, now in pairwise(marks) if now[0] == "train"]
    closing = [seconds for (kind, *_), seconds in zip(marks, aggregation, strict=True) if kind == "train"]
    # A node's first training task also readies what the later ones find ready.
    wall, cpu = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    return {"nodes": nodes, "seconds": wall, "cpu": cpu, "coordinator_cpu": statistics.median(closing[1:])}


@contextmanager
def _timed_aggregation(look: Callable[[Sequence[Any]], None] = lambda replies: None) -> Iterator[list[float]]:
    """CPU seconds of each `aggregate_train` inside the block: reading, checking and adding answers, noise, disk."""
    seconds: list[float] = []
    real = FederationStrategy.aggregate_train

    def timed(self: FederationStrategy, round_: int, replies: Any) -> Any:
        came = list(replies)
        look(came)
        start = time.process_time()
        try:
            return real(self, round_, came)
        finally:
            seconds.append(time.process_time() - start)

    FederationStrategy.aggregate_train = timed  # type: ignore[method-assign, assignment]
    try:
        yield seconds
    finally:
        FederationStrategy.aggregate_train = real  # type: ignore[method-assign]


def slope(rows: Sequence[Figures], key: str) -> float:
    """Seconds a node, by least squares over the rows with more than one node."""
    nodes, seconds = [row["nodes"] for row in rows], [row[key] for row in rows]
    return float(np.polyfit(nodes, seconds, 1)[0])


def message_bytes(workspace: Workspace) -> Figures:
    """Bytes of the parts of a training round's messages, as the Strategy makes them and the node answers them."""
    seen: dict[str, int] = {}

    def look(_: int, message: Any) -> bool:
        if message.metadata.message_type == "train":
            parts, model = message.content.config_records["task"], message.content.array_records["model"]["flat"]
            seen.update({name: len(parts[name]) for name in ("header", "plan", "knots")}, model=len(model.data))
        return False

    def look_back(replies: Sequence[Any]) -> None:
        for reply in (reply for reply in replies if reply.metadata.message_type == "train"):
            seen["answer header"] = len(reply.content.config_records["partial"]["header"])
            seen["answer"] = len(reply.content.array_records["sum"]["sum"].data)

    with _timed_aggregation(look_back):
        result = federate(workspace, nodes=2, lose=look)
    return seen | {"weights": len(result.theta)}
