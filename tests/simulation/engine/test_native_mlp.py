"""The compiled MLP kernel against a float64 oracle written here, over made shapes, instruction sets and threads."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_client.phones import mix
from model.contract.plan import LocalTraining
from model.errors import RoundError, UpdateError
from simulation.engine.native.engine import NativeEngine
from simulation.engine.native.library import available, library
from simulation.engine.problem import Columns, Dense, Problem

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

Vector = NDArray[np.float64]
ISAS = range(library().best_isa + 1) if available() is None else ()
EPOCH = LocalTraining(0, 0.1, 16, 0.0, 0.2, 1)  # workload W
EPOCHS = LocalTraining(0, 0.2, 5, 0.3, 0.5, 3)
ONE, MANY = LocalTraining(1, 0.5, 0, 0.0, 0.3), LocalTraining(4, 0.3, 0, 0.1, 5.0)
STEPS, SMALL = LocalTraining(7, 0.2, 4, 0.0, 0.3), LocalTraining(0, 0.001, 8, 0.0, 1.0, 2)
LOCALS = [EPOCH, EPOCHS, ONE, MANY, STEPS, SMALL]


def inputs(problem: Problem, rows: slice) -> Vector:
    """Rows' inputs (n, width)."""
    of = problem.rows
    if isinstance(of, Dense):
        return of.x[rows].astype(np.float64)
    assert isinstance(of, Columns)
    return of.values[of.table + of.codes[rows][:, of.feature].astype(np.int64)].astype(np.float64)


def slope(problem: Problem, flat: Vector, x: Vector, y: Vector) -> Vector:
    """Gradient of the mean logistic loss of rows x (m, width), y (m,) at `flat` (d,)."""
    layers, at, outputs = [], 0, [x]
    for inside, outside in problem.shapes:
        weights = flat[at : at + inside * outside].reshape(inside, outside)
        at += inside * outside
        layers.append((weights, flat[at : at + outside]))
        at += outside
    for weights, bias in layers[:-1]:
        outputs.append(np.tanh(outputs[-1] @ weights + bias))
    weights, bias = layers[-1]
    error = (1 / (1 + np.exp(-(outputs[-1] @ weights + bias))) - y[:, None]) / len(y)
    parts: list[Vector] = []
    for (weights, _), output in zip(layers[::-1], outputs[::-1], strict=True):
        parts = [(output.T @ error).ravel(), error.sum(axis=0), *parts]
        error = error @ weights.T * (1 - output**2)
    return np.concatenate(parts)


def delta(problem: Problem, phone: int) -> Vector:
    """One phone's update by plain gradient descent."""
    local, n, first = problem.local, int(problem.counts[phone]), int(problem.first[phone])
    sent, moved = problem.flat.astype(np.float64), np.zeros(len(problem.flat))
    if n == 0:
        return moved
    x, y = inputs(problem, slice(first, first + n)), problem.y[first : first + n].astype(np.float64)
    size = local.batch_size or n
    batches = -(-n // size)
    for step in range(local.local_steps or local.local_epochs * batches):
        epoch, turn = divmod(step, batches)
        order = np.argsort(mix(problem.ids[phone], problem.seed, problem.round, epoch, np.arange(n)), kind="stable")
        chosen = order[turn * size : (turn + 1) * size]
        moved = moved - local.learning_rate * (slope(problem, sent + moved, x[chosen], y[chosen]) + local.prox * moved)
    return moved


def oracle(problem: Problem) -> tuple[Vector, Vector]:
    """(updates (P, d), clipped updates in units (P, d) before the grid)."""
    deltas = np.array([delta(problem, phone) for phone in range(len(problem.ids))]).reshape(-1, len(problem.flat))
    norms = np.linalg.norm(deltas, axis=1)
    factors = np.minimum(1, problem.local.clip_norm / np.maximum(norms, 1e-300))
    return deltas, deltas * factors[:, None] * problem.scale


def made(
    seed: int,
    *,
    width: int = 7,
    hidden: tuple[int, ...] = (9, 5),
    phones: int = 12,
    most: int = 20,
    code: type | None = None,
    local: LocalTraining = EPOCH,
    scale: int = 1 << 40,
) -> Problem:
    """A made-up round, its rows dense or (with `code`) looked up; phones with no row among them."""
    random = np.random.Generator(np.random.Philox(seed))
    counts = random.integers(0, most + 1, phones).astype(np.int64)
    rows, places = int(counts.sum()), random.permutation(phones)
    first = np.zeros(phones, np.int64)
    first[places] = np.cumsum(counts[places]) - counts[places]
    of: Dense | Columns = Dense(random.normal(size=(rows, width)).astype(np.float32))
    if code is not None:
        levels, features = 9, max(width // 2, 1)
        of = Columns(
            random.integers(0, levels, (rows, features)).astype(code),
            random.integers(0, features, width).astype(np.int32),
            (np.arange(width) * levels).astype(np.int64),
            random.normal(size=width * levels).astype(np.float32),
        )
    shapes = list(pairwise((width, *hidden, 1)))
    parts = [p for i, o in shapes for p in (random.normal(size=i * o) / np.sqrt(i), random.normal(size=o) / 10)]
    return Problem(
        ids=random.integers(0, 1 << 63, phones).astype(np.uint64),
        first=first,
        counts=counts,
        y=(random.random(rows) < 0.4).astype(np.float32),
        rows=of,
        flat=np.concatenate(parts).astype(np.float32),
        hidden=hidden,
        local=local,
        seed=seed,
        round=3,
        scale=scale,
    )


def workload(local: LocalTraining = EPOCH, phones: int = 40) -> Problem:
    """W: 40-64-32-1 on raw floats, up to 120 rows a phone."""
    return made(11, width=40, hidden=(64, 32), phones=phones, most=120, local=local)


def apart(found: NDArray[np.float64 | np.int64], wanted: Vector) -> float:
    """Relative distance; 0 for two zeros."""
    return float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-300)


shapes = st.fixed_dictionaries(
    {
        "width": st.integers(1, 50),
        "hidden": st.lists(st.integers(1, 70), min_size=1, max_size=3).map(tuple),
        "phones": st.integers(0, 6),
        "most": st.sampled_from([0, 1, 3, 40]),
        "code": st.sampled_from([None, np.uint8, np.uint16, np.uint32]),
        "scale": st.sampled_from([1 << 20, 1 << 40, 1000]),
    }
)
trainings = st.builds(
    lambda turns, epochs, rate, batch, prox, clip: LocalTraining(
        0 if epochs and batch else turns, rate, batch, prox, clip, turns if epochs and batch else 0
    ),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.001, 0.02, 0.1]),  # at 0.5, a hundred steps on single rows make any rounding grow
    st.integers(0, 20),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([0.01, 1.0]),
)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=shapes,
    local=trainings,
    isa=st.sampled_from(list(ISAS)),
    threads=st.integers(1, 3),
)
def test_any_shape_is_the_oracle(
    seed: int, shape: dict[str, object], local: LocalTraining, isa: int, threads: int
) -> None:
    problem = made(seed, local=local, **shape)  # type: ignore[arg-type]
    engine, (deltas, units) = NativeEngine(threads, isa), oracle(problem)
    found, lengths = engine.solve(problem, 3), np.linalg.norm(deltas, axis=1)
    # Each coordinate of each phone loses less than a unit toward zero.
    rounding = np.sqrt(units.shape[1]) * len(units)
    assert np.linalg.norm(found.sum - units.sum(axis=0)) <= 3e-6 * np.linalg.norm(units, axis=1).sum() + rounding
    assert np.linalg.norm(engine.plain(problem) - deltas.sum(axis=0)) <= 2e-6 * lengths.sum()
    np.testing.assert_allclose(found.norms, lengths, rtol=2e-6)
    for i in range(len(found.raw)):
        assert apart(found.raw[i], deltas[i]) <= 2e-6
        assert np.linalg.norm(found.units[i] - units[i]) <= 3e-6 * np.linalg.norm(units[i]) + np.sqrt(units.shape[1])


@pytest.mark.parametrize("clip", [0.01, 10.0])
@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("isa", ISAS)
def test_one_round_of_the_workload_on_a_fine_grid(isa: int, local: LocalTraining, clip: float) -> None:
    problem = workload(replace(local, clip_norm=clip), 6)
    deltas, units = oracle(problem)
    found = NativeEngine(2, isa).solve(problem)
    assert apart(found.sum, units.sum(axis=0)) <= 2e-6
    assert apart(NativeEngine(2, isa).plain(problem), deltas.sum(axis=0)) <= 2e-6


def test_the_comparison_can_fail() -> None:
    problem = made(7, local=EPOCHS)
    right, plain = oracle(problem), NativeEngine().plain
    rows, nudged = problem.rows, problem.flat.copy()
    assert isinstance(rows, Dense)
    nudged[-1] += np.float32(1e-3)
    others = {
        "a row": replace(problem, rows=Dense(rows.x * np.float32(1 + 1e-4))),
        "a shuffle": replace(problem, seed=8),
        "the model": replace(problem, flat=nudged),
        "a label": replace(problem, y=1 - problem.y),
        "the proximal term": replace(problem, local=replace(problem.local, prox=0.301)),
    }
    for name, other in others.items():
        assert apart(NativeEngine().solve(other).sum, right[1].sum(axis=0)) > 2e-6, name
        assert apart(plain(other), right[0].sum(axis=0)) > 2e-6, name


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("isa", ISAS)
def test_threads_and_repeats_change_no_bit(isa: int, local: LocalTraining) -> None:
    problem = made(3, phones=300, local=local, scale=1 << 20)
    one, two = NativeEngine(1, isa), NativeEngine(2, isa)
    first = one.solve(problem, 5)
    for engine in (one, two, two, NativeEngine(7, isa)):
        again = engine.solve(problem, 5)
        for name in ("sum", "norms", "raw", "units"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert engine.plain(problem).tobytes() == one.plain(problem).tobytes()


@pytest.mark.parametrize("scale", [1, 1000, 1 << 20, 1 << 24, 1 << 40])
@pytest.mark.parametrize("isa", ISAS)
def test_no_phone_is_longer_than_the_clip_norm(isa: int, scale: int) -> None:
    problem = made(5, phones=100, local=LocalTraining(2, 3.0, 0, 0.0, 0.07), scale=scale)
    found = NativeEngine(1, isa).solve(problem, 100)
    lengths = [sum(int(u) ** 2 for u in row) for row in found.units]
    assert max(lengths) <= (0.07 * scale) ** 2 and (found.norms > 0.07).any()
    np.testing.assert_array_equal(found.units.sum(axis=0), found.sum)
    if scale > 1000:
        assert max(lengths) >= (0.0699 * scale) ** 2


def test_many_phones_fill_no_sum() -> None:
    problem = made(5, phones=1500, local=LocalTraining(1, 5000.0, 0, 0.0, 1000.0), scale=1 << 20)
    found = NativeEngine(2).solve(problem, 1500)
    np.testing.assert_array_equal(found.units.sum(axis=0), found.sum)


@pytest.mark.parametrize("batch", [0, 200, 16])
def test_a_phone_of_many_rows(batch: int) -> None:
    problem = made(2, width=40, hidden=(64, 32), phones=2, most=900, local=LocalTraining(6, 0.2, batch, 0.1, 5.0))
    assert problem.counts.max() > 300
    assert apart(NativeEngine().plain(problem), oracle(problem)[0].sum(axis=0)) <= 2e-6


def test_codes_are_the_rows_they_stand_for() -> None:
    coded = made(8, width=20, code=np.uint8, local=STEPS)
    dense = replace(coded, rows=Dense(inputs(coded, slice(None)).astype(np.float32)))
    for one, other in zip(
        vars(NativeEngine().solve(coded)).values(), vars(NativeEngine().solve(dense)).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_saturated_units_stay_right() -> None:
    problem = made(9, local=EPOCH)
    problem = replace(problem, flat=problem.flat * np.float32(4))
    assert apart(NativeEngine().plain(problem), oracle(problem)[0].sum(axis=0)) <= 2e-6


def test_no_phones_and_no_rows() -> None:
    nobody = made(1, phones=0)
    empty = NativeEngine().solve(nobody, 4)
    assert not empty.sum.any() and empty.norms.shape == (0,) and empty.raw.shape == (0, len(nobody.flat))
    rowless = made(1, most=0)
    found = NativeEngine().solve(rowless, 4)
    assert not found.sum.any() and not found.norms.any() and not NativeEngine().plain(rowless).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_not_finite_is_refused(bad: float, isa: int) -> None:
    problem = made(4)
    rows, phone = problem.rows, int(np.argmax(problem.counts))
    assert isinstance(rows, Dense)
    rows.x[problem.first[phone], 3] = bad
    for engine in (NativeEngine(1, isa), NativeEngine(2, isa)):
        with pytest.raises(UpdateError, match=f"phone {phone} holds NaN or infinity"):
            engine.solve(problem)
        with pytest.raises(UpdateError):
            engine.plain(replace(made(4), y=np.full_like(problem.y, bad)))


def test_a_rate_that_leaves_the_numbers_is_refused() -> None:
    with pytest.raises(UpdateError):
        NativeEngine().plain(made(4, local=LocalTraining(40, 1e30, 0, 1.0, 1.0)))


def test_tables_that_do_not_fit_are_refused() -> None:
    problem = made(4, code=np.uint8)
    rows = problem.rows
    assert isinstance(rows, Columns)
    beyond = rows.codes.copy()
    beyond[:] = 200
    wrong = [
        replace(rows, codes=beyond),
        replace(rows, feature=rows.feature + 100),
        replace(rows, feature=rows.feature - 100),
        replace(rows, table=rows.table - 100),
        replace(rows, table=rows.table + 1000),
        replace(rows, table=rows.table + (1 << 62)),
        replace(rows, values=rows.values[:0]),
        replace(rows, table=rows.table[:-1]),
        replace(rows, codes=rows.codes.astype(np.int64)),  # type: ignore[arg-type]
    ]
    for each in wrong:
        with pytest.raises(RoundError):
            NativeEngine().solve(replace(problem, rows=each))
