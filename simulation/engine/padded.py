"""Per-phone MLP training in torch, over phones padded to equal length (spec 7.8).

The first step leaves from the same weights on every phone, so one shared forward and backward serve all and a phone's
gradient is a product of its own rows: no weights per phone. Later steps take `vmap` of the gradient.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap

from fl_client.phones import Task
from model.risk.knots import Knots
from model.risk.network import RiskNetwork
from model.risk.objective import row_losses
from model.risk.schema import Schema

Rows = NDArray[np.float32]


def mlp_deltas(
    task: Task, knots: Knots, inputs: Rows, y: Rows, offsets: NDArray[np.int64], weights: list[Rows]
) -> NDArray[np.float64]:
    """Raw updates (P, d) float64 of labelled phones; padding rows weigh nothing. An MLP trains in theta itself."""
    local, counts = task.plan.local, torch.from_numpy(np.diff(offsets))
    network = _network(task.plan.schema, knots, task.plan.model.hidden)
    place = torch.from_numpy(offsets[:-1])[:, None] + torch.arange(int(counts.max()))
    real = torch.arange(int(counts.max())) < counts[:, None]
    place = torch.where(real, place, 0)
    rows, labels = torch.from_numpy(np.array(inputs))[place], torch.from_numpy(np.array(y))[place]
    start = torch.from_numpy(task.flat.copy())

    def loss(delta: Tensor, x: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        return (row_losses(network.logits(start + delta, x), label) * weight).sum()

    first, *later = (torch.from_numpy(weight)[place] * real for weight in weights)
    deltas = -local.learning_rate * shared_gradients(network, start, rows, labels, first)
    slopes = vmap(grad(loss))
    for weight in later:
        slope = slopes(deltas, rows, labels, weight)
        deltas = deltas - local.learning_rate * (slope + local.prox * deltas)
    return np.asarray(deltas.double().numpy())


def shared_gradients(network: RiskNetwork, theta: Tensor, rows: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Gradient of Σ weight · logistic loss by theta for each phone, (P, d), all phones at the same theta (d,).

    rows (P, L, inputs), labels and weights (P, L). Back-propagation by hand: tanh layers, one logit.
    """
    layers, seen = network.layers(theta), [rows]
    for matrix, bias in layers[:-1]:
        seen.append(torch.tanh(seen[-1] @ matrix + bias))
    logits = (seen[-1] @ layers[-1][0] + layers[-1][1]).squeeze(-1)
    slope = ((torch.sigmoid(logits) - labels) * weights).unsqueeze(-1)
    parts: list[Tensor] = []
    for (matrix, _), below in zip(reversed(layers), reversed(seen), strict=True):
        parts = [torch.bmm(below.transpose(1, 2), slope).flatten(1), slope.sum(dim=1), *parts]
        if below is not rows:
            slope = (slope @ matrix.T) * (1 - below**2)
    return torch.cat(parts, dim=1)


@lru_cache(maxsize=4)
def _network(schema: Schema, knots: Knots, hidden: tuple[int, ...]) -> RiskNetwork:
    return RiskNetwork(schema, knots, hidden)
