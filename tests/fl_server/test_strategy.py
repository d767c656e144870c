"""Flower's own loop over the phases. What a reply may contain: test_ingress, test_cases_at_the_door."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from fl_client.app import make_client_app
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Coordinator
from fl_server.strategy import FederationStrategy
from model.contract.envelope import SigningKey
from simulation.grid import InProcessGrid, run_in_process
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace


def test_flowers_own_start_drives_the_phases_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.folder.mkdir()
    data = small_dataset(200, seed=1)
    plan = small_plan(data, rounds=2)
    workspace.prepare(data, plan, [SigningKey.generate(), SigningKey.generate()])
    farm, trust, server = workspace.farm(0, 1), workspace.trust(), ServerApp()
    client = make_client_app(lambda context: farm, lambda context: trust)
    releases: list[str] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        with Budget(workspace.ledger, plan) as budget, Checkpoint(workspace.releases, plan.digest) as checkpoint:
            coordinator = Coordinator(workspace.signed(), plan, budget, checkpoint)
            FederationStrategy(coordinator).start(grid, ArrayRecord(), num_rounds=7)
            releases[:] = [release.kind for release in coordinator.releases]

    run_in_process(server, InProcessGrid(client, [{}]))
    assert releases == ["knots", "train", "train", "calibrate", "evaluate"]
