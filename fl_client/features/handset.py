"""Device records, charging, the application form and the app itself → identity features (spec 4.4)."""

from __future__ import annotations

import math

import numpy as np

from fl_client.events import Column, Table
from fl_client.features.window import (
    MONTH_DAYS,
    WINDOW_DAYS,
    Floats,
    Ints,
    Rows,
    Segments,
    at_least,
    ratio,
    segments,
    total,
)

LEAST_CHARGES = 5
LOW_PERCENT = 15
DAY_MINUTES = 24 * 60
_SCALE = 1 << 14
_ANGLES = [2 * math.pi * minute / DAY_MINUTES for minute in range(DAY_MINUTES)]
_COSINE = np.array([round(_SCALE * (1 + math.cos(a))) for a in _ANGLES], dtype=np.uint64)
_SINE = np.array([round(_SCALE * (1 + math.sin(a))) for a in _ANGLES], dtype=np.uint64)


def _latest(table: Table, rows: Rows) -> Ints:
    """(R,) position of the last record before each start day, however old; -1 without one."""
    before = segments(table, rows)
    return np.where(before.last > table.offsets[rows.phone], before.last - 1, -1)


def _at(column: Column, position: Ints) -> Floats:
    """(R,) the column at `position`, NaN at -1."""
    if not len(column):
        return np.full(len(position), np.nan)
    return np.where(position >= 0, column.take(np.maximum(position, 0)).astype(np.float64), np.nan)


def device(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of the latest `device` record: tier, months since the system's release, days in use, free storage."""
    last = _latest(table, rows)
    return {
        "device_tier": _at(table["tier"], last),
        "os_age": rows.start / MONTH_DAYS - _at(table["os_month"], last),
        "device_tenure": rows.start - _at(table["since_day"], last),
        "storage_free": _at(table["storage"], last),
    }


def form(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of the latest application form."""
    last = _latest(table, rows)
    return {
        "form_typos": _at(table["typos"], last),
        "occupation_declared": _at(table["occupation"], last),
        "education": _at(table["education"], last),
    }


def own_app(table: Table, rows: Rows) -> dict[str, Floats]:
    """Days of observation in the window, and days since the app was installed."""
    last = _latest(table, rows)
    return {
        "observed_days": np.minimum(rows.start - _at(table["day"], last), WINDOW_DAYS),
        "app_tenure": rows.start - _at(table["install_day"], last),
    }


def charge(table: Table, rows: Rows) -> dict[str, Floats]:
    """Share of charges begun below 15 percent, and the circular standard deviation of the hour; NaN below 5."""
    seg = segments(table, rows)
    count = seg.count
    low = ratio(total(table["start_pct"] < LOW_PERCENT, seg), count)
    return {
        "battery_low": at_least(count, LEAST_CHARGES, low),
        "charge_hour_sd": at_least(count, LEAST_CHARGES, _hour_spread(table, seg)),
    }


def _hour_spread(table: Table, seg: Segments) -> Floats:
    """Circular standard deviation sqrt(-2 ln R) in hours (Mardia and Jupp, Directional Statistics, 2.3.10)."""
    count, minute = seg.count, table["minute"].astype(np.intp)
    across = ratio(total(_COSINE.take(minute), seg), count) / _SCALE - 1.0
    along = ratio(total(_SINE.take(minute), seg), count) / _SCALE - 1.0
    length = np.clip(np.sqrt(across * across + along * along), 1e-6, 1.0)
    spread: Floats = np.sqrt(2.0 * np.abs(np.log(length)))
    return spread * (24 / (2 * math.pi))
