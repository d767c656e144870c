"""Where a phone in the field keeps its secrets of pairwise masking: its own encrypted store (spec 13.15)."""

from __future__ import annotations

from dataclasses import dataclass

from fl_client.store import PhoneStore

TABLE = "pairing"


@dataclass(frozen=True)
class StoreDrawer:
    """A `Drawer` of one phone. What it held before is overwritten, so a past attempt's secrets are gone."""

    store: PhoneStore

    def get(self) -> bytes:
        """What was put last; empty at first."""
        entries = self.store.entries(TABLE)
        data = entries[-1]["kept"] if entries else b""
        return data if isinstance(data, bytes) else b""

    def put(self, data: bytes) -> None:
        """Keep this instead; on disk when this returns."""
        self.store.swap(TABLE, {"kept": data})
