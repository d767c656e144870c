"""The reference local step of one phone: pure `init`, `step`, `delta` in training coordinates (spec 7.4).

theta = P v with the public preconditioner P. A phone minimises the mean logistic loss of its rows plus the proximal
term μ/2 ‖v − v₀‖² (FedProx, Li et al. 2020) by E gradient steps of length η, or by whole passes over its rows in
batches. One step gives delta = −η · gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fl_client.batches import batch_weights, steps_of
from fl_client.phones import Phone
from fl_client.update import Delta, Encoded
from model.contract.plan import TrainingPlan
from model.risk.knots import Knots
from model.risk.network import RiskNetwork
from model.risk.objective import row_losses
from model.risk.precondition import Preconditioner


@dataclass(frozen=True)
class Local:
    """Where a phone stands inside a round: the model it was sent and the model it has reached, both (d,) float64."""

    sent: NDArray[np.float64]
    reached: NDArray[np.float64]


@dataclass(frozen=True)
class Learner:
    """One plan's local training. `inputs` are the network's fixed features of the phone's rows, (n, width) float32."""

    plan: TrainingPlan
    network: RiskNetwork
    precondition: Preconditioner

    @classmethod
    def of(cls, plan: TrainingPlan, knots: Knots) -> Learner:
        """The learner of a plan once its knots are released."""
        hidden = plan.model.hidden
        network = RiskNetwork(plan.schema, knots, hidden, seed=plan.seed)
        return cls(plan, network, Preconditioner(plan.schema, knots, hidden))

    def inputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weight-free part of the network on raw rows x (n, F), computed once a round."""
        with torch.no_grad():
            computed: NDArray[np.float32] = self.network.inputs(torch.from_numpy(np.ascontiguousarray(x))).numpy()
        return computed

    def init(self, flat: NDArray[np.float32]) -> Local:
        """Start from the sent model v, (d,)."""
        start = flat.astype(np.float64)
        return Local(start, start)

    def gradient(
        self,
        v: NDArray[np.float64],
        inputs: NDArray[np.float32],
        y: NDArray[np.float32],
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Gradient by v of Σ_r weights_r · logistic loss of row r, (d,) float64."""
        theta = torch.from_numpy(self.precondition.to_theta(v)).float().requires_grad_()
        logits = self.network.logits(theta, torch.from_numpy(inputs))
        loss = (row_losses(logits, torch.from_numpy(np.array(y))) * torch.from_numpy(weights)).sum()
        (slope,) = torch.autograd.grad(loss, theta)
        return np.asarray(self.precondition.pull_back(slope.double().numpy()), dtype=np.float64)

    def step(
        self, local: Local, inputs: NDArray[np.float32], y: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> Local:
        """One step of length η on the rows that `weights` (n,) picks."""
        slope = self.gradient(local.reached, inputs, y, weights)
        if self.plan.local.prox:
            slope = slope + self.plan.local.prox * (local.reached - local.sent)
        return Local(local.sent, local.reached - self.plan.local.learning_rate * slope)

    def delta(self, local: Local) -> Delta:
        """What the round changed, as the first stage of an update. UpdateError if training left the finite numbers."""
        return Delta(local.reached - local.sent)


def train_phone(learner: Learner, phone: Phone, flat: NDArray[np.float32], round_: int) -> tuple[Delta, Encoded]:
    """One phone's round: E local steps, then clip and encode. A phone without labels answers zeros."""
    plan, rows = learner.plan, len(phone.y)
    if not rows:
        delta = Delta.zero(len(flat))
    else:
        inputs, local = learner.inputs(phone.x), learner.init(flat)
        ids, offsets = np.array([phone.id], dtype=np.uint64), np.array([0, rows], dtype=np.int64)
        for step in range(int(steps_of(plan.local, np.array([rows]))[0])):
            weights = batch_weights(ids, offsets, plan.seed, round_, step, plan.local.batch_size)
            local = learner.step(local, inputs, phone.y, weights)
        delta = learner.delta(local)
    return delta, delta.clip(plan.local.clip_norm).encode(plan.privacy.grid_scale)
