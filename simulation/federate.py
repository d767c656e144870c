"""A whole federation in this process: the real ServerApp, Strategy and ClientApp over an `InProcessGrid` (spec 7.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from flwr.app import Context, Message
from flwr.serverapp import Grid

from fl_client.app import make_client_app
from fl_client.phones import Phones
from fl_server.app import Result, make_server_app, run
from fl_server.budget import Budget
from fl_server.coordinator import Progress
from fl_server.strategy import Clock
from model.canonical import decode
from model.contract.plan import TrainingPlan
from model.errors import RunError
from simulation.engine.protocol import Engine
from simulation.fieldgrid import Field, FieldGrid
from simulation.grid import InProcessGrid, run_in_process
from simulation.workspace import Workspace


def federate(
    workspace: Workspace,
    *,
    nodes: int = 1,
    engine: Engine | None = None,
    sample: int = 0,
    phones: Callable[[int], Phones] | None = None,
    lose: Callable[[int, Message], bool] = lambda node_id, message: False,
    field: Field | None = None,
    on_progress: Progress = lambda release, state: None,
) -> Result:
    """Run, or resume, a prepared workspace with `nodes` farms (or what `phones` gives for each partition).

    `sample` phones a farm are shown at each stage in `simulation_only/`. With a `field`, node i's messages meet phone
    i's fate on a virtual clock, and rounds close on the field's deadline. The workspace's ledger and releases are used
    as they stand, so calling again after an interruption resumes.
    """
    made: dict[int, Phones] = {}

    def load(context: Context) -> Phones:
        index = int(context.node_config["partition-id"])
        if index not in made:
            made[index] = phones(index) if phones else workspace.farm(index, nodes, engine=engine, sample=sample)
        return made[index]

    trust, results = workspace.trust(), list[Result]()

    def main(grid: Grid, context: Context) -> None:
        signed = workspace.signed()
        plan = TrainingPlan.from_dict(decode(signed.payload, max_bytes=1 << 22))
        timing = _timing(grid)
        with Budget(workspace.ledger, plan) as budget, workspace.second_server(plan) as second:
            seat, place = workspace.witness.seat(plan), workspace.releases
            results.append(
                run(grid, signed, budget, place, second=second, seat=seat, on_progress=on_progress, **timing)
            )

    client_app = make_client_app(load, lambda context: trust)
    configs = [{"partition-id": index, "num-partitions": nodes} for index in range(nodes)]
    grid = FieldGrid(client_app, configs, field) if field else InProcessGrid(client_app, configs, lose=lose)
    run_in_process(make_server_app(main), grid)
    if not results:
        raise RunError("the run ended without a result; start it again to resume")
    return results[0]


class _Timing(TypedDict, total=False):
    timeout: float
    clock: Clock


def _timing(grid: Grid) -> _Timing:
    """A field's rounds close on its deadline by its own clock; elsewhere every node answers while it is asked."""
    return {"timeout": grid.seconds, "clock": grid.clock} if isinstance(grid, FieldGrid) else {}
