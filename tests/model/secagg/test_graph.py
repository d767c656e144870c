"""The graph: regular, symmetric, connected; and its bound against simulation and against the degrees in use."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.contract.promise import Neighbours
from model.errors import ContractError
from model.secagg.circle import Circle, circles, pack, sizes, unpack
from model.secagg.graph import choose, failures, quorum, require_bound, require_private, tail, window_floor


def components(circle: Circle, left: set[int]) -> int:
    """Connected components of the graph on `left`."""
    found, unseen = 0, set(left)
    while unseen:
        found, heap = found + 1, [unseen.pop()]
        while heap:
            near = set(circle.neighbours(heap.pop())) & unseen
            unseen -= near
            heap += near
    return found


@given(st.integers(2, 60), st.integers(1, 30), st.binary(min_size=32, max_size=32))
def test_regular_symmetric_and_complete_when_small(phones: int, half: int, seed: bytes) -> None:
    (circle,) = circles(seed, phones, 2 * half)
    assert sorted(circle.members) == list(range(phones))
    assert circle.degree == min(2 * half, phones - 1)
    for position in range(phones):
        near = circle.neighbours(position)
        assert len(set(near)) == circle.degree
        assert position not in near
        assert all(circle.neighbours(other)[circle.degree - 1 - slot] == position for slot, other in enumerate(near))
    assert components(circle, set(range(phones))) == 1


def test_the_order_is_fixed_by_the_seed_and_uniform() -> None:
    assert circles(bytes(32), 50, 4) == circles(bytes(32), 50, 4)
    first = [circles(i.to_bytes(32, "big"), 8, 4)[0].members[0] for i in range(4000)]
    chi = sum((first.count(i) - 500) ** 2 / 500 for i in range(8))
    assert chi < 29.9  # 7 degrees of freedom, P < 10^-4


def test_large_rosters_are_cut_into_circles() -> None:
    assert sizes(1000) == [1000]
    assert sizes(2500) == [834, 833, 833]
    found = circles(bytes(32), 2500, 68)
    assert sorted(member for circle in found for member in circle.members) == list(range(2500))


def test_an_odd_degree_needs_everyone() -> None:
    assert circles(bytes(32), 6, 5)[0].complete
    with pytest.raises(ContractError, match="even"):
        circles(bytes(32), 7, 5)


@settings(max_examples=60)
@given(st.integers(8, 24), st.integers(1, 3), st.integers(0, 2**24 - 1))
def test_windows_decide_connectivity(phones: int, half: int, bits: int) -> None:
    """One survivor in each degree/2 positions: connected. The converse needs two empty runs, so it is one-sided."""
    circle = Circle(tuple(range(phones)), 2 * half)
    left = np.array([bits >> i & 1 for i in range(phones)], np.bool_)
    if not circle.complete and circle.windows(left) >= 1:
        assert components(circle, set(np.flatnonzero(left).tolist())) == 1


def test_two_runs_of_lost_phones_cut_the_circle() -> None:
    circle = Circle(tuple(range(20)), 6)
    left = np.ones(20, np.bool_)
    left[[3, 4, 5, 13, 14, 15]] = False
    assert circle.windows(left) == 0
    assert components(circle, set(np.flatnonzero(left).tolist())) == 2


@pytest.mark.parametrize(("population", "marked", "drawn"), [(20, 5, 8), (30, 0, 4), (9, 9, 3), (12, 7, 12)])
def test_tails_are_those_of_counting(population: int, marked: int, drawn: int) -> None:
    source = random.Random(1)
    draws = [sum(i < marked for i in source.sample(range(population), drawn)) for _ in range(20_000)]
    for least in range(drawn + 1):
        share = sum(draw >= least for draw in draws) / len(draws)
        exact = tail(population, marked, drawn, least)
        assert abs(share - exact) < 5 * math.sqrt(max(exact * (1 - exact), 1e-5) / len(draws))


def simulated(phones: int, neighbours: Neighbours, trials: int, seed: int) -> dict[str, float]:
    """How often each of the four failures really happens, with corrupt and lost phones random on the circle."""
    source, circle = random.Random(seed), Circle(tuple(range(phones)), neighbours.degree)
    half = 2 * neighbours.threshold - neighbours.degree
    bad_count, lost_count = round(phones * neighbours.corrupt), round(phones * neighbours.dropout)
    floor, found = window_floor(phones, neighbours), dict.fromkeys(failures(phones, neighbours), 0)
    near = [circle.neighbours(p) for p in range(phones)]
    for _ in range(trials):
        bad, lost = set(source.sample(range(phones), bad_count)), set(source.sample(range(phones), lost_count))
        left = np.array([p not in lost for p in range(phones)], np.bool_)
        found["both shares"] += any(sum(n in bad for n in near[p]) >= half for p in range(phones) if p not in bad)
        found["too few answers"] += any(sum(n not in lost for n in row) < neighbours.threshold for row in near)
        found["window"] += circle.windows(left) < floor
        found["split"] += components(circle, set(range(phones)) - bad - lost) > 1
    return {name: count / trials for name, count in found.items()}


@pytest.mark.parametrize(
    ("phones", "neighbours"),
    [(40, Neighbours(8, 6, 0.05, 0.1)), (30, Neighbours(6, 5, 0.1, 0.1)), (24, Neighbours(10, 7, 0.1, 0.2))],
)
def test_the_bound_holds_in_simulation(phones: int, neighbours: Neighbours) -> None:
    bounds, seen = failures(phones, neighbours), simulated(phones, neighbours, 400, phones)
    for name in bounds:
        assert seen[name] <= bounds[name] + 4 * math.sqrt(0.25 / 400), name


def test_the_bound_is_not_idle() -> None:
    """The control: where it says that failures are common, they are seen."""
    harsh = Neighbours(4, 3, 0.3, 0.3)
    seen = simulated(30, harsh, 200, 5)
    assert failures(30, harsh)["both shares"] == failures(30, harsh)["too few answers"] == 1.0
    assert min(seen["both shares"], seen["too few answers"], seen["split"]) > 0.3


def test_the_degrees_in_use() -> None:
    """k = 68, t = 43 at 1,000 phones: 2^-55 against 2 % corrupt phones, and not 2^-40 against 3 %; one attempt in 10^7
    lacks answers at a tenth lost. k = 56, t = 36 at 300: 5 %."""
    require_bound(1000, Neighbours(68, 43, 0.02, 0.1))
    require_bound(300, Neighbours(56, 36, 0.05, 0.1))
    assert failures(1000, Neighbours(68, 43, 0.02, 0.1))["both shares"] < 2**-55
    assert 2**-24 < failures(1000, Neighbours(68, 43, 0.02, 0.1))["too few answers"] < 2**-23
    for phones, weak in ((1000, Neighbours(68, 43, 0.03, 0.1)), (300, Neighbours(56, 36, 0.1, 0.1))):
        with pytest.raises(ContractError, match="both shares"):
            require_private(phones, weak)
    with pytest.raises(ContractError, match="too few answers"):
        require_bound(1000, Neighbours(68, 43, 0.02, 0.2))
    with pytest.raises(ContractError, match="both shares"):
        require_bound(1000, Neighbours(68, 34, 0.0, 0.1))  # half the degree: both kinds without a corrupt phone


@pytest.mark.parametrize(("phones", "corrupt", "dropout"), [(10, 0.1, 0.2), (100, 0.05, 0.1), (1000, 0.05, 0.1)])
def test_choose_gives_the_least_that_holds(phones: int, corrupt: float, dropout: float) -> None:
    found = choose(phones, corrupt, dropout)
    require_bound(phones, found)
    if found.degree < phones - 1:
        for threshold in range(1, found.degree - 1):
            with pytest.raises(ContractError):
                require_bound(phones, Neighbours(found.degree - 2, threshold, corrupt, dropout))


def test_choose_says_when_there_is_none() -> None:
    with pytest.raises(ContractError, match="no graph"):
        choose(10, 0.4, 0.4)


@given(st.integers(2, 200), st.floats(0, 0.3))
def test_two_quorums_share_an_honest_phone(size: int, corrupt: float) -> None:
    bad = math.ceil(size * corrupt - 1e-9)
    assert 2 * quorum(size, size, corrupt) > size + bad


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_lists_as_bits(flags: list[bool]) -> None:
    wanted = np.array(flags, np.bool_)
    assert (unpack(pack(wanted), len(flags)) == wanted).all()
    with pytest.raises(ContractError):
        unpack(pack(wanted) + b"\0", len(flags))
    if len(flags) % 8:
        with pytest.raises(ContractError):
            unpack(b"\xff" * (-(-len(flags) // 8)), len(flags))
