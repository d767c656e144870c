"""What may be asked of phones: the training plan that coordinator and reviewer sign (domain plan/1, spec 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from model.contract.promise import PrivacyPlan
from model.contract.record import Record, check_types, require
from model.errors import ContractError
from model.risk.schema import Schema

DOMAIN = "plan/1"
AGGREGATIONS = ("mean", "median", "trimmed-mean", "multikrum", "rfa")
TOPOLOGIES = ("field", "farm")
MAX_ROUNDS = 10_000


@dataclass(frozen=True)
class ModelChoice(Record):
    """Which network: `additive`, or `mlp` with its hidden widths; at most `knots` knots a feature."""

    kind: str = "additive"
    hidden: tuple[int, ...] = ()
    knots: int = 16

    def check(self) -> None:
        """ContractError for an unknown kind, widths that do not fit it, or knots outside 2 … 256."""
        require(self.kind in ("additive", "mlp"), f"the model kind {self.kind!r} is unknown; use additive or mlp")
        require((self.kind == "mlp") == bool(self.hidden), "an mlp needs hidden widths and an additive model has none")
        require(all(1 <= h <= 4096 for h in self.hidden), "a hidden width is outside 1 to 4096; choose another")
        require(2 <= self.knots <= 256, f"{self.knots} knots a feature is outside 2 to 256; choose another")


@dataclass(frozen=True)
class LocalTraining(Record):
    """The phone's part of a round: so many steps, or, with `local_steps` 0, so many passes over its own rows.

    `batch_size` 0 is all rows; `clip_norm` is the L2 bound of its update.
    """

    local_steps: int
    learning_rate: float
    batch_size: int
    prox: float
    clip_norm: float
    local_epochs: int = 0

    @property
    def turns(self) -> int:
        """Steps, or epochs where those are counted."""
        return self.local_steps or self.local_epochs

    def check(self) -> None:
        """ContractError for a number out of its range."""
        require(0 <= self.local_steps <= 1000, f"{self.local_steps} local steps is outside 0 to 1000; choose another")
        require(0 <= self.local_epochs <= 100, f"{self.local_epochs} local epochs is outside 0 to 100; choose another")
        require((self.local_steps > 0) != (self.local_epochs > 0), "a plan counts local steps or local epochs; set one")
        require(self.learning_rate > 0, f"the local learning rate {self.learning_rate} is not positive; choose another")
        require(self.batch_size >= 0, f"the batch size {self.batch_size} is negative; use 0 for all rows")
        require(self.prox >= 0, f"the proximal weight {self.prox} is negative; use 0 for none")
        require(self.clip_norm > 0, f"the clip norm {self.clip_norm} is not positive; choose another")


@dataclass(frozen=True)
class ServerOptimiser(Record):
    """The coordinator's step. `average_from`: fraction of rounds after which iterates are averaged; 1.0 is never."""

    name: str
    learning_rate: float
    momentum: float
    average_from: float
    l2: float
    beta2: float
    epsilon: float

    def check(self) -> None:
        """ContractError for an unknown name or a number out of its range."""
        require(self.name in ("fedavg", "fedadam"), f"the optimiser {self.name!r} is unknown; use fedavg or fedadam")
        require(self.learning_rate > 0, f"the server rate {self.learning_rate} is not positive; choose another")
        require(0 <= self.momentum < 1, f"the momentum {self.momentum} is outside 0 to 1; choose another")
        require(0 <= self.average_from <= 1, f"average_from {self.average_from} is outside 0 to 1; use 1.0 for never")
        require(self.l2 >= 0, f"the L2 weight {self.l2} is negative; use 0 for none")
        require(0 <= self.beta2 < 1 and self.epsilon >= 0, "beta2 must lie in 0 to 1 and epsilon be at least 0")


@dataclass(frozen=True)
class TrainingPlan(Record):
    """Everything a phone is asked to agree to, and a reviewer to sign. The whole schema travels inside.

    `phones` (N, the train split) and `holdout_phones` are public counts; `created_at` is in Unix seconds;
    `seed` orders simulated shuffles and nothing else; `simulation` allows figures tagged simulation_only.
    `participation` is the share of phones really asked, and what is accounted; `response` the public share of those
    expected to answer by the deadline, so that a step is right on average. Neither depends on who answers.
    """

    name: str
    purpose: str
    created_at: int
    schema: Schema
    review_features: tuple[str, ...]
    policy_pack: str
    topology: str
    phones: int
    holdout_phones: int
    min_cohort: int
    rounds: int
    participation: float
    model: ModelChoice
    local: LocalTraining
    server: ServerOptimiser
    privacy: PrivacyPlan
    score_grid: int = 10
    score_days: int = 30
    min_observed_days: int = 30
    seed: int = 0
    simulation: bool = False
    response: float = 1.0
    aggregation: str = "mean"

    @property
    def schema_digest(self) -> str:
        """SHA-256 (hex) of the schema's canonical form."""
        return self.schema.digest

    @property
    def expected_cohort(self) -> float:
        """Phones expected in one training round: participation × response × N; the fixed denominator of the sum."""
        return self.participation * self.response * self.phones

    def check(self) -> None:
        """ContractError for a field out of its range; whether it is *allowed* is for the policy pack (spec 3.6)."""
        for feature in self.schema.features:
            check_types(feature)
        require(0 < len(self.name) <= 128 and 0 < len(self.purpose) <= 512, "a plan needs a short name and a purpose")
        require(self.topology in TOPOLOGIES, f"the topology {self.topology!r} is unknown; use field or farm")
        require(self.phones >= 1 and self.holdout_phones >= 0, "a plan needs at least one phone and no negative count")
        require(self.min_cohort >= 1, f"the minimum cohort {self.min_cohort} is below 1; raise it")
        require(1 <= self.rounds <= MAX_ROUNDS, f"{self.rounds} rounds is outside 1 to {MAX_ROUNDS}; choose another")
        require(0 < self.participation <= 1, f"participation {self.participation} is outside 0 to 1; use 1 for all")
        require(0 < self.response <= 1, f"response {self.response} is outside 0 to 1; use 1 where every phone answers")
        require(self.aggregation in AGGREGATIONS, f"{self.aggregation!r} aggregates nothing; use mean")
        plain = self.aggregation == "mean" or (self.privacy.mode == "off" and self.simulation)
        require(plain, f"{self.aggregation} needs every update in the clear; use mean, or a simulation in mode off")
        require(1 <= self.score_grid <= 600, f"the score grid {self.score_grid} is outside 1 to 600; use 10")
        require(
            self.score_days >= 1 and self.min_observed_days >= 0,
            "score_days must be 1 or more and no day count negative",
        )
        require(self.created_at >= 0 and self.seed >= 0, "created_at and seed must not be negative; set them again")
        odd = sorted(set(self.review_features) - set(self.schema.names))
        require(not odd, f"review_features names {', '.join(odd)}, which the schema lacks; remove or add it")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, with the schema's digest beside the schema."""
        return {**super().to_dict(), "schema_digest": self.schema_digest}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; ContractError (SchemaError for the schema) if a field or the digest is wrong."""
        if not isinstance(raw, Mapping) or "schema_digest" not in raw:
            raise ContractError("a plan has no schema_digest; ask the coordinator for it again")
        plan = super().from_dict({name: value for name, value in raw.items() if name != "schema_digest"})
        require(plan.schema_digest == raw["schema_digest"], "a plan's schema misses its digest; ask for it again")
        return plan
