"""Faults: their shares, their refusals, and one fault a phone, the same alone and in a crowd."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_client.phones import mix
from model.errors import InputError
from simulation.faults import DROP, DUPLICATE, HOSTILE, NONE, SLOW, TRICKS, Faults, slowness, trick

IDS = mix(np.arange(20_000, dtype=np.uint64), 9)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lost=.1", "names 'lost', which is unknown; use drop, slow, duplicate, hostile"),
        ("drop=2", "drop=2 is outside 0 to 1"),
        ("drop=-.1", "drop=-0.1 is outside 0 to 1"),
        ("drop=nan", "drop=nan is outside 0 to 1"),
        ("drop=much", "drop=much is no number"),
        ("drop", "drop= is no number"),
        ("drop=.6,slow=.6", "add up to 1.2"),
        ("drop=.1,drop=.1", "names drop twice"),
    ],
)
def test_a_wrong_share_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match="--faults") as refused:
        Faults.parse(text)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_shares_are_read() -> None:
    assert Faults.parse("drop=.05, slow=.1,duplicate=.01,hostile=.01") == Faults(0.05, 0.1, 0.01, 0.01)
    assert Faults.parse("") == Faults() and not Faults().any and Faults.parse("slow=1").any


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 0.25), min_size=4, max_size=4), st.integers(0, 2**63 - 1), st.integers(0, 99))
def test_each_fault_has_its_share_and_a_phone_alone_has_its_own(shares: list[float], seed: int, round_: int) -> None:
    faults = Faults(*shares)
    drawn = faults.drawn(IDS, seed, round_)
    for kind, share in zip((DROP, SLOW, DUPLICATE, HOSTILE), shares, strict=True):
        assert abs((drawn == kind).mean() - share) < 0.02
    alone = [int(faults.drawn(IDS[i : i + 1], seed, round_)[0]) for i in range(20)]
    assert alone == drawn[:20].tolist()


def test_nobody_and_everybody() -> None:
    assert (Faults().drawn(IDS, 1, 1) == NONE).all()
    slow = Faults(slow=1.0).drawn(IDS, 1, 1)
    assert (slow == SLOW).all() and (slowness(slow) == 10).all()
    assert (slowness(Faults(drop=1.0).drawn(IDS, 1, 1)) == 1).all()
    assert {trick(int(i), 1, 1) for i in IDS[:64]} == set(TRICKS)
