"""The only road of an update: Delta → Clipped → Encoded → Sealed. An illegal order cannot be written (spec 7.5, 13.4).

Each stage is made by the one before it alone; only `Encoded` may enter a sum, and it cannot be longer than the
clip norm, because rounding is toward zero: no coordinate grows, so no norm does. Where sums are masked only `Sealed`
has bytes to leave with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import UpdateError
from model.privacy.clipping import clip, clip_rows
from model.privacy.noise import ByteSource
from model.secagg.context import Context
from model.secagg.two_server import shield_sum

Matrix = NDArray[np.float64]
_STAGE = object()


@dataclass(frozen=True, slots=True)
class Delta:
    """A phone's raw change of the model, (d,) float64 and finite. UpdateError for NaN, infinity or a wrong shape."""

    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.dtype != np.float64:
            raise UpdateError(f"an update is one float64 vector, not {self.values.dtype} of shape {self.values.shape}")
        if not np.isfinite(self.values).all():
            raise UpdateError("an update holds NaN or infinity; drop it and train again from the sent model")

    @classmethod
    def zero(cls, dimension: int) -> Delta:
        """What a phone without labels answers."""
        return cls(np.zeros(dimension))

    def clip(self, norm: float) -> Clipped:
        """Shorten to L2 norm ≤ `norm`; shorter updates and zeros stay as they are."""
        return Clipped(np.asarray(clip(self.values, norm), dtype=np.float64), norm, _STAGE)


@dataclass(frozen=True, slots=True)
class Clipped:
    """A delta of L2 norm ≤ `norm`. Made by `Delta.clip` only."""

    values: NDArray[np.float64]
    norm: float
    stage: object

    def __post_init__(self) -> None:
        _refuse_shortcut(self.stage, "Delta.clip")

    def encode(self, scale: int) -> Encoded:
        """Onto the grid of 1/`scale`, rounding toward zero."""
        return Encoded(to_units(self.values, scale), scale, _STAGE)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Integer grid units, (d,) int64. Made by `Clipped.encode` only; the one form that may be summed."""

    units: NDArray[np.int64]
    scale: int
    stage: object

    def __post_init__(self) -> None:
        _refuse_shortcut(self.stage, "Clipped.encode")

    def seal(self, helper: bytes, context: Context, entropy: ByteSource) -> Sealed:
        """Under a fresh mask, whose seed is sealed to the helper's 32 public bytes."""
        return seal_sum(self.units, 1, helper, context, entropy)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A masked sum of `phones` phones: `vector` is uniform to whoever cannot open the `seeds`, one a phone.

    Made by `Encoded.seal` and `seal_sum` only. The vector is `context.dim` little-endian 32-bit residues.
    """

    phones: int
    vector: bytes
    seeds: bytes
    context: Context
    stage: object

    def __post_init__(self) -> None:
        _refuse_shortcut(self.stage, "seal_sum")


def seal_sum(units: NDArray[np.int64], phones: int, helper: bytes, context: Context, entropy: ByteSource) -> Sealed:
    """What a node sends of the sum (d,) of its phones, each under a mask of its own; UpdateError for another shape."""
    shielded = shield_sum(units, phones, helper, context, entropy)
    return Sealed(phones, shielded.vector.astype("<u4").tobytes(), shielded.seed, context, _STAGE)


def sealed_again(phones: int, vector: bytes, seeds: bytes, context: Context) -> Sealed:
    """An answer that was sealed before, to be sent once more (repeat.py)."""
    return Sealed(phones, vector, seeds, context, _STAGE)


def to_units(values: NDArray[np.float64], scale: int) -> NDArray[np.int64]:
    """Grid units of already clipped values, any shape, rounded toward zero."""
    return np.trunc(values * float(scale)).astype(np.int64)


def encode_rows(
    deltas: NDArray[np.float64], norm: float, scale: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same road for many phones at once: deltas (P, d) → (units (P, d), norms before clipping (P,)).

    `deltas` is overwritten with the units: whole numbers, exact in float64 as long as P · norm · scale < 2^53.
    UpdateError if any value is not finite.
    """
    squares = np.einsum("ij,ij->i", deltas, deltas)
    if not np.isfinite(squares).all():
        # NaN and infinity are refused there, and squares that overflow are scaled first.
        clipped = clip_rows(deltas, norm)
        return np.trunc(clipped * float(scale)), np.linalg.norm(deltas, axis=1)
    norms = np.sqrt(squares)
    # A float64 sum of d squares errs by less than d roundings; so much shorter, no vector ends above the norm.
    bound = norm * (1 - (deltas.shape[1] + 8) * 2.0**-52)
    over = norms > bound
    factor = np.where(over, bound / np.where(over, norms, 1.0), 1.0)
    np.multiply(deltas, (factor * scale)[:, None], out=deltas)
    return np.trunc(deltas, out=deltas), norms


def _refuse_shortcut(stage: object, maker: str) -> None:
    if stage is not _STAGE:
        raise UpdateError(f"only {maker} makes this stage of an update; start from Delta")
