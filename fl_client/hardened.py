"""What an ONNX file must be before a phone runs it: an allowlist, tight caps, and one first run in a cage (spec 8.6).

Bytes in, never a path. Nothing here imports `onnx`; onnxruntime is imported only when a session is opened.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_client.onnxwire import Message, parse
from model.errors import ModelError
from model.risk.onnx_ops import ALLOWED_OPS, INPUT, OUTPUTS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_BYTES = 512 << 10  # twice what an MLP over every registered feature needs
MAX_NODES = 1024
MAX_INITIALISERS = 1024
MAX_DIM = 1 << 16
MAX_RANK = 4
DOMAINS = ("", "ai.onnx")
OPSETS = range(13, 26)
IR_VERSIONS = range(7, 14)
FLOAT = 1
ITEM_BYTES = {FLOAT: 4, 6: 4, 7: 8, 9: 1, 11: 8}  # onnx.TensorProto: float, int32, int64, bool, double
_DATA = {FLOAT: "float_data", 6: "int32_data", 7: "int64_data", 9: "int32_data", 11: "double_data"}
_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
PROBE_SECONDS = 30.0
PROBE_CPU_SECONDS = 10
PROBE_MEMORY = 192 << 20


@dataclass(frozen=True)
class ModelFacts:
    """What the check read: number of input columns, nodes, initialisers and tensor elements, and the ops used."""

    features: int
    nodes: int
    initialisers: int
    elements: int
    ops: frozenset[str]


def check(onnx: bytes, features: int | None = None) -> ModelFacts:
    """Facts of a model that a phone may run (spec 8.6.1–8.6.6); ModelError names the first rule broken.

    `features` is the number of input columns the schema has; None accepts any.
    """
    if len(onnx) > MAX_BYTES:
        raise _refuse(f"has {len(onnx)} bytes, over the limit of {MAX_BYTES}")
    model = parse(onnx)
    graph: Message = model.get("graph") or {}
    if not graph or model.get("ir_version") not in IR_VERSIONS:
        raise _refuse(f"is not an ONNX model of version {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}")
    _check_opsets(model["opset_import"])
    nodes, constants = graph["node"], graph["initializer"]
    if not 1 <= len(nodes) <= MAX_NODES or len(constants) > MAX_INITIALISERS:
        raise _refuse(f"has {len(nodes)} nodes and {len(constants)} initialisers, over the limits")
    ops = frozenset(_op(node) for node in nodes)
    tensors = [*constants, *_attribute_tensors(nodes)]
    elements = sum(_elements(tensor) for tensor in tensors)
    return ModelFacts(_columns(graph, features), len(nodes), len(constants), elements, ops)


def session(onnx: bytes, features: int | None = None) -> InferenceSession:
    """An onnxruntime session over bytes that pass `check`: one thread, nothing written, no path ever opened."""
    check(onnx, features)
    from fl_client.probe import open_session, runtime_errors

    try:
        return open_session(onnx)
    except runtime_errors() as error:
        raise _refuse(f"cannot be loaded ({_first_line(error)})") from error


def probe_in_subprocess(
    onnx: bytes,
    *,
    seconds: float = PROBE_SECONDS,
    cpu_seconds: int = PROBE_CPU_SECONDS,
    memory: int = PROBE_MEMORY,
) -> None:
    """Run the first inferences in a process of its own, once, when a release is installed (spec 8.6.7).

    `memory` is the address space in bytes that loading and running may add; ModelError when the model exceeds it,
    the CPU time or the timeout, crashes, or answers other shapes or values than a risk model does.
    """
    facts = check(onnx)
    script = Path(__file__).with_name("probe.py")
    command = [sys.executable, "-I", str(script), str(facts.features), str(cpu_seconds), str(memory)]
    try:
        done = subprocess.run(command, input=onnx, capture_output=True, timeout=seconds, env={}, cwd="/", check=False)
    except subprocess.TimeoutExpired as error:
        raise _refuse(f"did not answer within {seconds:g} s in its first run") from error
    if done.returncode < 0:
        raise _refuse(f"was stopped by signal {-done.returncode} in its first run under limits")
    if done.returncode != 0:
        raise _refuse(f"failed its first run under limits ({_reason(done.stdout)})")


def _refuse(what: str) -> ModelError:
    return ModelError(f"the model {what}; keep the release in use and tell its publisher")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _reason(stdout: bytes) -> str:
    try:
        return str(json.loads(stdout)["error"])
    except (ValueError, KeyError, TypeError):
        return "it crashed"


def _check_opsets(imports: list[Message]) -> None:
    if len(imports) != 1 or imports[0].get("domain", "") not in DOMAINS:
        raise _refuse("uses operators from a domain outside the allowlist")
    if imports[0].get("version") not in OPSETS:
        raise _refuse(f"needs operator set {imports[0].get('version')}, outside {OPSETS[0]} to {OPSETS[-1]}")


def _op(node: Message) -> str:
    name, domain = node.get("op_type", ""), node.get("domain", "")
    if domain not in DOMAINS or name not in ALLOWED_OPS:
        raise _refuse(f"uses the operator {domain}{'.' if domain else ''}{name}, which is not on the allowlist")
    return str(name)


def _attribute_tensors(nodes: Iterable[Message]) -> Iterable[Message]:
    for node in nodes:
        for attribute in node["attribute"]:
            if _ATTRIBUTES.get(attribute.get("type", 0)) is None:
                raise _refuse(f"has attribute {attribute.get('name', '')!r} of a type that is not allowed")
            if len(attribute["floats"]) > MAX_DIM or len(attribute["ints"]) > MAX_DIM:
                raise _refuse(f"has attribute {attribute.get('name', '')!r} over the size limit")
            if "t" in attribute:
                yield attribute["t"]


def _elements(tensor: Message) -> int:
    """Number of elements of an in-file tensor whose data is exactly there."""
    name, kind, dims = tensor.get("name", ""), tensor.get("data_type", 0), tensor["dims"]
    if tensor.get("data_location", 0) != 0:
        raise _refuse(f"keeps tensor {name!r} as external data")
    if kind not in ITEM_BYTES:
        raise _refuse(f"has tensor {name!r} of a type that is not allowed")
    if len(dims) > MAX_RANK or any(not 0 <= dim <= MAX_DIM for dim in dims):
        raise _refuse(f"has tensor {name!r} with dimensions over the limit")
    count = math.prod(dims)
    typed = [field for field in set(_DATA.values()) if tensor[field]]
    if "raw_data" in tensor:
        fits = not typed and len(tensor["raw_data"]) == count * ITEM_BYTES[kind]
    else:
        fits = typed in ([], [_DATA[kind]]) and len(tensor[_DATA[kind]]) == count
    if not fits:
        raise _refuse(f"has tensor {name!r} whose data does not fit its shape")
    return count


def _columns(graph: Message, features: int | None) -> int:
    inputs, outputs = graph["input"], graph["output"]
    if [value.get("name") for value in inputs] != [INPUT] or _elem_type(inputs[0]) != FLOAT:
        raise _refuse(f"must have exactly one input, {INPUT!r}, of float32")
    if sorted(value.get("name", "") for value in outputs) != sorted(OUTPUTS):
        raise _refuse(f"must have exactly the outputs {', '.join(OUTPUTS)}")
    if any(_elem_type(value) != FLOAT for value in outputs):
        raise _refuse("must answer in float32")
    shape = _tensor_type(inputs[0]).get("shape", {"dim": []})["dim"]
    columns = shape[1].get("dim_value", 0) if len(shape) == 2 else 0
    if not 1 <= columns <= MAX_DIM or "dim_value" in shape[0]:
        raise _refuse(f"must take {INPUT!r} of shape [N, F] with F fixed")
    if features is not None and columns != features:
        raise _refuse(f"takes {columns} features where this phone's schema has {features}")
    return int(columns)


def _tensor_type(value: Message) -> dict[str, Any]:
    found: dict[str, Any] = value.get("type", {}).get("tensor_type", {})
    return found


def _elem_type(value: Message) -> int:
    return int(_tensor_type(value).get("elem_type", 0))
