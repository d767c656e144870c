"""Who masks with whom: a Harary circulant over a random order of the roster (spec 13.8.2).

The order is drawn from a seed that nobody knows before the roster is fixed. A roster above GROUP phones is cut, in that
order, into circles of nearly one size; each circle is a cohort by itself. Phones are named by their *position* in their
circle, and a phone's neighbours by *slots* 0 … degree − 1: the nearest degree/2 positions on either side. In a circle
of at most degree + 1 phones everyone is everyone's neighbour. Slot s of a phone is slot degree − 1 − s seen from there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from model.errors import ContractError

GROUP = 1000
_ORDER = b"pocketscore/order/1\0"
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Circle:
    """One group: the roster `members` (indices into the roster) in their order, and the plan's `wanted` degree."""

    members: tuple[int, ...]
    wanted: int

    @property
    def size(self) -> int:
        """Phones in the circle."""
        return len(self.members)

    @property
    def degree(self) -> int:
        """Neighbours of every phone."""
        return degree_of(self.size, self.wanted)

    @property
    def complete(self) -> bool:
        """Whether everyone is everyone's neighbour."""
        return self.degree == self.size - 1

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """How far ahead on the circle each slot's neighbour stands."""
        half, degree = (self.degree + 1) // 2, self.degree
        return tuple(s + 1 if s < half else self.size - degree + s for s in range(degree))

    def neighbours(self, position: int) -> tuple[int, ...]:
        """Positions of the neighbours of `position`, slot by slot."""
        return tuple((position + offset) % self.size for offset in self.offsets)

    def windows(self, flags: Flags) -> int:
        """The fewest of `flags` (size,) set in any degree/2 consecutive positions of the circle."""
        width = self.degree // 2
        total = np.concatenate([[0], np.cumsum(np.concatenate([flags, flags[:width]]))])
        return int((total[width : width + self.size] - total[: self.size]).min())


def degree_of(size: int, wanted: int) -> int:
    """The degree that a circle of `size` phones has where the plan wants `wanted`."""
    return min(wanted, size - 1)


def sizes(phones: int, cap: int = GROUP) -> list[int]:
    """Sizes of the circles of a roster, as equal as can be and none above `cap`."""
    groups = -(-phones // cap)
    return [phones // groups + (g < phones % groups) for g in range(groups)]


def order_seed(root: bytes, signature: bytes) -> bytes:
    """What the order is drawn from: the roster's root and the witness's one deterministic signature over it."""
    return hashlib.sha256(_ORDER + root + signature).digest()


def circles(seed: bytes, phones: int, wanted: int, cap: int = GROUP) -> list[Circle]:
    """The circles of a roster of `phones`: sorted by 64-bit words of AES-256-CTR under the seed.

    ContractError for an odd degree where not everyone is everyone's neighbour: no circulant has it on an odd circle.
    """
    if wanted % 2 and any(degree_of(size, wanted) != size - 1 for size in sizes(phones, cap)):
        raise ContractError(f"a graph of degree {wanted} is not even; plan an even number of neighbours")
    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(8 * phones))
    order = np.argsort(np.frombuffer(stream, "<u8"), kind="stable").tolist()
    groups, start = [], 0
    for size in sizes(phones, cap):
        groups.append(Circle(tuple(order[start : start + size]), wanted))
        start += size
    return groups


def pack(flags: Flags) -> bytes:
    """Flags as bits, first flag in the lowest bit of the first byte."""
    return np.packbits(flags, bitorder="little").tobytes()


def unpack(bits: bytes, count: int) -> Flags:
    """Inverse of `pack`; ContractError for another length or for bits behind the last flag."""
    if len(bits) != -(-count // 8):
        raise ContractError(f"a list of {len(bits)} bytes does not fit {count} phones; send it again")
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").astype(np.bool_)
    if flags[count:].any():
        raise ContractError("a list of phones names some beyond its end; send it again")
    return flags[:count]
