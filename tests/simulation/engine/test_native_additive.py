"""The compiled additive kernel against a float64 oracle written here, over made shapes, instruction sets, threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.contract.plan import LocalTraining
from model.errors import RoundError, UpdateError
from simulation.engine.native.engine import NativeEngine
from simulation.engine.native.library import available, library
from simulation.engine.problem import Hats, Problem

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

Vector = NDArray[np.float64]
ISAS = range(library().best_isa + 1) if available() is None else ()
ONE, FIVE = LocalTraining(1, 0.6, 0, 0.0, 0.5), LocalTraining(5, 0.4, 0, 0.3, 0.5)
BATCHES, EPOCHS = LocalTraining(3, 0.4, 2, 0.1, 5.0), LocalTraining(0, 0.5, 3, 0.2, 1.0, 2)
LOCALS = [ONE, FIVE, BATCHES, EPOCHS]
MASK = (1 << 64) - 1


def mixed(*words: int) -> int:
    """The counter hash on Python's own integers."""
    state = words[0]
    for word in (0, *words[1:]):
        state = ((state ^ (word * 0xD1342543DE82EF95 & MASK)) + 0x9E3779B97F4A7C15) & MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state


def inputs(rows: Hats, place: int) -> Vector:
    """z of one row, (d,)."""
    phi, at, parts = np.zeros(rows.width), 0, [np.array([rows.bias])]
    for j, size in enumerate(rows.sizes.tolist()):
        level = int(rows.start[j]) + int(rows.codes[place, j])
        phi[at + rows.hat[level]] += rows.low[level]
        if rows.high[level]:
            phi[at + rows.hat[level] + 1] += rows.high[level]
        phi[at + size] += rows.flag[level]
        parts.append((phi - rows.centre)[at : at + size + 1] @ rows.blocks[j])
        at += size + 1
    return np.concatenate(parts)


def delta(problem: Problem, phone: int) -> Vector:
    """One phone's update by plain gradient descent."""
    rows, local, n = problem.rows, problem.local, int(problem.counts[phone])
    moved = np.zeros(len(problem.flat))
    if n == 0:
        return moved
    assert isinstance(rows, Hats)
    first = int(problem.first[phone])
    z = np.array([inputs(rows, first + r) for r in range(n)])
    y, size = problem.y[first : first + n].astype(np.float64), local.batch_size or n
    batches = -(-n // size)
    for step in range(local.local_steps or local.local_epochs * batches):
        epoch, turn = divmod(step, batches)
        key = (int(problem.ids[phone]), problem.seed, problem.round, epoch)
        chosen = list(range(n))
        if batches > 1:
            chosen = sorted(chosen, key=lambda r: mixed(*key, r))[turn * size : (turn + 1) * size]
        odds = 1 / (1 + np.exp(-(z[chosen] @ (problem.flat + moved))))
        slope = (odds - y[chosen]) @ z[chosen] / len(chosen)
        moved = moved - local.learning_rate * (slope + local.prox * moved)
    return moved


def oracle(problem: Problem) -> tuple[Vector, Vector, Vector]:
    """(sum of clipped updates in units, norms, sum of raw updates), no grid."""
    deltas = np.array([delta(problem, phone) for phone in range(len(problem.ids))]).reshape(-1, len(problem.flat))
    norms = np.linalg.norm(deltas, axis=1)
    clipped = deltas * np.minimum(1, problem.local.clip_norm / np.maximum(norms, 1e-300))[:, None]
    return clipped.sum(axis=0) * problem.scale, norms, deltas.sum(axis=0)


def made(
    seed: int,
    *,
    features: int = 4,
    knots: int = 6,
    levels: int = 30,
    phones: int = 20,
    most: int = 9,
    code: type = np.uint8,
    coupled: bool = False,
    local: LocalTraining = ONE,
    scale: int = 1 << 40,
) -> Problem:
    """A made-up round: hats at random, a missing level a feature, phones with no row among them."""
    random = np.random.Generator(np.random.Philox(seed))
    sizes = random.integers(1, knots + 1, features).astype(np.int32)
    counts_of = random.integers(1, levels + 1, features)
    start = np.concatenate([[0], np.cumsum(counts_of)[:-1]]).astype(np.int64)
    owner = np.repeat(np.arange(features), counts_of)
    hat = (random.integers(0, 1 << 30, len(owner)) % sizes[owner]).astype(np.int32)
    high = np.where(hat + 1 < sizes[owner], random.random(len(owner)), 0).astype(np.float32)
    low, flag = (1 - high).astype(np.float32), np.zeros(len(owner), np.float32)
    hat[start], low[start], high[start], flag[start] = 0, 0, 0, 1
    blocks = []
    for size in sizes.tolist():
        block = random.normal(size=(size + 1, size + 1)) / np.sqrt(features * (size + 1))
        if not coupled:
            block[size, :size] = block[:size, size] = 0
        blocks.append(block)
    width = int(sizes.sum()) + features
    counts = random.integers(0, most + 1, phones).astype(np.int64)
    rows, places = int(counts.sum()), random.permutation(phones)
    first = np.zeros(phones, np.int64)
    first[places] = np.cumsum(counts[places]) - counts[places]
    codes = (random.integers(0, 1 << 30, (rows, features)) % counts_of).astype(code)
    centre = random.random(width) / 4
    hats = Hats(codes, start, hat, low, high, flag, sizes, tuple(blocks), centre, 0.5)
    return Problem(
        ids=random.integers(0, 1 << 63, phones).astype(np.uint64),
        first=first,
        counts=counts,
        y=(random.random(rows) < 0.3).astype(np.float32),
        rows=hats,
        flat=(random.normal(size=width + 1) / 2).astype(np.float32),
        hidden=(),
        local=local,
        seed=seed,
        round=3,
        scale=scale,
    )


def apart(found: Vector, wanted: Vector) -> float:
    """Relative distance; 0 for two zeros."""
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-300))


ROUNDINGS = 4 * 2.0**-24  # of float32: the score, the slope, its product with a level, their sum


def reach(problem: Problem, phones: range) -> float:
    """How far phones' updates go before anything cancels: what float32 can be held to."""
    rows, local, far = problem.rows, problem.local, 0.0
    assert isinstance(rows, Hats)
    for phone in phones:
        first, n = int(problem.first[phone]), int(problem.counts[phone])
        steps = local.local_steps or local.local_epochs * -(-n // local.batch_size)
        far += steps * local.learning_rate * max((np.linalg.norm(inputs(rows, first + r)) for r in range(n)), default=0)
    return far


shapes = st.fixed_dictionaries(
    {
        "features": st.integers(1, 9),
        "knots": st.sampled_from([1, 3, 7, 16, 17, 33, 40]),
        "levels": st.sampled_from([1, 2, 40, 250]),
        "phones": st.integers(0, 12),
        "most": st.sampled_from([0, 1, 3, 30]),
        "code": st.sampled_from([np.uint8, np.uint16, np.uint32]),
        "coupled": st.booleans(),
        "local": st.sampled_from(LOCALS),
        "scale": st.sampled_from([1 << 20, 1 << 40, 1000]),
    }
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), shape=shapes, isa=st.sampled_from(list(ISAS)), threads=st.integers(1, 3))
def test_any_shape_is_the_oracle(seed: int, shape: dict[str, object], isa: int, threads: int) -> None:
    problem = made(seed, **shape)  # type: ignore[arg-type]
    engine = NativeEngine(threads, isa)
    found, (total, norms, raw) = engine.solve(problem, 3), oracle(problem)
    everyone, near = range(len(problem.ids)), ROUNDINGS * reach(problem, range(len(problem.ids)))
    # Each coordinate of each phone loses less than a unit toward zero.
    rounding = np.sqrt(len(total)) * len(everyone)
    assert np.linalg.norm(found.sum - total) <= 5e-7 * np.linalg.norm(total) + near * problem.scale + rounding
    assert np.linalg.norm(engine.plain(problem) - raw) <= near
    assert np.abs(found.norms - norms).sum() <= near
    for phone in everyone[:3]:
        assert np.linalg.norm(found.raw[phone] - delta(problem, phone)) <= ROUNDINGS * reach(
            problem, everyone[phone : phone + 1]
        )


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("isa", ISAS)
def test_one_round_on_a_fine_grid(isa: int, local: LocalTraining) -> None:
    problem = made(7, features=9, knots=16, levels=200, phones=300, local=local)
    assert apart(NativeEngine(2, isa).solve(problem).sum.astype(np.float64), oracle(problem)[0]) <= 1e-6


def test_the_comparison_can_fail() -> None:
    problem, rows = made(7, local=EPOCHS), made(7).rows
    assert isinstance(rows, Hats)
    right, plain = oracle(problem)[0], NativeEngine().plain
    others = {
        "a weight": replace(problem, rows=replace(rows, low=rows.low * np.float32(1 + 1e-4))),
        "a shuffle": replace(problem, seed=8),
        "a centre": replace(problem, rows=replace(rows, centre=rows.centre + 1e-4)),
        "the model": replace(problem, flat=problem.flat + np.float32(1e-3)),
        "a label": replace(problem, y=1 - problem.y),
    }
    for name, other in others.items():
        assert apart(NativeEngine().solve(other).sum.astype(np.float64), right) > 2e-6, name
        assert apart(plain(other), oracle(problem)[2]) > 2e-6, name


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("isa", ISAS)
def test_threads_and_repeats_change_no_bit(isa: int, local: LocalTraining) -> None:
    problem = made(3, phones=700, local=local, scale=1 << 20)
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
    local = LocalTraining(2, 3.0, 0, 0.0, 0.07)
    problem = made(5, features=9, phones=200, most=4, local=local, scale=scale)
    found = NativeEngine(1, isa).solve(problem, 200)
    lengths = [sum(int(u) ** 2 for u in row) for row in found.units]
    assert max(lengths) <= (0.07 * scale) ** 2 and (found.norms > 0.07).any()
    np.testing.assert_array_equal(found.units.sum(axis=0), found.sum)
    if scale > 1000:
        assert max(lengths) >= (0.0699 * scale) ** 2


def test_many_phones_of_a_large_norm_fill_no_sum() -> None:
    local = LocalTraining(1, 5000.0, 0, 0.0, 1000.0)
    problem = made(5, phones=2000, local=local, scale=1 << 20)
    found = NativeEngine(2).solve(problem, 2000)
    np.testing.assert_array_equal(found.units.sum(axis=0), found.sum)


def test_blocks_do_not_depend_on_who_is_there() -> None:
    problem = made(9, phones=64, scale=1 << 20)
    halves = [replace(problem, ids=problem.ids[s], first=problem.first[s], counts=problem.counts[s]) for s in PARTS]
    np.testing.assert_array_equal(
        sum(NativeEngine().solve(half).sum for half in halves), NativeEngine().solve(problem).sum
    )


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("isa", ISAS)
def test_a_phone_alone_is_the_same_in_a_crowd(isa: int, coupled: bool) -> None:
    for knots in (5, 16, 40):
        problem = made(3, features=5, knots=knots, levels=60, phones=200, coupled=coupled, local=FIVE)
        crowd, deltas = NativeEngine(2, isa).solve(problem, 10), []
        for i in range(10):
            one = replace(problem, ids=problem.ids[[i]], first=problem.first[[i]], counts=problem.counts[[i]])
            deltas.append(NativeEngine(1, isa).solve(one, 1).raw[0])
        np.testing.assert_array_equal(crowd.raw, deltas)
        assert np.abs(crowd.raw).sum() > 0


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("isa", ISAS)
def test_more_levels_than_are_mixed_beforehand(isa: int, local: LocalTraining, coupled: bool) -> None:
    problem = made(4, levels=60000, code=np.uint16, coupled=coupled, local=local)
    rows = problem.rows
    assert isinstance(rows, Hats) and len(rows.hat) * 16 > 3 << 19  # bytes of one SSE vector a level
    assert apart(NativeEngine(2, isa).solve(problem).sum.astype(np.float64), oracle(problem)[0]) <= 1e-6


PARTS = [slice(0, 20), slice(20, 64)]


def test_no_phones_and_no_rows() -> None:
    nobody = made(1, phones=0)
    empty = NativeEngine().solve(nobody, 4)
    assert not empty.sum.any() and empty.norms.shape == (0,) and empty.raw.shape == (0, len(nobody.flat))
    rowless = made(1, most=0)
    found = NativeEngine().solve(rowless, 4)
    assert not found.sum.any() and not found.norms.any() and not NativeEngine().plain(rowless).any()


def test_a_phone_of_many_rows() -> None:
    problem = made(2, features=2, phones=2, most=3000, local=BATCHES)
    assert problem.counts.max() > 600
    assert apart(NativeEngine().plain(problem), oracle(problem)[2]) <= 2e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    problem = made(4)
    rows = problem.rows
    assert isinstance(rows, Hats)
    low = rows.low.copy()
    low[:] = bad
    for engine in (NativeEngine(1), NativeEngine(2)):
        with pytest.raises(UpdateError, match="NaN or infinity"):
            engine.solve(replace(problem, rows=replace(rows, low=low)))
        with pytest.raises(UpdateError):
            engine.plain(replace(problem, y=np.full_like(problem.y, bad)))


def test_tables_that_do_not_fit_are_refused() -> None:
    problem = made(4)
    rows = problem.rows
    assert isinstance(rows, Hats)
    beyond = rows.codes.copy()
    beyond[-1, 0] = 31
    wrong = [
        replace(rows, codes=beyond),
        replace(rows, hat=rows.hat + 40),
        replace(rows, hat=rows.hat - 1),
        replace(rows, high=rows.high + 1),
        replace(rows, start=rows.start - 1),
        replace(rows, start=rows.start + 1000),
        replace(rows, start=rows.start[::-1]),
        replace(rows, low=rows.low[:-1]),
        replace(rows, hat=rows.hat[:0], low=rows.low[:0], high=rows.high[:0], flag=rows.flag[:0]),
        replace(rows, blocks=rows.blocks[1:]),
        replace(rows, blocks=tuple(block[:-1] for block in rows.blocks)),
        replace(rows, sizes=rows.sizes * 0),
        replace(rows, codes=rows.codes.astype(np.int64)),
    ]
    for each in wrong:
        with pytest.raises(RoundError):
            NativeEngine().solve(replace(problem, rows=each))


def test_rows_beyond_the_table_are_refused() -> None:
    problem = made(4)
    for first, counts in (
        (problem.first + len(problem.y), problem.counts),
        (problem.first, problem.counts + (1 << 62)),
        (problem.first - 100, problem.counts),
    ):
        other = replace(problem)
        object.__setattr__(other, "first", first)  # past Problem's own check
        object.__setattr__(other, "counts", counts)
        with pytest.raises(RoundError):
            NativeEngine().solve(other)


def test_arrays_need_not_lie_in_order() -> None:
    problem, wanted = made(6), NativeEngine().solve(made(6)).sum
    rows = problem.rows
    assert isinstance(rows, Hats)
    other = replace(problem, rows=replace(rows, codes=np.asfortranarray(rows.codes)), ids=problem.ids[::-1][::-1])
    np.testing.assert_array_equal(NativeEngine().solve(other).sum, wanted)
