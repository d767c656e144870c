"""Financial SMS → money received month by month, bounces, instalments and lenders (spec 4.4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_client.events import SMS_TEMPLATES, Column, Table
from fl_client.features.window import (
    MONTH_DAYS,
    MONTHS,
    Floats,
    Ints,
    Rows,
    Segments,
    at_least,
    distinct,
    expand,
    narrow,
    ratio,
    segments,
    total,
)  # fmt: skip

LEAST_DAYS = 14
_CREDIT, _BOUNCE, _EMI = (SMS_TEMPLATES.index(name) for name in ("credit", "bounce", "emi"))


def sms(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of `sms` events. Counts need 14 observed days and any message; months are full months of observation."""
    seg = segments(table, rows)
    days = np.where(seg.count > 0, rows.observed, 0).astype(np.float64)
    template = table["template"]
    credit, credited = narrow(table.columns, seg, template == _CREDIT, ("day", "sender", "amount"))
    emi, charged = narrow(table.columns, seg, template == _EMI, ("sender", "amount"))
    _, bounced = narrow(table.columns, seg, template == _BOUNCE, ())
    received, instalments = total(credit["amount"], credited), total(emi["amount"], charged)
    sources = _senders(credit, credited)
    return {
        **_months(credit, credited, rows),
        "income_sources": at_least(sources, 1, sources),
        "bounces": at_least(days, LEAST_DAYS, ratio(bounced.count * MONTH_DAYS, days)),
        "emi_burden": at_least(days, LEAST_DAYS, ratio(instalments, received)),
        "concurrent_lenders": at_least(days, LEAST_DAYS, _senders(emi, charged)),
    }


def _senders(columns: Mapping[str, Column], seg: Segments) -> Floats:
    row, event = expand(seg)
    return distinct(row, columns["sender"].take(event), len(seg.first))


def _months(credit: Mapping[str, Column], seg: Segments, rows: Rows) -> dict[str, Floats]:
    """The main credit (the largest of a month), its regularity, and the variation of monthly totals.

    Month 0 is the 30 days before the start day, and so on back; only fully observed months count.
    """
    row, event = expand(seg)
    month = (rows.start[row] - 1 - credit["day"].take(event)) // MONTH_DAYS
    amount = credit["amount"].take(event)
    cell = row * MONTHS + month
    summed: Floats = np.bincount(cell, weights=amount, minlength=len(rows) * MONTHS).astype(np.float64)
    main = _largest(cell, amount, len(rows) * MONTHS).reshape(len(rows), MONTHS)
    full = rows.observed // MONTH_DAYS
    seen = np.arange(MONTHS) < full[:, None]
    main, totals = main * seen, summed.reshape(len(rows), MONTHS) * seen
    regular = (main > 0) & (2 * main >= main.max(axis=1, keepdims=True))
    months = full.astype(np.float64)
    paid = (main > 0).sum(axis=1).astype(np.float64)
    return {
        "salary_median": _middle(main, paid),
        "salary_regularity": at_least(paid, 1, ratio(regular.sum(axis=1).astype(np.float64), months)),
        "salary_volatility": at_least(months, 2, _spread(totals, seen, months)),
    }


def _largest(cell: Ints, amount: np.ndarray, cells: int) -> Floats:
    """(cells,) largest amount of each cell, 0 without any."""
    keys = np.sort((cell.astype(np.uint64) << np.uint64(32)) | amount)
    where = (keys >> np.uint64(32)).astype(np.int64)
    ends = np.flatnonzero(np.diff(where, append=-1))
    found = np.zeros(cells)
    found[where[ends]] = keys[ends] & np.uint64(0xFFFFFFFF)
    return found


def _middle(main: Floats, paid: Floats) -> Floats:
    """(R,) median of the positive entries of each row of `main` (R, 3); NaN without any."""
    ordered = -np.sort(-main, axis=1)
    middle = np.where(paid == 2, (ordered[:, 0] + ordered[:, 1]) / 2, ordered[:, 0])
    return at_least(paid, 1, np.where(paid == 3, ordered[:, 1], middle))


def _spread(totals: Floats, seen: np.ndarray, months: Floats) -> Floats:
    """(R,) standard deviation over mean of the monthly totals of fully observed months."""
    mean = ratio(totals[:, 0] + totals[:, 1] + totals[:, 2], months)
    gap = np.where(seen, totals - mean[:, None], 0.0)
    return ratio(np.sqrt(ratio(gap[:, 0] ** 2 + gap[:, 1] ** 2 + gap[:, 2] ** 2, months)), np.nan_to_num(mean))
