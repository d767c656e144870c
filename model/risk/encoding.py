"""Raw value (NaN = missing) → hat basis over the knots, plus a missing flag a feature (spec 5.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.errors import SchemaError
from model.risk.knots import Knots
from model.risk.schema import Schema


class PiecewiseLinear(nn.Module):
    """x (B, F) float32 → phi (B, D): per feature [one hat per knot | missing flag].

    Every hat is a difference of two ramps clip((x - start) · gain, 0, 1), so a number's hats sum to 1 and are clamped
    beyond the end knots. A category's hat is max(0, 1 - |x - code|): exact one-hot on codes, zeros on other codes.
    A missing value has no hat, only its flag. `ramps` says which ramps belong to which feature, for the export.
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
        high: list[int] = []  # index into [1, ramps …, 0]
        low: list[int] = []
        owner: list[int] = []
        self.spans: list[slice] = []
        zero = -1  # patched below, once the number of ramps is known
        for j, (feature, values) in enumerate(zip(schema.features, knots.values, strict=True)):
            first = len(start) + 1
            if feature.kind == "category":
                for i, code in enumerate(values):
                    start += [code - 1, code]
                    gain += [1.0, 1.0]
                    high.append(first + 2 * i)
                    low.append(first + 2 * i + 1)
            else:
                singles = torch.tensor(values, dtype=torch.float32)
                start += singles[:-1].tolist()
                gain += (1 / singles.double().diff()).tolist()
                inner = list(range(first, first + len(values) - 1))
                high += [0, *inner]
                low += [*inner, zero]
            column += [j] * (len(start) + 1 - first)
            self.spans.append(slice(len(owner), len(owner) + len(values) + 1))
            high.append(0)
            low.append(0)
            owner += [j] * (len(values) + 1)
        low = [len(start) + 1 if i == zero else i for i in low]
        flag = [i == span.stop - 1 for span in self.spans for i in range(span.start, span.stop)]
        self.register_buffer("start", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("gain", torch.tensor(gain, dtype=torch.float64).float())
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
