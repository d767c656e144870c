"""Flower's simulation runtime on Ray: its own FedAvg and start(), NumPy clients. Setting: num_cpus of a client.

`run_simulation` is what `flwr run` calls in the end (the same grid, engine and Ray backend), without the SuperLink.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable

os.environ.update(
    FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0"
)  # before flwr and ray are loaded

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from engines.on.line import Request, requested, speaker, turns
from engines.workload import load


class Whole(FedAvg):
    """FedAvg that waits for every node to be there, and fails when a phone's answer is missing."""

    def ask(self, cohort: int, phones: int) -> None:
        """Take `cohort` of `phones` from now on."""
        self.fraction_train, self.min_train_nodes, self.min_available_nodes = cohort / phones / 2, cohort, phones

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answers = list(replies)
        if sum(not answer.has_error() for answer in answers) != self.min_train_nodes:
            raise RuntimeError(f"{self.min_train_nodes} phones were asked and not as many answered")
        return super().aggregate_train(server_round, answers)


def server(request: Request, phones: int, theta: np.ndarray) -> ServerApp:
    """A ServerApp that runs rounds when told to on standard input."""
    app, out = ServerApp(), speaker()
    strategy = Whole(fraction_evaluate=0.0)
    state = {"arrays": ArrayRecord({"flat": Array(theta)})}

    def rounds(grid: Grid, count: int, cohort: int) -> None:
        strategy.ask(cohort, phones)
        result = strategy.start(grid=grid, initial_arrays=state["arrays"], num_rounds=count)
        state["arrays"] = result.arrays

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        if not request.fresh:
            rounds(grid, 1, request.cohort)
        for count, cohort in turns(iter(sys.stdin.readline, ""), out, lambda: state["arrays"]["flat"].numpy()):
            rounds(grid, count, cohort)

    return app


def main() -> None:
    """Run until standard input closes."""
    request = requested()
    warnings.simplefilter("ignore")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    os.environ["W_DATA"] = os.path.abspath(request.data)
    data = load(request.data)
    from engines.on.flower_client import app

    phones = len(data.counts)
    resources = {"num_cpus": float(request.setting), "num_gpus": 0.0}
    config = {"client_resources": resources, "init_args": {"logging_level": logging.ERROR, "log_to_driver": False}}
    run_simulation(server(request, phones, data.theta), app, num_supernodes=phones, backend_config=config)


if __name__ == "__main__":
    main()
