"""FedJAX: its client triple for FedAvg over `for_each_client`. Setting: "jit" or "pmap", and "stock" or "lean".

stock is `fedjax.algorithms.fed_avg` as it stands; lean keeps its training and its batches but adds the updates up in
one compiled call a client, without the per-client diagnostics that the stock algorithm also computes.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if any(word.startswith("pmap") for word in sys.argv):
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

from collections.abc import Callable
from typing import Any

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg

from engines.mlp import layers
from engines.on.line import requested, serve
from engines.workload import Data, load

Params = list[tuple[Any, Any]]


def loss(params: Params, batch: dict[str, Any]) -> Any:
    """Mean logistic loss of a batch."""
    at = batch["x"]
    for matrix, bias in params[:-1]:
        at = jnp.tanh(at @ matrix + bias)
    logits = (at @ params[-1][0] + params[-1][1])[:, 0]
    return jnp.mean(jnp.logaddexp(0, logits) - batch["y"] * logits)


def gradient(params: Params, batch: dict[str, Any], key: Any) -> Params:
    """What FedJAX asks of a model; the key is for dropout and the like."""
    return jax.grad(loss)(params, batch)


def datasets(data: Data) -> list[fedjax.ClientDataset]:
    """A view a phone."""
    cuts = [slice(at, at + count) for at, count in zip(data.first, data.counts, strict=True)]
    return [fedjax.ClientDataset({"x": data.x[cut], "y": data.y[cut]}) for cut in cuts]


def lean(data: Data, batches: Any) -> Callable[[Any, Any], Any]:
    """One round: FedJAX's for_each_client, one addition a client."""
    train = fed_avg.create_train_for_each_client(gradient, fedjax.optimizers.sgd(data.workload.rate))
    add = jax.jit(lambda total, delta: jax.tree_util.tree_map(jnp.add, total, delta), donate_argnums=0)

    def apply(params: Any, clients: Any) -> Any:
        total = jax.tree_util.tree_map(jnp.zeros_like, params)
        for _, delta in train(params, [(i, d.shuffle_repeat_batch(batches), key) for i, d, key in clients]):
            total = add(total, delta)
        return jax.tree_util.tree_map(lambda old, all_: old - all_ / len(clients), params, total)

    return apply


def stock(data: Data, batches: Any) -> Callable[[Any, Any], Any]:
    """One round of fedjax.algorithms.fed_avg."""
    sgd = fedjax.optimizers.sgd
    algorithm = fed_avg.federated_averaging(gradient, sgd(data.workload.rate), sgd(1.0), batches)
    return lambda params, clients: algorithm.apply(algorithm.init(params), clients)[0].params


def main() -> None:
    """Run until standard input closes."""
    request = requested()
    data = load(request.data)
    backend, _, form = request.setting.partition(",")
    fedjax.set_for_each_client_backend(backend)
    batches = fedjax.ShuffleRepeatBatchHParams(batch_size=data.workload.batch, num_epochs=1)
    apply = (stock if form == "stock" else lean)(data, batches)
    phones = datasets(data)
    net = [(jnp.asarray(m), jnp.asarray(b)) for m, b in layers(data.theta, data.workload.shapes)]
    state: dict[str, Any] = {"params": net, "turn": 0}

    def rounds(count: int, cohort: int) -> None:
        for _ in range(count):
            chosen = data.cohort(cohort, state["turn"])
            keys = np.asarray(jax.random.split(jax.random.PRNGKey(state["turn"]), len(chosen)))
            clients = [(int(i), phones[i], key) for i, key in zip(chosen, keys, strict=True)]
            state["params"] = jax.block_until_ready(apply(state["params"], clients))
            state["turn"] += 1

    def flat() -> np.ndarray:
        return np.concatenate([np.asarray(part).ravel() for pair in state["params"] for part in pair])

    serve(request, rounds, flat)


if __name__ == "__main__":
    main()
