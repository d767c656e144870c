"""When a phone can answer: while it charges on Wi-Fi, at hours of its own, on a virtual clock (spec 7.13).

Everything follows from counter hashes of (phone, seed, day or round), by tables and plain arithmetic, so a phone alone
gets the same bits as in a crowd. The constants are assumptions about people, not measurements of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fl_client.phones import mix
from simulation.dataset import Dataset
from simulation.population.hash import NORMAL_BITS, field, quantiles, uniform
from simulation.population.latents import HANDSETS

KINDS = ("always", "diurnal")
DAY, OPENS = 24.0, 20.0  # hours; a round opens in the evening, since phones charge at night
WEEKEND_LATER = 1.0
HANDSET = "handset"
# By handset, low to top: owners with Wi-Fi where they charge, days with a charge, hours on the charger, minutes a
# task takes.
WIFI = np.array([0.45, 0.65, 0.80, 0.90])
CHARGES = np.array([0.82, 0.86, 0.90, 0.93])
SESSION = np.array([2.0, 3.0, 5.0, 6.5])
WORK = np.array([12.0, 6.0, 3.0, 2.0]) / 60
SHARE = np.array([0.30, 0.35, 0.23, 0.12])  # of handsets, where nobody says which a phone is
AT_HOME, ELSEWHERE = 0.95, 0.08  # a charge on Wi-Fi, for those with and without Wi-Fi of their own
_TIER, _HABIT, _DAY, _ROUND = 0x71E, 0x4AB, 0xDA7, 0x20D
_BIT = 64 - NORMAL_BITS

Floats = NDArray[np.float64]
Ids = NDArray[np.uint64]


@dataclass(frozen=True)
class Arrivals:
    """Per phone (P,), in hours after the round opened: when it begins (inf: not by the deadline), and when its answer
    would arrive (inf: never, or only after a charge that begins past the deadline)."""

    start: Floats
    answer: Floats


def opening(round_: int, deadline: float) -> float:
    """The virtual hour at which a round opens: the evening of the first day after the one before has closed."""
    return OPENS + DAY * math.ceil(deadline / DAY) * round_


def tiers_of(data: Dataset) -> NDArray[np.int8]:
    """(P,) handset of each phone, 0 = low: the dataset's own audit column, else drawn by hash at public shares."""
    column = data.protected.get(HANDSET)
    named = np.unique(column) if column is not None else np.zeros(0)
    if column is None or not set(named.tolist()) <= set(HANDSETS):
        return drawn_tiers(np.asarray(data.ids))
    code = np.array([HANDSETS.index(str(name)) for name in named], dtype=np.int8)
    return code[np.searchsorted(named, column)]


def drawn_tiers(ids: Ids) -> NDArray[np.int8]:
    """(P,) a handset for each id, by hash."""
    return np.searchsorted(np.cumsum(SHARE)[:-1], uniform(mix(ids, _TIER))).astype(np.int8)


def arrivals(
    kind: str, ids: Ids, tiers: NDArray[np.int8], seed: int, round_: int, deadline: float, slowness: Floats
) -> Arrivals:
    """Who could answer round `round_` and when. `slowness` (P,) multiplies the time a task takes."""
    work = WORK[tiers] * slowness * _spread(mix(ids, seed, _ROUND, round_), 0.4)
    if kind == "always":
        return Arrivals(np.zeros(len(ids)), work)
    opens = opening(round_, deadline)
    habit = _Habits.of(ids, tiers, seed)
    start, answer = np.full(len(ids), np.inf), np.full(len(ids), np.inf)
    for day in range(int(opens // DAY) - 1, int((opens + deadline) // DAY) + 1):
        begin, end = habit.charge(ids, tiers, seed, day)
        at = np.maximum(begin - opens, 0.0)
        reached = (end - opens > at) & (at <= deadline)
        start = np.where(reached, np.minimum(start, at), start)
        done = at + work
        answer = np.where(reached & (done <= end - opens), np.minimum(answer, done), answer)
    return Arrivals(start, answer)


@dataclass(frozen=True)
class _Habits:
    """What a person keeps: usual hour and spread of the charge, hours on the charger, and Wi-Fi where it happens."""

    hour: Floats
    spread: Floats
    session: Floats
    wifi: NDArray[np.bool_]

    @classmethod
    def of(cls, ids: Ids, tiers: NDArray[np.int8], seed: int) -> _Habits:
        word, other = mix(ids, seed, _HABIT), mix(ids, seed, _HABIT, 1)
        return cls(
            hour=np.mod(22.0 + 2.0 * _normal(word, 0), DAY),
            spread=1.5 * _spread(word, 0.3, NORMAL_BITS),
            session=SESSION[tiers] * _spread(word, 0.3, 2 * NORMAL_BITS),
            wifi=uniform(other) < WIFI[tiers],
        )

    def charge(self, ids: Ids, tiers: NDArray[np.int8], seed: int, day: int) -> tuple[Floats, Floats]:
        """(begin, end) in virtual hours of the day's charge on Wi-Fi; nothing that day: (inf, −inf)."""
        word = mix(ids, seed, _DAY, day % (1 << 32))
        begin = DAY * day + self.hour + self.spread * _normal(word, 0) + (WEEKEND_LATER if day % 7 >= 5 else 0.0)
        end = begin + self.session * _spread(word, 0.4, NORMAL_BITS)
        on = _fraction(word, 0) < CHARGES[tiers] * np.where(self.wifi, AT_HOME, ELSEWHERE)
        return np.where(on, begin, np.inf), np.where(on, end, -np.inf)


def _normal(word: Ids, skip: int) -> Floats:
    """Standard normals from 14 bits after the highest `skip`."""
    return quantiles(NORMAL_BITS).take(field(word, _BIT - skip, NORMAL_BITS).astype(np.int64))


def _spread(word: Ids, sd: float, skip: int = 0) -> Floats:
    """Log-normal factors of median 1, by table: a vector's exp may differ in the last bit from a number's."""
    return _factors(sd).take(field(word, _BIT - skip, NORMAL_BITS).astype(np.int64))


@cache
def _factors(sd: float) -> Floats:
    return np.exp(sd * quantiles(NORMAL_BITS))


def _fraction(word: Ids, low: int) -> Floats:
    """Uniform on [0, 1) from 22 bits at `low`."""
    return field(word, low, 22).astype(np.float64) * 2.0**-22
