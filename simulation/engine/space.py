"""Memory a worker uses again and again: fresh pages cost more than the arithmetic on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Space:
    """One worker's buffers by name. What a name held before is overwritten when it is asked for again."""

    kept: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised contiguous tensor of `shape`, the same memory each time."""
        size = math.prod(shape)
        if name not in self.kept or self.kept[name].numel() < size:
            self.kept[name] = torch.empty(size, dtype=dtype)
        return self.kept[name][:size].view(shape)
