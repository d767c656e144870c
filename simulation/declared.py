"""`--schema FILE.toml`: public bounds, categories and signs of a table's columns, declared and not looked up."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import InputError, SchemaError
from model.risk.schema import Feature

KEYS = {"kind", "lower", "upper", "grid", "values", "buckets", "sign", "unit", "reason", "required"}


@dataclass(frozen=True)
class Declared:
    """Per column, the keys a person wrote under `[features.NAME]`."""

    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> Declared:
        """The file's declarations, none without a file; InputError naming the key and the next step."""
        if path is None:
            return cls()
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(
                f"the schema file {path} cannot be read ({error}); mend it or leave --schema out"
            ) from error
        features = raw.get("features", {})
        if not isinstance(features, dict) or set(raw) - {"features"}:
            raise InputError(f"{path.name} may hold only [features.NAME] tables; see --help for an example")
        for name, keys in features.items():
            odd = sorted(set(keys) - KEYS) if isinstance(keys, dict) else ["no table"]
            if odd:
                raise InputError(
                    f"{path.name}, features.{name}: {', '.join(odd)} is unknown; use {', '.join(sorted(KEYS))}"
                )
        return cls(features)

    def feature(self, name: str, kind: str, buckets: int) -> Feature:
        """The feature of column `name`: declared keys over defaults that look at no data."""
        keys: dict[str, Any] = {"kind": kind, "reason": f"the value of {name}", **self.features.get(name, {})}
        if keys["kind"] == "category":
            listed = keys.get("values", ())
            if isinstance(listed, str) or not all(isinstance(value, str) for value in listed):
                raise InputError(f"the schema file's values of {name!r} must be a list of texts; mend it")
            keys["values"] = tuple(listed)
            keys.setdefault("buckets", len(listed) or buckets)
        try:
            return Feature(name=name, **keys)
        except (SchemaError, TypeError) as error:
            raise InputError(f"{error}, as the schema file declares it; mend the file") from error
