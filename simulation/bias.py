"""What availability does to groups: who is counted, and what their absence puts into the model (spec 7.13). All of it
is simulation_only: it reads protected columns and held-out rows, which nobody in the field has.

Intervals are normal at 95 %, from influences summed by phone (Obuchowski, Biometrics 1997, for the AUC), since one
person's rows are no independent draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NORMAL_95 = 1.959964
LEAST_PHONES = 30  # a figure about few people is about nobody in general
EVERYONE = ("all", "everyone")
Floats = NDArray[np.float64]
Group = tuple[str, str, NDArray[np.bool_]]


def groups(protected: Mapping[str, NDArray[Any]], phones: int) -> Iterator[Group]:
    """(column, group, mask (phones,)) for everyone, then for each value of each protected column."""
    yield (*EVERYONE, np.ones(phones, dtype=bool))
    for column, values in protected.items():
        for value in np.unique(values):
            yield column, str(value), np.asarray(values) == value


def shares(protected: Mapping[str, NDArray[Any]], counted: NDArray[np.int64]) -> list[dict[str, Any]]:
    """By group: share of phones, share of counted updates, and their ratio (1: as if all were reached alike).

    counted (P,): how often each phone's update entered a sum.
    """
    rows, total = [], max(int(counted.sum()), 1)
    for column, group, mine in groups(protected, len(counted)):
        if mine.sum() < LEAST_PHONES:
            continue
        share, part = float(mine.mean()), float(counted[mine].sum()) / total
        row = {"column": column, "group": group, "phones": int(mine.sum())}
        rows.append({**row, "share": share, "counted": part, "ratio": part / share})
    return rows


@dataclass(frozen=True)
class Held:
    """Held-out rows (R,) of H phones: labels, the phone (0 … H-1) of each row, and audit columns (H,)."""

    y: NDArray[np.float32]
    owner: NDArray[np.int64]
    protected: Mapping[str, NDArray[Any]]
    phones: int


def effect(held: Held, everyone: Floats, reached: Floats) -> list[dict[str, Any]]:
    """By group: how the PDs (R,) of a model of the reached differ from those of the same plan with everyone.

    Per row: mean PD and AUC of both, the observed rate, calibration gaps (mean PD − observed), and the differences
    reached − everyone with the half-width of their 95 % interval; the AUC's are None where a class is missing.
    """
    rows = []
    for column, group, phones in groups(held.protected, held.phones):
        mine = phones[held.owner]
        if len(np.unique(held.owner[mine])) < LEAST_PHONES:
            continue
        y, owner, before, after = held.y[mine], held.owner[mine], everyone[mine], reached[mine]
        observed, moved = float(y.mean()), after - before
        row = {"column": column, "group": group, "rows": len(y), "observed": observed}
        row |= {"mean_pd_everyone": float(before.mean()), "mean_pd_reached": float(after.mean())}
        row |= {"gap_everyone": float(before.mean()) - observed, "gap_reached": float(after.mean()) - observed}
        row |= {"pd_change": float(moved.mean()), "pd_change_ci": _half((moved - moved.mean()) / len(y), owner)}
        rows.append({**row, **_areas(y, owner, before, after)})
    return rows


def _areas(y: NDArray[np.float32], owner: NDArray[np.int64], before: Floats, after: Floats) -> dict[str, Any]:
    names = ("auc_everyone", "auc_reached", "auc_change", "auc_change_ci")
    if not 0 < y.mean() < 1:
        return dict.fromkeys(names)
    (first, one), (second, two) = area(before, y), area(after, y)
    return dict(zip(names, (first, second, second - first, _half(two - one, owner)), strict=True))


def area(score: Floats, y: NDArray[np.float32]) -> tuple[float, Floats]:
    """AUC, and each row's influence on it (R,): its placement among the other class, less the AUC, over its class's
    size. The variance is the sum of squared influences."""
    bad, good = np.sort(score[y == 1]), np.sort(score[y == 0])
    placed = np.where(y == 1, _below(good, score), 1.0 - _below(bad, score))
    value = float(placed[y == 1].mean())
    return value, (placed - value) / np.where(y == 1, len(bad), len(good))


def _below(sorted_: Floats, score: Floats) -> Floats:
    """Share of `sorted_` below each score, ties counting half."""
    low, high = (np.searchsorted(sorted_, score, side=side) for side in ("left", "right"))
    return np.asarray((low + high) / (2.0 * len(sorted_)))


def _half(influence: Floats, owner: NDArray[np.int64]) -> float:
    """Half-width of the 95 % interval, rows of one phone taken together."""
    _, cluster = np.unique(owner, return_inverse=True)
    return NORMAL_95 * float(np.sqrt((np.bincount(cluster, influence) ** 2).sum()))
