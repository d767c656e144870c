"""App sessions → night share, variation of session length, and shares by app category (spec 4.4)."""

from __future__ import annotations

import numpy as np

from fl_client.events import APP_CATEGORIES, Table
from fl_client.features.window import Floats, Rows, at_least, ratio, segments, sums, total, variation

LEAST_SESSIONS = 20
NIGHT_FROM, NIGHT_MINUTES, DAY_MINUTES = 23 * 60, 6 * 60, 24 * 60
_FIELD = 21
_SHARES = ("loan", "gambling", "finance", "productivity", "shopping")


def _fields(names: tuple[str, ...]) -> np.ndarray:
    """Category code → a 64-bit word with a one in its own 21-bit field, so one sum counts three categories."""
    words = np.zeros(256, dtype=np.uint64)
    for position, name in enumerate(names):
        words[APP_CATEGORIES.index(name)] = 1 << (_FIELD * position)
    return words


_WORDS = (_fields(_SHARES[:3]), _fields(_SHARES[3:]))


def app_session(table: Table, rows: Rows) -> dict[str, Floats]:
    """Features of `app_session` events; NaN below 20 sessions."""
    seg = segments(table, rows.phone, rows.start)
    count = seg.count
    found = {f"{name}_share": ratio(number, count) for name, number in _categories(table, rows).items()}
    found["loan_app_share"] = found.pop("loan_share")
    since_night = (table["minute"] + (DAY_MINUTES - NIGHT_FROM)) % DAY_MINUTES
    found["night_share"] = ratio(total(since_night < NIGHT_MINUTES, seg), count)
    length = table["duration_s"].astype(np.uint64)
    found["session_cv"] = variation(count, total(length, seg), total(length * length, seg))
    return {name: at_least(count, LEAST_SESSIONS, value) for name, value in found.items()}


def _categories(table: Table, rows: Rows) -> dict[str, Floats]:
    seg = segments(table, rows.phone, rows.start)
    packed = [sums(words.take(table["category"]), seg) for words in _WORDS]
    counts = {}
    for position, name in enumerate(_SHARES):
        word, field = divmod(position, 3)
        counts[name] = ((packed[word] >> np.uint64(_FIELD * field)) & np.uint64((1 << _FIELD) - 1)).astype(np.float64)
    return counts
