"""What is released and under how much noise, described apart from computing what it costs (spec 6.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from model.errors import ContractError

SPLITS = ("train", "holdout", "all")
MAX_COUNT = 1_000_000
NO_HELPER = "no helper takes part in this mode"


@dataclass(frozen=True)
class GaussianRelease:
    """`count` releases of a sum over phones, each under (discrete) Gaussian noise.

    `sensitivity` is the L2 distance by which zeroing out one phone can move ONE release, in the unit of the
    release; `noise_multiplier` is the noise's standard deviation over `sensitivity` (0 means no noise, which
    the accountant prices at infinity). `sampling` is the probability with which a phone takes part in each
    release, drawn afresh and independently (Poisson); 1.0 means every phone takes part and no amplification is
    claimed. `split` names the phones that can take part: "train", "holdout" (disjoint from it) or "all".
    """

    name: str
    noise_multiplier: float
    sensitivity: float
    count: int
    sampling: float
    split: str

    def __post_init__(self) -> None:
        """ContractError, naming the release and the field, for a value outside its range."""
        if not isinstance(self.name, str) or not self.name or len(self.name) > 64:
            raise ContractError(f"a release needs a name of 1 to 64 characters, not {self.name!r}; name it")
        for field in ("noise_multiplier", "sensitivity", "sampling"):
            self._check_real(field)
        if type(self.count) is not int or not 1 <= self.count <= MAX_COUNT:
            raise ContractError(f"release {self.name!r} has count {self.count!r}; use a whole number from 1")
        if self.split not in SPLITS:
            raise ContractError(f"release {self.name!r} names the split {self.split!r}; use {', '.join(SPLITS)}")

    def _check_real(self, field: str) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ContractError(f"release {self.name!r} has {field} {value!r}; use a finite number")
        # An int would give the same mechanism another digest.
        object.__setattr__(self, field, float(value))
        if value < 0 or (value == 0 and field != "noise_multiplier") or (value > 1 and field == "sampling"):
            raise ContractError(f"release {self.name!r} has {field} {value!r}, outside its range; see spec 6.1")

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise of one release, in the unit of the release."""
        return self.noise_multiplier * self.sensitivity

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for canonical encoding."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> GaussianRelease:
        """Inverse of `to_dict`; ContractError on missing or unknown keys, so an unknown mechanism is refused."""
        expected = {f.name for f in fields(cls)}
        if not isinstance(raw, Mapping) or set(raw) != expected:
            raise ContractError(f"a release must have exactly the keys {', '.join(sorted(expected))}; write it again")
        return cls(**raw)
