"""Per-phone MLP training in torch: `vmap` of the gradient over phones padded to equal length (spec 7.8)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap

from fl_client.phones import Task
from model.risk.knots import Knots
from model.risk.network import RiskNetwork
from model.risk.objective import row_losses

Rows = NDArray[np.float32]


def mlp_deltas(
    task: Task, knots: Knots, inputs: Rows, y: Rows, offsets: NDArray[np.int64], weights: list[Rows]
) -> NDArray[np.float64]:
    """Raw updates (P, d) float64 of labelled phones; padding rows weigh nothing. An MLP trains in theta itself."""
    local, counts = task.plan.local, torch.from_numpy(np.diff(offsets))
    network = RiskNetwork(task.plan.schema, knots, task.plan.model.hidden)
    place = torch.from_numpy(offsets[:-1])[:, None] + torch.arange(int(counts.max()))
    real = torch.arange(int(counts.max())) < counts[:, None]
    place = torch.where(real, place, 0)
    rows, labels = torch.from_numpy(np.array(inputs))[place], torch.from_numpy(np.array(y))[place]
    start = torch.from_numpy(task.flat.copy())
    deltas = torch.zeros((len(counts), len(task.flat)))

    def loss(delta: Tensor, x: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        return (row_losses(network.logits(start + delta, x), label) * weight).sum()

    slopes = vmap(grad(loss))
    for weight in weights:
        slope = slopes(deltas, rows, labels, torch.from_numpy(weight)[place] * real)
        deltas = deltas - local.learning_rate * (slope + local.prox * deltas)
    return np.asarray(deltas.double().numpy())
