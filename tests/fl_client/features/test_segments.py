"""Windows and exact statistics over segments, against plain Python."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_client.events import COLUMNS, Table
from fl_client.features.window import Rows, Segments, distinct, expand, median, narrow, segments, sums, variation

DAYS = st.lists(st.lists(st.integers(0, 200), max_size=12).map(sorted), min_size=1, max_size=5)


def _topups(days: list[list[int]]) -> Table:
    flat = np.array([d for phone in days for d in phone], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(phone) for phone in days])]).astype(np.int64)
    amount = (np.arange(len(flat)) * 7919 % 31).astype(np.uint32)
    columns = {"day": flat, "minute": np.zeros(len(flat), dtype=np.int16), "amount": amount}
    assert set(columns) == set(COLUMNS["topup"])
    return Table(offsets, columns)


def _rows(phone: list[int], start: list[int]) -> Rows:
    return Rows(np.array(phone), np.array(start), np.full(len(phone), 90))


@settings(max_examples=80, deadline=None)
@given(DAYS, st.data())
def test_segments_hold_exactly_the_90_days_before_the_start(days, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, len(days) - 1), st.integers(0, 210)), min_size=1, max_size=8))
    table, rows = _topups(days), _rows([p for p, _ in pairs], [s for _, s in pairs])
    seg = segments(table, rows)
    expected = [[d for d in days[p] if s - 90 <= d < s] for p, s in pairs]
    got = [table["day"][a:b].tolist() for a, b in zip(seg.first, seg.last, strict=True)]
    assert got == expected
    values = table["amount"].astype(np.uint64)
    assert sums(values, seg).tolist() == [values[a:b].sum() for a, b in zip(seg.first, seg.last, strict=True)]


@settings(max_examples=80, deadline=None)
@given(DAYS, st.data())
def test_median_distinct_and_narrow_agree_with_plain_python(days, data):
    table = _topups(days)
    rows = _rows(list(range(len(days))), [data.draw(st.integers(1, 210)) for _ in days])
    seg = segments(table, rows)
    kept = table["amount"] % 3 > 0
    columns, inner = narrow(table.columns, seg, kept, ("amount",))
    row, event = expand(inner)
    amount = columns["amount"].take(event)
    plain = [table["amount"][a:b][kept[a:b]].tolist() for a, b in zip(seg.first, seg.last, strict=True)]
    assert distinct(row, amount, len(rows)).tolist() == [len(set(values)) for values in plain]
    expected = [statistics.median(values) if values else np.nan for values in plain]
    np.testing.assert_array_equal(median(row, amount, len(rows)), expected)


def test_sums_of_nothing_are_zero():
    nothing = Segments(np.zeros(2, np.int64), np.zeros(2, np.int64))
    assert sums(np.zeros(0, np.uint64), nothing).tolist() == [0, 0]
    assert sums(np.ones(3, np.uint64), nothing).tolist() == [0, 0]


def test_variation_is_the_standard_deviation_over_the_mean():
    values = np.array([3.0, 5.0, 10.0])
    count, first, second = (np.array([v]) for v in (3.0, values.sum(), (values**2).sum()))
    assert variation(count, first, second)[0] == pytest.approx(values.std() / values.mean())
    assert np.isnan(variation(np.zeros(1), np.zeros(1), np.zeros(1)))[0]
