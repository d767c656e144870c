"""Features → score, band, reasons, or a typed "no score"."""

import numpy as np
import pytest

from fl_client.scoring import NEUTRAL_LOGIT, Scorer, matching_schema
from model.errors import ModelError, NoScore, SchemaError
from model.risk.registry import default_schema
from model.risk.scorecard import band


@pytest.fixture(scope="module")
def scorer(table_release) -> Scorer:
    return Scorer(table_release.onnx, table_release.manifest, table_release.schema)


def test_a_score_lies_on_the_grid_and_in_its_band(scorer, row):
    result = scorer.assess(scorer.vector(row))
    assert result.score % 10 == 0
    assert 300 <= result.score <= 900
    assert result.band == band(result.score)
    pd, exact, contributions = scorer.run(scorer.vector(row).reshape(1, -1))
    assert result.pd == pytest.approx(float(pd[0]))
    assert abs(result.score - float(exact[0])) <= 5
    assert result.contributions == pytest.approx(dict(zip(scorer.schema.names, contributions[0].tolist(), strict=True)))


def test_reasons_are_ordered_raise_the_pd_and_have_a_sentence(scorer, row):
    result = scorer.assess(scorer.vector(row))
    moves = [result.contributions[name] for name in result.reasons]
    assert moves == sorted(moves, reverse=True)
    assert min(moves) > 0
    assert result.contributions["unspoken"] > min(moves)  # it moves the score, but there is no sentence for it
    assert "unspoken" not in result.reasons
    good = {"income": 1e6, "late": 0.0, "tenure": 100.0, "unspoken": 0.0, "job": 0.0}
    better = scorer.assess(scorer.vector(good))
    assert better.score > result.score
    assert "late" not in better.reasons


def test_case_54_a_required_feature_that_is_missing_is_a_typed_no_score(scorer, row):
    for missing in ({**row, "income": float("nan")}, {k: v for k, v in row.items() if k != "income"}):
        with pytest.raises(NoScore, match="income is required") as refusal:
            scorer.assess(scorer.vector(missing))
        assert refusal.value.code == "required_missing"
    with pytest.raises(NoScore):
        scorer.assess(scorer.vector({**row, "income": float("inf")}))
    with pytest.raises(NoScore):
        scorer.assess(scorer.vector(row), refused=["form"])
    optional = {**row, "late": float("nan")}
    assert scorer.assess(scorer.vector(optional)).score >= 300  # the control: NaN elsewhere is a missing value


def test_a_thin_file_is_a_typed_no_score(phone_release):
    scorer = Scorer(phone_release.onnx, phone_release.manifest, min_observed_days=30)
    x = np.full(len(scorer.schema.features), np.nan, dtype=np.float32)
    column = scorer.schema.index("observed_days")
    for days in (29.0, np.nan):
        x[column] = days
        with pytest.raises(NoScore, match="fewer than 30 days") as refusal:
            scorer.assess(x)
        assert refusal.value.code == "thin_file"
    x[column] = 30.0
    assert scorer.assess(x).score >= 300


@pytest.mark.parametrize("source", ["bill", "own_app", "upi"])
def test_refusing_a_source_is_neutral_and_not_absence(scorer, row, source):
    """Missing raises the PD in this model; refusing must not, for any feature of the source."""
    features = [feature.name for feature in scorer.schema.features if feature.source == source]
    absent = scorer.assess(scorer.vector({**row, **dict.fromkeys(features, float("nan"))}))
    refused = scorer.assess(scorer.vector(row), refused=[source])
    for name in features:
        assert absent.contributions[name] > 0.1
        assert -0.05 < refused.contributions[name] <= NEUTRAL_LOGIT
        assert name not in refused.reasons
    assert refused.score > absent.score
    assert refused.neutral == tuple(features)


def test_a_refused_value_is_not_looked_at(scorer, row):
    one = scorer.assess(scorer.vector(row), refused=["bill"])
    other = scorer.assess(scorer.vector({**row, "late": 0.0}), refused=["bill"])
    assert (one.pd, one.reasons) == (other.pd, other.reasons)
    seen = scorer.assess(scorer.vector({**row, "late": 0.0}))
    assert seen.pd != scorer.assess(scorer.vector(row)).pd


def test_case_53_another_schema_is_refused(table_release, phone_release):
    with pytest.raises(SchemaError, match="another feature schema"):
        Scorer(table_release.onnx, table_release.manifest, default_schema())
    with pytest.raises(SchemaError, match="'income', which this phone cannot compute"):
        Scorer(table_release.onnx, table_release.manifest)
    wrong = {**phone_release.manifest, "schema_digest": "0" * 64}
    with pytest.raises(SchemaError, match="another feature schema"):
        matching_schema(wrong)
    assert matching_schema(phone_release.manifest) == default_schema()


def test_a_model_of_another_width_is_refused(table_release, phone_release):
    with pytest.raises(ModelError):
        Scorer(phone_release.onnx, table_release.manifest, table_release.schema)


def test_features_of_another_length_are_refused(scorer):
    with pytest.raises(SchemaError, match="3 features were given"):
        scorer.assess(np.zeros(3, dtype=np.float32))
