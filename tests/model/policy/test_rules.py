"""Policy packs: every rule can fail, the default plan passes, and a schema's own labels are not believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from model.contract.plan import LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import PrivacyPlan
from model.errors import PolicyError
from model.policy.pack import DEFAULT_PACK, PACKS, Rule, load_pack
from model.policy.rules import require_allowed, violations
from model.privacy.mechanism import GaussianRelease
from model.risk.registry import FEATURES, R_DEFAULT, X_FEATURES, default_schema
from model.risk.schema import Feature, Schema

PRIVACY = PrivacyPlan(
    "central", 1e-5, 2.0, "zero-out", "phone", (GaussianRelease("training", 20.0, 1.0, 20, 1.0, "train"),)
)
PLAN = TrainingPlan(
    name="demo",
    purpose="credit risk",
    created_at=1_770_000_000,
    schema=default_schema(),
    review_features=(),
    policy_pack=DEFAULT_PACK,
    topology="farm",
    phones=1000,
    holdout_phones=250,
    min_cohort=30,
    rounds=20,
    participation=1.0,
    model=ModelChoice(),
    local=LocalTraining(1, 0.5, 0, 0.0, 1.0),
    server=ServerOptimiser("fedavg", 1.0, 0.8, 0.5, 0.0, 0.99, 1e-8),
    privacy=PRIVACY,
)
INDIA = load_pack(DEFAULT_PACK)
HELPED: dict[str, Any] = {"mode": "helper", "helper_key": "ab" * 32}


def _with(*features: Feature, **change: Any) -> TrainingPlan:
    schema = Schema("test", "1", (*default_schema().features, *features))
    return replace(PLAN, schema=schema, **change)


def _ids(plan: TrainingPlan, name: str | None = None) -> set[str]:
    pack = load_pack(plan.policy_pack)
    return {v.rule_id for v in violations(plan, pack) if name is None or v.feature == name}


@pytest.mark.parametrize("name", PACKS)
def test_the_default_schema_is_allowed_everywhere(name: str) -> None:
    assert violations(replace(PLAN, policy_pack=name), load_pack(name)) == ()
    require_allowed(replace(PLAN, policy_pack=name), load_pack(name))


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("feature", X_FEATURES)
def test_every_forbidden_feature_is_refused_in_every_pack(name: str, feature: str) -> None:
    plan = _with(FEATURES[feature], policy_pack=name, review_features=(feature,))
    assert "house-forbidden-feature" in _ids(plan, feature)
    with pytest.raises(PolicyError, match=feature):
        require_allowed(plan, load_pack(name))


@pytest.mark.parametrize("feature", X_FEATURES)
@pytest.mark.parametrize("source", ["own_app", "device", "table"])
def test_a_forbidden_feature_relabelled_as_own_app_is_refused(feature: str, source: str) -> None:
    disguised = replace(FEATURES[feature], permission="O", source=source)
    assert "house-forbidden-feature" in _ids(_with(disguised), feature)


@pytest.mark.parametrize(
    "name",
    ["ContactCount", "contact-count", "CONTACT COUNT", "contactcount", "contact\u200b_count", "ｃontact_count",
     "log_contact_count", "contact_count_30d"],
)  # fmt: skip
def test_another_spelling_of_a_forbidden_name_is_refused(name: str) -> None:
    assert "house-forbidden-feature" in _ids(_with(Feature(name)), name)


@pytest.mark.parametrize("name", ["PAY_0", "LIMIT_BAL", "EDUCATION", "contract_count", "languages", "discount"])
def test_a_table_column_of_another_name_is_allowed(name: str) -> None:
    assert _ids(_with(Feature(name))) == set()


def test_the_traps_are_refused_with_their_own_rule() -> None:
    assert "in-rbi-12i-contacts" in _ids(_with(FEATURES["contact_count"]), "contact_count")
    assert "in-rbi-12i-calls" in _ids(_with(FEATURES["call_entropy"]), "call_entropy")
    assert "in-rbi-12i-telephony" in _ids(_with(FEATURES["sim_swaps"]), "sim_swaps")
    assert "house-life-event" in _ids(_with(FEATURES["divorce_inferred"]), "divorce_inferred")
    assert "house-life-event" in _ids(_with(Feature("job_change")), "job_change")


@pytest.mark.parametrize(
    "source", ["contacts", "call_logs", "media", "Gallery", "browse", "packages", "whatsapp", "mobility", ""]
)
def test_a_source_is_allowed_by_name_or_not_at_all(source: str) -> None:
    assert "house-source" in _ids(_with(Feature("anything", source=source)), "anything")


def test_a_review_feature_needs_to_be_named() -> None:
    bounces = FEATURES["bounces"]
    assert _ids(_with(bounces)) == {"house-review-needed", "in-play-review"}
    assert _ids(_with(bounces, review_features=("bounces",))) == set()
    everything = replace(PLAN, schema=default_schema(R_DEFAULT), review_features=R_DEFAULT)
    assert _ids(everything) == set()


def test_a_review_feature_relabelled_as_own_is_still_one() -> None:
    milder = replace(FEATURES["bounces"], permission="O", source="own_app")
    assert {"house-review-needed", "house-relabelled"} <= _ids(_with(milder), "bounces")
    assert "house-relabelled" in _ids(_with(milder, review_features=("bounces",)), "bounces")


def test_a_phone_computes_registered_features_only() -> None:
    assert "house-unregistered" in _ids(_with(Feature("contаct_count", source="own_app")))  # a Cyrillic a
    assert _ids(_with(Feature("made_up", source="table"))) == set()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"min_cohort": 29}, "house-minimum-cohort"),
        ({"min_cohort": 1001}, "house-expected-cohort"),
        ({"participation": 0.02}, "house-expected-cohort"),
        ({"score_days": 31}, "house-score-life"),
        ({"score_grid": 9}, "house-score-grid"),
        ({"privacy": replace(PRIVACY, mode="off")}, "house-privacy-off"),
        ({"privacy": replace(PRIVACY, noise_source="test-seeded")}, "house-seeded-noise"),
        ({"privacy": replace(PRIVACY, epsilon_budget=4.5)}, "house-epsilon-cap"),
        ({"privacy": replace(PRIVACY, **HELPED, coordinator_noise=0.2)}, "house-helper-epsilon-cap"),
        ({"privacy": replace(PRIVACY, delta=1e-3)}, "house-delta"),
        ({"topology": "field"}, "house-field-masked"),
    ],
)
def test_every_rule_about_the_plan_can_fail(change: dict[str, Any], rule: str) -> None:
    assert _ids(replace(PLAN, **change)) == {rule}
    assert violations(replace(PLAN, **change), INDIA)[0].feature is None


@pytest.mark.parametrize("change", [{"mode": "off"}, {"noise_source": "test-seeded"}, {"epsilon_budget": 50.0}])
def test_a_simulation_may_do_what_people_are_spared(change: dict[str, Any]) -> None:
    plan = replace(PLAN, simulation=True, privacy=replace(PRIVACY, **change))
    assert _ids(plan) == set()
    assert _ids(replace(plan, simulation=False)) != set()


def test_limits_are_met_exactly() -> None:
    edge = replace(PRIVACY, delta=1000**-1.1, epsilon_budget=4.0)
    assert _ids(replace(PLAN, privacy=edge, participation=0.03)) == set()


def test_what_the_helper_may_learn_is_capped_where_the_budget_does_not_bind_it() -> None:
    """13.16.6: ε of the same charges is .78 against the coordinator and 4.9 against the helper."""
    most = replace(PRIVACY, **HELPED, coordinator_noise=0.25)
    assert 3 < most.helper_epsilon <= 4 and _ids(replace(PLAN, privacy=most)) == set()
    over = replace(most, coordinator_noise=0.2)
    assert over.helper_epsilon > 4 and _ids(replace(PLAN, privacy=over, simulation=True)) == set()
    assert PRIVACY.helper_epsilon == 0


def test_a_table_has_no_place_in_the_field() -> None:
    plan = _with(Feature("income"), topology="field", simulation=True)
    assert _ids(plan) == {"house-table-in-field"}
    assert _ids(replace(plan, topology="farm")) == set()


def test_jurisdictions_differ() -> None:
    bounces = FEATURES["bounces"]
    named = {"review_features": ("bounces",)}
    assert "eu-eprivacy-messages" in _ids(_with(bounces, policy_pack="eu-2026", **named))
    assert "id-ojk-access" in _ids(_with(bounces, policy_pack="id-ojk", **named))
    assert _ids(_with(bounces, policy_pack="us-ecoa", **named)) == set()
    p2p = _with(FEATURES["p2p_share"], review_features=("p2p_share",))
    assert "eu-ccd2-social" in _ids(replace(p2p, policy_pack="eu-2026")) and _ids(p2p) == set()
    for column, pack in (("SEX", "us-ecoa"), ("MaritalStatus", "us-ecoa"), ("native_language", "us-ecoa"),
                         ("health_score", "eu-2026"), ("fingerprint_hash", DEFAULT_PACK)):  # fmt: skip
        assert len(_ids(_with(Feature(column), policy_pack=pack))) == 1
    unexplained = _with(policy_pack="us-ecoa")
    bare = replace(unexplained.schema.features[0], reason=" ")
    schema = replace(unexplained.schema, features=(bare, *unexplained.schema.features[1:]))
    assert _ids(replace(unexplained, schema=schema)) == {"us-ecoa-unexplained"}


def test_a_plan_is_judged_by_the_pack_it_names() -> None:
    found = violations(PLAN, load_pack("eu-2026"))
    assert [v.rule_id for v in found] == ["pack-mismatch"]
    with pytest.raises(PolicyError, match="choose in-rbi-2025"):
        load_pack("atlantis")


def test_the_function_is_pure() -> None:
    plan = _with(FEATURES["contact_count"])
    assert violations(plan, INDIA) == violations(plan, INDIA)
    assert plan == _with(FEATURES["contact_count"])


def test_a_rule_ends_on_its_last_day_and_is_not_dodged_by_an_early_date() -> None:
    plan = replace(PLAN, min_cohort=5)
    assert _ids(replace(plan, created_at=0)) == {"house-minimum-cohort"}
    ended = replace(_rule(INDIA.rules, "house-minimum-cohort"), effective_until=date(2026, 7, 21))
    pack = replace(INDIA, rules=(ended,))
    before, after = 1_784_591_999, 1_784_592_000  # 2026-07-20 23:59:59 and 2026-07-21 00:00:00 UTC
    assert len(violations(replace(plan, created_at=before), pack)) == 1
    assert violations(replace(plan, created_at=after), pack) == ()


def test_an_unknown_test_is_refused_and_not_passed() -> None:
    odd = replace(INDIA.rules[0], when={"test": "astrology"})
    with pytest.raises(PolicyError, match="astrology"):
        violations(PLAN, replace(INDIA, rules=(odd,)))


def test_the_message_names_the_rule_and_counts_the_rest() -> None:
    with pytest.raises(PolicyError, match=r"contact_count.*in-rbi-12i-contacts.*more\)"):
        require_allowed(_with(FEATURES["contact_count"]), INDIA)
    with pytest.raises(PolicyError, match=r"house-score-grid: [^\]]*\]$"):
        require_allowed(replace(PLAN, score_grid=1), INDIA)


@pytest.mark.parametrize("name", PACKS)
def test_every_rule_is_dated_cited_and_says_what_to_do(name: str) -> None:
    pack = load_pack(name)
    assert pack.name == name and pack.version and len(pack.digest) == 64
    assert len({rule.id for rule in pack.rules}) == len(pack.rules)
    for rule in pack.rules:
        assert rule.citation and rule.jurisdiction in (pack.jurisdiction, "*") and isinstance(rule.effective_from, date)
        assert ";" in rule.sentence or "," in rule.sentence
        assert set(rule.when) <= {"test", "any_of", "none_of", "field", "limit", "power", "simulation", "topology"}
    assert all(one.citation and one.sentence.endswith(".") for one in pack.obligations)
    assert pack.terms["reasons_max"] == 4 and pack.terms["score_days_max"] == 30


def test_the_default_pack_keeps_data_in_india() -> None:
    assert INDIA.terms["data_region"] == "IN" and INDIA.terms["limit_max"] == 100_000
    assert INDIA.terms["cooling_off_days"] == 1
    with pytest.raises(TypeError):
        INDIA.terms["limit_max"] = 1  # type: ignore[index]


def _rule(rules: tuple[Rule, ...], rule_id: str) -> Rule:
    return next(rule for rule in rules if rule.id == rule_id)
