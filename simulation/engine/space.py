"""Memory a worker uses again and again: fresh pages cost more than the arithmetic on them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOST = 1 << 25  # bytes a space may have to be kept for the next round


@dataclass
class Space:
    """One worker's float32 buffers by name. What a name held is overwritten when it is asked for again."""

    kept: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """An uninitialised contiguous array of `shape`, the same memory each time."""
        size = math.prod(shape)
        if name not in self.kept or self.kept[name].size < size:
            self.kept[name] = np.empty(size, dtype=np.float32)
        return self.kept[name][:size].reshape(shape)

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(buffer.nbytes for buffer in self.kept.values())


_spare: deque[Space] = deque()


@contextmanager
def lent() -> Iterator[Space]:
    """A space for one worker, from an earlier round where there is one: else small rounds go to fresh pages."""
    try:
        space = _spare.pop()
    except IndexError:
        space = Space()
    try:
        yield space
    finally:
        if space.size <= MOST:
            _spare.append(space)
