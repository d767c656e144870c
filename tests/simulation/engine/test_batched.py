"""The batched engine against a float64 loop, over chunk sizes, steps, threads and awkward phones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_client.batches import batch_weights, steps_of
from fl_client.update import encode_rows
from model.contract.plan import LocalTraining
from model.errors import UpdateError
from simulation.engine import additive, mlp, schedule
from simulation.engine.batched import BatchedEngine, trainer_of
from simulation.engine.chunks import Limits, chunks
from simulation.engine.problem import Columns, Dense, Hats, Problem, Rows
from simulation.engine.tally import encode_parts

Matrix = NDArray[np.float64]
CLOSE = 2e-6
ROOT = Path(__file__).parents[3]
SCALE = 1 << 24  # finer than a plan's: in so small a crowd one unit of 2^-20 is 1e-5 of the sum
LOCALS = {
    "one step": LocalTraining(1, 0.4, 0, 0.0, 0.1),
    "steps and prox": LocalTraining(5, 0.3, 0, 0.5, 10.0),
    "batches": LocalTraining(4, 0.2, 3, 0.0, 10.0),
    "an epoch": LocalTraining(0, 0.2, 4, 0.0, 0.1, 1),
    "epochs and prox": LocalTraining(0, 0.2, 4, 0.5, 10.0, 3),
    "epochs of all rows": LocalTraining(0, 0.3, 0, 0.1, 10.0, 2),
}


def problem_of(kind: str, local: LocalTraining, phones: int = 40, seed: int = 3) -> Problem:
    random = np.random.default_rng(seed)
    counts = random.choice([0, 1, 2, 3, 4, 5, 8, 13, 30], phones)
    order = random.permutation(phones)  # phones need not own their rows in order
    first = np.zeros(phones, dtype=np.int64)
    first[order] = np.cumsum(counts[order]) - counts[order]
    total = int(counts.sum())
    hidden = () if kind == "hats" else (7, 5)
    make: dict[str, Callable[[np.random.Generator, int], Rows]] = {"dense": dense, "columns": columns, "hats": hats}
    rows = make[kind](random, total)
    width = rows.width
    sizes = (width, *hidden, 1)
    d = sum(a * b + b for a, b in pairwise(sizes))
    flat = (random.normal(size=d) * 0.4).astype(np.float32)
    y = (random.random(total) < 0.4).astype(np.float32)
    ids = random.integers(0, 2**63, phones).astype(np.uint64)
    return Problem(ids, first, counts, y, rows, flat, hidden, local, 11, 2, SCALE)


def dense(random: np.random.Generator, rows: int) -> Dense:
    return Dense(random.normal(size=(rows, 6)).astype(np.float32))


def columns(random: np.random.Generator, rows: int) -> Columns:
    codes = random.integers(0, 9, (rows, 3)).astype(np.uint8)
    values = random.normal(size=5 * 9).astype(np.float32)
    return Columns(codes, np.array([0, 0, 1, 2, 2], np.int32), np.arange(5) * 9, values)


def hats(random: np.random.Generator, rows: int) -> Hats:
    sizes, levels = np.array([4, 1, 6], np.int32), 9
    hat = np.concatenate([random.integers(0, max(k - 1, 1), levels) for k in sizes]).astype(np.int32)
    low = random.random(3 * levels).astype(np.float32)
    high, flag = 1 - low, np.zeros(3 * levels, np.float32)
    high[levels : 2 * levels] = 0  # a feature of one hat has no second
    flag[levels - 1 :: levels], low[levels - 1 :: levels], high[levels - 1 :: levels] = 1, 0, 0
    blocks = tuple(random.normal(size=(k + 1, k + 1)) * 0.5 for k in sizes)
    codes = random.integers(0, levels, (rows, 3)).astype(np.uint8)
    centre = random.random(int(sizes.sum()) + 3)
    return Hats(codes, np.arange(3) * levels, hat, low, high, flag, sizes, blocks, centre, 0.5)


def inputs(rows: Rows) -> Matrix:
    """What rows feed into the first layer; additive with the bias in front."""
    if isinstance(rows, Dense):
        return rows.x.astype(float)
    if isinstance(rows, Columns):
        return np.asarray(rows.values[rows.table + rows.codes[:, rows.feature]], dtype=float)
    parts, at = [np.full((len(rows.codes), 1), rows.bias)], 0
    for j, size in enumerate(rows.sizes):
        level = rows.start[j] + rows.codes[:, j]
        phi, place = np.zeros((len(level), size + 1)), np.arange(len(level))
        phi[place, rows.hat[level]] = rows.low[level]
        phi[place, np.minimum(rows.hat[level] + 1, size)] += rows.high[level]
        phi[:, size] = rows.flag[level]
        parts.append((phi - rows.centre[at : at + size + 1]) @ rows.blocks[j])
        at += size + 1
    return np.hstack(parts)


def slope(problem: Problem, theta: Matrix, x: Matrix, y: Matrix, weights: Matrix) -> Matrix:
    if not problem.hidden:
        return x.T @ ((1 / (1 + np.exp(-x @ theta)) - y) * weights)
    layers, at, seen = [], 0, [x]
    for a, b in problem.shapes:
        layers.append((theta[at : at + a * b].reshape(a, b), theta[at + a * b : at + a * b + b]))
        at += a * b + b
    for i, (matrix, bias) in enumerate(layers):
        z = seen[-1] @ matrix + bias
        seen.append(np.tanh(z) if i + 1 < len(layers) else z)
    parts: list[Matrix] = []
    back = ((1 / (1 + np.exp(-seen.pop()[:, 0])) - y) * weights)[:, None]
    for (matrix, _), below in zip(reversed(layers), reversed(seen), strict=True):
        parts = [(below.T @ back).ravel(), back.sum(0), *parts]
        back = (back @ matrix.T) * (1 - below**2)
    return np.concatenate(parts)


def loop(problem: Problem) -> Matrix:
    """Raw updates (P, d), one phone after the other in float64."""
    x, local = inputs(problem.rows), problem.local
    deltas = np.zeros((len(problem.ids), problem.dimension))
    for i, (first, count) in enumerate(zip(problem.first, problem.counts, strict=True)):
        own, sent = slice(first, first + count), problem.flat.astype(float)
        theta, ends = sent.copy(), np.array([0, count])
        for step in range(int(steps_of(local, np.array([count]))[0]) if count else 0):
            w = batch_weights(problem.ids[i : i + 1], ends, problem.seed, problem.round, step, local.batch_size)
            found = slope(problem, theta, x[own], problem.y[own].astype(float), w.astype(float))
            theta = theta - local.learning_rate * (found + local.prox * (theta - sent))
        deltas[i] = theta - sent
    return deltas


def off(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS.keys())
@pytest.mark.parametrize("kind", ["dense", "columns", "hats"])
def test_one_round_equals_a_float64_loop(kind: str, local: LocalTraining) -> None:
    problem = problem_of(kind, local)
    raw = loop(problem)
    units, norms = encode_rows(raw.copy(), local.clip_norm, SCALE)
    for chunk in (1, 7, None):
        engine = BatchedEngine(chunk)
        trained = engine.solve(problem, 9)
        assert off(trained.sum, units.sum(axis=0)) <= CLOSE
        assert off(engine.plain(problem), raw.sum(axis=0)) <= CLOSE
        np.testing.assert_allclose(trained.norms, norms, rtol=CLOSE, atol=1e-9)
        assert off(trained.raw, raw[:9]) <= CLOSE
        assert np.abs(trained.units - units[:9]).max() <= 1 + CLOSE * np.abs(units).max()


@pytest.mark.parametrize("chunk", [1, 7, None])
def test_bags_equal_a_float64_loop(chunk: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive, "MANY_ROWS", 1)
    problem = problem_of("hats", LOCALS["one step"])
    assert type(trainer_of(problem)).__name__ == "Bags"
    raw = loop(problem)
    units, norms = encode_rows(raw.copy(), problem.local.clip_norm, SCALE)
    trained = BatchedEngine(chunk).solve(problem, 9)
    assert off(trained.sum, units.sum(axis=0)) <= CLOSE
    assert off(BatchedEngine(chunk).plain(problem), raw.sum(axis=0)) <= CLOSE
    np.testing.assert_allclose(trained.norms, norms, rtol=CLOSE, atol=1e-9)
    assert off(trained.raw, raw[:9]) <= CLOSE
    one, two = (BatchedEngine(chunk, threads).solve(problem) for threads in (1, 2))
    np.testing.assert_array_equal(one.sum, two.sum)
    broken = replace(problem, local=replace(problem.local, learning_rate=1e39))
    with np.errstate(all="ignore"), pytest.raises(UpdateError, match="NaN"):
        BatchedEngine(chunk).solve(broken)


@pytest.mark.parametrize("kind", ["dense", "hats"])
def test_the_comparison_can_fail(kind: str) -> None:
    problem = problem_of(kind, LOCALS["epochs and prox"])
    raw = loop(problem).sum(axis=0)
    for other in ({"round": 3}, {"local": replace(problem.local, prox=0.501)}):
        assert off(BatchedEngine().plain(replace(problem, **other)), raw) > CLOSE


@pytest.mark.parametrize("kind", ["dense", "hats"])
def test_large_phones_are_taken_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "ROWS", 8)
    monkeypatch.setattr(additive, "ROWS", 8)
    monkeypatch.setattr(additive, "TABLE", 1)
    problem = problem_of(kind, LOCALS["steps and prox"])
    assert off(BatchedEngine().plain(problem), loop(problem).sum(axis=0)) <= CLOSE


@pytest.mark.parametrize("kind", ["dense", "hats"])
def test_threads_change_nothing(kind: str) -> None:
    problem, own = problem_of(kind, LOCALS["batches"]), torch.get_num_threads()
    one, two = (BatchedEngine(8, threads).solve(problem, 4) for threads in (1, 2))
    np.testing.assert_array_equal(one.sum, two.sum)
    np.testing.assert_array_equal(one.raw, two.raw)
    assert torch.get_num_threads() == own


def test_many_phones_of_one_step_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "BLOCK", 4)
    problem = problem_of("dense", LocalTraining(0, 0.4, 8, 0.0, 0.1, 1), 90)  # some make one step, some more
    raw = loop(problem)
    units, norms = encode_rows(raw.copy(), 0.1, SCALE)
    trained = BatchedEngine().solve(problem, 90)
    assert off(trained.sum, units.sum(axis=0)) <= CLOSE and off(trained.raw, raw) <= CLOSE
    np.testing.assert_allclose(trained.norms, norms, rtol=CLOSE, atol=1e-9)
    np.testing.assert_array_equal(trained.units.sum(axis=0), trained.sum)


def test_chunks_hold_every_labelled_phone_once() -> None:
    problem = problem_of("dense", LocalTraining(0, 0.4, 8, 0.0, 0.1, 1), 300)
    for share in (1.0, 0.5, 0.1):
        found = list(chunks(problem, Limits(20, 1 << 10, 70, 1 << 9), share))
        assert sorted(np.concatenate(found)) == list(np.flatnonzero(problem.counts))
        for phones in found:
            counts = problem.counts[phones]
            single = counts[0] <= 8
            assert (np.diff(counts) <= 0).all() and single == (counts[-1] <= 8)
            assert len(phones) <= (70 if single else 20) and len(phones) * min(counts[0], 8) <= (
                512 if single else 1024
            )


@pytest.mark.parametrize("bits", [64, 8, 1])
def test_orders_are_those_of_a_stable_sort_of_hashes(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, counts = problem_of("dense", LOCALS["an epoch"]), np.array([[37], [36], [5]])
    ids, epoch, real = problem.ids[:3, None], np.zeros((3, 1), np.int64), schedule.mix
    few = np.uint64(
        (1 << bits) - 1
    )  # hashes that differ in so many last bits alone: they tie, or hide behind a position
    monkeypatch.setattr(schedule, "mix", lambda *words: real(*words) & few)
    found = schedule._orders(problem, ids, epoch, counts, 37)
    for i, count in enumerate(counts[:, 0]):
        key = real(ids[i], problem.seed, problem.round, 0, np.arange(count)) & few
        np.testing.assert_array_equal(found[i, :count], np.argsort(key, kind="stable"))


def test_without_torchscript_a_round_is_the_same() -> None:
    wanted = BatchedEngine().solve(problem_of("dense", LOCALS["epochs and prox"])).sum
    code = (
        "from tests.simulation.engine.test_batched import *\nimport torch\n"
        "from simulation.engine import layers\n"
        "assert not isinstance(layers.several, torch.jit.ScriptFunction)\n"
        "print(*BatchedEngine().solve(problem_of('dense', LOCALS['epochs and prox'])).sum)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, cwd=ROOT, env={**os.environ, "PYTORCH_JIT": "0"}, capture_output=True, text=True, check=True
    )
    np.testing.assert_array_equal(np.array(done.stdout.split(), np.int64), wanted)


@pytest.mark.parametrize("kind", ["dense", "columns", "hats"])
def test_awkward_phones(kind: str) -> None:
    problem = problem_of(kind, LOCALS["an epoch"])
    engine, empty = BatchedEngine(), np.zeros(0, np.int64)
    nobody = engine.solve(replace(problem, ids=problem.ids[:0], first=empty, counts=empty), 3)
    assert not nobody.sum.any() and nobody.raw.shape == (0, problem.dimension)
    unlabelled = engine.solve(replace(problem, counts=np.zeros_like(problem.counts)), 2)
    assert not unlabelled.sum.any() and not unlabelled.norms.any() and not unlabelled.units.any()
    alike = replace(problem, y=np.ones_like(problem.y))
    assert off(engine.plain(alike), loop(alike).sum(axis=0)) <= CLOSE


def test_a_feature_that_says_nothing() -> None:
    problem = problem_of("hats", LOCALS["one step"])
    rows = problem.rows
    assert isinstance(rows, Hats)
    same = replace(problem, rows=replace(rows, codes=np.full_like(rows.codes, 8)))  # every cell missing
    assert off(BatchedEngine().plain(same), loop(same).sum(axis=0)) <= CLOSE


@pytest.mark.parametrize("kind", ["dense", "hats"])
def test_what_leaves_the_finite_numbers_is_refused(kind: str) -> None:
    problem = problem_of(kind, LocalTraining(3, 1e30, 0, 1e10, 1.0))
    with np.errstate(all="ignore"), pytest.raises(UpdateError, match="NaN"):
        BatchedEngine().solve(problem)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 70), st.sampled_from([1e-13, 0.01, 0.5, 7.0, 300.0]),
    st.sampled_from([1.0, 1e-3, 1e12, 1e25]), st.sampled_from([1000, 1 << 20]),
)  # fmt: skip
def test_no_update_leaves_its_bound(seed: int, width: int, norm: float, size: float, scale: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [(9, width), (9, 40)]
    whole = [random.normal(size=shape) * size * random.choice([1e-3, 1.0, 1.0], (9, 1)) for shape in shapes]
    parts = [torch.from_numpy(part.astype(np.float32)) for part in whole]
    exact = torch.cat(parts, dim=1).double().numpy()
    wanted, norms = encode_rows(exact.copy(), norm, scale)
    found = encode_parts(parts, norm, scale)
    units = torch.cat(parts, dim=1).double().numpy()
    for row in units:
        assert sum(int(u) ** 2 for u in row) <= int((norm * scale) ** 2)
    np.testing.assert_allclose(found, norms, rtol=1e-6)
    np.testing.assert_allclose(units, wanted, rtol=CLOSE, atol=1)
