"""Loans and repayment: start days, 30+ days past due or not, and when the lender's receipt arrives (spec 4.8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.population.hash import Floats, Ints, counted, draws, field, keys, logistic, poisson, uniform
from simulation.population.latents import OBSERVATION_END, Person, Stream
from simulation.population.world import World

MAX_LOANS = 24
TENOR_DAYS = 14
SHOCK = 1.6
RECEIPT_AFTER, RECEIPT_SPREAD = TENOR_DAYS + 30, 60
_UNLABELLED, _SINGLE, _MORE = 0.12, 0.76, 0.78
REGIMES: dict[str, tuple[float, float]] = {"default": (-2.65, 0.97), "weak": (-2.42, 0.52)}
"""Regime → the log-odds at the average person, and the factor on every trait's effect."""


@dataclass(frozen=True)
class Risk:
    """Per phone (K,): log-odds without the shock, probability of the shock, and of 30+ days past due."""

    logit: Floats
    shock: Floats
    pd: Floats


@dataclass(frozen=True)
class Loans:
    """N loans, phone after phone: `owner` (N,) index of the phone, start day, day the receipt arrives, late or not."""

    owner: Ints
    start: Ints
    receipt: Ints
    late: Ints


def risk(person: Person, world: World, regime: str) -> Risk:
    """DOMAIN: inc, disc, stab protect; vol and debt harm, together more than apart; an unseen later shock adds 1.6."""
    base, strength = REGIMES[regime]
    effect = (
        -0.38 * person.income - 0.45 * person.discipline + 0.42 * person.volatility + 0.45 * person.debt
        - 0.22 * person.stability + world.risk[person.region]
        + 0.30 * np.maximum(person.debt, 0) * np.maximum(person.volatility, 0)
    )  # fmt: skip
    logit = base + strength * effect
    shock = logistic(-2.6 + 0.35 * person.volatility - 0.2 * person.stability)
    return Risk(logit, shock, (1 - shock) * logistic(logit) + shock * logistic(logit + SHOCK))


def loan_counts(word: Floats) -> Ints:
    """(K,) labelled loans: none for 12 %, one for 64 %, else 2 to 24, each further one with probability .78."""
    rest = np.clip((word - _SINGLE) / (1 - _SINGLE), 1e-12, 1.0)
    many = 2 + np.floor(np.log(rest) / np.log(_MORE))
    return np.where(word < _UNLABELLED, 0, np.where(word < _SINGLE, 1, np.minimum(many, MAX_LOANS))).astype(np.int64)


def labelled(seed: int, person: Person, odds: Risk) -> Loans:
    """Loans that begin under observation: one a phone in the last 30 days, several spread over the last 60."""
    key = keys(seed, person.number, Stream.LOAN)
    count = loan_counts(uniform(draws(key, 1)[0]))
    word = counted(key + np.uint64(1), count)
    owner = np.repeat(np.arange(len(count)), count)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    floor = np.where(count == 1, 60, 30)
    earliest = np.maximum(person.enrol + 1, floor)[owner]
    place = (index + field(word, 0, 12) / 4096.0) / count[owner]
    start = earliest + np.floor(place * (OBSERVATION_END + 1 - earliest)).astype(np.int64)
    receipt = start + RECEIPT_AFTER + field(word, 12, 6).astype(np.int64) % RECEIPT_SPREAD
    return Loans(owner, start, receipt, _late(word, odds, owner))


def earlier(seed: int, person: Person, odds: Risk) -> Loans:
    """Loans that began before observation and whose receipts arrive during it."""
    key = keys(seed, person.number, Stream.PRIOR)
    mean = 1.3 * np.exp(0.25 * person.debt) * person.span / OBSERVATION_END
    count = np.minimum(poisson(draws(key, 1)[0], mean), MAX_LOANS)
    word = counted(key + np.uint64(1), count)
    owner = np.repeat(np.arange(len(count)), count)
    receipt = person.enrol[owner] + ((field(word, 0, 12).astype(np.int64) * person.span[owner]) >> 12)
    start = receipt - RECEIPT_AFTER - field(word, 12, 6).astype(np.int64) % RECEIPT_SPREAD
    return Loans(owner, np.minimum(start, person.enrol[owner]), receipt, _late(word, odds, owner))


def _late(word: np.ndarray, odds: Risk, owner: Ints) -> Ints:
    """(N,) 1 where the loan falls 30+ days past due: its own shock, then its own coin."""
    shocked = field(word, 18, 20) / 2.0**20 < odds.shock[owner]
    return (field(word, 38, 26) / 2.0**26 < logistic(odds.logit[owner] + SHOCK * shocked)).astype(np.int64)
