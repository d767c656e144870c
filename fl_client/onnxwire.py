"""A bounded reader of the ONNX wire format: only the fields a plain model needs, each once (spec 8.6).

Written from the protobuf encoding and onnx.proto; what the grammar below does not name is refused, so external
data, subgraphs, functions, strings, sparse tensors and metadata cannot even be represented.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from model.errors import ModelError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_TEXT = 256


@dataclass(frozen=True)
class Field:
    """One allowed field: how its value is written, whether it repeats, and the message inside, if any."""

    name: str
    kind: str  # "int", "float", "double", "text", "bytes", "empty" or the name of a message
    repeated: bool = False


Message = dict[str, Any]  # field name → value, or list of values where the field repeats

GRAMMAR: dict[str, dict[int, Field]] = {
    "model": {
        1: Field("ir_version", "int"),
        2: Field("producer_name", "text"),
        3: Field("producer_version", "text"),
        4: Field("domain", "empty"),
        5: Field("model_version", "int"),
        6: Field("doc_string", "empty"),
        7: Field("graph", "graph"),
        8: Field("opset_import", "opset", repeated=True),
    },
    "opset": {1: Field("domain", "text"), 2: Field("version", "int")},
    "graph": {
        1: Field("node", "node", repeated=True),
        2: Field("name", "text"),
        5: Field("initializer", "tensor", repeated=True),
        10: Field("doc_string", "empty"),
        11: Field("input", "value", repeated=True),
        12: Field("output", "value", repeated=True),
        13: Field("value_info", "value", repeated=True),
    },
    "node": {
        1: Field("input", "text", repeated=True),
        2: Field("output", "text", repeated=True),
        3: Field("name", "text"),
        4: Field("op_type", "text"),
        5: Field("attribute", "attribute", repeated=True),
        6: Field("doc_string", "empty"),
        7: Field("domain", "text"),
    },
    "attribute": {
        1: Field("name", "text"),
        2: Field("f", "float"),
        3: Field("i", "int"),
        4: Field("s", "text"),
        5: Field("t", "tensor"),
        7: Field("floats", "float", repeated=True),
        8: Field("ints", "int", repeated=True),
        13: Field("doc_string", "empty"),
        20: Field("type", "int"),
    },
    "tensor": {
        1: Field("dims", "int", repeated=True),
        2: Field("data_type", "int"),
        4: Field("float_data", "float", repeated=True),
        5: Field("int32_data", "int", repeated=True),
        7: Field("int64_data", "int", repeated=True),
        8: Field("name", "text"),
        9: Field("raw_data", "bytes"),
        10: Field("double_data", "double", repeated=True),
        12: Field("doc_string", "empty"),
        14: Field("data_location", "int"),
    },
    "value": {1: Field("name", "text"), 2: Field("type", "type"), 3: Field("doc_string", "empty")},
    "type": {1: Field("tensor_type", "tensor_type")},
    "tensor_type": {1: Field("elem_type", "int"), 2: Field("shape", "shape")},
    "shape": {1: Field("dim", "dim", repeated=True)},
    "dim": {1: Field("dim_value", "int"), 2: Field("dim_param", "text")},
}

# Names for what is refused, so that the sentence says what was found.
FORBIDDEN = {
    ("model", 14): "metadata",
    ("model", 20): "training information",
    ("model", 25): "functions of its own",
    ("graph", 15): "sparse tensors",
    ("graph", 16): "metadata",
    ("node", 9): "metadata",
    ("attribute", 6): "a subgraph",
    ("attribute", 11): "subgraphs",
    ("attribute", 9): "strings",
    ("attribute", 22): "sparse tensors",
    ("tensor", 3): "a tensor in segments",
    ("tensor", 6): "strings",
    ("tensor", 13): "external data",
    ("tensor", 16): "metadata",
}
_WIRE = {"int": VARINT, "float": FIXED32, "double": FIXED64}
_PACKED = {"float": ("<f", 4), "double": ("<d", 8)}


def parse(data: bytes) -> Message:
    """The model message of `data`; ModelError on anything outside the grammar. Depth is bounded by the grammar."""
    return _message(memoryview(data), "model")


def _refuse(what: str) -> ModelError:
    return ModelError(f"the model {what}; keep the release in use and tell its publisher")


def _message(data: memoryview, kind: str) -> Message:
    fields = GRAMMAR[kind]
    found: Message = {field.name: [] for field in fields.values() if field.repeated}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        field = fields.get(number)
        if field is None:
            what = FORBIDDEN.get((kind, number), f"field {number} of its {kind}, which is not allowed")
            raise _refuse(f"carries {what}")
        values, at = _values(data, at, wire, field)
        if field.repeated:
            found[field.name].extend(values)
        elif field.name in found:  # protobuf would merge the two: one reader's model, another reader's bomb
            raise _refuse(f"names {field.name} twice in one {kind}")
        else:
            found[field.name] = values[0]
    return found


def _values(data: memoryview, at: int, wire: int, field: Field) -> tuple[list[Any], int]:
    plain = _WIRE.get(field.kind, LENGTH)
    if wire == LENGTH:
        size, at = _varint(data, at)
        if size > len(data) - at:
            raise _refuse("ends early")
        body = data[at : at + size]
        if plain != LENGTH and not field.repeated:
            raise _refuse(f"writes {field.name} in a form that is not allowed")
        return (_packed(body, field) if plain != LENGTH else [_block(body, field)]), at + size
    if wire != plain:
        raise _refuse(f"writes {field.name} in a form that is not allowed")
    if wire == VARINT:
        value, at = _varint(data, at)
        return [_signed(value)], at
    form, width = _PACKED[field.kind]
    if width > len(data) - at:
        raise _refuse("ends early")
    return [struct.unpack_from(form, data, at)[0]], at + width


def _block(body: memoryview, field: Field) -> Any:
    if field.kind in GRAMMAR:
        return _message(body, field.kind)
    if field.kind == "bytes":
        return body
    if len(body) > (0 if field.kind == "empty" else MAX_TEXT):
        raise _refuse(f"has {len(body)} bytes of text in {field.name}")
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise _refuse(f"has text in {field.name} that is not UTF-8") from error


def _packed(body: memoryview, field: Field) -> list[Any]:
    if field.kind == "int":
        values, at = [], 0
        while at < len(body):
            value, at = _varint(body, at)
            values.append(_signed(value))
        return values
    form, width = _PACKED[field.kind]
    if len(body) % width:
        raise _refuse(f"has half a number in {field.name}")
    return list(struct.unpack(f"<{len(body) // width}{form[1]}", body))


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise _refuse("ends early" if at >= len(data) else "has a number over 64 bits")


def _signed(value: int) -> int:
    """int64 of an unsigned varint, as protobuf writes negative numbers."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
