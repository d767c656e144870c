"""Counter hashes, coins and segments."""

from __future__ import annotations

import numpy as np

from fl_client.phones import coins, mix, segments


def test_a_retry_gives_the_same_coin_and_a_round_a_new_one() -> None:
    ids = np.arange(20_000, dtype=np.uint64)
    first = coins(ids, 5, 1, 0.3)
    np.testing.assert_array_equal(first, coins(ids, 5, 1, 0.3))
    assert abs(first.mean() - 0.3) < 0.015
    both = (first & coins(ids, 5, 2, 0.3)).mean()
    assert abs(both - 0.09) < 0.01
    assert coins(ids, 5, 1, 1.0).all()


def test_a_phone_hashes_the_same_alone_and_in_a_crowd() -> None:
    ids = np.arange(100, dtype=np.uint64)
    assert mix(ids, 3, 4)[42] == mix(ids[42:43], 3, 4)[0]
    assert len(set(mix(ids, 3, 4).tolist())) == 100
    assert mix(ids, 3, 4)[0] != mix(ids, 4, 3)[0]


def test_segments_pick_rows_in_order() -> None:
    rows, offsets = segments(np.array([0, 2, 2, 5, 6]), np.array([3, 1, 2]))
    assert rows.tolist() == [5, 2, 3, 4] and offsets.tolist() == [0, 1, 1, 4]
