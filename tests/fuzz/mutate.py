"""Inputs near good ones: trees of CBOR changed where it matters, and bytes changed anywhere (tests/fuzz).

Every input is CBOR, good or not. A tree is changed by value, then written by an encoder that need not be canonical; a
part of the results is changed as bytes as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from model.canonical import decode
from model.errors import ContractError

_INTERESTING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 23, 24, 255, 256, 1 << 16, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, (1 << 63) - 1,
    1 << 63, (1 << 64) - 1, -(1 << 64), 0.0, -0.0, 1.5, 1e300, -1e300, 5e-324, float("nan"), float("inf"), "", "x",
    "\0", "\ud7ff", "é" * 40, "a" * 5000, b"", b"\0", b"\xff" * 64, b"\0" * 5000, [], {}, [[]], {"": 0}, [0] * 50,
    b"\x80\x04\x95.", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (9,), }", b"PK\x03\x04",
    "0" * 64, "helper", "pairwise", "local", "off", "field", "train", "knots", "weight",
)  # fmt: skip
MAX_INPUT = 1 << 20
_HEADS = (0x1B, 0x3B, 0x5B, 0x7B, 0x9B, 0xBB, 0xDB, 0x9F, 0xBF, 0x5F, 0x7F, 0xC1, 0xFF, 0xF9, 0xFB, 0xF7, 0x81, 0xA1)


@dataclass(frozen=True)
class Mutator:
    """Draws from `random` alone, so that a seed names a run."""

    random: Random

    def mutated(self, data: bytes, other: bytes) -> bytes:
        """One input near `data`; parts may come from `other`."""
        try:
            tree = decode(data, max_bytes=1 << 24)
        except ContractError:
            return self.bytes_changed(data, other)
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 3))):
            tree = self._changed(tree)
        written = Loose(self.random, self.random.choice((0.0, 0.0, 0.02, 0.2))).write(tree)
        return self.bytes_changed(written, other) if self.random.random() < 0.3 else written

    def bytes_changed(self, data: bytes, other: bytes) -> bytes:
        """Flipped, cut, doubled, spliced, or with heads that lie."""
        raw, changes = bytearray(data), (self._flip, self._cut, self._double, self._splice, self._lie, self._deepen)
        for _ in range(self.random.choice((1, 1, 2, 5))):
            self.random.choice(changes)(raw, other)
        return bytes(raw)

    def _changed(self, node: Any) -> Any:
        """The tree with one place changed; the deeper it lies, the less likely it is chosen."""
        children = isinstance(node, dict | list) and len(node) > 0
        if isinstance(node, bytes) and node[:1] >= b"\x81" and self.random.random() < 0.8:
            return self._changed_inside(node)
        if children and self.random.random() < 0.75:
            return self._changed_below(node)
        return self.random.choice(_CHANGES)(self.random, node)

    def _changed_inside(self, node: bytes) -> bytes:
        """Bytes that may be a message of their own."""
        try:
            tree = decode(node, max_bytes=1 << 24)
        except ContractError:
            return self.bytes_changed(node, node)
        return Loose(self.random, self.random.choice((0.0, 0.0, 0.1))).write(self._changed(tree))

    def _changed_below(self, node: Any) -> Any:
        copy = dict(node) if isinstance(node, dict) else list(node)
        place = self.random.choice(list(copy)) if isinstance(copy, dict) else self.random.randrange(len(copy))
        copy[place] = self._changed(copy[place])
        return copy

    def _at(self, raw: bytearray) -> int:
        return self.random.randrange(len(raw) + 1)

    def _flip(self, raw: bytearray, other: bytes) -> None:
        if raw:
            raw[self.random.randrange(len(raw))] ^= 1 << self.random.randrange(8)

    def _cut(self, raw: bytearray, other: bytes) -> None:
        start = self._at(raw)
        del raw[start : start + self.random.choice((1, 2, 8, 1 << 20))]

    def _double(self, raw: bytearray, other: bytes) -> None:
        start = self._at(raw)
        piece = bytes(raw[start : start + self.random.randrange(1, 40)])
        raw[start:start] = piece * self.random.choice((1, 1, 2, 2, 2, 50))

    def _splice(self, raw: bytearray, other: bytes) -> None:
        start = self.random.randrange(len(other) + 1)
        at = self._at(raw)
        raw[at : at + self.random.randrange(9)] = other[start : start + self.random.randrange(200)]

    def _lie(self, raw: bytearray, other: bytes) -> None:
        length = self.random.choice((0, 1, 23, 200, 1 << 16, 1 << 31, 1 << 40, (1 << 64) - 1))
        raw[(at := self._at(raw)) : at + 1] = bytes([self.random.choice(_HEADS)]) + length.to_bytes(8, "big")

    def _deepen(self, raw: bytearray, other: bytes) -> None:
        at = self._at(raw)
        raw[at:at] = self.random.choice((b"\x81", b"\xa1\x60", b"\x9f", b"\xc1")) * self.random.choice(
            (3, 3, 17, 17, 17, 3000)
        )


def _nested(random: Random, node: Any) -> Any:
    for _ in range(random.choice((1, 1, 2, 2, 15, 16, 17, 400) if random.random() < 0.2 else (1,))):
        node = random.choice(([node], {"a": node}))
    return node


def _resized(random: Random, node: Any) -> Any:
    if isinstance(node, bytes | str | list):
        longer = node * random.choice((2, 3, 3, 40)) if len(node) < MAX_INPUT // 40 else node
        return random.choice((node[:-1], node[1:], node[: len(node) // 2], longer))
    return _INTERESTING[random.randrange(len(_INTERESTING))]


def _many(random: Random, node: Any) -> Any:
    return [random.choice(([], {}, 0, ""))] * random.choice((33, 33, 600, 20_000) if random.random() < 0.1 else (2, 33))


def _rekeyed(random: Random, node: Any) -> Any:
    if not isinstance(node, dict) or not node:
        return _resized(random, node)
    copy, key = dict(node), random.choice(list(node))
    value = copy.pop(key)
    for name in random.choice(([], [key.upper()], [key, "weight"], [key, key + "\0"])):
        copy[name] = value
    return copy


def _retyped(random: Random, node: Any) -> Any:
    if isinstance(node, bool) or not isinstance(node, int | float | str | bytes):
        return random.choice((list(node), str(node)[:100])) if isinstance(node, dict) else {"0": node}
    if isinstance(node, int | float):
        return random.choice((node + 1, -node, float(node) if abs(node) < 1e18 else 0.5, str(node), [node], node * 2))
    return node.encode("utf-8", "surrogatepass") if isinstance(node, str) else node.decode("latin-1")


_CHANGES: tuple[Callable[[Random, Any], Any], ...] = (
    lambda random, node: random.choice(_INTERESTING), _nested, _resized, _resized, _many, _rekeyed, _rekeyed, _retyped,
)  # fmt: skip


class Written(bytes):
    """A key that is CBOR already."""


@dataclass(frozen=True)
class Loose:
    """Writes CBOR that, in a share `odd` of its places, is not canonical: longer heads, keys twice or out of order,
    indefinite lengths, wider floats, tags."""

    random: Random
    odd: float

    def write(self, node: Any) -> bytes:
        """`node` as CBOR."""
        out: list[bytes] = []
        stack, size = [node], 0  # no recursion: trees may be deeper than Python's stack
        while stack and size < MAX_INPUT:
            node = stack.pop()
            if isinstance(node, Written):
                out.append(node)
            elif isinstance(node, list):
                out.append(self._head(4, len(node)))
                stack.extend(reversed(node))
            elif isinstance(node, dict):
                self._map(node, out, stack)
            else:
                out.append(self._leaf(node))
            size += len(out[-1])
        return b"".join(out)

    def _map(self, node: dict[str, Any], out: list[bytes], stack: list[Any]) -> None:
        pairs = sorted(((self._leaf(key), value) for key, value in node.items()), key=lambda pair: pair[0])
        if pairs and self._odd():
            self.random.shuffle(pairs)
            pairs += self.random.choices(pairs, k=self.random.randrange(2))
        out.append(self._head(5, len(pairs)))
        for key, value in reversed(pairs):
            stack += [value, Written(key)]

    def _leaf(self, node: Any) -> bytes:
        if isinstance(node, bool) or node is None:
            return b"\xf6" if node is None else b"\xf5" if node else b"\xf4"
        if isinstance(node, int):
            return self._head(0, node) if node >= 0 else self._head(1, -1 - node)
        if isinstance(node, float):
            return self._float(node)
        raw = node if isinstance(node, bytes) else node.encode("utf-8", "surrogatepass")
        return self._head(2 if isinstance(node, bytes) else 3, len(raw)) + raw

    def _float(self, value: float) -> bytes:
        for head, form in ((b"\xf9", ">e"), (b"\xfa", ">f"), (b"\xfb", ">d")):
            try:
                raw = struct.pack(form, value)
            except OverflowError:
                continue
            if (struct.unpack(form, raw)[0] == value or value != value) and not self._odd():
                return head + raw
        return b"\xfb" + struct.pack(">d", value)

    def _head(self, major: int, n: int) -> bytes:
        n, odd = n & ((1 << 64) - 1), self._odd()
        if odd and self.random.random() < 0.3:
            return bytes([major << 5 | 31])
        if n < 24 and not odd:
            return bytes([major << 5 | n])
        widths = [width for width in range(4) if n < 1 << (8 << width)]
        width = self.random.choice(widths) if odd else widths[0]
        return bytes([major << 5 | 24 + width]) + n.to_bytes(1 << width, "big")

    def _odd(self) -> bool:
        return self.odd > 0 and self.random.random() < self.odd
