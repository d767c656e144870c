"""Which events count for a row, and exact integer statistics over those segments (spec 4.3).

Everything here sums integers, so a phone's features are the same bits alone or beside a million others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fl_client.events import Column, Table

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WINDOW_DAYS = 90
MONTH_DAYS = 30
MONTHS = WINDOW_DAYS // MONTH_DAYS
HALF = np.uint64(32)


@dataclass(frozen=True)
class Rows:
    """R labelled or scored rows: `phone` (R,) the phone's index in the batch, `start` (R,) the start day,
    `observed` (R,) the days of observation inside the window (0 … 90)."""

    phone: Ints
    start: Ints
    observed: Ints

    def __len__(self) -> int:
        return len(self.phone)


@dataclass(frozen=True)
class Segments:
    """The events `first[r]` … `last[r]`-1 of a table that count for row r."""

    first: Ints
    last: Ints

    @property
    def count(self) -> Floats:
        """(R,) events in each segment."""
        return (self.last - self.first).astype(np.float64)


def segments(table: Table, rows: Rows) -> Segments:
    """Events of each row's phone with start - 90 ≤ day < start. Days ascend within a phone, so two bisections do."""
    first, last = table.offsets[rows.phone], table.offsets[rows.phone + 1]
    low = _bisect(table["day"], first, last, rows.start - WINDOW_DAYS)
    return Segments(low, _bisect(table["day"], low, last, rows.start))


def narrow(
    columns: Mapping[str, Column], seg: Segments, mask: npt.NDArray[np.bool_], names: Collection[str]
) -> tuple[dict[str, Column], Segments]:
    """The columns `names` of the events where `mask` (n,) holds, and the same segments among them."""
    kept = np.flatnonzero(mask)
    inner = Segments(np.searchsorted(kept, seg.first), np.searchsorted(kept, seg.last))
    return {name: columns[name].take(kept) for name in names}, inner


def _bisect(day: Column, first: Ints, last: Ints, value: Ints) -> Ints:
    """First position in [first, last] whose day is not below `value`, for every row at once."""
    if not len(day) or (day.take(first, mode="clip") >= value).all():
        return first
    low, high = first, last
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        below = (low < high) & (day.take(middle, mode="clip") < value)
        low = np.where(below, middle + 1, low)
        high = np.where(below, high, middle)
    return low


def sums(values: npt.NDArray[np.uint64], seg: Segments) -> npt.NDArray[np.uint64]:
    """(R,) exact sums of `values` (n,) over each segment; 0 over an empty one."""
    size = len(values)
    if size == 0 or len(seg.first) == 0:
        return np.zeros(len(seg.first), dtype=np.uint64)
    bounds = np.minimum(np.stack([seg.first, seg.last], axis=1).ravel(), size - 1)
    found = np.add.reduceat(values, bounds)[::2]
    found += np.where((seg.last == size) & (seg.first < size - 1), values[-1], np.uint64(0))
    found[seg.last <= seg.first] = 0
    return found


def total(values: Column, seg: Segments) -> Floats:
    """`sums` of any unsigned integers, as float64 (exact below 2**53)."""
    return sums(values.astype(np.uint64), seg).astype(np.float64)


def expand(seg: Segments) -> tuple[Ints, Ints]:
    """(row, event) of every event of every segment, row by row; an event stands once for each row it counts for."""
    count = seg.last - seg.first
    row = np.repeat(np.arange(len(count)), count)
    shift = seg.first - (np.cumsum(count) - count)
    return row, np.arange(len(row)) + np.repeat(shift, count)


def _keyed(row: Ints, values: Column) -> npt.NDArray[np.uint64]:
    """Values below 2**32, sorted within their row: one plain sort of row << 32 | value."""
    keys = (row.astype(np.uint64) << HALF) | values.astype(np.uint64)
    keys.sort()
    return keys


def median(row: Ints, values: Column, rows: int) -> Floats:
    """(rows,) exact median of the values of each row; NaN without any."""
    keys = _keyed(row, values)
    count = np.bincount(row, minlength=rows)
    first = np.cumsum(count) - count
    low = (
        (keys & np.uint64(0xFFFFFFFF)).take(first + np.maximum(count - 1, 0) // 2, mode="clip") if len(keys) else first
    )
    high = (keys & np.uint64(0xFFFFFFFF)).take(first + count // 2, mode="clip") if len(keys) else first
    return at_least(count.astype(np.float64), 1, (low.astype(np.float64) + high.astype(np.float64)) / 2)


def distinct(row: Ints, values: Column, rows: int) -> Floats:
    """(rows,) number of different values in each row."""
    keys = _keyed(row, values)
    new = np.ones(len(keys), dtype=np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    return np.bincount((keys[new] >> HALF).astype(np.int64), minlength=rows).astype(np.float64)


def at_least(count: Floats, least: float, value: Floats) -> Floats:
    """`value` where `count` reaches `least`, NaN (a thin file) elsewhere."""
    return np.where(count >= least, value, np.nan)


def ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is 0."""
    out: Floats = np.full(len(top), np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out


def variation(count: Floats, first: Floats, second: Floats) -> Floats:
    """Coefficient of variation from the count, the sum and the sum of squares."""
    mean = ratio(first, count)
    spread: Floats = np.sqrt(np.maximum(ratio(second, count) - mean * mean, 0.0))
    return ratio(spread, np.nan_to_num(mean))
