"""Rules that stand single liars, where every update is seen in the clear: simulations in mode off only (spec 13.13).

Each rule maps updates (n, d), float64 or int64, one row a phone, to a location (d,) float64 that stands where the mean
update stands. Under masks no server holds single updates, so none of these can run there (ADR 100); what is left then
is the phones' own clip and the alarm on the sum (`fl_server.alarm`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_server.aggregate import add
from model.contract.plan import TrainingPlan
from model.errors import RoundError, UpdateError

Vector = NDArray[np.float64]
Matrix = NDArray[Any]

TOLERATED = 0.2  # the largest hostile share of docs/results.md
IN_THE_CLEAR = "every update seen in the clear"  # what a report says, in red, beside any rule but the mean
RFA_STEPS, RFA_SMOOTHING = 32, 1e-6  # Pillutla et al. stop after a few steps; ours are cheap and go on until they rest
ROWS_A_BLOCK = 512


def combine(plan: TrainingPlan, updates: NDArray[np.int64]) -> NDArray[np.int64]:
    """What enters a training round in place of the sum: single updates (n, d) int64 grid units → (d,) int64.

    The mean is the exact sum, to be divided by the plan's fixed denominator; another rule gives n times its location,
    so a phone that stays away counts as a zero under every rule. RoundError where the plan is not in the clear.
    """
    if plan.aggregation == "mean":
        return np.asarray(_checked(updates).sum(axis=0), dtype=np.int64)
    if plan.privacy.mode != "off" or not plan.simulation:
        raise RoundError(f"{plan.aggregation} needs every update in the clear; use mean, or a simulation in mode off")
    return np.rint(len(updates) * RULES[plan.aggregation](updates)).astype(np.int64)


def gathered(plan: TrainingPlan, kind: str, answers: Sequence[tuple[int, NDArray[np.int64]]]) -> NDArray[np.int64]:
    """What (phones, vector (d,)) answers of this kind come to: their sum, or in training what the plan's rule says.

    A farm that holds every phone has applied the rule itself. RoundError where updates of several phones come as sums.
    """
    if kind != "train" or plan.aggregation == "mean" or (len(answers) == 1 and answers[0][0] > 1):
        return add([vector for _, vector in answers], len(answers[0][1]))
    if any(phones > 1 for phones, _ in answers):
        raise RoundError(f"{plan.aggregation} needs single updates, not sums of several farms; use one farm")
    return combine(plan, np.stack([vector for phones, vector in answers if phones]))


def mean(updates: Matrix, expected: float | None = None) -> Vector:
    """Sum over the fixed denominator `expected` (n if None), as `aggregate.mean_update` takes it."""
    rows = _checked(updates)
    if expected is not None and not expected > 0:
        raise RoundError(f"a mean over {expected} expected phones has no meaning; use the plan's cohort")
    return np.asarray(rows.sum(axis=0) / float(len(rows) if expected is None else expected), dtype=np.float64)


def median(updates: Matrix) -> Vector:
    """Coordinate by coordinate (Yin et al., ICML 2018, definition 1)."""
    return np.asarray(np.median(_checked(updates), axis=0), dtype=np.float64)


def trimmed_mean(updates: Matrix, trim: float = TOLERATED) -> Vector:
    """Mean of what is left of each coordinate once the ⌈trim·n⌉ least and most are gone (Yin et al., definition 2).

    RoundError where nothing would be left.
    """
    rows = _checked(updates)
    cut = int(np.ceil(trim * len(rows)))
    if not 0 <= trim < 0.5 or 2 * cut >= len(rows):
        raise RoundError(f"trimming {trim:g} of {len(rows)} updates at both ends leaves none; trim less or wait")
    kept = np.partition(rows, (cut, len(rows) - cut - 1), axis=0)[cut : len(rows) - cut] if cut else rows
    return np.asarray(kept.mean(axis=0), dtype=np.float64)


def multikrum(updates: Matrix, hostile: float = TOLERATED) -> Vector:
    """Mean of the m = n - f updates closest to their n - f - 2 nearest (Blanchard et al., NeurIPS 2017, section 4).

    f = ⌈hostile·n⌉. O(n²d) time, O(n) memory a row. RoundError unless n > 2f + 2.
    """
    rows = np.asarray(_checked(updates), dtype=np.float64)
    n, f = len(rows), int(np.ceil(hostile * len(rows)))
    if not 0 <= hostile < 0.5 or n <= 2 * f + 2:
        raise RoundError(f"MultiKrum against {f} hostile phones needs more than {2 * f + 2} updates; only {n} came")
    scores = _krum_scores(rows, n - f - 2)
    chosen = np.argsort(scores, kind="stable")[: n - f]
    return np.asarray(rows[chosen].mean(axis=0), dtype=np.float64)


def rfa(updates: Matrix, steps: int = RFA_STEPS, smoothing: float = RFA_SMOOTHING) -> Vector:
    """The geometric median by the smoothed Weiszfeld algorithm (Pillutla et al., IEEE TSP 2022, algorithm 2).

    Each step weighs row i by 1 / max(ν, ‖x_i - z‖); ν is `smoothing` times the median distance from the first guess, so
    that the rule has no unit. It starts from the coordinate median, where one far row cannot take it.
    """
    rows = np.asarray(_checked(updates), dtype=np.float64)
    guess = np.median(rows, axis=0)
    away = _distances(rows, guess)
    floor = smoothing * float(np.median(away) or away.mean())
    if floor == 0:
        return np.asarray(guess, dtype=np.float64)  # all rows are one
    for _ in range(steps):
        weights = 1.0 / np.maximum(_distances(rows, guess), floor)
        after = (weights / weights.sum()) @ rows
        rested = np.linalg.norm(after - guess) <= floor
        guess = after
        if rested:
            break
    return np.asarray(guess, dtype=np.float64)


RULES: dict[str, Callable[[Matrix], Vector]] = {
    "mean": mean,
    "median": median,
    "trimmed-mean": trimmed_mean,
    "multikrum": multikrum,
    "rfa": rfa,
}


def _checked(updates: Matrix) -> Matrix:
    """UpdateError for anything but at least one row of finite numbers."""
    rows = np.asarray(updates)
    if rows.ndim != 2 or not len(rows) or rows.dtype not in (np.float64, np.int64):
        raise UpdateError(f"updates are rows of float64 or int64, not {rows.dtype} of shape {rows.shape}; stack them")
    if rows.dtype == np.float64 and not np.isfinite(rows).all():
        raise UpdateError("an update holds NaN or infinity; drop that phone's update")
    return rows


def _distances(rows: Vector, centre: Vector) -> Vector:
    away = rows - centre
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", away, away)))


def _krum_scores(rows: Vector, nearest: int) -> Vector:
    """Sum of squared distances to the `nearest` other rows, (n,). Rows are centred and scaled first: only order counts,
    and so neither a common offset nor a row of 10³⁰⁰ drowns the differences."""
    centred = rows - np.median(rows, axis=0)
    centred /= max(float(np.abs(centred).max()), np.finfo(np.float64).tiny)
    squares = np.einsum("ij,ij->i", centred, centred)
    scores = np.empty(len(rows))
    for at in range(0, len(rows), ROWS_A_BLOCK):
        mine = slice(at, min(at + ROWS_A_BLOCK, len(rows)))
        far = np.maximum(squares[mine, None] + squares - 2 * (centred[mine] @ centred.T), 0.0)
        far[np.arange(len(far)), np.arange(mine.start, mine.stop)] = np.inf  # not its own neighbour
        scores[mine] = np.partition(far, nearest - 1, axis=1)[:, :nearest].sum(axis=1)
    return scores
