"""App sessions → night share, variation of session length, and shares by app category (spec 4.4)."""

from __future__ import annotations

import numpy as np

from fl_client.events import APP_CATEGORIES, Table
from fl_client.features.window import Floats, Rows, Segments, at_least, ratio, segments, sums, variation

LEAST_SESSIONS = 20
NIGHT_FROM, NIGHT_TO = 23 * 60, 5 * 60
_HIGH, _LOW = np.uint64(40), np.uint64((1 << 40) - 1)
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
    seg = segments(table, rows)
    count = seg.count
    found = {f"{name}_share": ratio(number, count) for name, number in _categories(table, seg).items()}
    found["loan_app_share"] = found.pop("loan_share")
    minute, length = table["minute"], table["duration_s"].astype(np.uint64)
    night = ((minute >= NIGHT_FROM) | (minute < NIGHT_TO)).astype(np.uint64)
    packed = sums(length + (night << _HIGH), seg)
    found["night_share"] = ratio((packed >> _HIGH).astype(np.float64), count)
    first = (packed & _LOW).astype(np.float64)
    found["session_cv"] = variation(count, first, sums(length * length, seg).astype(np.float64))
    return {name: at_least(count, LEAST_SESSIONS, value) for name, value in found.items()}


def _categories(table: Table, seg: Segments) -> dict[str, Floats]:
    code = table["category"].astype(np.intp)
    packed = [sums(words.take(code), seg) for words in _WORDS]
    counts = {}
    for position, name in enumerate(_SHARES):
        word, field = divmod(position, 3)
        counts[name] = ((packed[word] >> np.uint64(_FIELD * field)) & np.uint64((1 << _FIELD) - 1)).astype(np.float64)
    return counts
