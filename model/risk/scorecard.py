"""PD → 300–900 points, bands, and reasons from contributions (spec 5.10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import SchemaError

BASE = 600.0  # points at …
ODDS = 8.0  # … this many good to one bad
PDO = 60.0  # points that double the odds
LOWEST, HIGHEST = 300.0, 900.0
FACTOR = PDO / math.log(2)
OFFSET = BASE - FACTOR * math.log(ODDS)  # points at even odds
BANDS = (("A", 660.0), ("B", 630.0), ("C", 600.0), ("D", 560.0), ("E", LOWEST))  # PD ≤ 5.9, 8.1, 11.1, 16.6 %, more
MOST_REASONS = 4  # FCRA §615(a), Reg B §1002.9: more than four is not helpful


def points(pd: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Score of a probability of default: 600 at 8:1 good odds, 60 double the odds, clipped to 300–900."""
    p = np.asarray(pd, np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise SchemaError("a probability of default lies outside 0 … 1; check the model's output")
    with np.errstate(divide="ignore"):
        log_odds = np.log1p(-p) - np.log(p)
    return np.clip(OFFSET + FACTOR * log_odds, LOWEST, HIGHEST)


def to_grid(score: float, grid: int = 10) -> int:
    """The score on the plan's grid: nearest multiple, halves upward."""
    if grid < 1 or not math.isfinite(score):
        raise SchemaError(
            f"score {score} cannot be put on a grid of {grid}; use a finite score and a grid of 1 or more"
        )
    return math.floor(score / grid + 0.5) * grid


def band(score: float) -> str:
    """Letter of the score's band, "A" (best) to "E"."""
    return next((letter for letter, least in BANDS if score >= least), "E")


def ranked_reasons(
    contributions: npt.NDArray[Any], names: Sequence[str], *, floor: float | npt.NDArray[Any] = 0.0
) -> tuple[str, ...]:
    """At most four feature names that raised the PD most, strongest first: for the borrower's own copy only.

    `contributions` (F,) are in logit; one counts only where it exceeds `floor`, its own noise (scalar or (F,)).
    """
    values = np.asarray(contributions, np.float64)
    if values.shape != (len(names),):
        raise SchemaError(f"{values.shape} contributions do not fit {len(names)} features; use the model's own schema")
    order = np.argsort(-values, kind="stable")[:MOST_REASONS]
    floors = np.broadcast_to(np.asarray(floor, np.float64), values.shape)
    return tuple(names[i] for i in order if values[i] > max(floors[i], 0.0))


def reason_ids(
    contributions: npt.NDArray[Any], names: Sequence[str], *, floor: float | npt.NDArray[Any] = 0.0
) -> tuple[str, ...]:
    """The same reasons as a sorted set, for a lender after a decline: the order, a fingerprint, is gone."""
    return tuple(sorted(ranked_reasons(contributions, names, floor=floor)))
