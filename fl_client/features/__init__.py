"""Raw events → float32 features with NaN for missing, over segments of many phones at once (spec 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fl_client.events import EventBatch, Table
from fl_client.features import handset, household, messages, payments, receipts, usage
from fl_client.features.receipts import Labelled, labelled_rows
from fl_client.features.window import WINDOW_DAYS, Floats, Ints, Rows
from model.errors import SchemaError
from model.risk.schema import Feature, Schema

__all__ = ["EXTRACTORS", "WINDOW_DAYS", "Labelled", "extract", "labelled_rows"]

EXTRACTORS: Mapping[str, Callable[[Table, Rows], dict[str, Floats]]] = {
    "app_session": usage.app_session,
    "sms": messages.sms,
    "upi": payments.upi,
    "bill": household.bill,
    "topup": household.topup,
    "charge": handset.charge,
    "device": handset.device,
    "form": handset.form,
    "own_app": handset.own_app,
    "outcome": receipts.outcome,
}
"""Event type → its feature function. Browsing, mobility, contacts and calls have none."""


def extract(
    batch: EventBatch, schema: Schema, start_days: npt.ArrayLike, phone: npt.ArrayLike | None = None
) -> npt.NDArray[np.float32]:
    """Features (R, F) float32 of R rows in the schema's column order, clipped to its public bounds, NaN = missing.

    `start_days` (R,) are whole days: only events of the 90 days before a row's start day count. `phone` (R,) names the
    phone of each row; without it row r is phone r. A refused source, or too few events, gives NaN.
    SchemaError if the schema holds an X feature or a feature no event yields.
    """
    start = np.atleast_1d(np.asarray(start_days, dtype=np.int64))
    owner = np.arange(batch.phones) if phone is None else np.asarray(phone, dtype=np.int64)
    if owner.shape != start.shape:
        raise SchemaError(f"{start.size} start days do not fit {owner.size} rows; give one start day a row")
    rows = _rows(batch, owner, start)
    out = np.full((len(rows), len(schema.features)), np.nan, dtype=np.float32)
    computed: dict[str, dict[str, Floats]] = {}
    for column, feature in enumerate(schema.features):
        if feature.permission == "X" or feature.source not in EXTRACTORS:
            raise SchemaError(f"feature {feature.name!r} is not computed on any phone; take it out of the schema")
        if feature.source not in batch.tables:
            continue
        if feature.source not in computed:
            computed[feature.source] = EXTRACTORS[feature.source](batch.tables[feature.source], rows)
        out[:, column] = _value(computed[feature.source], feature)
    return out


def _value(found: Mapping[str, Floats], feature: Feature) -> Floats:
    if feature.name not in found:
        raise SchemaError(f"feature {feature.name!r} does not come from {feature.source!r} events; check its source")
    return np.clip(found[feature.name], feature.lower, feature.upper)


def _rows(batch: EventBatch, phone: Ints, start: Ints) -> Rows:
    """Rows with their days of observation: since `own_app` began, or since the first event of any consented type."""
    begun = np.full(len(start), np.iinfo(np.int32).max, dtype=np.int64)
    own = batch.tables.get("own_app")
    for table in [own] if own is not None else batch.tables.values():
        if len(table):
            first, last = table.offsets[phone], table.offsets[phone + 1]
            day = table["day"].take(first, mode="clip")
            begun = np.where(last > first, np.minimum(begun, day), begun)
    return Rows(phone, start, np.minimum(np.maximum(start - begun, 0), WINDOW_DAYS))
