"""`--schema FILE.toml`: public bounds, categories and signs of a table's columns, declared and not looked up."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import InputError, SchemaError
from model.risk.schema import Feature

KEYS: Mapping[str, tuple[type, str]] = {
    "kind": (str, "a text"),
    "lower": (float, "a finite number"),
    "upper": (float, "a finite number"),
    "grid": (str, "a text"),
    "values": (list, "a list of different texts"),
    "buckets": (int, "a whole number"),
    "sign": (int, "a whole number"),
    "unit": (str, "a text"),
    "reason": (str, "a text"),
    "required": (bool, "true or false"),
}


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
            if not isinstance(keys, dict):
                raise InputError(f"{path.name}, features.{name} is no table; write [features.{name}] and keys below it")
        return cls({name: _checked(path.name, name, keys) for name, keys in features.items()})

    def feature(self, name: str, kind: str, buckets: int) -> Feature:
        """The feature of column `name`: declared keys over defaults that look at no data."""
        keys: dict[str, Any] = {"kind": kind, "reason": f"the value of {name}", **self.features.get(name, {})}
        if keys["kind"] == "category":
            keys.setdefault("buckets", len(keys.get("values", ())) or buckets)
        try:
            return Feature(name=name, **keys)
        except SchemaError as error:
            raise InputError(f"{error}, as the schema file declares it; mend the file") from error


def _checked(file: str, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with their types; InputError naming the column, the key and what it takes."""
    odd = sorted(set(keys) - set(KEYS))
    if odd:
        raise InputError(f"{file}, features.{name}: {', '.join(odd)} is unknown; use {', '.join(sorted(KEYS))}")
    return {key: _typed(f"{file}, features.{name}.{key}", key, value) for key, value in keys.items()}


def _typed(where: str, key: str, value: Any) -> Any:
    kind, words = KEYS[key]
    if kind is float and type(value) is int:
        value = float(value)
    fits = type(value) is kind and (not isinstance(value, float) or math.isfinite(value))
    if key == "values":
        fits = fits and all(isinstance(item, str) for item in value) and len(set(value)) == len(value)
    if not fits:
        raise InputError(f"{where} must be {words}, not {value!r}; mend the file")
    return tuple(value) if key == "values" else value
