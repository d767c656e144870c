"""Feature names, units, public bounds, profile category and source permission; the schema digest (spec 5.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from model.canonical import digest
from model.errors import SchemaError

KINDS = ("number", "category")
GRIDS = ("linear", "signed_log")
PERMISSIONS = ("O", "R", "X")
MAX_FEATURES = 4096
MAX_BUCKETS = 4096


@dataclass(frozen=True)
class Feature:
    """One model input.

    `lower` and `upper` are public bounds in `unit`: values are clipped to them, never read from phones.
    A category's value is a code 0 … `buckets`-1; `values` names the codes where the list is public, else
    the code is the public hash of the text. `sign` is +1 where more means a higher PD, -1 lower, 0 free.
    `permission` is O (own app), R (reviewer's signature needed) or X (forbidden).
    """

    name: str
    kind: str = "number"
    lower: float = -1e7
    upper: float = 1e7
    grid: str = "signed_log"
    buckets: int = 0
    values: tuple[str, ...] = ()
    profile: str = "table"
    permission: str = "O"
    source: str = "table"
    unit: str = ""
    sign: int = 0
    required: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 128:
            raise SchemaError(f"feature name {self.name!r} is empty or longer than 128 characters; rename it")
        if self.kind not in KINDS or self.grid not in GRIDS or self.permission not in PERMISSIONS:
            raise SchemaError(f"feature {self.name!r} has an unknown kind, grid or permission; see spec 5.1")
        if not self.lower < self.upper:
            raise SchemaError(f"feature {self.name!r} has lower bound {self.lower} not below upper {self.upper}")
        if self.sign not in (-1, 0, 1):
            raise SchemaError(f"feature {self.name!r} has sign {self.sign}; use -1, 0 or 1")
        if self.kind == "category" and not 1 <= self.buckets <= MAX_BUCKETS:
            raise SchemaError(f"category {self.name!r} needs 1 to {MAX_BUCKETS} buckets, not {self.buckets}")
        if self.values and len(self.values) != self.buckets:
            raise SchemaError(f"category {self.name!r} lists {len(self.values)} values for {self.buckets} buckets")


@dataclass(frozen=True)
class Schema:
    """An ordered set of features; the order is the order of the model's input columns."""

    name: str
    version: str
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.features) <= MAX_FEATURES:
            raise SchemaError(f"schema {self.name!r} needs 1 to {MAX_FEATURES} features, not {len(self.features)}")
        if len(set(self.names)) != len(self.features):
            twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
            raise SchemaError(f"schema {self.name!r} names {', '.join(twice)} twice; feature names must differ")

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(f.name for f in self.features)

    def index(self, name: str) -> int:
        """Column of feature `name`; SchemaError if there is none."""
        if name not in self.names:
            raise SchemaError(f"schema {self.name!r} has no feature {name!r}; it has {', '.join(self.names[:8])} …")
        return self.names.index(name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for canonical encoding."""
        rows = [{**asdict(f), "values": list(f.values)} for f in self.features]
        return {"name": self.name, "version": self.version, "features": rows}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Schema:
        """Inverse of `to_dict`; SchemaError on missing or unknown keys."""
        try:
            features = tuple(Feature(**{**f, "values": tuple(f["values"])}) for f in raw["features"])
            return cls(name=raw["name"], version=raw["version"], features=features)
        except (KeyError, TypeError) as error:
            raise SchemaError(f"a schema is malformed ({error}); write it again from its source") from error
