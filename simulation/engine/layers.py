"""An MLP's layers forward and backward by hand, with the weights sent for all rows or each phone's own (spec 7.8).

Everything here is TorchScript where there is any: a call then runs without Python's lock, so that threads train at
once. Elsewhere the same functions run as they stand. What a call needs on its way it cuts out of `room` (float32).
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulation.engine.script import unlocked

Layers = list[tuple[Tensor, Tensor]]


@unlocked
def cut(room: Tensor, at: int, shape: list[int]) -> tuple[Tensor, int]:
    """(numbers of `room` from `at` on in this shape, where they end)."""
    size = 1
    for side in shape:
        size *= side
    return room[at : at + size].view(shape), at + size


@unlocked
def slopes_of(
    z: Tensor, y: Tensor, w: Tensor, later: Layers, room: Tensor, at: int
) -> tuple[list[Tensor], list[Tensor]]:
    """(outputs of the hidden layers, slopes by what each layer receives) of rows that feed z into the first layer.

    Either z (N, out), y, w (N, 1) and the weights sent, or z (A, L, out), y, w (A, L, 1) and each phone's own; `later`
    is the second layer and what follows.
    """
    seen = [z.tanh_()]
    for i in range(len(later)):
        shape = list(z.shape)
        shape[-1] = later[i][0].size(-1)
        out, at = cut(room, at, shape)
        if z.dim() == 2:
            torch.mm(seen[i], later[i][0], out=out)
        else:
            torch.bmm(seen[i], later[i][0], out=out)
        out.add_(later[i][1])  # sooner than a product on top of the bias
        seen.append(out.tanh_() if i + 1 < len(later) else out)
    slopes = [seen.pop().sigmoid_().sub_(y).mul_(w)]
    for i in range(len(later) - 1, -1, -1):
        matrix = later[i][0].transpose(-2, -1)
        below, at = cut(room, at, list(seen[i].shape))
        if matrix.size(-2) == 1:
            torch.mul(slopes[0], matrix, out=below)
        elif z.dim() == 2:
            torch.mm(slopes[0], matrix, out=below)
        else:
            torch.bmm(slopes[0], matrix, out=below)
        slopes.insert(0, torch.ops.aten.tanh_backward(below, seen[i], grad_input=below))
    return seen, slopes


@unlocked
def begin(change: Layers, x: Tensor, seen: list[Tensor], slopes: list[Tensor]) -> None:
    """A first change: change := each phone's Σ rows' slopes."""
    for i, (matrix, bias) in enumerate(change):
        below, slope = seen[i - 1] if i else x, slopes[i]
        torch.sum(slope, [1], True, out=bias)
        if slope.size(2) == 1:
            torch.bmm(slope.transpose(1, 2), below, out=matrix.transpose(1, 2))
        else:
            torch.bmm(below.transpose(1, 2), slope, out=matrix)


@unlocked
def add(change: Layers, x: Tensor, seen: list[Tensor], slopes: list[Tensor], keep: float) -> None:
    """change := keep · change + each phone's Σ rows' slopes. One output is a row: MKL is slow at a single column."""
    ones = torch.ones([1, 1, x.size(1)]).expand([x.size(0), -1, -1])
    for i, (matrix, bias) in enumerate(change):
        below, slope = seen[i - 1] if i else x, slopes[i]
        bias.baddbmm_(ones, slope, beta=keep)
        if slope.size(2) == 1:
            matrix.transpose(1, 2).baddbmm_(slope.transpose(1, 2), below, beta=keep)
        else:
            matrix.baddbmm_(below.transpose(1, 2), slope, beta=keep)


@unlocked
def single(x: Tensor, y: Tensor, w: Tensor, sent: Layers, room: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """One step by the weights sent of rows x (N, width): what `slopes_of` says."""
    z, at = cut(room, 0, [x.size(0), sent[0][0].size(1)])
    return slopes_of(torch.addmm(sent[0][1], x, sent[0][0], out=z), y, w, sent[1:], room, at)


@unlocked
def formed(change: Layers, x: Tensor, seen: list[Tensor], slopes: list[Tensor], at: int, length: int) -> None:
    """The changes of phones whose `length` rows each begin at row `at`."""
    phones = change[0][0].size(0)
    end, shape = at + phones * length, [phones, length, -1]
    begin(change, x[at:end].view(shape), [s[at:end].view(shape) for s in seen], [s[at:end].view(shape) for s in slopes])


@unlocked
def moved(change: Layers, sent: Layers, own: Layers, whole: bool) -> None:
    """own := change + sent; of the first layer the change, and only if a step has several parts."""
    if not whole:
        own[0][0].copy_(change[0][0])
        own[0][1].copy_(change[0][1])
    for i in range(1, len(sent)):
        torch.add(change[i][0], sent[i][0], out=own[i][0])
        torch.add(change[i][1], sent[i][1], out=own[i][1])


@unlocked
def several(
    x: Tensor,
    y: Tensor,
    w: Tensor,
    parts: list[tuple[int, int, int, bool, bool]],
    sent: Layers,
    change: Layers,
    own: Layers,
    keep: float,
    z: Tensor,
    room: Tensor,
) -> None:
    """Steps over rows x (N, width), y, w (N, 1), one part (step, phones, length, first, whole) after the other.

    `own` is what the step in hand began with.
    """
    torch.addmm(sent[0][1], x, sent[0][0], out=z)
    at = 0
    for step, phones, length, first, whole in parts:
        end, shape = at + phones * length, [phones, length, -1]
        now = [(layer[0][:phones], layer[1][:phones]) for layer in change]
        here = x[at:end].view(shape)
        if step == 0:
            seen, slopes = slopes_of(z[at:end], y[at:end], w[at:end], sent[1:], room, 0)
            seen, slopes = [s.view(shape) for s in seen], [s.view(shape) for s in slopes]
        else:
            mine = [(layer[0][:phones], layer[1][:phones]) for layer in own]
            if first:
                moved(now, sent, mine, whole)
            matrix, bias = now[0] if whole else mine[0]
            fed = z[at:end].view(shape).baddbmm_(here, matrix).add_(bias)
            seen, slopes = slopes_of(fed, y[at:end].view(shape), w[at:end].view(shape), mine[1:], room, 0)
        if step == 0 and first:
            begin(now, here, seen, slopes)
        else:
            add(now, here, seen, slopes, keep if first else 1.0)
        at = end
