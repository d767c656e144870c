"""From traits to habits: each person's own rates, shares, sizes and times, some that no trait explains (spec 4.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.population.hash import Floats, Ints, draws, keys, logistic, normal
from simulation.population.latents import Person, Stream
from simulation.population.words import code, width

_EFFECTS = 40


@dataclass(frozen=True)
class Habits:
    """Per phone (K,) unless said otherwise. `*_code` and `*_width` are on the amount-code scale of `words`."""

    app_mix: Floats  # (10, K) weights
    night: Floats
    session_code: Ints
    session_width: Ints
    salaried: Floats
    income_code: Ints
    pay_width: Ints
    credit_code: Ints
    emi_code: Ints
    upi_mix: Floats  # (4, K) weights: p2p out, p2p in, merchant, recharge
    upi_code: Ints
    upi_fail: Floats
    shops: Ints
    friends: Ints
    subscriptions: Ints
    keeps_subscription: Floats
    bill_delay: Floats
    topup_code: Ints
    topup_width: Ints
    charge_level: Floats
    charge_hour: Floats
    charge_spread: Floats
    home: Floats
    effects: Floats  # (40, K) standard normals, for the handset and the form


def habits(seed: int, p: Person) -> Habits:
    """The habits of the people `p`."""
    z = normal(draws(keys(seed, p.number, Stream.HABITS), _EFFECTS))
    inc, disc, vol, debt = p.income, p.discipline, p.volatility, p.debt
    salary = 26_000 * np.exp(0.50 * inc + 0.20 * z[0])
    fixed = np.full(len(inc), 1.0)
    return Habits(
        app_mix=_app_mix(p, z),
        night=logistic(-1.6 - 0.55 * disc - 0.30 * p.stability + 0.30 * z[1]),
        session_code=code(110 * np.exp(0.1 * p.digital + 0.25 * z[2])),
        session_width=width(np.exp(-0.10 + 0.14 * vol + 0.10 * z[3])),
        salaried=logistic(0.8 + 0.9 * p.stability - 0.4 * vol + 0.8 * z[4]),
        income_code=code(salary),
        pay_width=width(0.10 * np.exp(0.60 * vol + 0.30 * z[5])),
        credit_code=code(2_500 * np.exp(0.40 * inc + 0.50 * z[6])),
        emi_code=code(np.maximum(0.08 * salary * np.exp(0.30 * debt + 0.30 * z[7]), 50)),
        upi_mix=np.stack([0.30 * np.exp(0.3 * z[8]), 0.14 * fixed, 0.48 * np.exp(0.2 * p.digital), 0.08 * fixed]),
        upi_code=code(230 * np.exp(0.45 * inc + 0.45 * z[9])),
        upi_fail=logistic(-3.0 + 0.50 * vol - 0.25 * inc + 0.35 * z[10]),
        shops=np.clip(np.round(14 * np.exp(-0.35 * p.stability + 0.45 * z[11])), 2, 500).astype(np.int64),
        friends=np.clip(np.round(12 * np.exp(0.15 * p.digital + 0.20 * disc + 0.5 * z[12])), 1, 500).astype(np.int64),
        subscriptions=np.clip(np.round(0.9 + 0.7 * p.digital + 0.6 * z[13]), 0, 3).astype(np.int64),
        keeps_subscription=logistic(1.7 + 0.7 * disc - 0.3 * vol + 0.5 * z[14]),
        bill_delay=-2.2 - 2.3 * disc + 1.3 * vol + 1.7 * z[15],
        topup_code=code(220 * np.exp(0.40 * inc + 0.35 * z[16])),
        topup_width=width(0.30 * np.exp(0.45 * vol + 0.30 * z[17])),
        charge_level=34 + 6.0 * disc - 3.0 * vol + 4.5 * z[18],
        charge_hour=np.mod(22.0 + 2.0 * z[19], 24.0),
        charge_spread=3.0 * np.exp(0.20 * vol - 0.22 * p.stability + 0.20 * z[20]),
        home=logistic(1.2 + 0.8 * p.stability + 0.6 * z[21]),
        effects=z,
    )


def _app_mix(p: Person, z: Floats) -> Floats:
    """(10, K) weights of the app categories, in the order of the vocabulary."""
    return np.stack([
        0.28 * np.exp(-0.15 * p.man + 0.35 * z[22]),
        0.20 * np.exp(-0.10 * p.age + 0.35 * z[23]),
        0.10 * np.exp(0.32 * p.man - 0.25 * p.age + 0.50 * z[24]),
        0.08 * np.exp(-0.32 * p.man + 0.10 * p.income + 0.45 * z[25]),
        0.06 * np.exp(0.30 * p.income + 0.25 * p.discipline + 0.35 * z[26]),
        0.08 * np.exp(0.35 * p.discipline + 0.10 * p.age + 0.35 * z[27]),
        0.022 * np.exp(0.70 * p.debt - 0.15 * p.income + 0.30 * z[28]),
        0.012 * np.exp(0.40 * p.debt + 0.40 * p.volatility + 0.15 * p.man + 0.45 * z[29]),
        0.06 * np.exp(0.15 * p.age + 0.40 * z[30]),
        np.full(len(p.age), 0.10),
    ])  # fmt: skip
