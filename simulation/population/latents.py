"""Who the people are: protected attributes, and six latent traits with those as parents (spec 4.6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from simulation.population.hash import Floats, Ints, draws, keys, normal, uniform
from simulation.population.world import World, pick

GENDERS = ("woman", "man", "other")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
HANDSETS = ("low", "mid", "high", "top")
_GENDER_CUM = np.array([0.44, 0.99, 1.0])
_AGE_CUM = np.array([0.26, 0.62, 0.84, 0.95, 1.0])
_AGE_Z = np.array([-1.1, -0.2, 0.7, 1.3, 1.9])
_TIER_Z = np.array([-1.1, -0.1, 0.9, 1.7])
OBSERVATION_END = 90


class Stream(IntEnum):
    """Independent random streams of a phone; a new use takes a new number."""

    PERSON = 1
    HABITS = 2
    COUNTS = 3
    APP_SESSION = 10
    BROWSE = 11
    SMS = 12
    UPI = 13
    BILL = 14
    TOPUP = 15
    CHARGE = 16
    MOBILITY = 17
    DEVICE = 18
    SALARY = 19
    EMI = 20
    SUBSCRIPTION = 21
    CONTACT = 22
    CALL = 23
    GIG = 24
    BOUNCE = 25
    LOAN = 30
    PRIOR = 31


@dataclass(frozen=True)
class Person:
    """K people; every field is (K,). Traits have mean near 0 and variance near 1; `enrol` is the first observed day."""

    number: Ints
    gender: Ints
    age_band: Ints
    region: Ints
    language: Ints
    tier: Ints
    income: Floats
    discipline: Floats
    volatility: Floats
    debt: Floats
    digital: Floats
    stability: Floats
    age: Floats
    man: Floats
    activity: Floats
    enrol: Ints

    @property
    def handset(self) -> Ints:
        """(K,) `tier` under the name it is audited by."""
        return self.tier

    @property
    def span(self) -> Ints:
        """(K,) observed days: from `enrol` to day 90."""
        return OBSERVATION_END - self.enrol


def people(seed: int, world: World, phones: Ints) -> Person:
    """The people with the given phone numbers (K,)."""
    word = draws(keys(seed, phones, Stream.PERSON), 14)
    u = uniform(word)
    gender, age_band, region = pick(_GENDER_CUM, u[0]), pick(_AGE_CUM, u[1]), pick(world.share, u[2])
    tier, language = pick(world.tiers[region], u[3]), pick(world.languages[region], u[4])
    age, man, rich = _AGE_Z[age_band], (gender == 1) - 0.55, _TIER_Z[tier]
    z = normal(word[5:11])
    income = 0.40 * rich + 0.20 * age + 0.15 * man + world.income[region] + 0.86 * z[0]
    return Person(
        number=phones, gender=gender, age_band=age_band, region=region, language=language, tier=tier,
        income=income,
        discipline=0.15 * age + 0.97 * z[1],
        volatility=-0.15 * income + 0.97 * z[2],
        debt=-0.10 * income + 0.05 * man + 0.98 * z[3],
        digital=-0.30 * age + 0.25 * rich + 0.90 * z[4],
        stability=0.25 * age + 0.10 * income + 0.95 * z[5],
        age=age, man=man, activity=world.activity[region], enrol=_enrol(u[11], u[12]),
    )  # fmt: skip


def _enrol(which: Floats, when: Floats) -> Ints:
    """70 % are observed from day 0; 15 % join later; 15 % are thin files of at most 29 days."""
    later = 1 + np.floor(when * 58)
    thin = 61 + np.floor(when * 28)
    return np.where(which < 0.70, 0, np.where(which < 0.85, later, thin)).astype(np.int64)
