"""Frozen messages with exact fields and types: the base of every dataclass that travels (spec 2.1.6)."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any, Protocol, Self, Union, cast, get_args, get_origin, get_type_hints, runtime_checkable

from model.canonical import digest
from model.errors import ContractError


@runtime_checkable
class Plain(Protocol):
    """A value that becomes plain types and back: a record, a schema, a mechanism description."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        ...


@dataclass(frozen=True)
class Record:
    """Base of the messages. Subclasses are frozen dataclasses whose annotations are the wire types.

    Taken: str, int, bool, float, bytes, `X | None`, `tuple[X, ...]` and other records. A float field takes an
    int and keeps a float, so one value has one digest. ContractError names the message and the field.
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, _checked(getattr(self, name), hint, f"{type(self).__name__}.{name}"))
        self.check()

    def check(self) -> None:
        """Limits beyond types; subclasses raise ContractError."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for canonical encoding."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form."""
        return digest(self.to_dict())

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; ContractError unless `raw` has exactly the fields of this message."""
        hints = _hints(cls)
        if not isinstance(raw, Mapping):
            raise ContractError(f"a {cls.__name__} is not a map; ask its sender for it again")
        odd = sorted(map(str, set(raw) ^ set(hints)))
        if odd:
            raise ContractError(f"a {cls.__name__} lacks or adds {odd[0]!r}; use the same release on both sides")
        return cls(**{name: _parsed(raw[name], hint, f"{cls.__name__}.{name}") for name, hint in hints.items()})


def check_types(part: Any) -> None:
    """ContractError unless every field of the dataclass `part` is of its annotated type."""
    for name, hint in _hints(type(part)).items():
        _checked(getattr(part, name), hint, f"{type(part).__name__}.{name}")


def require(condition: bool, sentence: str) -> None:
    """ContractError with `sentence` unless `condition`."""
    if not condition:
        raise ContractError(sentence)


def _hints(cls: type) -> dict[str, Any]:
    return _hints_of(cast(Any, cls))


@cache
def _hints_of(cls: Any) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    return {name: hint for name, hint in get_type_hints(cls).items() if name in names}


def _optional(hint: Any) -> Any | None:
    """X of `X | None`, else None."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        return inner[0] if len(inner) == 1 else None
    return None


def _checked(value: Any, hint: Any, where: str) -> Any:
    inner = _optional(hint)
    if inner is not None:
        return None if value is None else _checked(value, inner, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple | list):
            raise ContractError(f"{where} must be a list, not {value!r}; see spec 3")
        return tuple(_checked(item, get_args(hint)[0], where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ContractError(f"{where} must be {hint.__name__}, not {type(value).__name__}; see spec 3")
    if hint is float and not math.isfinite(value):
        raise ContractError(f"{where} is {value}; only finite numbers can be sent")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.to_dict() if hasattr(value, "to_dict") else value  # a protocol's isinstance costs more than all else


def _parsed(value: Any, hint: Any, where: str) -> Any:
    inner = _optional(hint)
    if inner is not None:
        return None if value is None else _parsed(value, inner, where)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_parsed(item, get_args(hint)[0], where) for item in value)
    if isinstance(hint, type) and hasattr(hint, "from_dict"):
        if not isinstance(value, Mapping):
            raise ContractError(f"{where} must be a map, not {type(value).__name__}; see spec 3")
        return hint.from_dict(value)
    return value
