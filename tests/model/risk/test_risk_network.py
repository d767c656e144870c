"""Encoding, network, preconditioner, objective and monotone projection."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from risk_samples import MIXED, knot_sets, mixed_network, mixed_rows
from sklearn.isotonic import IsotonicRegression

from model.errors import SchemaError
from model.risk.encoding import PiecewiseLinear
from model.risk.knots import Knots, hats
from model.risk.monotone import pava, project, violations
from model.risk.network import RiskNetwork, quantile_levels
from model.risk.objective import l2_term, penalised, phone_loss, prox_term, row_losses
from model.risk.precondition import Preconditioner
from model.risk.schema import Feature, Schema


@given(knot_sets(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_hats_are_a_partition_of_unity_or_a_missing_flag(pair, seed):
    schema, knots = pair
    random = np.random.Generator(np.random.Philox(seed))
    x = (random.normal(0, 1, (40, len(schema.features))) * 10.0 ** random.integers(-3, 9, (40, 1))).astype(np.float32)
    x[random.random(x.shape) < 0.3] = np.nan
    encoding = PiecewiseLinear(schema, knots)
    phi = encoding(torch.from_numpy(x)).numpy()
    assert phi.shape == (40, encoding.width)
    for j, (feature, span) in enumerate(zip(schema.features, encoding.spans, strict=True)):
        hat, flag, missing = phi[:, span][:, :-1], phi[:, span][:, -1], np.isnan(x[:, j])
        assert np.array_equal(flag == 1, missing)
        assert np.all(hat[missing] == 0)
        assert hat.min() >= -1e-6
        if feature.kind == "number":
            assert np.allclose(hat[~missing].sum(axis=1), 1, atol=1e-6)
            assert np.allclose(hat[~missing], hats(knots.values[j], x[~missing, j]), atol=1e-4)
        else:
            assert np.all(hat.sum(axis=1) <= 1 + 1e-6)


def test_codes_are_one_hot_and_other_codes_are_zeros():
    schema = Schema("s", "1", (Feature("c", kind="category", buckets=9),))
    encoding = PiecewiseLinear(schema, Knots(((2.0, 3.0, 7.0),), ((0.5, 0.2, 0.1, 0.1),)))
    phi = encoding(torch.tensor([[2.0], [3.0], [7.0], [4.0], [0.0], [float("nan")], [float("inf")]])).numpy()
    assert phi.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0] * 4, [0] * 4, [0, 0, 0, 1], [0] * 4]


def test_values_beyond_the_end_knots_are_clamped():
    schema = Schema("s", "1", (Feature("v"),))
    encoding = PiecewiseLinear(schema, Knots(((-1.0, 5.0),), ((0.5, 0.5, 0.0),)))
    phi = encoding(torch.tensor([[-1e30], [float("inf")], [2.0], [-float("inf")]])).numpy()
    assert phi.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]]


@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
def test_weights_travel_as_one_vector(hidden):
    network = mixed_network(hidden)
    other = RiskNetwork(MIXED, network.knots, hidden)
    x = torch.from_numpy(mixed_rows(50))
    assert not torch.equal(network(x), other(x))
    other.load_flat(network.flat())
    assert torch.equal(network(x), other(x))
    assert network.flat().shape == (network.dimension,)
    assert torch.isfinite(network(x)).all()
    assert network(x).shape == (50,)


def test_mlp_starts_at_the_base_rate_with_the_same_weights_everywhere():
    knots = mixed_network().knots
    one, two = (RiskNetwork(MIXED, knots, (8,), seed=3) for _ in range(2))
    assert np.array_equal(one.flat(), two.flat())
    assert not np.array_equal(one.flat(), RiskNetwork(MIXED, knots, (8,), seed=4).flat())
    assert torch.all(one(torch.from_numpy(mixed_rows(20))) == 0)


@pytest.mark.parametrize("bad", [np.zeros(3), None])
def test_weights_of_the_wrong_length_or_not_finite_are_refused(bad):
    network = mixed_network()
    vector = np.full(network.dimension, np.nan) if bad is None else bad
    with pytest.raises(SchemaError, match="weights"):
        network.load_flat(vector)


def test_knots_of_another_schema_are_refused():
    with pytest.raises(SchemaError, match="knots"):
        PiecewiseLinear(MIXED, Knots(((1.0,),), ((1.0, 0.0),)))


def test_additive_contributions_add_up_to_the_logit_and_average_to_zero():
    network = mixed_network()
    rows = mixed_rows(3000)
    x = torch.from_numpy(rows)
    with torch.no_grad():
        rest = network(x) - network.contributions(x).sum(1)
        assert float(rest.max() - rest.min()) < 1e-5
        assert network.contributions(x).mean(0).abs().max() < 0.05  # the same rows the masses came from


def test_mlp_contributions_are_the_logit_less_the_logit_at_the_reference():
    network = mixed_network((8, 4))
    x = torch.from_numpy(mixed_rows(20))
    with torch.no_grad():
        inputs = network.inputs(x)
        swapped = inputs.clone()
        swapped[:, network.input_owner == 5] = network.reference[network.input_owner == 5]
        expected = network(x) - network.logits(network.theta, swapped)
        assert torch.allclose(network.contributions(x)[:, 5], expected, atol=1e-6)
        assert network.contributions(x).shape == (20, 7)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
@example([0.0, 1.0, 1.0, 0.3333333333333333, 0.0, 0.0, 0.0, 0.0, 0.0])
def test_quantile_levels_ascend_inside_minus_one_to_one(mass):
    levels = quantile_levels(mass)
    assert np.all(np.diff(levels) >= -1e-12)
    assert np.all(np.abs(levels) <= 1)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_preconditioner_turns_back_and_pulls_gradients(hidden):
    network = mixed_network(hidden)
    step = Preconditioner(MIXED, network.knots, hidden)
    random = np.random.Generator(np.random.Philox(0))
    v, g = random.normal(size=(2, 3, network.dimension))
    assert np.allclose(step.to_v(step.to_theta(v)), v)
    assert np.allclose((step.to_theta(v) * g).sum(-1), (v * step.pull_back(g)).sum(-1))  # adjoint
    assert step.to_theta(v.astype(np.float32)).dtype == np.float32
    assert np.allclose(step.to_theta(v), v) == bool(hidden)


def test_objective_counts_a_phone_once_and_an_empty_phone_as_zero():
    network = mixed_network()
    x, y = torch.from_numpy(mixed_rows(6)), torch.tensor([0.0, 1, 0, 1, 1, 0])
    inputs, theta = network.inputs(x), network.theta
    loss = phone_loss(network, theta, inputs, y)
    reference = torch.nn.functional.binary_cross_entropy_with_logits(network(x), y)
    assert torch.allclose(loss, reference)
    twice = phone_loss(network, theta, torch.cat([inputs, inputs]), torch.cat([y, y]))
    assert torch.allclose(twice, loss)
    empty = phone_loss(network, theta, inputs[:0], y[:0])
    (gradient,) = torch.autograd.grad(empty, theta)
    assert empty.item() == 0
    assert torch.all(gradient == 0)
    assert row_losses(torch.tensor([1e4, -1e4]), torch.tensor([1.0, 0.0])).tolist() == [0, 0]


def test_penalties_leave_biases_alone():
    additive, mlp = mixed_network(), mixed_network((4, 3))
    assert (~penalised(additive)).nonzero().flatten().tolist() == [0]
    assert int((~penalised(mlp)).sum()) == 4 + 3 + 1
    theta = torch.ones(additive.dimension)
    assert float(l2_term(additive, theta, 2.0)) == additive.dimension - 1
    assert float(prox_term(theta, theta * 3, 0.5)) == additive.dimension


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 10)), min_size=1, max_size=40))
def test_pava_equals_sklearn(pairs):
    values, weights = map(np.asarray, zip(*pairs, strict=True))
    theirs = IsotonicRegression().fit_transform(np.arange(len(values)), values, sample_weight=weights)
    assert np.allclose(pava(values, weights), theirs, atol=1e-8)


def sweep(network, feature, sign):
    """Steps against `sign` in the logit as one feature sweeps over its range, other features at random."""
    rows = np.repeat(mixed_rows(20, seed=9), 200, axis=0)
    low, high = network.knots.values[feature][0], network.knots.values[feature][-1]
    rows[:, feature] = np.tile(np.linspace(low - 1, high + 1, 200, dtype=np.float32), 20)
    with torch.no_grad():
        logits = network(torch.from_numpy(rows)).numpy().reshape(20, 200)
    return int((sign * np.diff(logits, axis=1) < -1e-5).sum())


@pytest.mark.parametrize("hidden", [(), (12,), (16, 8)])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_signed_features_never_turn_after_projection(hidden, seed):
    network = mixed_network(hidden, seed=seed)
    signs = {j: f.sign for j, f in enumerate(MIXED.features) if f.sign}
    before = network.flat()
    assert violations(before, MIXED, network.knots, hidden) > 0
    assert sum(sweep(network, j, sign) for j, sign in signs.items()) > 0  # control: random weights do turn
    after = project(before, MIXED, network.knots, hidden)
    network.load_flat(after)
    assert violations(after, MIXED, network.knots, hidden) == 0
    assert sum(sweep(network, j, sign) for j, sign in signs.items()) == 0
    assert np.array_equal(project(after, MIXED, network.knots, hidden), after)
    assert after.dtype == before.dtype
    if hidden:
        assert np.ptp(network(torch.from_numpy(mixed_rows(50))).detach().numpy()) > 0  # still says something


def test_projection_leaves_unsigned_features_alone():
    schema = Schema("s", "1", (Feature("a"), Feature("b", kind="category", buckets=3, sign=1)))
    knots = Knots(((0.0, 1.0), (0.0, 2.0)), ((0.5, 0.4, 0.1), (0.4, 0.4, 0.1)))
    for hidden in ((), (5,)):
        theta = RiskNetwork(schema, knots, hidden, seed=1).flat() + 1
        assert np.array_equal(project(theta, schema, knots, hidden), theta)
