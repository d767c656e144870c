"""`violations(plan, pack)`: the one function by which phone and reviewer judge a plan (spec 3.6)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from model.contract.plan import TrainingPlan
from model.errors import PolicyError
from model.policy.pack import DEFAULT_PACK, PACKS, Obligation, Pack, Rule, load_pack
from model.risk.registry import FEATURES
from model.risk.schema import Feature

__all__ = [
    "DEFAULT_PACK",
    "PACKS",
    "Obligation",
    "Pack",
    "Rule",
    "Violation",
    "load_pack",
    "require_allowed",
    "violations",
]

_STRICTNESS = {"O": 0, "R": 1, "X": 2}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


@dataclass(frozen=True)
class Violation:
    """A rule that a plan breaks; `feature` is None where the plan itself does. `sentence` ends with the next step."""

    rule_id: str
    feature: str | None
    sentence: str
    citation: str


@dataclass(frozen=True)
class Fact:
    """What is known of one feature of a plan: what its schema says, made stricter by what the registry knows."""

    feature: Feature
    words: tuple[str, ...]
    sources: frozenset[str]
    profiles: frozenset[str]
    permission: str
    relabelled: bool

    @property
    def reviewable(self) -> bool:
        """Whether a reviewer's agreement is needed."""
        return self.permission == "R"


def violations(plan: TrainingPlan, pack: Pack) -> tuple[Violation, ...]:
    """Every rule of `pack` that `plan` breaks, in the pack's order; empty when the plan is allowed.

    Pure: no clock, file or network. A pack other than the one the plan names is itself a violation.
    """
    found = [*_wrong_pack(plan, pack)]
    facts = tuple(fact_of(feature) for feature in plan.schema.features)
    for rule in pack.rules:
        if _in_force(rule, plan) and _guarded(rule.when, plan):
            found += [_violation(rule, name) for name in _broken(rule, plan, facts)]
    return tuple(found)


def require_allowed(plan: TrainingPlan, pack: Pack) -> None:
    """PolicyError with the first violation's sentence, rule and citation, and the number of further ones."""
    found = violations(plan, pack)
    if found:
        first, more = found[0], len(found) - 1
        rest = f" ({more} more)" if more else ""
        raise PolicyError(f"{first.sentence} [{first.rule_id}: {first.citation}]{rest}")


def fact_of(feature: Feature) -> Fact:
    """The feature's `Fact`. A table's column meets the registry only where its name is that of an X feature."""
    known = _registered(feature.name)
    if known is not None and _source(feature) == "table" and known.permission != "X":
        known = None
    both = (feature,) if known is None else (feature, known)
    permission = max((f.permission for f in both), key=_STRICTNESS.__getitem__)
    return Fact(
        feature=feature,
        words=_words(feature.name),
        sources=frozenset(_source(f) for f in both),
        profiles=frozenset(f.profile.strip().casefold() for f in both),
        permission=permission,
        relabelled=known is not None and _source(feature) != "table" and _differs(feature, known),
    )


def _registered(name: str) -> Feature | None:
    """The registry entry that `name` is, however it is written; for an X entry of several words, also contains."""
    words = _words(name)
    for known, theirs in _registry_words():
        if "".join(words) == "".join(theirs):
            return known
        if known.permission == "X" and len(theirs) > 1 and _contains(words, theirs):
            return known
    return None


@cache
def _registry_words() -> tuple[tuple[Feature, tuple[str, ...]], ...]:
    return tuple((feature, _words(feature.name)) for feature in FEATURES.values())


def _words(name: str) -> tuple[str, ...]:
    """Lower-case words of a name: `ContactCount`, `contact-count` and `contact_count` are one."""
    return tuple(word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", name)))


def _differs(feature: Feature, known: Feature) -> bool:
    milder = _STRICTNESS[feature.permission] < _STRICTNESS[known.permission]
    return milder or _source(feature) != _source(known)


def _contains(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def _source(feature: Feature) -> str:
    return unicodedata.normalize("NFKC", feature.source).strip().casefold()


def _wrong_pack(plan: TrainingPlan, pack: Pack) -> Iterator[Violation]:
    if plan.policy_pack != pack.name:
        sentence = f"the plan names the policy pack {plan.policy_pack!r}, not {pack.name!r}; judge it by its own"
        yield Violation("pack-mismatch", None, sentence, "PocketScore policy (spec 3.6.1)")


def _in_force(rule: Rule, plan: TrainingPlan) -> bool:
    until = rule.effective_until
    return until is None or plan.created_at < datetime(until.year, until.month, until.day, tzinfo=UTC).timestamp()


def _guarded(when: Mapping[str, Any], plan: TrainingPlan) -> bool:
    """Whether the rule speaks of this kind of plan: simulated or not, field or farm."""
    return all(name not in when or when[name] == getattr(plan, name) for name in ("simulation", "topology"))


def _broken(rule: Rule, plan: TrainingPlan, facts: tuple[Fact, ...]) -> Iterator[str | None]:
    """Names of the features that break `rule`, or None once for the plan itself."""
    test = rule.when["test"]
    if test in _PLAN_TESTS:
        if _PLAN_TESTS[test](plan, rule.when):
            yield None
    elif test in _FEATURE_TESTS:
        yield from (f.feature.name for f in facts if _FEATURE_TESTS[test](f, plan, rule.when))
    else:
        raise PolicyError(f"rule {rule.id} has the unknown test {test!r}; install the release this pack belongs to")


def _violation(rule: Rule, name: str | None) -> Violation:
    subject = "the plan" if name is None else f"feature {name!r}"
    return Violation(rule.id, name, f"{subject} {rule.sentence}", rule.citation)


def _value(plan: TrainingPlan, path: str) -> Any:
    value: Any = plan
    for name in path.split("."):
        value = getattr(value, name)
    return value


_FEATURE_TESTS: dict[str, Callable[[Fact, TrainingPlan, Mapping[str, Any]], bool]] = {
    "source": lambda f, p, w: bool(f.sources & set(w["any_of"])),
    "source_not": lambda f, p, w: bool(f.sources - set(w["none_of"])),
    "source_unreviewed": lambda f, p, w: (
        bool(f.sources & set(w["any_of"])) and f.permission != "X" and f.feature.name not in p.review_features
    ),
    "profile": lambda f, p, w: bool(f.profiles & set(w["any_of"])),
    "permission": lambda f, p, w: f.permission in w["any_of"],
    "name": lambda f, p, w: any(_contains(f.words, _words(name)) for name in w["any_of"]),
    "word": lambda f, p, w: bool(set(f.words) & set(w["any_of"])),
    "unregistered": lambda f, p, w: f.feature.name not in FEATURES and _source(f.feature) != "table",
    "relabelled": lambda f, p, w: f.relabelled,
    "unreviewed": lambda f, p, w: f.reviewable and f.feature.name not in p.review_features,
    "reasonless": lambda f, p, w: not f.feature.reason.strip() and _source(f.feature) != "table",
}

_PLAN_TESTS: dict[str, Callable[[TrainingPlan, Mapping[str, Any]], bool]] = {
    "above": lambda p, w: _value(p, w["field"]) > w["limit"],
    "below": lambda p, w: _value(p, w["field"]) < w["limit"],
    "equals": lambda p, w: _value(p, w["field"]) in w["any_of"],
    "cohort": lambda p, w: p.expected_cohort < p.min_cohort,
    # A hair of tolerance, so that a delta set to exactly N^-1.1 is not refused for its last bit.
    "delta": lambda p, w: p.privacy.delta > p.phones ** w["power"] * (1 + 1e-9),
}
