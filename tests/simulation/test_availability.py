"""Who could answer when: habits from hashes, the same alone and in a crowd, better reached with a better handset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_client.phones import mix
from simulation.availability import DAY, OPENS, SHARE, arrivals, drawn_tiers, opening, tiers_of
from simulation.population.latents import HANDSETS
from simulation.small import small_dataset

IDS = mix(np.arange(4000, dtype=np.uint64), 5)
TIERS = drawn_tiers(IDS)
QUICK = np.ones(len(IDS))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["always", "diurnal"]),
    st.integers(0, 2**63 - 1),
    st.integers(0, 300),
    st.floats(0.1, 200),
    st.lists(st.integers(0, len(IDS) - 1), min_size=1, max_size=9),
)
def test_a_phone_alone_is_the_phone_of_the_crowd(
    kind: str, seed: int, round_: int, deadline: float, few: list[int]
) -> None:
    crowd = arrivals(kind, IDS, TIERS, seed, round_, deadline, QUICK)
    for phone in few:
        one = slice(phone, phone + 1)
        alone = arrivals(kind, IDS[one], TIERS[one], seed, round_, deadline, QUICK[one])
        assert (alone.start[0], alone.answer[0]) == (crowd.start[phone], crowd.answer[phone])
    some = arrivals(kind, IDS[few], TIERS[few], seed, round_, deadline, QUICK[few])
    np.testing.assert_array_equal(some.answer, crowd.answer[few])


def test_an_answer_comes_after_its_start_and_a_start_before_the_deadline() -> None:
    for deadline in (2.0, 8.0, 30.0):
        found = arrivals("diurnal", IDS, TIERS, 1, 3, deadline, QUICK)
        begun = np.isfinite(found.start)
        assert (found.start[begun] >= 0).all() and (found.start[begun] <= deadline).all()
        assert (found.answer > found.start)[np.isfinite(found.answer)].all()
        assert not np.isfinite(found.answer[~begun]).any()
        assert 0 < begun.mean() < 1


def test_better_handsets_are_reached_more_often_and_a_longer_deadline_reaches_more() -> None:
    def reached(deadline: float) -> np.ndarray:
        return arrivals("diurnal", IDS, TIERS, 1, 2, deadline, QUICK).answer <= deadline

    by_tier = [float(reached(8.0)[tier == TIERS].mean()) for tier in range(len(HANDSETS))]
    assert by_tier == sorted(by_tier) and by_tier[-1] > by_tier[0] + 0.2
    assert reached(1.0).sum() < reached(4.0).sum() < reached(24.0).sum()
    always = arrivals("always", IDS, TIERS, 1, 2, 8.0, QUICK)
    assert (always.start == 0).all() and (always.answer < 8.0).all()


def test_the_night_is_when_phones_charge() -> None:
    begun = arrivals("diurnal", IDS, TIERS, 4, 1, 24.0, QUICK).start
    clock = np.mod(OPENS + begun[np.isfinite(begun) & (begun > 0)], DAY)
    night = ((clock >= 20) | (clock < 4)).mean()
    assert night > 0.8  # uniform hours would give a third


def test_a_slow_phone_answers_later_or_not_in_its_session() -> None:
    quick = arrivals("diurnal", IDS, TIERS, 1, 1, 8.0, QUICK).answer
    slow = arrivals("diurnal", IDS, TIERS, 1, 1, 8.0, 10 * QUICK).answer
    assert (slow >= quick).all() and (slow[np.isfinite(slow)] > quick[np.isfinite(slow)]).all()
    assert np.isinf(slow).sum() > np.isinf(quick).sum()


def test_rounds_differ_and_a_phone_keeps_its_habits() -> None:
    first, second = (arrivals("diurnal", IDS, TIERS, 1, r, 8.0, QUICK).answer <= 8 for r in (1, 2))
    assert (first != second).any()
    together = (first & second).mean()
    assert together > first.mean() * second.mean() + 0.05  # independent phones would give the product


@pytest.mark.parametrize(("deadline", "days"), [(8.0, 1), (24.0, 1), (25.0, 2), (336.0, 14)])
def test_a_round_opens_in_the_evening_after_the_one_before_has_closed(deadline: float, days: int) -> None:
    assert opening(3, deadline) - opening(2, deadline) == 24 * days >= deadline
    assert opening(7, deadline) % 24 == OPENS


def test_handsets_come_from_the_audit_column_or_by_hash() -> None:
    data = small_dataset(2000)
    drawn = tiers_of(data)
    np.testing.assert_array_equal(drawn, drawn_tiers(data.ids))
    np.testing.assert_allclose(np.bincount(drawn) / data.phones, SHARE, atol=0.05)
    told = np.array(HANDSETS)[np.arange(data.phones) % 4]
    held = dict(vars(data), protected={"handset": told})
    np.testing.assert_array_equal(tiers_of(type(data)(**held)), np.arange(data.phones) % 4)
    other = dict(vars(data), protected={"handset": np.array(["red", "blue"])[np.arange(data.phones) % 2]})
    np.testing.assert_array_equal(tiers_of(type(data)(**other)), drawn)
