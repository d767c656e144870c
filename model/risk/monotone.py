"""Signs kept by projection: a feature said to raise the PD never lowers it (spec 5.7).

Projection is post-processing of noised weights and costs no privacy. Additive: weighted isotonic regression of each
signed feature's hat weights. MLP: sign clamps, sufficient but not necessary: in each hidden layer the first units, in
proportion to the signed features, form a monotone group that alone hears them and passes on with weights ≥ 0; the
rest see only unsigned features and flags. So signed and unsigned features interact only inside the monotone group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from model.risk.knots import Knots
from model.risk.schema import Schema

Array = npt.NDArray[Any]
RARE = 1e-3  # weight of a knot nobody is near: it follows its neighbours


def pava(values: Sequence[float] | Array, weights: Sequence[float] | Array) -> npt.NDArray[np.float64]:
    """Nearest nondecreasing sequence in weighted least squares; weights > 0.

    Pool adjacent violators (Ayer et al. 1955), O(n).
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, mass, length = float(value), float(weight), 1
        while blocks and blocks[-1][0] > mean:
            before, heavy, many = blocks.pop()
            mean = (before * heavy + mean * mass) / (heavy + mass)
            mass, length = mass + heavy, length + many
        blocks.append((mean, mass, length))
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def project(theta: Array, schema: Schema, knots: Knots, hidden: Sequence[int] = ()) -> Array:
    """The nearest weights (d,) that respect every feature's sign; same dtype, `theta` itself untouched."""
    out = np.array(theta, copy=True)
    if hidden:
        for block, low, high in _clamps(out, schema, knots, hidden):
            np.clip(block, low, high, out=block)
        return out
    for weights, sign, mass in _signed_hats(out, schema, knots):
        weights[:] = sign * pava(sign * weights.astype(np.float64), np.asarray(mass) + RARE)
    return out


def violations(theta: Array, schema: Schema, knots: Knots, hidden: Sequence[int] = ()) -> int:
    """How many weights or steps between knots go against their feature's sign; 0 after `project`."""
    if hidden:
        clamps = _clamps(np.array(theta, copy=True), schema, knots, hidden)
        return int(sum(np.sum((block < low) | (block > high)) for block, low, high in clamps))
    return int(sum(np.sum(np.diff(sign * weights) < 0) for weights, sign, _ in _signed_hats(theta, schema, knots)))


def _signed_hats(theta: Array, schema: Schema, knots: Knots) -> Iterator[tuple[Array, int, tuple[float, ...]]]:
    """Views of the hat weights of each signed number, its sign, and its knots' masses."""
    at = 1
    for feature, values, mass in zip(schema.features, knots.values, knots.mass, strict=True):
        if feature.sign and feature.kind == "number":
            yield theta[at : at + len(values)], feature.sign, mass[:-1]
        at += len(values) + 1


def _clamps(theta: Array, schema: Schema, knots: Knots, hidden: Sequence[int]) -> Iterator[tuple[Array, float, float]]:
    """Views of an MLP's constrained weights and the interval each must lie in."""
    rows, width = _value_rows(schema, knots)
    if not rows:
        return
    groups = [min(size, math.ceil(size * len(rows) / len(schema.features))) for size in hidden]
    at = 0
    for layer, (inputs, outputs) in enumerate(pairwise((width, *hidden, 1))):
        weight = theta[at : at + inputs * outputs].reshape(inputs, outputs)
        kept = groups[layer] if layer < len(hidden) else 1
        signed = rows if layer == 0 else [(row, 1) for row in range(groups[layer - 1])]
        for row, sign in signed:
            yield weight[row, :kept], *((0.0, math.inf) if sign > 0 else (-math.inf, 0.0))
            yield weight[row, kept:], 0.0, 0.0
        at += (inputs + 1) * outputs


def _value_rows(schema: Schema, knots: Knots) -> tuple[list[tuple[int, int]], int]:
    """Input row and sign of every signed number, and the number of inputs (value and flag, or codes and flag)."""
    rows, at = [], 0
    for feature, values in zip(schema.features, knots.values, strict=True):
        if feature.kind == "number" and feature.sign:
            rows.append((at, feature.sign))
        at += 2 if feature.kind == "number" else len(values) + 1
    return rows, at
