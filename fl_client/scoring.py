"""Features → score, band and reasons, or a typed "no score"; nothing here leaves the phone (spec 9.8)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client import hardened
from model.errors import NoScore, SchemaError
from model.risk.knots import grid_centers
from model.risk.registry import FEATURES, default_schema
from model.risk.schema import Feature, Schema
from model.risk.scorecard import band, ranked_reasons, to_grid

MIN_OBSERVED_DAYS = 30  # TrainingPlan.min_observed_days
OBSERVED_DAYS = "observed_days"
NEUTRAL_LOGIT = 1e-3  # a tenth of a point


@dataclass(frozen=True)
class Assessment:
    """What the model says of one phone, and how long its call took (µs).

    `reasons`: feature names, strongest first, each raising this PD.
    """

    pd: float
    score: int
    band: str
    reasons: tuple[str, ...]
    contributions: Mapping[str, float]
    neutral: tuple[str, ...]
    model_us: float


class Scorer:
    """One verified release, loaded once, for one phone or a thousand."""

    def __init__(
        self,
        onnx: bytes,
        manifest: Mapping[str, Any],
        schema: Schema | None = None,
        *,
        min_observed_days: int = MIN_OBSERVED_DAYS,
    ) -> None:
        """`schema` is the phone's own; None takes it from the registry of this code.

        SchemaError if the release was made for another schema (case 53); ModelError as `hardened.session`.
        """
        self.manifest = manifest
        self.schema = matching_schema(manifest, schema)
        self.min_observed_days = min_observed_days
        self._session = hardened.session(onnx, len(self.schema.features))

    def run(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """x (N, F) float32, NaN = missing → pd (N,), score (N,), contributions (N, F)."""
        pd, score, contributions = self._session.run(["pd", "score", "contributions"], {"features": x})
        return np.asarray(pd).reshape(-1), np.asarray(score).reshape(-1), np.asarray(contributions)

    def vector(self, row: Mapping[str, float]) -> NDArray[np.float32]:
        """(F,) float32 from features by name; a name that is not there is missing."""
        return np.array([row.get(name, np.nan) for name in self.schema.names], dtype=np.float32)

    def assess(self, features: NDArray[np.float32], refused: Collection[str] = ()) -> Assessment:
        """Score one phone, features (F,). `refused` names sources the person did not allow.

        NoScore `required_missing` (case 54) or `thin_file`. A refused source is neutral, never "absent": its
        features take the value that moves this score least, so refusing cannot by itself lower it.
        """
        x = np.array(features, dtype=np.float32).reshape(1, -1)
        if x.shape[1] != len(self.schema.features):
            raise SchemaError(f"{x.shape[1]} features were given where the schema has {len(self.schema.features)}")
        hidden = [j for j, feature in enumerate(self.schema.features) if feature.source in refused]
        self._require(x[0], hidden)
        x[0, hidden] = np.nan
        for j in hidden:
            x[0, j] = self._neutral(x, j)
        begun = time.perf_counter()
        pd, score, contributions = self.run(x)
        model_us = (time.perf_counter() - begun) * 1e6
        points = to_grid(float(score[0]), int(self.manifest["score"]["grid"]))
        # A neutral stand-in says nothing about this person, and a feature without a sentence explains nothing.
        silent = [j for j, sentence in enumerate(self.manifest["reasons"]) if not sentence]
        speaking = contributions[0].copy()
        speaking[[*hidden, *silent]] = 0.0
        by_name = dict(zip(self.schema.names, contributions[0].tolist(), strict=True))
        neutral = tuple(self.schema.names[j] for j in hidden)
        ranked = ranked_reasons(speaking, self.schema.names)
        return Assessment(float(pd[0]), points, band(points), ranked, by_name, neutral, model_us)

    def _require(self, x: NDArray[np.float32], hidden: Sequence[int]) -> None:
        for j, feature in enumerate(self.schema.features):
            if feature.required and (j in hidden or not np.isfinite(x[j])):
                raise NoScore("required_missing", f"no score: {feature.name} is required and missing; add it first")
        if OBSERVED_DAYS in self.schema.names:
            days = x[self.schema.index(OBSERVED_DAYS)]
            if not days >= self.min_observed_days:  # a missing number of days is thin too
                raise NoScore(
                    "thin_file",
                    f"no score: fewer than {self.min_observed_days} days were observed; try again later",
                )

    def _neutral(self, x: NDArray[np.float32], j: int) -> float:
        """The public value of feature j (or missing) whose contribution is nearest to none, never raising the PD."""
        candidates = _public_values(self.schema.features[j])
        rows = np.repeat(x, len(candidates), axis=0)
        rows[:, j] = candidates
        moves = self.run(rows)[2][:, j].astype(np.float64)
        cost = np.where(moves > NEUTRAL_LOGIT, moves * 1e6, np.abs(moves))
        return float(candidates[int(np.argmin(cost))])


def matching_schema(manifest: Mapping[str, Any], own: Schema | None = None) -> Schema:
    """The phone's schema, once its digest is the release's; SchemaError otherwise (case 53)."""
    names = tuple(manifest["features"])
    if own is None:
        unknown = [name for name in names if name not in FEATURES]
        if unknown:
            raise SchemaError(f"the release uses {unknown[0]!r}, which this phone cannot compute; update the app")
        own = default_schema([name for name in names if FEATURES[name].permission == "R"])
    if own.digest != manifest["schema_digest"] or own.names != names:
        raise SchemaError("the release was made for another feature schema than this phone's; update the app")
    return own


def _public_values(feature: Feature) -> NDArray[np.float32]:
    """Values over the feature's public range, and missing; no phone was read to find them."""
    return np.append(grid_centers(feature), np.nan).astype(np.float32)
