"""What a made-up phone keeps, in plain memory: the calls of a phone's store, without a key, a file or a lock.

A device seals what it keeps (`fl_client.store`); ten thousand phones that live for a millisecond have no thief.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl_client.device import Phone
from fl_client.keystore import ROOT_BYTES
from fl_client.store import Columns


@dataclass
class Pocket:
    """A `PhoneStore` that lasts as long as the object."""

    _events: dict[str, list[Columns]] = field(default_factory=dict)
    _row: dict[str, float] | None = None
    _entries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def append_events(self, kind: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep events of one type."""
        self._events.setdefault(kind, []).append(dict(columns))

    def events(self, without: Collection[str] = ()) -> dict[str, Columns]:
        """Events by type, columns joined in order of arrival, but those in `without`."""
        return {
            kind: {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            for kind, batches in self._events.items()
            if kind not in without
        }

    def retain(self, first_day: int) -> int:
        """Drop events before `first_day`; the number dropped."""
        dropped = 0
        for batches in self._events.values():
            for at, columns in enumerate(batches):
                keep = columns["day"] >= first_day
                dropped += int((~keep).sum())
                batches[at] = {name: column[keep] for name, column in columns.items()}
        return dropped

    def put_row(self, row: Mapping[str, float]) -> None:
        """Keep ready-made features by name."""
        self._row = dict(row)

    def row(self) -> dict[str, float] | None:
        """The last row put, or None."""
        return self._row

    def append(self, table: str, entry: Mapping[str, Any]) -> None:
        """Keep one entry."""
        self._entries.setdefault(table, []).append(dict(entry))

    def entries(self, table: str) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        return list(self._entries.get(table, ()))

    def swap(self, table: str, entry: Mapping[str, Any]) -> None:
        """Keep this entry and none before it."""
        self._entries[table] = [dict(entry)]

    def next_number(self, name: str) -> int:
        """1, 2, 3 … for `name`."""
        self._numbers[name] = self._numbers.get(name, 0) + 1
        return self._numbers[name]


def pocketed(row: Mapping[str, float]) -> Phone:
    """A phone with a key of its own that holds this row of features (NaN = missing)."""
    store = Pocket()
    store.put_row(row)
    return Phone(store, secrets.token_bytes(ROOT_BYTES))
