"""Phones and their labelled rows as flat arrays: many phones in one memory map, each a slice of it (spec 7.2)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import mix, segments
from model.canonical import decode, encode
from model.errors import InputError, RunError
from model.risk.schema import Schema
from simulation.coded import Coded

HOLDOUT_SALT = 0x9E3779B97F4A7C15
ENOUGH_HELD = 48  # the hash leaves fewer than 30 of them, the minimum cohort, about once in a thousand tables
_ARRAYS = ("ids", "offsets", "codes", "y", "holdout")


@dataclass(frozen=True)
class Dataset:
    """Rows of phone i are `x[offsets[i]:offsets[i+1]]`; a phone may have none.

    ids (P,) uint64; offsets (P+1,) int64; x (R, F) float32 or coded, NaN = missing; y (R,) float32 in {0, 1};
    protected: per-phone audit columns (P,), never features; holdout (P,) bool. InputError on arrays that disagree.
    """

    schema: Schema
    ids: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    x: NDArray[np.float32] | Coded
    y: NDArray[np.float32]
    protected: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    holdout: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        phones, rows = len(self.ids), len(self.y)
        if self.offsets.shape != (phones + 1,) or self.offsets[0] != 0 or self.offsets[-1] != rows:
            raise InputError(f"offsets do not cover {rows} rows of {phones} phones; build the dataset again")
        if self.x.shape != (rows, len(self.schema.features)):
            raise InputError(f"x has shape {self.x.shape}, not ({rows}, {len(self.schema.features)}); check the schema")
        if self.holdout.shape != (phones,) or any(len(c) != phones for c in self.protected.values()):
            raise InputError(f"holdout and protected columns need one entry for each of {phones} phones")

    @property
    def phones(self) -> int:
        """Number of phones, with or without rows."""
        return len(self.ids)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows per phone, (P,)."""
        return np.diff(self.offsets)

    def take(self, chosen: NDArray[Any]) -> Dataset:
        """The phones of a boolean mask or index array, in that order, with their rows copied."""
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        rows, offsets = segments(self.offsets, index)
        protected = {name: column[index] for name, column in self.protected.items()}
        x = self.x.take(rows) if isinstance(self.x, Coded) else self.x[rows]
        return Dataset(self.schema, self.ids[index], offsets, x, self.y[rows], protected, self.holdout[index])

    def part(self, index: int, count: int) -> Dataset:
        """The `index`-th of `count` contiguous shares of the phones; the arrays stay views of the same memory."""
        if not 0 <= index < count:
            raise InputError(f"part {index} of {count} does not exist; number the farms from 0")
        first, last = (self.phones * index) // count, (self.phones * (index + 1)) // count
        low, high = int(self.offsets[first]), int(self.offsets[last])
        return Dataset(
            schema=self.schema,
            ids=self.ids[first:last],
            offsets=self.offsets[first : last + 1] - low,
            x=self.x.take(slice(low, high)) if isinstance(self.x, Coded) else self.x[low:high],
            y=self.y[low:high],
            protected={name: column[first:last] for name, column in self.protected.items()},
            holdout=self.holdout[first:last],
        )

    def split(self) -> tuple[Dataset, Dataset]:
        """(train, holdout): disjoint phones, by the holdout flag."""
        return self.take(~self.holdout), self.take(np.asarray(self.holdout))

    def save(self, folder: Path) -> None:
        """Write codes, their levels and the rest as plain .npy files, and the schema; the folder appears by rename."""
        if folder.exists():
            raise RunError(f"{folder} exists already; choose a folder that does not")
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        temporary.mkdir(parents=True)
        try:
            coded = self.x if isinstance(self.x, Coded) else Coded.exact(self.x)
            arrays = {**vars(self), "codes": coded.codes}
            for name in _ARRAYS:
                np.save(temporary / f"{name}.npy", arrays[name], allow_pickle=False)
            np.save(temporary / "levels.npy", coded.flat, allow_pickle=False)
            for position, column in enumerate(self.protected.values()):
                np.save(temporary / f"protected-{position}.npy", column, allow_pickle=False)
            about = {
                "schema": self.schema.to_dict(),
                "protected": list(self.protected),
                "levels": coded.sizes.tolist(),
            }
            (temporary / "about.cbor").write_bytes(encode(about))
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Memory-map a saved folder, read-only; RunError when it is missing or not such a folder."""
        try:
            about = decode((folder / "about.cbor").read_bytes(), max_bytes=1 << 24)
            schema = Schema.from_dict(about["schema"])
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
            flat = np.load(folder / "levels.npy", allow_pickle=False)
            levels = np.split(flat, np.cumsum(np.asarray(about["levels"], np.int64))[:-1])
            protected = {
                name: np.load(folder / f"protected-{i}.npy", mmap_mode="r", allow_pickle=False)
                for i, name in enumerate(about["protected"])
            }
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{folder} is not a saved dataset ({error}); prepare it again") from error
        x = Coded(arrays.pop("codes"), tuple(levels))
        return cls(schema, x=x, protected=protected, **arrays)


def holdout_share(phones: int) -> float:
    """Share of `phones` to hold out: a fifth, and of a small table up to half, so that an evaluation has its cohort."""
    return min(0.5, max(0.2, ENOUGH_HELD / phones))


def holdout_by_id(ids: NDArray[np.uint64], share: float = 0.2, salt: int = 0) -> NDArray[np.bool_]:
    """Which phones are held out: a hash of the id alone decides, so a phone keeps its side in every run.

    ids (P,) uint64 → (P,) bool. A different `salt` gives a fresh split.
    """
    hashed = mix(ids, np.uint64((HOLDOUT_SALT + salt) & (2**64 - 1)))
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
