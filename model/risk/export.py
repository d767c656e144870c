"""The released file: encoding, calibration, score scale and contributions in one ONNX graph (spec 5.12).

Written node by node rather than traced: the graph stays small, holds no source paths, and the same weights give the
same bytes. Every step of the additive graph is a sum of nondecreasing terms times weights of one sign, so a signed
feature is monotone in float32 exactly, not up to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from model.errors import SchemaError
from model.risk.calibration import Platt
from model.risk.network import RiskNetwork, quantile_levels
from model.risk.onnx_ops import INPUT, IR_VERSION, OPSET, OUTPUTS
from model.risk.schema import Feature, Schema
from model.risk.scorecard import FACTOR, HIGHEST, LOWEST, OFFSET

Floats = npt.NDArray[np.float64]
CHUNK = 512  # rows a call in `parity`: the MLP's contributions hold F+1 copies of each


class _Graph:
    """Collects nodes and float32 or int64 constants; every name is a counter, so bytes depend on nothing else."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike) -> str:
        """A float32 tensor, or int64 where `value` is integer."""
        array = np.asarray(value)
        array = np.ascontiguousarray(array.astype(np.int64 if array.dtype.kind == "i" else np.float32))
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str | npt.ArrayLike, name: str = "", **attributes: Any) -> str:
        """Append one node; inputs that are not names become constants. Returns its output's name."""
        output = name or f"t{len(self.nodes)}"
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        self.nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    def finish(self, features: int) -> bytes:
        """The file: features float32 (N, F) → pd (N,), score (N,), contributions (N, F)."""
        row: list[str | int | None] = ["N"]
        table: list[str | int | None] = ["N", features]
        value = helper.make_tensor_value_info
        inputs: list[onnx.ValueInfoProto] = [value(INPUT, TensorProto.FLOAT, table)]
        outputs = [value(n, TensorProto.FLOAT, table if n == OUTPUTS[2] else row) for n in OUTPUTS]
        graph = helper.make_graph(self.nodes, "pocketscore", inputs, outputs, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="pocketscore")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def export(network: RiskNetwork, platt: Platt, schema: Schema) -> bytes:
    """ONNX bytes of a trained network with its calibration; SchemaError where `schema` is not the network's."""
    if schema != network.schema:
        raise SchemaError(f"schema {schema.name!r} is not the one the network was built on; export with its own")
    graph = _Graph()
    theta = network.theta.detach().double().numpy()
    if network.hidden:
        _mlp(graph, network, platt)
    else:
        _additive(graph, network, theta, platt)
    return graph.finish(len(schema.features))


def parity(network: RiskNetwork, platt: Platt, onnx_bytes: bytes, x: npt.NDArray[np.float32]) -> float:
    """Greatest |pd| difference between the file under onnxruntime and PyTorch, over rows x (R, F)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    worst = 0.0
    with torch.no_grad():
        for rows in np.array_split(np.asarray(x, np.float32), max(1, -(-len(x) // CHUNK))):
            mine = platt.pd(network(torch.from_numpy(rows)).double().numpy())
            theirs = session.run([OUTPUTS[0]], {INPUT: rows})[0]
            worst = max(worst, float(np.abs(mine - theirs).max(initial=0.0)))
    return worst


def _additive(graph: _Graph, network: RiskNetwork, theta: Floats, platt: Platt) -> None:
    """contribution_j = slope · (part_j − its reference); logit = Σ contributions + bias."""
    curves, missing, means = [], [], []
    features = network.schema.features
    for feature, values, mass, span in zip(
        features, network.knots.values, network.knots.mass, network.encoding.spans, strict=True
    ):
        weights = theta[1 + span.start : 1 + span.stop]
        mean = float(weights @ np.asarray(mass))
        points, heights = _curve(feature, values, weights[:-1])
        curves.append((points, platt.slope * heights, platt.slope * (heights[0] - mean)))
        missing.append(platt.slope * (weights[-1] - mean))
        means.append(mean)
    bias = platt.slope * (theta[0] + sum(means)) + platt.intercept
    present = _piecewise(graph, INPUT, curves)
    parts = graph.node("Where", graph.node("IsNaN", INPUT), np.array(missing), present, name=OUTPUTS[2])
    total = graph.node("ReduceSum", parts, np.array([1]), keepdims=0)
    _scale(graph, graph.node("Add", total, np.float32(bias)), platt)


def _mlp(graph: _Graph, network: RiskNetwork, platt: Platt) -> None:
    """F+1 copies of the inputs through one set of layers: the row itself, then each feature at its reference."""
    owner = network.input_owner.numpy()
    order, inputs = _mlp_inputs(graph, network)
    reference = network.reference.double().numpy()[order]
    own = np.vstack([np.zeros(len(order)), owner[order] == np.arange(len(network.schema.features))[:, None]])
    moved = graph.node("Unsqueeze", graph.node("Sub", inputs, reference), np.array([1]))
    rows = graph.node("Unsqueeze", inputs, np.array([1]))
    state = graph.node("Sub", rows, graph.node("Mul", moved, own))
    layers = [(w.double().numpy(), b.double().numpy()) for w, b in network.layers(network.theta.detach())]
    layers[0] = (layers[0][0][order], layers[0][1])
    for weight, bias in layers[:-1]:
        state = graph.node("Tanh", graph.node("Add", graph.node("MatMul", state, weight), bias))
    last, bias = layers[-1]
    logits = graph.node("MatMul", state, platt.slope * last[:, 0])
    logits = graph.node("Add", logits, np.float32(platt.slope * bias[0] + platt.intercept))
    first, rest = (graph.node("Slice", logits, *(np.array([n]) for n in ends)) for ends in ((0, 1, 1), (1, 1 << 31, 1)))
    graph.node("Sub", first, rest, name=OUTPUTS[2])
    _scale(graph, graph.node("Squeeze", first, np.array([1])), platt)


def _mlp_inputs(graph: _Graph, network: RiskNetwork) -> tuple[npt.NDArray[np.int64], str]:
    """The MLP's inputs as [values of numbers | missing flags | kept codes], and the network's row of each."""
    features, knots, owner = network.schema.features, network.knots, network.input_owner.numpy()
    first = np.searchsorted(owner, np.arange(len(features)))
    flags = np.searchsorted(owner, np.arange(len(features)), side="right") - 1
    numbers = np.array([j for j, f in enumerate(features) if f.kind == "number"], np.int64)
    codes = np.array([i for i in range(len(owner)) if i not in {*flags, *first[numbers]}], np.int64)
    blocks = [graph.node("Cast", graph.node("IsNaN", INPUT), to=TensorProto.FLOAT)]
    if len(numbers):
        levels = [quantile_levels(knots.mass[j]) for j in numbers]
        curves = [(np.asarray(knots.values[j]), level, level[0]) for j, level in zip(numbers, levels, strict=True)]
        x = INPUT if len(numbers) == len(features) else graph.node("Gather", INPUT, numbers, axis=1)
        blocks.insert(0, _present(graph, x, _piecewise(graph, x, curves)))
    if len(codes):
        x = graph.node("Gather", INPUT, owner[codes], axis=1)
        kept = np.concatenate([v for f, v in zip(features, knots.values, strict=True) if f.kind == "category"])
        far = graph.node("Abs", graph.node("Sub", x, kept))
        blocks.append(_present(graph, x, graph.node("Relu", graph.node("Sub", np.float32(1), far))))
    joined = graph.node("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0]
    return np.concatenate([first[numbers], flags, codes]), joined


def _present(graph: _Graph, x: str, value: str) -> str:
    """`value` where `x` is a number, 0 where it is missing."""
    return graph.node("Where", graph.node("IsNaN", x), np.float32(0), value)


def _curve(feature: Feature, values: tuple[float, ...], weights: Floats) -> tuple[Floats, Floats]:
    """Corner points and heights of one feature's piecewise-linear function; a category is zero off its kept codes."""
    points = np.asarray(values, np.float64)
    if feature.kind == "number":
        return points, weights
    corners = np.unique(np.concatenate([points - 1, points, points + 1]))
    heights = np.zeros(len(corners))
    heights[np.searchsorted(corners, points)] = weights
    return corners, heights


def _piecewise(graph: _Graph, x: str, curves: list[tuple[Floats, Floats, float]]) -> str:
    """Each column through its own curve (points, heights, height at the left end): (N, C) → (N, C).

    Ramps are stacked before the rows, (ramps, N, C), so no reshape is needed and columns stay contiguous.
    """
    ramps = max(1, *(len(points) - 1 for points, _, _ in curves))
    start, gain, rise = (np.full((ramps, 1, len(curves)), fill) for fill in (0.0, 1.0, 0.0))
    for j, (points, heights, _) in enumerate(curves):
        size = len(points) - 1
        start[:size, 0, j], gain[:size, 0, j], rise[:size, 0, j] = points[:-1], 1 / np.diff(points), np.diff(heights)
    ramp = graph.node("Mul", graph.node("Sub", x, start), gain)
    ramp = graph.node("Clip", ramp, np.float32(0), np.float32(1))
    risen = graph.node("ReduceSum", graph.node("Mul", ramp, rise), np.array([0]), keepdims=0)
    return graph.node("Add", risen, np.array([left for _, _, left in curves]))


def _scale(graph: _Graph, logit: str, platt: Platt) -> None:
    """pd and score from the scaled logit (N,), through the calibration's bends."""
    if platt.places:
        beyond = graph.node("Sub", graph.node("Unsqueeze", logit, np.array([1])), np.array(platt.places))
        logit = graph.node("Add", logit, graph.node("MatMul", graph.node("Relu", beyond), np.array(platt.changes)))
    graph.node("Sigmoid", logit, name=OUTPUTS[0])
    raw = graph.node("Sub", np.float32(OFFSET), graph.node("Mul", logit, np.float32(FACTOR)))
    graph.node("Clip", raw, np.float32(LOWEST), np.float32(HIGHEST), name=OUTPUTS[1])
