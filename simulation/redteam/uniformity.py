"""Whether masked vectors look like chance: bytes, words, and what they share with the raw ones (spec 13.12).

Under a correct mask every residue is uniform and independent of everything else. Bytes (256 values) and the upper 12
bits of words (4,096 values) are counted, Pearson's chi-square must not exceed its quantile at 1 - ALPHA, and no
correlation may reach 4/√d. It is a test of the plumbing (a mask forgotten, repeated, or too short), not of AES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from model.errors import InputError

Ring = NDArray[np.uint32]
ALPHA = 1e-6  # of one chi-square, so a correct mask fails one of the two tests once in 500,000 times
SPREAD = 4.0  # standard deviations of a correlation: once in 16,000 times
BYTES, WORD_BITS = 256, 12
EXPECTED = 5  # chi-square's usual least count a cell
LEAST = EXPECTED << WORD_BITS


@dataclass(frozen=True)
class Uniformity:
    """Chi-square of bytes and words beside the largest values allowed, and the correlations beside theirs."""

    numbers: int
    bytes_: float
    most_bytes: float
    words: float
    most_words: float
    correlations: Mapping[str, float]
    most_correlation: float

    @property
    def uniform(self) -> bool:
        """Whether both counts are those of uniform values."""
        return self.bytes_ <= self.most_bytes and self.words <= self.most_words

    @property
    def unrelated(self) -> bool:
        """Whether no pair of vectors is correlated."""
        return all(abs(value) < self.most_correlation for value in self.correlations.values())

    @property
    def passed(self) -> bool:
        """Both."""
        return self.uniform and self.unrelated


def look(raw: Sequence[NDArray[np.int64]], masked: Sequence[Ring]) -> Uniformity:
    """Judge masked vectors (d,) and the raw ones (d,) they hide, phone by phone and round by round.

    Correlations: each raw vector with its masked one, and every two masked ones. InputError for fewer than LEAST
    numbers in all, or vectors that do not pair.
    """
    words = np.concatenate(masked) if masked else np.zeros(0, np.uint32)
    if words.size < LEAST or [len(r) for r in raw] != [len(m) for m in masked] or len(set(map(len, raw))) != 1:
        raise InputError(f"uniformity needs pairs of vectors of one length and {LEAST} numbers; give more of them")
    return Uniformity(
        words.size,
        chi_square(words.astype("<u4").view(np.uint8), BYTES),
        most(BYTES),
        chi_square(words >> np.uint32(32 - WORD_BITS), 1 << WORD_BITS),
        most(1 << WORD_BITS),
        _correlations(raw, masked),
        SPREAD / float(np.sqrt(len(raw[0]))),
    )


def chi_square(values: NDArray[np.uint8] | Ring, kinds: int) -> float:
    """Pearson's statistic of `values` in 0 … kinds - 1 against equal shares."""
    counts = np.bincount(values, minlength=kinds)
    expected = values.size / kinds
    return float(((counts - expected) ** 2).sum() / expected)


def most(kinds: int) -> float:
    """The quantile of chi-square at 1 - ALPHA."""
    return float(stats.chi2.isf(ALPHA, kinds - 1))


def _correlations(raw: Sequence[NDArray[np.int64]], masked: Sequence[Ring]) -> dict[str, float]:
    own = {f"raw {i} and masked {i}": _correlation(r, m) for i, (r, m) in enumerate(zip(raw, masked, strict=True))}
    pairs = combinations(enumerate(masked), 2)
    return own | {f"masked {i} and masked {j}": _correlation(a, b) for (i, a), (j, b) in pairs}


def _correlation(a: NDArray[np.int64] | Ring, b: Ring) -> float:
    """Pearson's r of residues as signed numbers, where masking is addition; 0 where one of them is constant."""
    left, right = (v.astype(np.uint32).view(np.int32).astype(np.float64) for v in (a, b))
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / scale if scale else 0.0
