"""The regions of a population: what makes its phones differ by where they are (spec 4.6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

REGIONS = 12
TIERS = 4
LANGUAGES = 8
_TIER_BASE = np.array([0.30, 0.35, 0.23, 0.12])
_STREAM = 0x77_6F_72_6C_64


@dataclass(frozen=True)
class World:
    """Per region (G = 12): cumulative share of phones (G,), cumulative device-tier mix (G, 4) and language mix (G, 8),
    risk effect on the log-odds (G,), income shift (G,), activity factor (G,); over all phones these three cancel."""

    share: npt.NDArray[np.float64]
    tiers: npt.NDArray[np.float64]
    languages: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]
    income: npt.NDArray[np.float64]
    activity: npt.NDArray[np.float64]


@lru_cache(maxsize=8)
def world(seed: int, alpha: float) -> World:
    """The world of a seed. `alpha` is the Dirichlet concentration of region × tier × language: .3 is strongly
    non-IID, 1 the default, infinity the same mix everywhere."""
    rng = np.random.Generator(np.random.Philox(key=[seed % (1 << 64), _STREAM]))
    share = rng.dirichlet(np.full(REGIONS, 3.0))
    tiers, languages = _mixes(rng, _TIER_BASE, alpha), _mixes(rng, np.full(LANGUAGES, 1 / LANGUAGES), alpha)
    risk, income = 0.25 * rng.standard_normal(REGIONS), 0.15 * rng.standard_normal(REGIONS)
    activity = np.exp(0.3 * rng.standard_normal(REGIONS))
    return World(
        share=np.cumsum(share),
        tiers=np.cumsum(tiers, axis=1),
        languages=np.cumsum(languages, axis=1),
        risk=risk - share @ risk,
        income=income - share @ income,
        activity=activity / (share @ activity),
    )


def _mixes(rng: np.random.Generator, base: npt.NDArray[np.float64], alpha: float) -> npt.NDArray[np.float64]:
    if np.isinf(alpha):
        return np.tile(base, (REGIONS, 1))
    return 0.5 * base + 0.5 * rng.dirichlet(alpha * len(base) * base, size=REGIONS)


def pick(cumulative: npt.NDArray[np.float64], u: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(K,) category of each u in (0, 1) by its own row of `cumulative` (K, C), or by the one row (C,)."""
    found: npt.NDArray[np.int64] = (u[:, None] > np.atleast_2d(cumulative)).sum(axis=1)
    last: int = cumulative.shape[-1] - 1
    return np.minimum(found, last)
