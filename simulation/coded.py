"""Features at rest: a code a cell and the values the codes stand for, made float32 again where rows are gathered.

Made-up phones are quantised to at most 255 public levels and one for missing, a byte a cell; a person's own table is
coded without loss (spec 7.2). Either way an engine looks up by its code what a cell feeds into the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.risk.grid import grid_centers
from model.risk.schema import Feature, Schema

Codes = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]
Matrix = NDArray[np.float32]
_WIDTHS = (np.uint8, np.uint16, np.uint32)
MOST_LEVELS = 255  # with the one for missing, so that a cell is a byte and 255 itself stays free


@dataclass(frozen=True)
class Coded:
    """codes (R, F) of one unsigned type; levels[j] (L_j,) float32 are feature j's values, NaN where it is missing.

    Indexing gives float32 as a matrix (R, F) would: `coded[rows]`, `coded[rows, j]`. InputError where a code has no
    level: nothing that reads a table by code may read beyond it.
    """

    codes: Codes
    levels: tuple[NDArray[np.float32], ...]

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.levels) or self.codes.dtype not in _WIDTHS:
            raise InputError(f"codes {self.codes.shape} do not fit {len(self.levels)} features; code them again")
        if not all(len(level) for level in self.levels):
            raise InputError("a coded feature has no level; give it one, or NaN")
        if (self.highest >= self.sizes).any():
            raise InputError("a code lies beyond its feature's levels; the features are damaged, make them again")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, features)."""
        return (len(self.codes), len(self.levels))

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Levels of each feature, (F,)."""
        return np.array([len(level) for level in self.levels], dtype=np.int64)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each feature's levels begin once all are laid end to end, (F,)."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes, dtype=np.int64)

    @cached_property
    def flat(self) -> NDArray[np.float32]:
        """All levels end to end."""
        return np.concatenate(self.levels).astype(np.float32)

    @cached_property
    def highest(self) -> NDArray[np.int64]:
        """Highest code of each feature, (F,); -1 without rows. Read in pieces, so a memory map stays on disk."""
        top = np.full(len(self.levels), -1, dtype=np.int64)
        for at in range(0, len(self.codes), 1 << 18):
            np.maximum(top, self.codes[at : at + (1 << 18)].max(axis=0), out=top)
        return top

    def __getitem__(self, key: Any) -> Any:
        """float32 values, dequantised on gather; the key is a row selection, or (rows, feature numbers)."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        return self.flat.take(self.codes[rows, columns] + self.starts[columns])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def take(self, rows: Any) -> Coded:
        """These rows, still coded."""
        return Coded(self.codes[rows], self.levels)

    @classmethod
    def exact(cls, x: Matrix) -> Coded:
        """Every distinct value of a column (R, F) a level of its own: no value changes, NaN included."""
        found = [np.unique(column, return_inverse=True) for column in np.asarray(x, dtype=np.float32).T]
        levels = tuple(values if len(values) else np.full(1, np.nan, np.float32) for values, _ in found)
        width = code_type(max((len(level) for level in levels), default=1))
        codes = np.empty(x.shape, dtype=width)
        for j, (_, inverse) in enumerate(found):
            codes[:, j] = inverse.reshape(-1)
        return cls(codes, levels)


def code_type(levels: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest unsigned type for this many levels."""
    return next(width for width in _WIDTHS if levels <= np.iinfo(width).max + 1)


@lru_cache(maxsize=8)
def public_levels(schema: Schema) -> tuple[NDArray[np.float32], ...]:
    """Levels that no phone was looked at for: each number's public grid as fine as fits, a category's codes; then NaN.

    InputError for a category with more codes than a byte has.
    """
    return tuple(np.append(_finest(feature), np.nan).astype(np.float32) for feature in schema.features)


def _finest(feature: Feature) -> NDArray[np.float64]:
    grids = (grid_centers(feature, bins) for bins in range(2 * MOST_LEVELS, 1, -2))
    found = next((grid for grid in grids if len(grid) < MOST_LEVELS), None)
    if found is None:
        raise InputError(f"feature {feature.name!r} has more than {MOST_LEVELS - 1} values; merge some")
    return found


def nearest(x: Matrix, levels: Sequence[NDArray[np.float32]]) -> Coded:
    """x (R, F) float32 on the nearest of each feature's ascending levels; the last level is NaN, for missing cells.

    A pure function of a cell, so a phone's codes are the same alone and among a million.
    """
    codes = np.empty(x.shape, dtype=code_type(max(map(len, levels))))
    for j, level in enumerate(levels):
        column, known = x[:, j], level[:-1]
        middle = (known[1:].astype(np.float64) + known[:-1]) / 2
        place = np.searchsorted(middle, column, side="right")
        codes[:, j] = np.where(np.isnan(column), len(known), np.minimum(place, len(known) - 1))
    return Coded(codes, tuple(levels))
