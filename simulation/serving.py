"""The coordinator of a workspace: wait for the nodes, run or resume its plan, leave `result.cbor` (spec 7.11)."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from flwr.serverapp import Grid

from fl_server.app import Result, run
from fl_server.budget import Budget
from fl_server.rounds import Release, State
from model.canonical import decode, encode
from model.contract.plan import TrainingPlan
from model.errors import PocketScoreError, RunError
from simulation.workspace import Workspace

NODE_SECONDS = 90.0
log = logging.getLogger("pocketscore")


def serve(grid: Grid, workspace: Workspace) -> Result:
    """Run or resume the workspace's plan. RunError when its nodes do not come; see `fl_server.app.run`.

    Why it ended early stands in the workspace's `failure`: whoever started this process reads one sentence there.
    """
    workspace.failure.unlink(missing_ok=True)
    try:
        return _serve(grid, workspace)
    except PocketScoreError as error:
        workspace.failure.write_text(str(error), "utf-8")
        raise


def _serve(grid: Grid, workspace: Workspace) -> Result:
    signed = workspace.signed()
    plan = TrainingPlan.from_dict(decode(signed.payload, max_bytes=1 << 22))
    _await_nodes(grid, workspace.expected_nodes)
    with Budget(workspace.ledger, plan) as budget, workspace.second_server(plan) as second:
        seat = workspace.witness.seat(plan)
        result = run(grid, signed, budget, workspace.releases, second=second, seat=seat, on_progress=_log)
    write_result(workspace.result, result)
    return result


def _log(release: Release, state: State) -> None:
    log.info("%s %d", release.kind, release.round)


def _await_nodes(grid: Grid, nodes: int) -> None:
    end = time.monotonic() + NODE_SECONDS
    while len(list(grid.get_node_ids())) < nodes:
        if time.monotonic() > end:
            raise RunError(f"fewer than {nodes} nodes came in {NODE_SECONDS:.0f} s; start them and run again")
        time.sleep(0.5)


def write_result(path: Path, result: Result) -> None:
    """The released model as canonical bytes: knots, theta, calibration and the record of each release."""
    record = [
        {"kind": r.kind, "round": r.round, "phones": r.phones, "asked": r.asked, "replied": r.replied, "void": r.void}
        for r in result.releases
    ]
    theta = [float(weight) for weight in result.theta]
    body = {"knots": result.knots.to_dict(), "theta": theta, "platt": result.platt.to_dict(), "releases": record}
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(encode(body))
    os.replace(temporary, path)
