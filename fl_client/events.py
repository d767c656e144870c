"""The raw event vocabulary, and columnar batches of events for one phone or many; none leaves a phone (spec 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import InputError

Column = npt.NDArray[Any]

APP_CATEGORIES = (
    "social", "video", "games", "shopping", "finance", "productivity", "loan", "gambling", "news", "other",
)  # fmt: skip
SMS_TEMPLATES = ("credit", "debit", "bounce", "emi", "otp", "personal")
UPI_DIRECTIONS = ("out", "in")
UPI_KINDS = ("p2p", "merchant", "bill", "subscription", "recharge")
UPI_STATUSES = ("ok", "failed")
COUNTERPARTY_KINDS = ("person", "merchant")

_WHEN = {"day": "<i4", "minute": "<i2"}
COLUMNS: dict[str, dict[str, str]] = {
    "app_session": {**_WHEN, "category": "u1", "duration_s": "<u2"},
    "browse": {**_WHEN, "category": "u1", "visits": "u1"},
    "sms": {**_WHEN, "template": "u1", "sender": "<u2", "amount": "<u4"},
    "upi": {
        **_WHEN, "direction": "u1", "kind": "u1", "amount": "<u4", "status": "u1",
        "counterparty_hash": "<u4", "counterparty_kind": "u1",
    },
    "bill": {**_WHEN, "due": "<i4", "paid": "<i4", "amount": "<u4"},
    "topup": {**_WHEN, "amount": "<u4"},
    "charge": {**_WHEN, "start_pct": "u1", "minutes": "<u2"},
    "device": {**_WHEN, "tier": "u1", "os_month": "<i4", "storage": "u1", "since_day": "<i4"},
    "mobility": {**_WHEN, "cell_count": "u1", "home": "u1"},
    "form": {**_WHEN, "typos": "u1", "occupation": "u1", "education": "u1"},
    "own_app": {**_WHEN, "install_day": "<i4"},
    "outcome": {**_WHEN, "start_day": "<i4", "late": "u1"},
    "contact": {**_WHEN, "peer_hash": "<u4"},
    "call": {**_WHEN, "peer_hash": "<u4", "duration_s": "<u2"},
}  # fmt: skip
"""Event type → column → dtype. Days count from one public epoch, minutes from midnight; amounts are whole rupees.

An event stands on the day the phone learns of it: a bill on the day it is paid, an outcome (a lender's signed
repayment receipt) on the day it arrives, `own_app` on the day observation begins.
"""
SEALED = frozenset({"contact", "call"})
"""Types that exist so that policy can refuse them; no feature reads them."""


@dataclass(frozen=True)
class Table:
    """Events of one type: phone k owns rows `offsets[k]` to `offsets[k+1]` of every column, in day order.

    Shapes: offsets (K+1,) int64; each column (n,).
    """

    offsets: npt.NDArray[np.int64]
    columns: Mapping[str, Column]

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def phone(self, index: int) -> Table:
        """The events of phone `index` alone."""
        first, last = int(self.offsets[index]), int(self.offsets[index + 1])
        one = {name: column[first:last].copy() for name, column in self.columns.items()}
        return Table(np.array([0, last - first], dtype=np.int64), one)


@dataclass(frozen=True)
class EventBatch:
    """Events of `phones` phones by type. A type that is absent was not consented to; an empty one had no events."""

    phones: int
    tables: Mapping[str, Table]

    def without(self, *types: str) -> EventBatch:
        """The same phones after a refusal of `types`."""
        return EventBatch(self.phones, {name: t for name, t in self.tables.items() if name not in types})

    def phone(self, index: int) -> EventBatch:
        """The batch of phone `index` alone."""
        return EventBatch(1, {name: table.phone(index) for name, table in self.tables.items()})

    @property
    def total(self) -> int:
        """Number of events."""
        return sum(len(table) for table in self.tables.values())


def to_columns(batch: EventBatch) -> dict[str, dict[str, Column]]:
    """Type → column → array (n,) of the one phone in `batch`, as a phone store keeps them; InputError if K is not 1."""
    if batch.phones != 1:
        raise InputError(f"a store keeps one phone's events, not {batch.phones}; take batch.phone(k) first")
    return {name: dict(table.columns) for name, table in batch.tables.items()}


def from_columns(stored: Mapping[str, Mapping[str, Any]]) -> EventBatch:
    """Inverse of `to_columns`: checks types, columns and lengths, casts, and puts events in (day, minute) order."""
    return EventBatch(1, {name: _table(name, columns) for name, columns in stored.items()})


def _table(name: str, columns: Mapping[str, Any]) -> Table:
    if name not in COLUMNS:
        raise InputError(f"there is no event type {name!r}; use one of {', '.join(COLUMNS)}")
    expected = COLUMNS[name]
    if set(columns) != set(expected):
        raise InputError(f"events of type {name!r} need the columns {', '.join(expected)}, not {', '.join(columns)}")
    typed = {column: _cast(name, column, columns[column]) for column in expected}
    rows = len(typed["day"])
    if any(len(values) != rows for values in typed.values()):
        raise InputError(f"the columns of event type {name!r} differ in length; write the event type again")
    order = np.lexsort((typed["minute"], typed["day"]))
    return Table(np.array([0, rows], dtype=np.int64), {column: values[order] for column, values in typed.items()})


def _cast(name: str, column: str, values: Any) -> Column:
    raw = np.atleast_1d(np.asarray(values))
    typed = raw.astype(COLUMNS[name][column])
    if raw.ndim != 1 or not np.array_equal(raw, typed):
        raise InputError(f"column {column!r} of event type {name!r} holds values that are not {typed.dtype.name}")
    return typed
