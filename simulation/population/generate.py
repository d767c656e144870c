"""A synthetic population: from a phone's number to its raw events, features, labels and truth (spec 4.6-4.9).

Every phone is the same, bit for bit, alone or in any chunk, by one process or several. Nothing here imports torch.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fl_client.events import EventBatch
from fl_client.features import extract, labelled_rows
from model.errors import InputError
from model.risk.registry import R_DEFAULT, default_schema
from model.risk.schema import Schema
from simulation.population.compose import compose
from simulation.population.latents import AGE_BANDS, GENDERS, HANDSETS, OBSERVATION_END
from simulation.population.outcomes import REGIMES
from simulation.population.world import REGIONS

CHUNK = 1024
BLOCK = 2 * CHUNK
"""Phones a process makes at a time (`rest`)."""
TODAY = OBSERVATION_END
"""The start day of a score asked for now: every observed event of a phone lies before it."""
PROTECTED_VALUES: dict[str, tuple[str, ...]] = {
    "gender": GENDERS, "age_band": AGE_BANDS, "region": tuple(f"region-{i + 1:02d}" for i in range(REGIONS)),
    "handset": HANDSETS,
}  # fmt: skip
"""Protected attribute → the names of its codes. An audit-only store: no feature, no client, sees them."""


@dataclass(frozen=True)
class Population:
    """What a population is made from. `regime` is "default" (oracle AUC about .75) or "weak" (about .65); `alpha` the
    Dirichlet concentration of region × tier × language (.3 strongly non-IID, inf the same everywhere)."""

    seed: int
    phones: int
    regime: str = "default"
    review: tuple[str, ...] = R_DEFAULT
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.phones < 1:
            raise InputError(f"a population needs at least one phone, not {self.phones}; give a larger number")
        if self.regime not in REGIMES:
            raise InputError(f"there is no population regime {self.regime!r}; use one of {', '.join(REGIMES)}")
        if not self.alpha > 0 or math.isnan(self.alpha):
            raise InputError(f"the Dirichlet concentration is {self.alpha}; give a number above 0")

    @cached_property
    def schema(self) -> Schema:
        """The O features, and the R features named for review."""
        return default_schema(self.review)


@dataclass(frozen=True)
class Rows:
    """P phones with R labelled rows, phone p owning rows `offsets[p]` to `offsets[p+1]`.

    Shapes: ids (P,) int64; offsets (P+1,) int64; x (R, F) float32 with NaN; y (R,) float32, 1 = 30+ days past due;
    start_days (R,) int64; protected: name → (P,) uint8 codes; oracle_pd (R,) float64, the true probability. The last
    two are simulation-only.
    """

    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    start_days: npt.NDArray[np.int64]
    protected: dict[str, npt.NDArray[np.uint8]]
    oracle_pd: npt.NDArray[np.float64]


def rows(pop: Population, first: int, last: int) -> Rows:
    """Labelled rows of phones `first` … `last`-1; InputError outside the population."""
    if not 0 <= first < last <= pop.phones:
        raise InputError(f"phones {first} to {last} are not within the population's {pop.phones}; choose others")
    return join([_rows(pop, start, min(start + CHUNK, last)) for start in range(first, last, CHUNK)])


def events_range(pop: Population, first: int, last: int) -> EventBatch:
    """The raw events of phones `first` … `last`-1 (at most 4,096 of them) as one batch of K phones."""
    if not 0 <= first < last <= pop.phones:
        raise InputError(f"phones {first} to {last} are not within the population's {pop.phones}; choose others")
    return compose(pop.seed, pop.alpha, pop.regime, np.arange(first, last)).batch


def events(pop: Population, phone: int) -> EventBatch:
    """The raw events of one phone, receipts that arrive after its observation included."""
    return events_range(pop, phone, phone + 1)


def join(parts: list[Rows]) -> Rows:
    """The phones of all parts, in order."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return Rows(
        ids=np.concatenate([part.ids for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        start_days=np.concatenate([part.start_days for part in parts]),
        protected={name: np.concatenate([part.protected[name] for part in parts]) for name in PROTECTED_VALUES},
        oracle_pd=np.concatenate([part.oracle_pd for part in parts]),
    )


def _rows(pop: Population, first: int, last: int) -> Rows:
    made = compose(pop.seed, pop.alpha, pop.regime, np.arange(first, last))
    labelled = labelled_rows(made.batch)
    sizes = np.bincount(labelled.phone, minlength=made.batch.phones)
    return Rows(
        ids=made.person.number,
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        x=extract(made.batch, pop.schema, labelled.start_days, labelled.phone),
        y=labelled.y,
        start_days=labelled.start_days,
        protected={name: getattr(made.person, name).astype(np.uint8) for name in PROTECTED_VALUES},
        oracle_pd=made.risk.pd[labelled.phone],
    )


def context() -> multiprocessing.context.BaseContext:
    """Fork is cheapest, but unsafe once torch has started its threads: then fresh processes."""
    forked = "torch" not in sys.modules and "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if forked else "spawn")
