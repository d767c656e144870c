"""Schemas, rows and networks shared by the risk model's tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from model.risk.knots import Knots, histogram_layout, rows_histogram
from model.risk.network import RiskNetwork
from model.risk.schema import Feature, Schema

MIXED = Schema(
    "mixed",
    "1",
    (
        Feature("amount", sign=1),
        Feature("status", sign=1),
        Feature("share", lower=0, upper=1, grid="linear", sign=-1),
        Feature("constant"),
        Feature("gone"),
        Feature("place", kind="category", buckets=16),
        Feature("count", lower=0, upper=30, grid="linear"),
    ),
)


def mixed_rows(rows: int, seed: int = 0, missing: float = 0.1) -> np.ndarray:
    """Rows that fit MIXED: amounts, small integers, shares, a constant, an empty column, codes, counts."""
    random = np.random.Generator(np.random.Philox(seed))
    columns = [
        random.lognormal(11, 1, rows).round(-3),
        random.choice(np.arange(-2, 9), rows, p=[0.1, 0.2, 0.5, 0.1, 0.04, 0.02, 0.01, 0.01, 0.01, 0.005, 0.005]),
        random.beta(2, 5, rows),
        np.full(rows, 7.0),
        np.full(rows, np.nan),
        random.choice([1, 3, 4, 9, 12], rows, p=[0.4, 0.3, 0.2, 0.09, 0.01]),
        random.poisson(4, rows),
    ]
    x = np.stack(columns, axis=1)
    x[random.random(x.shape) < missing] = np.nan
    return x.astype(np.float32)


def mixed_network(hidden: tuple[int, ...] = (), seed: int = 0, scale: float = 0.5) -> RiskNetwork:
    """A network on MIXED with random weights."""
    x = mixed_rows(3000)
    knots = Knots.from_histogram(rows_histogram(x, np.ones(len(x)), MIXED), MIXED, 12)
    network = RiskNetwork(MIXED, knots, hidden)
    random = np.random.Generator(np.random.Philox(seed))
    network.load_flat(random.normal(0, scale, network.dimension))
    return network


@st.composite
def knot_sets(draw: st.DrawFn) -> tuple[Schema, Knots]:
    """Any schema of one to four features, with knots from an arbitrary (noisy-looking) histogram."""
    features = []
    for i in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            features.append(Feature(f"c{i}", kind="category", buckets=draw(st.integers(1, 20))))
        else:
            low = draw(st.floats(-1e6, 1e6, width=32))
            high = low + draw(st.sampled_from([1.0, 10.0, 1e3, 1e7]))
            features.append(
                Feature(f"n{i}", lower=low, upper=high, grid=draw(st.sampled_from(["linear", "signed_log"])))
            )
    schema = Schema("any", "1", tuple(features))
    random = np.random.Generator(np.random.Philox(draw(st.integers(0, 1 << 32))))
    counts = random.normal(draw(st.sampled_from([-5, 0, 5, 100])), 30, histogram_layout(schema).total)
    knots = Knots.from_histogram(counts, schema, draw(st.integers(1, 20)), noise_sd=draw(st.sampled_from([0.0, 30.0])))
    return schema, knots
