"""What training minimises: logistic loss, each phone counting once, with L2 and FedProx terms (spec 5.6)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from model.risk.network import RiskNetwork


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Logistic loss of each row, (R,): log(1 + e^z) − y z, labels 0 (repaid) or 1 (default)."""
    return softplus(logits) - labels * logits


def phone_loss(network: RiskNetwork, theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of one phone's rows, a scalar; zero where it has none, so taking part reveals no loan.

    `inputs` (R, width) come from `network.inputs(x)`; a phone counts once however many rows it has.
    """
    if len(labels) == 0:
        return theta.sum() * 0.0
    return row_losses(network.logits(theta, inputs), labels).mean()


def penalised(network: RiskNetwork) -> Tensor:
    """Boolean (dimension,): weights under L2. Additive: all but the bias. MLP: matrices, not biases."""
    mask = torch.ones(network.dimension, dtype=torch.bool)
    if not network.hidden:
        mask[0] = False
        return mask
    for _, bias in network.layers(mask):
        bias.fill_(False)
    return mask


def l2_term(network: RiskNetwork, theta: Tensor, strength: float) -> Tensor:
    """strength/2 · ‖penalised weights‖², a scalar."""
    return 0.5 * strength * theta[penalised(network)].square().sum()


def prox_term(theta: Tensor, anchor: Tensor, strength: float) -> Tensor:
    """strength/2 · ‖theta − anchor‖²: FedProx (Li et al. 2020, arXiv:1812.06127), anchored at the round's model."""
    return 0.5 * strength * (theta - anchor).square().sum()
