"""The arithmetic of one round, free of plan and schema: phones, rows by code, a model, local steps (spec 7.8).

An engine sees arrays only. What a row feeds into the model is looked up by its codes: two active hats a feature for
the additive model, a few columns a feature for the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.contract.plan import LocalTraining
from model.errors import RoundError
from simulation.coded import Codes

Ints = NDArray[np.int64]
Places = NDArray[np.int32]
Floats = NDArray[np.float32]
MAX_ROWS_A_PHONE = 1 << 20


@dataclass(frozen=True)
class Dense:
    """An MLP's inputs as they are, x (R, width) float32."""

    x: Floats

    @property
    def width(self) -> int:
        """Inputs a row."""
        return int(self.x.shape[1])


@dataclass(frozen=True)
class Columns:
    """An MLP's inputs by look-up: column c of row r is values[table[c] + codes[r, feature[c]]].

    codes (R, F); feature (width,) int32; table (width,) int64; values (V,) float32.
    """

    codes: Codes
    feature: Places
    table: Ints
    values: Floats

    @property
    def width(self) -> int:
        """Inputs a row."""
        return len(self.feature)


@dataclass(frozen=True)
class Hats:
    """The additive model by its two active hats a feature, in training coordinates.

    Level start[j] + codes[r, j] has hats hat (weight low) and hat + 1 (weight high, 0 where there is none) of feature
    j and its missing flag; sizes[j] = K_j hats. With phi_r = per feature [hats | flag], row r's input is
    z_r = [bias | (phi_r - centre) · blocks], blocks[j] (K_j+1, K_j+1), and its logit z_r · v.
    codes (R, F); start (F,) int64; hat (L,) int32; low, high, flag (L,) float32; sizes (F,) int32; centre (D,).
    """

    codes: Codes
    start: Ints
    hat: Places
    low: Floats
    high: Floats
    flag: Floats
    sizes: Places
    blocks: tuple[NDArray[np.float64], ...]
    centre: NDArray[np.float64]
    bias: float

    @property
    def width(self) -> int:
        """D, weights besides the bias."""
        return len(self.centre)

    @cached_property
    def inputs(self) -> Floats:
        """Each level's own part of z, (L, most K_j + 1), zero beyond its feature's; 4 (K_j + 1) bytes a level."""
        return self.inputs_of(np.arange(len(self.hat)))

    def inputs_of(self, levels: Ints) -> Floats:
        """The same for some ascending level numbers, (len(levels), most K_j + 1)."""
        found = np.zeros((len(levels), int(self.sizes.max()) + 1), dtype=np.float32)
        bounds = np.searchsorted(levels, [*self.start.tolist(), len(self.hat)])
        at = 0
        for j, (size, block) in enumerate(zip(self.sizes.tolist(), self.blocks, strict=True)):
            own = levels[bounds[j] : bounds[j + 1]]
            phi, place = np.zeros((len(own), size + 1)), np.arange(len(own))
            phi[place, np.minimum(self.hat[own] + 1, size - 1)] = self.high[own]
            phi[place, self.hat[own]] += self.low[own]
            phi[:, size] = self.flag[own]
            found[bounds[j] : bounds[j + 1], : size + 1] = (phi - self.centre[at : at + size + 1]) @ block
            at += size + 1
        return found


Rows = Dense | Columns | Hats


@dataclass(frozen=True)
class Problem:
    """One round. ids, first, counts (P,) as in `Crowd`; y (R,); flat (d,) float32, the model sent.

    `hidden` () is the additive model over `Hats`. RoundError where the parts do not fit one another: no engine may
    read beyond an array, whatever it is given.
    """

    ids: NDArray[np.uint64]
    first: Ints
    counts: Ints
    y: Floats
    rows: Rows
    flat: Floats
    hidden: tuple[int, ...]
    local: LocalTraining
    seed: int
    round: int
    scale: int

    def __post_init__(self) -> None:
        if self.flat.shape != (self.dimension,) or not np.isfinite(self.flat).all():
            raise RoundError(f"a model of {self.flat.shape} is not {self.dimension} finite numbers; start from another")
        if not len(self.ids) == len(self.first) == len(self.counts):
            raise RoundError("phones' ids, first rows and counts differ in number; make the crowd again")
        if len(self.counts) and (
            self.counts.min() < 0 or self.first.min() < 0 or int((self.first + self.counts).max()) > len(self.y)
        ):
            raise RoundError(f"a phone owns rows outside the {len(self.y)} there are; make the crowd again")
        if len(self.counts) and int(self.counts.max()) > MAX_ROWS_A_PHONE:
            raise RoundError(f"a phone has more than {MAX_ROWS_A_PHONE} rows; cap the rows a phone trains on")
        if isinstance(self.rows, Hats) == bool(self.hidden) or len(self.y) != _rows(self.rows):
            raise RoundError("rows and labels differ in number, or the rows are not this model's; prepare them again")

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of an MLP's layers."""
        sizes = (self.rows.width, *self.hidden, 1)
        return tuple(pairwise(sizes))

    @property
    def dimension(self) -> int:
        """d, length of the model."""
        if not self.hidden:
            return self.rows.width + 1
        return sum(inside * outside + outside for inside, outside in self.shapes)


def _rows(rows: Rows) -> int:
    return len(rows.x) if isinstance(rows, Dense) else len(rows.codes)


def active_hats(phi: Floats) -> tuple[Places, Floats, Floats]:
    """From hats phi (L, K) with at most two neighbours above 0: (first active hat, its weight, the next one's)."""
    hat = np.argmax(phi > 0, axis=1).astype(np.int32)
    low = np.take_along_axis(phi, hat[:, None], axis=1)[:, 0]
    after = np.minimum(hat + 1, phi.shape[1] - 1)
    high = np.where(after > hat, np.take_along_axis(phi, after[:, None], axis=1)[:, 0], 0)
    return hat, low.astype(np.float32), high.astype(np.float32)
