"""The released file: parity with PyTorch, exact contributions, same bytes, only plain operators, small."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_samples import MIXED, knot_sets, mixed_network, mixed_rows

from model.errors import SchemaError
from model.risk.calibration import Platt
from model.risk.export import export, parity
from model.risk.knots import Knots, rows_histogram
from model.risk.monotone import project
from model.risk.network import RiskNetwork
from model.risk.onnx_ops import ALLOWED_OPS, INPUT, IR_VERSION, OPSET, OUTPUTS
from model.risk.schema import Feature, Schema
from model.risk.scorecard import points

PLATT = Platt(1.3, -0.4)
BENT = Platt(1.3, -0.4, (-1.5, -0.5, 0.8), (-0.5, 0.9, 0.4))
KINDS = [(), (12,), (64, 32)]


def run(data, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: x}), strict=True))


@pytest.mark.parametrize("platt", [PLATT, BENT])
@pytest.mark.parametrize("hidden", KINDS)
def test_parity_on_ten_thousand_rows_with_missing_cells(hidden, platt):
    network = mixed_network(hidden)
    data = export(network, platt, MIXED)
    x = mixed_rows(10_000, seed=4, missing=0.2)
    assert parity(network, platt, data, x) <= 1e-6
    assert parity(network, Platt(1.31, -0.4), data, x) > 1e-6  # control: another calibration is noticed


@given(knot_sets(), st.sampled_from([(), (6,), (5, 4)]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_parity_on_any_schema(pair, hidden, seed):
    schema, knots = pair
    random = np.random.Generator(np.random.Philox(seed))
    network = RiskNetwork(schema, knots, hidden)
    network.load_flat(random.normal(0, 0.5, network.dimension))
    x = (random.normal(0, 1, (60, len(schema.features))) * 10.0 ** random.integers(-3, 8, (60, 1))).astype(np.float32)
    x[random.random(x.shape) < 0.3] = np.nan
    assert parity(network, PLATT, export(network, PLATT, schema), x) <= 1e-6


@pytest.mark.parametrize("hidden", KINDS)
def test_score_and_contributions_follow_from_the_same_logit(hidden):
    network = mixed_network(hidden)
    x = mixed_rows(500, seed=5)
    out = run(export(network, PLATT, MIXED), x)
    assert out["pd"].shape == out["score"].shape == (500,)
    assert np.allclose(out["score"], points(out["pd"].astype(np.float64)), atol=0.01)
    with torch.no_grad():
        expected = PLATT.slope * network.contributions(torch.from_numpy(x)).numpy()
    assert np.allclose(out["contributions"], expected, atol=2e-5)


def test_additive_contributions_and_bias_are_the_calibrated_logit():
    network = mixed_network()
    out = run(export(network, PLATT, MIXED), mixed_rows(2000, seed=6))
    pd = out["pd"].astype(np.float64)
    bias = np.log(pd / (1 - pd)) - out["contributions"].sum(axis=1)
    inner = (pd > 0.01) & (pd < 0.99)
    assert np.ptp(bias[inner]) < 1e-4


def test_signed_features_are_monotone_in_the_file_to_the_last_bit():
    network = mixed_network()
    network.load_flat(project(network.flat(), MIXED, network.knots))
    for feature, sign in ((0, 1), (1, 1), (2, -1)):
        low, high = network.knots.values[feature][0], network.knots.values[feature][-1]
        rows = np.repeat(mixed_rows(1, seed=feature, missing=0), 5000, axis=0)
        rows[:, feature] = np.linspace(low, high, 5000, dtype=np.float32)
        assert np.all(sign * np.diff(run(export(network, PLATT, MIXED), rows)["contributions"][:, feature]) >= 0)


@pytest.mark.parametrize("hidden", KINDS)
def test_extreme_and_missing_rows_stay_finite(hidden):
    data = export(mixed_network(hidden), PLATT, MIXED)
    x = np.stack([np.full(7, v, np.float32) for v in (np.nan, np.inf, -np.inf, 3e38, -3e38, 0, 1e-40)])
    out = run(data, x)
    assert all(np.all(np.isfinite(v)) for v in out.values())
    assert np.all((out["score"] >= 300) & (out["score"] <= 900))


@pytest.mark.parametrize("hidden", KINDS)
def test_same_weights_same_bytes_and_nothing_but_the_graph(hidden):
    data = export(mixed_network(hidden), PLATT, MIXED)
    assert data == export(mixed_network(hidden), PLATT, MIXED)
    assert data != export(mixed_network(hidden, seed=1), PLATT, MIXED)
    model = onnx.load_model_from_string(data)
    assert {n.op_type for n in model.graph.node} <= set(ALLOWED_OPS)
    assert all(n.domain == "" and not n.metadata_props and not n.doc_string for n in model.graph.node)
    assert all(t.data_location == onnx.TensorProto.DEFAULT and t.raw_data for t in model.graph.initializer)
    assert not (model.metadata_props or model.functions or model.graph.metadata_props or model.graph.doc_string)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (IR_VERSION, [("", OPSET)])
    assert b"/" not in data.split(b"pocketscore")[0]


def test_allowed_operators_are_exactly_the_used_ones():
    used = set()
    for hidden in KINDS:
        used |= {n.op_type for n in onnx.load_model_from_string(export(mixed_network(hidden), PLATT, MIXED)).graph.node}
    assert used == set(ALLOWED_OPS)


def test_another_schema_is_refused():
    with pytest.raises(SchemaError, match="schema"):
        export(mixed_network(), PLATT, Schema("other", "1", (Feature("x"),)))


@pytest.mark.parametrize(("hidden", "most_bytes"), [((), 100_000), ((64, 32), 150_000)])
def test_forty_features_are_small(hidden, most_bytes):
    """How quick they are, benchmarks/onnx_scoring.py judges."""
    random = np.random.Generator(np.random.Philox(7))
    schema = Schema("forty", "1", tuple(Feature(f"f{i}") for i in range(40)))
    x = random.lognormal(3, 2, (1000, 40)).astype(np.float32)
    network = RiskNetwork(schema, Knots.from_histogram(rows_histogram(x, np.ones(1000), schema), schema, 16), hidden)
    data = export(network, PLATT, schema)
    assert len(data) <= most_bytes
    assert run(data, x)["pd"].shape == (1000,)
