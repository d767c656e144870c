"""Repayment receipts → the share repaid on time, and the phone's own labelled rows (spec 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fl_client.events import EventBatch, Table
from fl_client.features.window import Floats, Ints, Rows, ratio, segments, total


def outcome(table: Table, rows: Rows) -> dict[str, Floats]:
    """`prior_on_time` from the receipts that arrived before the start day; NaN without one."""
    seg = segments(table, rows)
    return {"prior_on_time": ratio(seg.count - total(table["late"], seg), seg.count)}


@dataclass(frozen=True)
class Labelled:
    """R labelled rows: `phone` (R,) index in the batch, `start_days` (R,), `y` (R,) float32, 1 = 30+ days past due."""

    phone: Ints
    start_days: Ints
    y: npt.NDArray[np.float32]


def labelled_rows(batch: EventBatch) -> Labelled:
    """One row for each receipt of a loan that began under observation, by phone and start day.

    Loans that began before observation have no features: they count for `prior_on_time` alone.
    """
    if "outcome" not in batch.tables or "own_app" not in batch.tables:
        return Labelled(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    table, app = batch.tables["outcome"], batch.tables["own_app"]
    phone = np.repeat(np.arange(batch.phones), np.diff(table.offsets))
    begun = np.full(batch.phones, np.iinfo(np.int32).max, dtype=np.int64)
    owner = np.repeat(np.arange(batch.phones), np.diff(app.offsets))
    np.minimum.at(begun, owner, app["day"])
    kept = np.flatnonzero(table["start_day"] > begun[phone])
    kept = kept[np.lexsort((table["start_day"][kept], phone[kept]))]
    start = table["start_day"][kept].astype(np.int64)
    return Labelled(phone[kept], start, table["late"][kept].astype(np.float32))
