"""Bills and prepaid recharges → punctuality, and the size, rate and variation of recharges (spec 4.4)."""

from __future__ import annotations

import numpy as np

from fl_client.events import Table
from fl_client.features.window import MONTH_DAYS, Floats, Rows, at_least, ratio, segments, total, variation

LEAST_DAYS = 14
LEAST_TOPUPS = 3


def bill(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of `bill` events, each on the day it was paid; NaN without a paid bill."""
    seg = segments(table, rows)
    delay = np.maximum(table["paid"] - table["due"], 0)
    return {
        "bill_on_time": ratio(total(delay == 0, seg), seg.count),
        "bill_delay": ratio(total(delay, seg), seg.count),
    }


def topup(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of `topup` events; the variation needs 3 recharges, the rate 14 observed days."""
    seg = segments(table, rows)
    amount = table["amount"].astype(np.uint64)
    first, second = total(amount, seg), total(amount * amount, seg)
    days = rows.observed.astype(np.float64)
    return {
        "topup_mean": ratio(first, seg.count),
        "topup_rate": at_least(days, LEAST_DAYS, ratio(seg.count * MONTH_DAYS, days)),
        "topup_cv": at_least(seg.count, LEAST_TOPUPS, variation(seg.count, first, second)),
    }
