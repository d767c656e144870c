"""One phone's epoch by NumPy, written out by hand: Flower's client, and in float64 the reference for every check."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Layers = list[tuple[Array, Array]]


def layers(flat: Array, shapes: tuple[tuple[int, int], ...]) -> Layers:
    """Views (matrix (in, out), bias (out,)) into flat (d,)."""
    found, at = [], 0
    for inside, outside in shapes:
        middle, end = at + inside * outside, at + inside * outside + outside
        found.append((flat[at:middle].reshape(inside, outside), flat[middle:end]))
        at = end
    return found


def forward(net: Layers, x: Array) -> list[Array]:
    """Inputs of every layer, and last the logits (n, 1)."""
    seen = [x]
    for matrix, bias in net[:-1]:
        seen.append(np.tanh(seen[-1] @ matrix + bias))
    seen.append(seen[-1] @ net[-1][0] + net[-1][1])
    return seen


def step(net: Layers, x: Array, y: Array, rate: float) -> None:
    """One step of gradient descent on the mean logistic loss, in place."""
    *seen, logits = forward(net, x)
    slope = (1 / (1 + np.exp(-logits)) - y[:, None]) * (rate / len(x))
    for (matrix, bias), below in zip(reversed(net), reversed(seen), strict=True):
        lower = (slope @ matrix.T) * (1 - below * below) if below is not x else slope
        matrix -= below.T @ slope
        bias -= slope.sum(0)
        slope = lower


def epoch(
    theta: Array, x: Array, y: Array, shapes: tuple[tuple[int, int], ...], batch: int, rate: float, order: Array
) -> Array:
    """theta (d,) after one pass over the rows in `order`, in batches."""
    flat = theta.copy()
    net = layers(flat, shapes)
    x, y = x[order], y[order]
    for at in range(0, len(x), batch):
        step(net, x[at : at + batch], y[at : at + batch], rate)
    return flat


def loss(theta: Array, x: Array, y: Array, shapes: tuple[tuple[int, int], ...]) -> float:
    """Mean logistic loss."""
    logits = forward(layers(theta, shapes), x)[-1][:, 0]
    return float(np.mean(np.logaddexp(0, logits) - y * logits))
