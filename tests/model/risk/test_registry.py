"""The registry: every feature of the domain page, its permission, and how a schema is composed."""

import pytest

from model.errors import SchemaError
from model.risk.registry import FEATURES, O_FEATURES, R_DEFAULT, X_FEATURES, default_schema


def test_every_feature_has_one_permission_and_a_profile():
    assert set(O_FEATURES) | set(R_DEFAULT) | set(X_FEATURES) == set(FEATURES)
    assert len(O_FEATURES) + len(R_DEFAULT) + len(X_FEATURES) == len(FEATURES)
    profiles = {"identity", "life_stage", "lifestyle", "social", "brand_loyalty"}
    assert {f.profile for f in FEATURES.values()} == profiles


def test_signs_follow_the_domain_page():
    signs = {
        "bill_on_time": -1,
        "bill_delay": 1,
        "night_share": 1,
        "shopping_share": 0,
        "p2p_share": 0,
        "emi_burden": 1,
    }
    assert {name: FEATURES[name].sign for name in signs} == signs
    free = {n for n in (*O_FEATURES, *R_DEFAULT) if FEATURES[n].sign == 0}
    assert free == {"income_sources", "occupation_declared", "shopping_share", "p2p_share"}


def test_reasons_are_specific_sentences():
    used = [FEATURES[n].reason for n in (*O_FEATURES, *R_DEFAULT)]
    assert len(set(used)) == len(used)
    assert all(r.endswith(".") and len(r.split()) >= 4 and "score" not in r.lower() for r in used)


def test_default_schema_holds_only_own_app_features():
    schema = default_schema()
    assert schema.names == O_FEATURES
    assert {f.permission for f in schema.features} == {"O"}


def test_review_features_are_a_set_and_change_the_schema():
    one, two = default_schema(("emi_burden", "night_share")), default_schema({"night_share", "emi_burden"})
    assert one == two
    assert set(one.names) - set(O_FEATURES) == {"emi_burden", "night_share"}
    assert one != default_schema(("emi_burden",))
    assert len(default_schema(R_DEFAULT).names) == len(O_FEATURES) + len(R_DEFAULT)


@pytest.mark.parametrize("name", ["contact_count", "divorce_inferred", "upi_rate", "no_such_feature"])
def test_only_review_features_can_be_asked_for(name):
    with pytest.raises(SchemaError, match=name):
        default_schema((name,))


def test_sealed_sources_belong_to_forbidden_features_only():
    sealed = {f.name: f.permission for f in FEATURES.values() if f.source in ("contact", "call", "telephony")}
    assert set(sealed.values()) == {"X"} and len(sealed) == 4
