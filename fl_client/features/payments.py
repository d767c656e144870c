"""Own-wallet (UPI) payments → rate, size, failures, repeat shops, subscriptions, counterparties (spec 4.4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_client.events import COUNTERPARTY_KINDS, UPI_DIRECTIONS, UPI_KINDS, UPI_STATUSES, Column, Table
from fl_client.features.window import (
    MONTH_DAYS,
    MONTHS,
    Floats,
    Rows,
    Segments,
    at_least,
    distinct,
    expand,
    median,
    narrow,
    ratio,
    segments,
    total,
)  # fmt: skip

LEAST_PAYMENTS = 5
LEAST_DAYS = 7
_USED = ("day", "kind", "amount", "status", "counterparty_hash", "counterparty_kind")
_OUT = UPI_DIRECTIONS.index("out")
_OK = UPI_STATUSES.index("ok")
_P2P, _SUBSCRIPTION = UPI_KINDS.index("p2p"), UPI_KINDS.index("subscription")
_MERCHANT = COUNTERPARTY_KINDS.index("merchant")


def upi(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of `upi` events; shares and medians need 5 payments, the rate 7 observed days."""
    tried, seg = narrow(table.columns, segments(table, rows), table["direction"] == _OUT, _USED)
    attempts = seg.count
    done, paid = narrow(tried, seg, tried["status"] == _OK, _USED)
    days = rows.observed.astype(np.float64)
    row, event = expand(paid)
    found = {
        "upi_median": at_least(paid.count, LEAST_PAYMENTS, median(row, done["amount"].take(event), len(rows))),
        "upi_fail": at_least(attempts, LEAST_PAYMENTS, ratio(attempts - paid.count, attempts)),
        "p2p_share": at_least(paid.count, LEAST_PAYMENTS, ratio(total(done["kind"] == _P2P, paid), paid.count)),
        "upi_rate": at_least(days, LEAST_DAYS, ratio(paid.count, days)),
        "merchant_repeat": _repeat(done, paid),
        "subscription_continuity": _continuity(done, paid, rows),
    }
    everyone = distinct(row, done["counterparty_hash"].take(event), len(rows))
    return {**found, "wallet_counterparties": at_least(paid.count, LEAST_PAYMENTS, everyone)}


def _repeat(done: Mapping[str, Column], paid: Segments) -> Floats:
    """Share of payments to shops that went to a shop already paid in the window."""
    shops, seg = narrow(done, paid, done["counterparty_kind"] == _MERCHANT, ("counterparty_hash",))
    row, event = expand(seg)
    different = distinct(row, shops["counterparty_hash"].take(event), len(seg.first))
    return at_least(seg.count, LEAST_PAYMENTS, ratio(seg.count - different, seg.count))


def _continuity(done: Mapping[str, Column], paid: Segments, rows: Rows) -> Floats:
    """Share of the 30-day months since the first subscription payment of the window in which one was made."""
    bought, seg = narrow(done, paid, done["kind"] == _SUBSCRIPTION, ("day",))
    row, event = expand(seg)
    month = (rows.start[row] - 1 - bought["day"].take(event)) // MONTH_DAYS
    months = np.zeros((len(rows), MONTHS))
    months[row, month] = 1.0
    span = np.max(months * np.arange(1, MONTHS + 1), axis=1, initial=0.0)
    return ratio(months.sum(axis=1), span)
