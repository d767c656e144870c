"""Raw value (NaN = missing) → hat basis over the knots, plus a missing flag a feature (spec 5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from model.errors import SchemaError
from model.risk.knots import Knots
from model.risk.schema import Schema

ONE, ZERO = 0, -1  # first and last entry of the ladder [1, ramps …, 0]
Ramps = tuple[list[float], list[float], list[int], list[int]]  # starts, gains, each hat's two ladder entries


class PiecewiseLinear(nn.Module):
    """x (B, F) float32 → phi (B, D): per feature [one hat per knot | missing flag].

    Every hat is a difference of two ramps clip((x - start) · gain, 0, 1), so a number's hats sum to 1 and are clamped
    beyond the end knots. A category's hat is max(0, 1 - |x - code|): exact one-hot on codes, zeros on other codes.
    A missing value has no hat, only its flag. `spans[j]` are feature j's columns of phi.
    """

    start: Tensor
    gain: Tensor
    column: Tensor
    high: Tensor
    low: Tensor
    owner: Tensor
    flag: Tensor

    def __init__(self, schema: Schema, knots: Knots) -> None:
        super().__init__()
        if len(knots.values) != len(schema.features):
            raise SchemaError(f"knots of {len(knots.values)} features do not fit the schema; derive them again")
        start: list[float] = []
        gain: list[float] = []
        column: list[int] = []
        high: list[int] = []
        low: list[int] = []
        owner: list[int] = []
        flag: list[bool] = []
        self.spans: list[slice] = []
        for j, (feature, values) in enumerate(zip(schema.features, knots.values, strict=True)):
            ramps = _code_ramps if feature.kind == "category" else _number_ramps
            starts, gains, above, below = ramps(values, len(start) + 1)
            start += starts
            gain += gains
            column += [j] * len(starts)
            self.spans.append(slice(len(owner), len(owner) + len(values) + 1))
            high += [*above, ONE]
            low += [*below, ONE]
            owner += [j] * (len(values) + 1)
            flag += [False] * len(values) + [True]
        self.register_buffer("start", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("gain", torch.tensor(gain, dtype=torch.float32))
        for name, indices in (("column", column), ("high", high), ("low", low), ("owner", owner)):
            self.register_buffer(name, torch.tensor(indices, dtype=torch.int64))
        self.register_buffer("flag", torch.tensor(flag, dtype=torch.bool))

    @property
    def width(self) -> int:
        """D, the number of basis columns."""
        return int(self.owner.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Hat basis and flags; x (B, F) with NaN = missing → (B, D) float32."""
        missing = torch.isnan(x)
        filled = torch.where(missing, torch.zeros_like(x), x)
        ramps = ((filled[:, self.column] - self.start) * self.gain).clamp(0, 1)
        one = torch.ones_like(x[:, :1])
        ladder = torch.cat([one, ramps, torch.zeros_like(one)], dim=1)
        absent = missing[:, self.owner]
        return torch.where(absent, self.flag.to(x.dtype), ladder[:, self.high] - ladder[:, self.low])


def _number_ramps(values: Sequence[float], first: int) -> Ramps:
    """A ramp between each two knots; a hat is the ramp up to its knot minus the ramp away from it."""
    inner = range(first, first + len(values) - 1)
    gains = [1 / (b - a) for a, b in pairwise(values)]
    return list(values[:-1]), gains, [ONE, *inner], [*inner, ZERO]


def _code_ramps(values: Sequence[float], first: int) -> Ramps:
    """Two unit ramps a code: up to it from the code below, and away to the code above."""
    starts = [start for code in values for start in (code - 1, code)]
    above = range(first, first + len(starts), 2)
    return starts, [1.0] * len(starts), list(above), [i + 1 for i in above]
