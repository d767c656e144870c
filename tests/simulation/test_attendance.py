"""The roll of a round: fates add up, a public response constant, and one-sentence refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_client.phones import mix
from model.errors import InputError
from simulation.attendance import COUNTED, DROPPED, FATES, LATE, OFFLINE, PHONES_A_CHUNK, REFUSED, Reach, Virtual
from simulation.availability import drawn_tiers
from simulation.faults import Faults

IDS = mix(np.arange(PHONES_A_CHUNK + 3000, dtype=np.uint64), 3)
TIERS = drawn_tiers(IDS)
BAD = Faults(0.1, 0.2, 0.1, 0.1)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["always", "diurnal"]), st.floats(0.05, 48), st.integers(0, 2**40), st.integers(0, 50))
def test_fates_add_up_and_a_phone_alone_has_its_own(kind: str, deadline: float, seed: int, round_: int) -> None:
    who = Virtual(kind, deadline, BAD, seed)
    roll, tally = who.roll(IDS, TIERS, round_), who.roll(IDS, TIERS, round_).tally()
    assert tally["asked"] == len(IDS) == sum(tally[fate] for fate in FATES)
    assert tally["duplicate"] == roll.twice.sum() <= tally["counted"] == roll.counted.sum()
    assert (roll.answer[roll.counted] <= deadline).all() and (roll.answer[roll.fate == LATE] > deadline).all()
    last = slice(len(IDS) - 5, len(IDS))
    np.testing.assert_array_equal(who.roll(IDS[last], TIERS[last], round_).fate, roll.fate[last])
    assert who.roll(IDS[:0], TIERS[:0], round_).tally()["asked"] == 0


def test_each_fault_has_its_fate() -> None:
    def fates(**shares: float) -> list[float]:
        roll = Virtual("always", 0.5, Faults(**shares), 1).roll(IDS, TIERS, 1)
        return [float(size) / len(IDS) for size in np.bincount(roll.fate, minlength=5)]

    plain = fates()
    assert plain[COUNTED] > 0.95 and plain[OFFLINE] == plain[DROPPED] == plain[REFUSED] == 0
    assert fates(drop=1.0)[DROPPED] == 1 and fates(hostile=1.0)[REFUSED] == plain[COUNTED]
    assert fates(duplicate=1.0) == plain and fates(slow=1.0)[LATE] > 0.5 > plain[LATE]
    assert Virtual("diurnal", 8.0, Faults(), 1).roll(IDS, TIERS, 1).tally()["offline"] > 0


@pytest.mark.parametrize("reach", [Reach("diurnal", 8.0, 1.0, BAD), Reach("always", 1.0, 1.0, BAD), Reach("diurnal")])
def test_the_response_is_right_on_average_and_knows_no_phone_of_the_run(reach: Reach) -> None:
    who = reach.attendance(11)
    assert who is not None
    response = who.response(14)
    seen = np.mean([who.roll(IDS, TIERS, number).counted.mean() for number in range(1, 15)])
    assert abs(response - seen) < 0.02
    other = reach.attendance(12)
    assert other is not None and other.response(14) == response


def test_where_everybody_answers_nothing_is_drawn() -> None:
    assert Reach().attendance(1) is None and Reach(deadline=1.0, over_select=2.0).full
    assert not Reach("diurnal").full and not Reach(faults=Faults(drop=0.1)).full


def test_it_travels_as_plain_values() -> None:
    who = Virtual("diurnal", 8.0, BAD, 2**62)
    assert Virtual.from_dict(who.to_dict()) == who


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"availability": "weekly"}, "--availability 'weekly' is unknown; use always or diurnal"),
        ({"deadline": 0.0}, "--deadline 0 is outside 0 to 336 hours"),
        ({"deadline": -1.0}, "--deadline -1 is outside"),
        ({"deadline": float("nan")}, "--deadline nan is outside"),
        ({"over_select": 0.5}, "--over-select 0.5 is outside 1 to 10"),
        ({"over_select": float("inf")}, "--over-select inf is outside"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_sentence(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        Reach(**wrong)  # type: ignore[arg-type]
    assert sentence in str(refused.value)
