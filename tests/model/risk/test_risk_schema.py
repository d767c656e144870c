"""Schema: what a feature may be, and a digest that any change moves."""

from dataclasses import replace

import pytest
from risk_samples import MIXED

from model.errors import SchemaError
from model.risk.schema import MAX_BUCKETS, Feature, Schema


def test_schema_travels_as_plain_values_with_its_digest():
    back = Schema.from_dict(MIXED.to_dict())
    assert back == MIXED
    assert back.digest == MIXED.digest
    changed = replace(MIXED, features=(replace(MIXED.features[0], sign=-1), *MIXED.features[1:]))
    assert changed.digest != MIXED.digest
    assert MIXED.index("share") == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "empty"),
        ({"name": "x" * 129}, "longer"),
        ({"kind": "text"}, "unknown kind"),
        ({"grid": "log"}, "unknown kind, grid"),
        ({"permission": "Y"}, "permission"),
        ({"lower": 1.0, "upper": 1.0}, "lower bound"),
        ({"lower": float("nan")}, "lower bound"),
        ({"sign": 2}, "sign"),
        ({"kind": "category"}, "buckets"),
        ({"kind": "category", "buckets": MAX_BUCKETS + 1}, "buckets"),
        ({"kind": "category", "buckets": 2, "values": ("a",)}, "lists 1 values"),
    ],
)
def test_a_feature_that_cannot_be_is_refused_by_name(wrong, says):
    with pytest.raises(SchemaError, match=says):
        Feature(**{"name": "f", **wrong})


def test_schemas_that_cannot_be_are_refused():
    with pytest.raises(SchemaError, match="twice"):
        Schema("s", "1", (Feature("a"), Feature("a")))
    with pytest.raises(SchemaError, match="1 to"):
        Schema("s", "1", ())
    with pytest.raises(SchemaError, match="no feature 'b'"):
        Schema("s", "1", (Feature("a"),)).index("b")
    for raw in ({}, {"name": "s", "version": "1", "features": [{"name": "a"}]}, {"features": 3}):
        with pytest.raises(SchemaError, match="malformed"):
            Schema.from_dict(raw)
