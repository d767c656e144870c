"""Size, speed and parity of the released file at 40 features: one row, one thread, raw onnxruntime calls."""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import onnxruntime

from model.risk.calibration import Platt
from model.risk.export import export, parity
from model.risk.knots import Knots, rows_histogram
from model.risk.network import RiskNetwork
from model.risk.schema import Feature, Schema

TARGETS = {(): (100_000, 25.0), (64, 32): (150_000, 200.0)}  # bytes, p50 in µs


def build(hidden: tuple[int, ...], features: int, knots: int) -> tuple[RiskNetwork, np.ndarray, Schema]:
    """A network with random weights on log-normal columns, 10,000 rows with 10 % missing."""
    random = np.random.Generator(np.random.Philox(7))
    schema = Schema("bench", "1", tuple(Feature(f"f{i}") for i in range(features)))
    x = random.lognormal(3, 2, (10_000, features)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    grid = Knots.from_histogram(rows_histogram(x, np.ones(len(x)), schema), schema, knots)
    network = RiskNetwork(schema, grid, hidden)
    network.load_flat(random.normal(0, 0.3, network.dimension))
    return network, x, schema


def percentiles(session: onnxruntime.InferenceSession, x: np.ndarray, calls: int) -> tuple[float, float]:
    """p50 and p99 of one-row calls, µs: the quietest of five batches, since other processes share the cores."""
    batches = []
    for _ in range(5):
        taken = []
        for i in range(calls // 5):
            row = x[i % len(x) : i % len(x) + 1]
            begin = time.perf_counter_ns()
            session.run(None, {"features": row})
            taken.append((time.perf_counter_ns() - begin) / 1000)
        batches.append((float(np.percentile(taken, 50)), float(np.percentile(taken, 99))))
    return min(batches)


def session(data: bytes) -> onnxruntime.InferenceSession:
    """One thread, as on a phone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def main() -> int:
    """Print figures beside their targets; 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=40)
    parser.add_argument("--knots", type=int, default=16)
    parser.add_argument("--calls", type=int, default=20_000)
    options, missed = parser.parse_args(), False
    for hidden, (most_bytes, most_us) in TARGETS.items():
        network, x, schema = build(hidden, options.features, options.knots)
        platt = Platt(1.1, -0.2, (-3.0, -2.5, -2.0, -1.5, -1.0, 0.0), (0.1, -0.2, 0.1, -0.1, 0.2, -0.3))
        data = export(network, platt, schema)
        p50, p99 = percentiles(session(data), x, options.calls)
        name = "additive" if not hidden else f"mlp {hidden}"
        print(f"{name}: {len(data):,} bytes (≤ {most_bytes:,}), p50 {p50:.1f} µs (≤ {most_us:.0f}), p99 {p99:.1f} µs")
        print(f"  parity {parity(network, platt, data, x):.1e} on {len(x):,} rows with NaN")
        missed |= len(data) > most_bytes or p50 > most_us
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
