"""`RiskNetwork`: additive scorecard over the knot basis, or compact MLP over quantile-scaled values (spec 5.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.errors import SchemaError
from model.risk.encoding import PiecewiseLinear
from model.risk.knots import Knots
from model.risk.schema import Schema

Vector = npt.NDArray[np.float32]


class RiskNetwork(nn.Module):
    """Raw features (B, F) float32 with NaN → logit of default (B,).

    All weights are one vector `theta` (dimension,). Additive (`hidden=()`): [bias, D hat and flag weights]. MLP:
    for each layer its matrix (inputs × outputs, row-major), then its bias; tanh between layers. The MLP's inputs
    are, per number, the value on the knots' quantile scale in [-1, 1] (0 where missing) and the missing flag; per
    category the one-hot of kept codes and the flag. A feature's reference is its mean over the released histogram.
    """

    theta: nn.Parameter
    reference: Tensor
    to_inputs: Tensor
    input_owner: Tensor

    def __init__(self, schema: Schema, knots: Knots, hidden: Sequence[int] = (), *, seed: int = 0) -> None:
        super().__init__()
        self.schema, self.knots, self.hidden = schema, knots, tuple(hidden)
        self.encoding = PiecewiseLinear(schema, knots)
        matrix, owner = _input_map(schema, knots, self.encoding) if hidden else _identity(self.encoding)
        self.register_buffer("to_inputs", matrix)
        self.register_buffer("input_owner", owner)
        mass = torch.tensor([m for row in knots.mass for m in row], dtype=torch.float64)
        self.register_buffer("reference", (mass @ matrix.double() if hidden else mass).float())
        sizes = (self.width, *self.hidden, 1)
        self.shapes = tuple(pairwise(sizes))
        start = initial(self.shapes, seed) if hidden else np.zeros(self.width + 1, np.float32)
        start = initial(self.shapes, seed) if hidden else np.zeros(self.width + 1, np.float32)
        self.theta = nn.Parameter(torch.from_numpy(start))

    @property
    def width(self) -> int:
        """Number of inputs of the trainable part: D, or the MLP's first layer."""
        return int(self.input_owner.numel())

    @property
    def dimension(self) -> int:
        """Length of theta."""
        return self.theta.numel()

    def inputs(self, x: Tensor) -> Tensor:
        """The fixed, weight-free part: x (B, F) with NaN → (B, width). Compute once, train many steps."""
        phi: Tensor = self.encoding(x)
        return phi @ self.to_inputs if self.hidden else phi

    def logits(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """Logit (…,) from a weight vector (dimension,) and inputs (…, width): the trainable part as a function."""
        if not self.hidden:
            return inputs @ theta[1:] + theta[0]
        *inner, last = self.layers(theta)
        for weight, bias in inner:
            inputs = torch.tanh(inputs @ weight + bias)
        return (inputs @ last[0] + last[1]).squeeze(-1)

    def layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of an MLP's theta: per layer (matrix (in, out), bias (out,))."""
        views, at = [], 0
        for rows, columns in self.shapes:
            end = at + rows * columns
            views.append((theta[at:end].view(rows, columns), theta[end : end + columns]))
            at = end + columns
        return views

    def forward(self, x: Tensor) -> Tensor:
        """Logit of default (B,)."""
        return self.logits(self.theta, self.inputs(x))

    def contributions(self, x: Tensor) -> Tensor:
        """What each feature adds to the logit against its reference, (B, F) (spec 5.8).

        Additive: its part minus that part's mass-weighted mean, exact. MLP: logit(x) − logit(x, j at its reference).
        """
        inputs = self.inputs(x)
        moved = inputs - self.reference
        count = len(self.schema.features)
        if not self.hidden:
            parts = moved * self.theta[1:]
            return torch.zeros(len(x), count, dtype=x.dtype).index_add_(1, self.input_owner, parts)
        own = (self.input_owner == torch.arange(count)[:, None]).to(x.dtype)
        swapped = inputs[:, None, :] - own * moved[:, None, :]
        return self.logits(self.theta, inputs)[:, None] - self.logits(self.theta, swapped)

    def flat(self) -> Vector:
        """A copy of theta, float32 (dimension,)."""
        return self.theta.detach().numpy().copy()

    def load_flat(self, vector: npt.ArrayLike | Tensor) -> None:
        """Set theta; SchemaError where the length differs or a weight is not finite."""
        new = torch.as_tensor(vector, dtype=torch.float32).detach()
        if new.shape != self.theta.shape or not bool(torch.isfinite(new).all()):
            raise SchemaError(f"weights {tuple(new.shape)} do not fit {self.dimension} finite ones; check the plan")
        with torch.no_grad():
            self.theta.copy_(new)


def initial(shapes: Sequence[tuple[int, int]], seed: int) -> Vector:
    """Starting weights of an MLP, float32 (dimension,): Glorot uniform matrices, zero biases; the last layer is zero.

    A zero last layer starts every score at the base rate, so the first noisy rounds do not fight random outputs.
    """
    random = np.random.Generator(np.random.Philox(seed))
    parts: list[npt.NDArray[Any]] = []
    for i, (rows, columns) in enumerate(shapes):
        limit = math.sqrt(6 / (rows + columns)) if i < len(shapes) - 1 else 0.0
        parts += [random.uniform(-limit, limit, rows * columns), np.zeros(columns)]
    return np.concatenate(parts).astype(np.float32)


def quantile_levels(mass: Sequence[float]) -> npt.NDArray[np.float64]:
    """Each knot's mid-rank on [-1, 1] from its mass and the missing share (last entry), (knots,)."""
    shares = np.asarray(mass[:-1], np.float64)
    total = shares.sum()
    if total <= 0 or len(shares) == 1:
        return np.zeros(len(shares))
    levels = 2 * (np.cumsum(shares) - shares / 2) / total - 1
    return np.asarray(np.clip(levels, -1.0, 1.0))  # a sum may round past its total


def _identity(encoding: PiecewiseLinear) -> tuple[Tensor, Tensor]:
    return torch.empty(0), encoding.owner.clone()


def _input_map(schema: Schema, knots: Knots, encoding: PiecewiseLinear) -> tuple[Tensor, Tensor]:
    """Matrix (D, inputs) from the hat basis to the MLP's inputs, and the feature of each input."""
    columns: list[Tensor] = []
    owner: list[int] = []
    for j, (feature, span) in enumerate(zip(schema.features, encoding.spans, strict=True)):
        hat, flag = range(span.start, span.stop - 1), span.stop - 1
        rows = [(i, 1.0) for i in hat] if feature.kind == "category" else []
        block = [torch.zeros(encoding.width).index_fill_(0, torch.tensor(i), value) for i, value in rows]
        if feature.kind == "number":
            scaled = torch.zeros(encoding.width)
            scaled[span.start : flag] = torch.from_numpy(quantile_levels(knots.mass[j])).float()
            block.append(scaled)
        block.append(torch.zeros(encoding.width).index_fill_(0, torch.tensor(flag), 1.0))
        columns += block
        owner += [j] * len(block)
    return torch.stack(columns, dim=1), torch.tensor(owner)
