"""What may run on a phone: the manifest of a released model, signed by release and reviewer key (spec 3.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.contract.record import Record, require
from model.privacy.mechanism import NO_HELPER

DOMAIN = "release/1"
THRESHOLD = 2
_HEX64 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class EpsilonCard(Record):
    """ε against each observer (spec 6.6, 13.10); None where no finite ε holds, beside it the reason.

    `condition` is what the figures rest on: who must not collude, or how many phones must be honest.
    """

    released_models: float | None
    participation_viewer: float | None
    coordinator: float | None
    coordinator_reason: str
    delta: float
    relation: str
    unit: str
    helper: float | None = None
    helper_reason: str = NO_HELPER
    condition: str = ""

    def check(self) -> None:
        """ContractError for a null coordinator or helper without a reason, or a number out of its range."""
        known = self.coordinator is not None or bool(self.coordinator_reason)
        require(known, "a null epsilon for the coordinator needs its reason; state it")
        require(self.helper is not None or bool(self.helper_reason), "a null epsilon for the helper needs its reason")
        values = (self.released_models, self.participation_viewer, self.coordinator, self.helper)
        require(all(v is None or v >= 0 for v in values), "an epsilon is negative; compute the card again")
        require(0 < self.delta < 1, f"delta {self.delta} is outside 0 to 1; compute the card again")


@dataclass(frozen=True)
class GateFigures(Record):
    """The charged figures the gate read, and its verdict; `reasons` say why it failed, and are empty when it passed."""

    private_auc: float | None
    private_auc_se: float | None
    private_ece: float | None
    passed: bool
    reasons: tuple[str, ...]

    def check(self) -> None:
        """ContractError for a verdict that its reasons contradict."""
        require(self.passed != bool(self.reasons), "a gate passes without reasons or fails with some; decide again")


@dataclass(frozen=True)
class ScoreScale(Record):
    """How a PD becomes points: `base` points at `odds`:1 good odds, `pdo` points double them; its grid and life."""

    grid: int
    days: int
    base: int = 600
    odds: int = 8
    pdo: int = 60

    def check(self) -> None:
        """ContractError unless every number is positive."""
        numbers = (self.grid, self.days, self.base, self.odds, self.pdo)
        require(min(numbers) > 0, "a score scale has a number that is not positive; take the plan's")


@dataclass(frozen=True)
class ReleaseManifest(Record):
    """One released model. Times are Unix seconds; `onnx_bytes` is the file's size; `reasons[j]` is the sentence of
    `features[j]`, empty where a feature can be no reason."""

    name: str
    version: int
    schema_digest: str
    plan_digest: str
    model_digest: str
    onnx_bytes: int
    epsilon: EpsilonCard
    gate: GateFigures
    policy_pack: str
    score: ScoreScale
    reasons: tuple[str, ...]
    features: tuple[str, ...]
    created_at: int
    expires_at: int

    def check(self) -> None:
        """ContractError for a field out of its range."""
        require(bool(_NAME.fullmatch(self.name)), f"the release name {self.name!r} needs lower-case letters and dashes")
        require(self.version >= 1 and self.onnx_bytes >= 1, "a release has no version or no bytes; publish it again")
        for text in (self.schema_digest, self.plan_digest, self.model_digest):
            require(bool(_HEX64.fullmatch(text)), "a release has a digest not of 64 hex characters; publish it again")
        require(len(self.reasons) == len(self.features) >= 1, "a release needs one reason sentence for each feature")
        require(0 <= self.created_at < self.expires_at, "a release expires before it is made; set its dates again")
