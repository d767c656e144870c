"""One byte form for every message: deterministic CBOR with text keys (RFC 8949 §4.2.1, spec 2.1)."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Any

from model.errors import ContractError

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_ITEMS = 1 << 18
_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _SIMPLE = 0, 1, 2, 3, 4, 5, 7
_CONSTANTS: dict[int, bool | None] = {20: False, 21: True, 22: None}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}


def encode(obj: Any) -> bytes:
    """Deterministic CBOR of `obj`: dict, list, tuple, str, bytes, int, bool, None and finite float.

    ContractError for any other type, an integer beyond 64 bits, a float that is not finite, a key that is
    not text, or nesting deeper than 16.
    """
    out = bytearray()
    _emit(obj, out, MAX_DEPTH)
    return bytes(out)


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS) -> Any:
    """Inverse of `encode`, strict: only the bytes that `encode` makes are taken (spec 2.1.4).

    Sizes are checked before anything is read or allocated. An item is a value or a key: one byte of it can be 72 in
    memory. ContractError for other CBOR types, duplicate or unsorted keys, non-shortest forms, indefinite lengths,
    trailing bytes, and anything over a bound.
    """
    if len(data) > max_bytes:
        raise ContractError(f"a message of {len(data)} bytes is over its limit of {max_bytes}; send a smaller one")
    obj, end = _read(data, 0, min(max_depth, MAX_DEPTH), [max_items])
    if end != len(data):
        raise ContractError(f"a message has {len(data) - end} bytes after its end; ask its sender for it again")
    if encode(obj) != data:
        raise ContractError("a message is not in canonical form (spec 2.1); ask its sender to encode it again")
    return obj


def digest(obj: Any) -> str:
    """SHA-256 of `encode(obj)`, 64 hex characters."""
    return sha256_hex(encode(obj))


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data`, 64 hex characters."""
    return hashlib.sha256(data).hexdigest()


def _emit(obj: Any, out: bytearray, depth: int) -> None:
    if obj is None or isinstance(obj, bool):
        out.append(0xF6 if obj is None else 0xF5 if obj else 0xF4)
    elif isinstance(obj, int):
        out += _head(_UINT, obj) if obj >= 0 else _head(_NEGATIVE, -1 - obj)
    elif isinstance(obj, float):
        out += _float(obj)
    elif isinstance(obj, str):
        out += _text(obj)
    elif isinstance(obj, bytes):
        out += _head(_BYTES, len(obj)) + obj
    elif depth == 0:
        raise ContractError(f"a message is nested deeper than {MAX_DEPTH}; flatten it")
    elif isinstance(obj, list | tuple):
        out += _head(_ARRAY, len(obj))
        for item in obj:
            _emit(item, out, depth - 1)
    elif isinstance(obj, Mapping):
        _emit_map(obj, out, depth)
    else:
        raise ContractError(f"a message cannot carry a {type(obj).__name__}; use plain values (spec 2.1)")


def _emit_map(obj: Mapping[Any, Any], out: bytearray, depth: int) -> None:
    out += _head(_MAP, len(obj))
    # Bytewise order of the encoded keys; RFC 7049's "canonical" order was length first.
    for key, name in sorted((_key(name), name) for name in obj):
        out += key
        _emit(obj[name], out, depth - 1)


def _key(name: Any) -> bytes:
    if not isinstance(name, str):
        raise ContractError(f"a message has the key {name!r}; keys must be text (spec 2.1)")
    return _text(name)


def _head(major: int, n: int) -> bytes:
    if n < 24:
        return bytes([major << 5 | n])
    for info, form, limit in ((24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32), (27, ">Q", 1 << 64)):
        if n < limit:
            return bytes([major << 5 | info]) + struct.pack(form, n)
    raise ContractError("a message has an integer beyond 64 bits; use a smaller one or bytes")


def _text(text: str) -> bytes:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ContractError(f"a message has text that is not Unicode ({error.reason}); correct it") from error
    return _head(_TEXT, len(raw)) + raw


def _float(value: float) -> bytes:
    if not math.isfinite(value):
        raise ContractError(f"a message has the number {value}; only finite numbers can be sent")
    for info, form in ((25, ">e"), (26, ">f")):
        try:
            raw = struct.pack(form, value)
        except OverflowError:  # too large for this width
            continue
        if struct.unpack(form, raw)[0] == value:
            return bytes([_SIMPLE << 5 | info]) + raw
    return b"\xfb" + struct.pack(">d", value)


def _take(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise ContractError(f"a message ends early: {size} bytes announced, {len(data) - at} left; send it again")
    return data[at : at + size]


def _read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """(major type, additional information, argument, next offset)."""
    first = _take(data, at, 1)[0]
    major, info = first >> 5, first & 31
    if info < 24:
        return major, info, info, at + 1
    if info > 27:
        raise ContractError("a message has an indefinite or reserved length; canonical form has neither (spec 2.1)")
    width = 1 << (info - 24)
    return major, info, int.from_bytes(_take(data, at + 1, width), "big"), at + 1 + width


def _read(data: bytes, at: int, depth: int, room: list[int]) -> tuple[Any, int]:
    """The value at `at` and where it ends; `room` holds how many more items the whole message may announce."""
    major, info, n, body = _read_head(data, at)
    if major == _UINT:
        return n, body
    if major == _NEGATIVE:
        return -1 - n, body
    if major == _BYTES:
        return bytes(_take(data, body, n)), body + n
    if major == _TEXT:
        return _read_text(_take(data, body, n)), body + n
    if major == _SIMPLE:
        return _read_simple(info, data[at + 1 : body]), body
    if major not in (_ARRAY, _MAP):
        raise ContractError("a message has a CBOR tag; canonical form has none (spec 2.1)")
    if depth == 0:
        raise ContractError("a message is nested too deep; ask its sender to flatten it")
    # Every item takes at least one byte, so a header cannot announce more than what is there.
    items = n * (1 + (major == _MAP))
    if items > len(data) - body:
        raise ContractError(f"a message announces {n} items in {len(data) - body} bytes; send it again")
    room[0] -= items
    if room[0] < 0:
        raise ContractError("a message has more items than its kind may have; ask its sender for a smaller one")
    return _read_list(data, body, n, depth, room) if major == _ARRAY else _read_map(data, body, n, depth, room)


def _read_text(raw: bytes) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(f"a message has text that is not UTF-8 ({error.reason}); send it again") from error


def _read_simple(info: int, raw: bytes) -> bool | float | None:
    if info in _CONSTANTS:
        return _CONSTANTS[info]
    if info not in _FLOATS:
        raise ContractError("a message has a CBOR simple value that canonical form has not (spec 2.1)")
    return float(struct.unpack(_FLOATS[info], raw)[0])


def _read_list(data: bytes, at: int, n: int, depth: int, room: list[int]) -> tuple[list[Any], int]:
    items = []
    for _ in range(n):
        item, at = _read(data, at, depth - 1, room)
        items.append(item)
    return items, at


def _read_map(data: bytes, at: int, n: int, depth: int, room: list[int]) -> tuple[dict[str, Any], int]:
    items: dict[str, Any] = {}
    for _ in range(n):
        key, at = _read(data, at, depth - 1, room)
        if not isinstance(key, str) or key in items:
            raise ContractError("a message has a key that is not text, or twice the same key; send it again")
        items[key], at = _read(data, at, depth - 1, room)
    return items, at
