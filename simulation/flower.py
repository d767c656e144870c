"""The apps that `flwr run`, SuperLinks and SuperNodes load: the same federation as in process (spec 7.9, 7.11).

`workspace` in the run config is the absolute path of a prepared folder (`simulation.workspace`). Empty means: a small
synthetic population, which the first process to come prepares in a folder of this Flower home.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_client.app import Trust, make_client_app
from model.contract.envelope import SigningKey
from simulation.drawer import FileDrawer, drawer_of
from simulation.farm import Farm
from simulation.workspace import Workspace


def workspace_of(context: Context) -> Workspace:
    """The run's workspace; RunError later, in one sentence, where a named one is not prepared."""
    named = str(context.run_config.get("workspace", ""))
    return Workspace(Path(named)) if named else _small_workspace(context.run_id)


def _small_workspace(run_id: int) -> Workspace:
    """The small population's workspace of this run, made by whichever process needs it first."""
    home = Path(os.environ.get("FLWR_HOME") or Path(tempfile.gettempdir()) / f"pocketscore-flower-{os.getuid()}")
    folder = home / "pocketscore" / f"run-{run_id}"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder.parent / f"run-{run_id}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "trust.cbor").exists():
            from simulation.small import small_dataset, small_plan

            shutil.rmtree(folder, ignore_errors=True)
            data = small_dataset()
            # Keys made here sign a synthetic demonstration and are thrown away: nothing else trusts them.
            Workspace(folder).prepare(data, small_plan(data), [SigningKey.generate(), SigningKey.generate()])
    return Workspace(folder)


@lru_cache(maxsize=64)
def _farm(workspace: Workspace, index: int, count: int) -> Farm:
    return workspace.farm(index, count)


def _load(context: Context) -> Farm:
    index, count = context.node_config.get("partition-id", 0), context.node_config.get("num-partitions", 1)
    return _farm(workspace_of(context), int(index), int(count))


def _drawer(context: Context) -> FileDrawer:
    index, count = context.node_config.get("partition-id", 0), context.node_config.get("num-partitions", 1)
    return drawer_of(workspace_of(context).folder, int(index), int(count))


def _trust(context: Context) -> Trust:
    return workspace_of(context).trust()


def main(grid: Grid, context: Context) -> None:
    """Serve the context's workspace."""
    from simulation.serving import serve  # torch: a node's process loads this module for every message

    result = serve(grid, workspace_of(context))
    print(f"PocketScore: {len(result.releases)} releases, a model of {len(result.theta)} weights")


server_app = ServerApp()
server_app.main()(main)
client_app = make_client_app(_load, _trust, drawer=_drawer)
