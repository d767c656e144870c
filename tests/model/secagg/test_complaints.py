"""Who is left out of pairs whose boxes did not open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.secagg.complaints import uncover

pairs = st.sets(st.tuples(st.integers(0, 9), st.integers(10, 19)) | st.tuples(st.integers(10, 19), st.integers(0, 9)))


@given(pairs)
def test_no_pair_is_left(found: set[tuple[int, int]]) -> None:
    out = uncover(found)
    assert all(sender in out or receiver in out for sender, receiver in found)
    assert out <= {end for pair in found for end in pair}


def test_a_lone_pair_costs_its_sealer() -> None:
    assert uncover({(3, 5)}) == {3}


def test_who_complains_of_many_goes_alone() -> None:
    assert uncover({(1, 9), (2, 9), (3, 9)}) == {9}
    assert uncover({(9, 1), (9, 2), (9, 3)}) == {9}
    assert uncover(set()) == set()
