"""Financial SMS → money received month by month, bounces, instalments and lenders (spec 4.4)."""

from __future__ import annotations

import numpy as np

from fl_client.events import SMS_TEMPLATES, Table
from fl_client.features.window import (
    MONTH_DAYS,
    MONTHS,
    Floats,
    Ints,
    Rows,
    at_least,
    distinct,
    expand,
    ratio,
    segments,
    total,
)  # fmt: skip

LEAST_DAYS = 14
_CREDIT, _BOUNCE, _EMI = (SMS_TEMPLATES.index(name) for name in ("credit", "bounce", "emi"))


def sms(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of `sms` events. Counts need 14 observed days and any message; months are full months of observation."""
    any_sms = segments(table, rows.phone, rows.start).count
    days = np.where(any_sms > 0, rows.observed, 0).astype(np.float64)
    credit = table.select(table["template"] == _CREDIT, ("day", "sender", "amount"))
    emi = table.select(table["template"] == _EMI, ("day", "sender", "amount"))
    bounce = table.select(table["template"] == _BOUNCE, ("day",))
    received = total(credit["amount"], segments(credit, rows.phone, rows.start))
    instalments = total(emi["amount"], segments(emi, rows.phone, rows.start))
    bounced = segments(bounce, rows.phone, rows.start).count
    sources = _senders(credit, rows)
    return {
        **_months(credit, rows),
        "income_sources": at_least(sources, 1, sources),
        "bounces": at_least(days, LEAST_DAYS, ratio(bounced * MONTH_DAYS, days)),
        "emi_burden": at_least(days, LEAST_DAYS, ratio(instalments, received)),
        "concurrent_lenders": at_least(days, LEAST_DAYS, _senders(emi, rows)),
    }


def _senders(table: Table, rows: Rows) -> Floats:
    row, event = expand(segments(table, rows.phone, rows.start))
    return distinct(row, table["sender"].take(event), len(rows))


def _months(credit: Table, rows: Rows) -> dict[str, Floats]:
    """The main credit (the largest of a month), its regularity, and the variation of monthly totals.

    Month 0 is the 30 days before the start day, and so on back; only fully observed months count.
    """
    row, event = expand(segments(credit, rows.phone, rows.start))
    month = (rows.start[row] - 1 - credit["day"].take(event)) // MONTH_DAYS
    amount = credit["amount"].take(event)
    cell = row * MONTHS + month
    totals = np.bincount(cell, weights=amount, minlength=len(rows) * MONTHS).reshape(len(rows), MONTHS)
    main = _largest(cell, amount, len(rows) * MONTHS).reshape(len(rows), MONTHS)
    full = rows.observed // MONTH_DAYS
    seen = np.arange(MONTHS) < full[:, None]
    main, totals = np.where(seen, main, 0.0), np.where(seen, totals, 0.0)
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
