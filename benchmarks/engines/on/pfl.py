"""pfl: its FederatedAveraging on SimulatedBackend, torch. Setting: processes, threads a process, sorted or plain.

Two processes are two ranks of torch.distributed (gloo), as under torchrun; each walks its half of every cohort.
"sorted" gives pfl the phones' row counts, by which it evens out the halves.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np

from engines.mlp import layers
from engines.on.line import Request, requested, speaker, turns
from engines.workload import Data, load


def spread(processes: int) -> None:
    """Start the ranks and pass every line on to all; rank 0 speaks for all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"TORCHELASTIC_RUN_ID": "w", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "engines.on.pfl", *sys.argv[1:]]
    ranks = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        env = os.environ | common | {name: str(value) for name, value in place.items()}
        silent = {} if rank == 0 else {"stdout": subprocess.DEVNULL}
        ranks.append(subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, env=env, **silent))
    for line in iter(sys.stdin.readline, ""):
        for process in ranks:
            process.stdin.write(line)
    for process in ranks:
        process.stdin.close()
        process.wait()


def work(request: Request, threads: int, ordered: bool) -> None:
    """One rank: pfl's own loop, held between rounds by a callback."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import MinimizeReuseUserSampler
    from pfl.hyperparam.base import HyperParam, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(threads)
    np.random.seed(3)  # noqa: NPY002 - pfl samples from the global generator, on every rank alike
    data = load(request.data)
    net = network(data)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    phones = [
        PyTorchTensorDataset((x[at : at + n], y[at : at + n]), user_id=str(i))
        for i, (at, n) in enumerate(zip(data.first.tolist(), data.counts.tolist(), strict=True))
    ]
    order = np.random.default_rng(5).permutation(len(phones)).tolist()
    weights = {i: int(n) for i, n in enumerate(data.counts)} if ordered else None
    users = FederatedDataset(phones.__getitem__, MinimizeReuseUserSampler(order), user_id_to_weight=weights)
    model = PyTorchModel(net, local_optimizer_create=torch.optim.SGD, central_optimizer=torch.optim.SGD(
        net.parameters(), lr=1.0))  # fmt: skip

    class Held(TrainingProcessCallback):
        """Waits on standard input after each block of rounds."""

        def __init__(self) -> None:
            self.left = 2 if not request.fresh else 0
            self.turns: Any = None

        def ready(self) -> bool:
            """Wait for the next block; True when there is none."""
            if self.turns is None:
                self.turns = turns(iter(sys.stdin.readline, ""), out, lambda: flat(net))
            self.left, cohort.number = next(self.turns, (0, 1))
            return self.left == 0

        def on_train_begin(self, *, model: Any) -> Metrics:
            if self.left == 0 and self.ready():
                raise SystemExit
            return Metrics()

        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
            self.left -= 1
            return self.left == 0 and self.ready(), Metrics()

    class Cohort(HyperParam[int]):
        """The size of the next round's cohort."""

        number = request.cohort

        def value(self) -> int:
            return self.number

    out, cohort = speaker(), Cohort()
    FederatedAveraging().run(
        NNAlgorithmParams(central_num_iterations=1 << 40, evaluation_frequency=1 << 40,
                          train_cohort_size=cohort, val_cohort_size=None),
        SimulatedBackend(training_data=users, val_data=users), model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=data.workload.rate,
                           local_batch_size=data.workload.batch),
        callbacks=[Held()], send_metrics_to_platform=False,
    )  # fmt: skip


def network(data: Data) -> Any:
    """The same MLP as a torch module with pfl's two methods, at the data file's starting weights."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    class Net(torch.nn.Sequential):
        """tanh layers, one logit."""

        def loss(self, x: Any, y: Any) -> Any:
            """Mean logistic loss of a batch."""
            return binary_cross_entropy_with_logits(self(x)[:, 0], y)

        def metrics(self, x: Any, y: Any) -> dict[str, Any]:
            """None: nothing is evaluated."""
            return {}

    parts: list[Any] = []
    for matrix, bias in layers(data.theta, data.workload.shapes):
        linear = torch.nn.Linear(*matrix.shape)
        linear.weight.data.copy_(torch.from_numpy(matrix.T.copy()))
        linear.bias.data.copy_(torch.from_numpy(bias))
        parts += [linear, torch.nn.Tanh()]
    return Net(*parts[:-1])


def flat(net: Any) -> np.ndarray:
    """The model (d,) in the order of the data file."""
    return np.concatenate([part.detach().numpy().T.ravel() for part in net.parameters()])


def main() -> None:
    """One rank, or the parent of several."""
    request = requested()
    processes, threads, order = request.setting.split(",")
    if int(processes) > 1 and "RANK" not in os.environ:
        spread(int(processes))
    else:
        work(request, int(threads), order == "sorted")


if __name__ == "__main__":
    main()
