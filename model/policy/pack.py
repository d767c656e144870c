"""Jurisdiction packs: dated, cited rules and terms, read from this package's own TOML files (spec 3.6)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from model.canonical import sha256_hex
from model.errors import PolicyError

DEFAULT_PACK = "in-rbi-2025"
PACKS = (DEFAULT_PACK, "eu-2026", "us-ecoa", "id-ojk")
_HOUSE = "house"


@dataclass(frozen=True)
class Rule:
    """One rule. `when` is its machine-readable condition (spec 3.6.7); where it holds, the rule is broken.

    A pack holds from the day it is chosen: `effective_from` says since when the law asks for the rule and does
    not switch it off, so a plan cannot be dated out of a rule. After `effective_until` it is over.
    """

    id: str
    jurisdiction: str
    effective_from: date
    effective_until: date | None
    citation: str
    sentence: str
    when: Mapping[str, Any]


@dataclass(frozen=True)
class Obligation:
    """A duty that no plan can show, for the lender or the reviewer to meet."""

    id: str
    citation: str
    sentence: str


@dataclass(frozen=True)
class Pack:
    """A jurisdiction's rules, obligations and terms (`data_region`, `limit_max`, `cooling_off_days` …)."""

    name: str
    version: str
    jurisdiction: str
    title: str
    effective_from: date
    rules: tuple[Rule, ...]
    obligations: tuple[Obligation, ...]
    terms: Mapping[str, str | int]
    digest: str


@cache
def load_pack(name: str) -> Pack:
    """The pack of that name, its own rules first and the house's after; PolicyError for an unknown name."""
    if name not in PACKS:
        raise PolicyError(f"there is no policy pack {name!r}; choose {', '.join(PACKS)}")
    text = _read(name)
    raw = tomllib.loads(text)
    included = [_read(other) for other in raw.get("include", [])]
    rules = [rule for part in (raw, *map(tomllib.loads, included)) for rule in part["rule"]]
    return Pack(
        name=raw["name"],
        version=raw["version"],
        jurisdiction=raw["jurisdiction"],
        title=raw["title"],
        effective_from=raw["effective_from"],
        rules=tuple(map(_rule, rules)),
        obligations=tuple(Obligation(**one) for one in raw.get("obligation", [])),
        terms=MappingProxyType(raw["terms"]),
        digest=sha256_hex("\0".join([text, *included]).encode()),
    )


def _read(name: str) -> str:
    return resources.files("model.policy").joinpath("packs", f"{name}.toml").read_text(encoding="utf-8")


def _rule(raw: Mapping[str, Any]) -> Rule:
    return Rule(**{"effective_until": None, **raw, "when": MappingProxyType(raw["when"])})
