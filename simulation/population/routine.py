"""The rare and monthly events: pay, instalments, bills, recharges, handset, form, receipts (spec 4.7)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fl_client.events import SMS_TEMPLATES, UPI_KINDS, Column, Table
from simulation.population.activity import COUNTERPARTY, KIND, SENDER, SHOP, TEMPLATE, Counts
from simulation.population.habits import Habits
from simulation.population.hash import U64, Ints, draws, field, keys, normal, poisson, uniform
from simulation.population.latents import OBSERVATION_END, Person, Stream
from simulation.population.outcomes import Loans
from simulation.population.words import (
    DAY,
    HIGH_MINUTE,
    MINUTE,
    PHONE,
    Chunk,
    Halves,
    Reader,
    before,
    bits,
    money,
    pack,
    sample,
    table,
)

_SUBSCRIPTION = np.uint64(UPI_KINDS.index("subscription") << KIND | 1 << SHOP)
_MONTHS = 4
_LENDERS = 4
_BILLERS = 4
_CREDIT, _BOUNCE, _EMI = (np.uint64(SMS_TEMPLATES.index(name) << TEMPLATE) for name in ("credit", "bounce", "emi"))
_MORNING = np.uint64(9 * 60) << MINUTE
_MORNING_HIGH = np.uint32(9 * 60) << HIGH_MINUTE


def _monthly(p: Person, first: npt.NDArray[np.int64]) -> Ints:
    """(4, K) days of a monthly event whose day in the first month is `first` (K,)."""
    return first + 30 * np.arange(_MONTHS, dtype=np.int64)[:, None]


def _happening(chunk: Chunk, p: Person, day: Ints, happens: npt.NDArray[np.bool_], payload: U64) -> U64:
    """(m,) words of the events (…, K) that happen while the phone is observed."""
    kept = happens & (day >= p.enrol) & (day < OBSERVATION_END)
    place = np.arange(len(chunk), dtype=np.uint64) << PHONE
    return (place + (np.where(kept, day, 0).astype(np.uint64) << DAY) + _MORNING + payload)[kept]


def _codes(centre: Ints, width: Ints, word: U64) -> U64:
    return np.clip(centre + np.round(width * normal(word)).astype(np.int64), 1, 4095).astype(np.uint64)


def pay_words(chunk: Chunk, p: Person, h: Habits) -> U64:
    """Salary: around the same day each month, missing now and then for those without a steady job."""
    word = draws(keys(chunk.seed, chunk.numbers, Stream.SALARY), 1 + 2 * _MONTHS)
    payday = field(word[0], 0, 16).astype(np.int64) % 30
    day = _monthly(p, payday) + field(word[1 : 1 + _MONTHS], 0, 1).astype(np.int64)
    comes = uniform(word[1 : 1 + _MONTHS]) < h.salaried
    amount = _codes(h.income_code, h.pay_width, word[1 + _MONTHS :])
    return _happening(chunk, p, day, comes, _CREDIT + np.uint64(1 << SENDER) + amount)


def gig_words(chunk: Chunk, h: Habits, n: Counts) -> U64:
    """Other money received, from a handful of senders."""
    s = sample(chunk, Stream.GIG, n.gig)
    low = s.amount(h.credit_code, np.full(len(chunk), 200), 0)
    low += (s.take(12, 3) + np.uint32(2)) << np.uint32(SENDER)
    return pack(s.spread() + _MORNING_HIGH, low + _CREDIT.astype(np.uint32))


def bounce_words(chunk: Chunk, n: Counts) -> U64:
    """Payments bounced for lack of funds."""
    s = sample(chunk, Stream.BOUNCE, n.bounce)
    return pack(s.spread() + _MORNING_HIGH, _BOUNCE.astype(np.uint32) + np.uint32((40 << SENDER) + 1650))


def emi_words(chunk: Chunk, p: Person, h: Habits) -> U64:
    """Instalments: each lender once a month."""
    word = draws(keys(chunk.seed, chunk.numbers, Stream.EMI), 1 + _LENDERS)
    lenders = np.minimum(poisson(word[0], 0.9 * np.exp(0.6 * p.debt)), _LENDERS)
    parts = []
    for lender in range(_LENDERS):
        day = _monthly(p, field(word[1 + lender], 0, 16).astype(np.int64) % 30)
        amount = _codes(h.emi_code, np.full(len(chunk), 100), word[1 + lender])
        payload = _EMI + np.uint64((50 + lender) << SENDER) + amount
        parts.append(_happening(chunk, p, day, np.broadcast_to(lenders > lender, day.shape), payload))
    return np.concatenate(parts)


def subscription_words(chunk: Chunk, p: Person, h: Habits) -> U64:
    """Subscriptions paid through the wallet: each once a month while kept."""
    word = draws(keys(chunk.seed, chunk.numbers, Stream.SUBSCRIPTION), 3 * _MONTHS + 3)
    parts = []
    for index in range(3):
        day = _monthly(p, field(word[3 * _MONTHS + index], 0, 16).astype(np.int64) % 30)
        paid = uniform(word[index * _MONTHS : (index + 1) * _MONTHS]) < h.keeps_subscription
        payload = np.full(
            len(chunk), (3 << KIND) | (1 << SHOP) | ((1000 + index) << COUNTERPARTY) | (1400 + 60 * index), np.uint64
        )
        parts.append(_happening(chunk, p, day, paid & (h.subscriptions > index), payload))
    return np.concatenate(parts)


SMS_COLUMNS: dict[str, Reader] = {"template": bits(TEMPLATE, 3), "sender": bits(SENDER, 16), "amount": money}


def bill(chunk: Chunk, p: Person, h: Habits) -> Table:
    """Bills stand on the day they are paid, early or late."""
    word = draws(keys(chunk.seed, chunk.numbers, Stream.BILL), 1 + _BILLERS * (1 + _MONTHS))
    billers = 2 + (field(word[0], 0, 8) % np.uint64(3)).astype(np.int64)
    parts = []
    for biller in range(_BILLERS):
        first = 1 + biller * (1 + _MONTHS)
        due = _monthly(p, field(word[first], 0, 16).astype(np.int64) % 30)
        delay = np.clip(np.floor(h.bill_delay + 4.0 * normal(word[first + 1 : first + 1 + _MONTHS])), -20, 40)
        amount = _codes(np.full(len(chunk), 1900), np.full(len(chunk), 150), word[first])
        payload = ((delay.astype(np.int64) + 64).astype(np.uint64) << np.uint64(12)) + amount
        day = due + delay.astype(np.int64)
        parts.append(_happening(chunk, p, day, np.broadcast_to(billers > biller, day.shape), payload))

    def due_day(halves: Halves) -> Column:
        return halves.day - bits(12, 8)(halves).view(np.int32) + 64

    return table("bill", parts, len(chunk), {"due": due_day, "paid": lambda halves: halves.day, "amount": money})


def topup(chunk: Chunk, h: Habits, n: Counts) -> Table:
    """Prepaid recharges."""
    s = sample(chunk, Stream.TOPUP, n.topup)
    words = pack(s.spread() + _MORNING_HIGH, s.amount(h.topup_code, h.topup_width, 0))
    return table("topup", [words], len(chunk), {"amount": money})


def device(chunk: Chunk, p: Person, h: Habits) -> Table:
    """A device record when observation begins, and sometimes one more after a system update."""
    z = h.effects
    months = np.clip(np.round(12 * np.exp(-0.25 * p.income - 0.20 * p.discipline + 0.5 * z[31])), 1, 70).astype(
        np.int64
    )
    used = np.clip(np.round(420 * np.exp(0.30 * p.stability + 0.6 * z[32])), 10, 2400).astype(np.int64)
    free = np.clip(np.round(42 + 8 * p.discipline + 5 * p.income + 16 * z[33]), 1, 97).astype(np.uint64)
    word = draws(keys(chunk.seed, chunk.numbers, Stream.DEVICE), 1)[0]
    later = p.enrol + 5 + field(word, 0, 12).astype(np.int64) % 80
    updated = (field(word, 12, 8) < 77) & (later < OBSERVATION_END)
    day = np.stack([p.enrol, later])
    age = np.stack([months, np.maximum(months - 4, 1)]).astype(np.uint64)
    tenure = (used + day - p.enrol).astype(np.uint64)
    payload = (p.tier.astype(np.uint64) << np.uint64(30)) + (free << np.uint64(20)) + (tenure << np.uint64(7)) + age
    words = _happening(chunk, p, day, np.stack([updated | True, updated]), payload)

    def month(halves: Halves) -> Column:
        return halves.day // 30 - bits(0, 7)(halves).view(np.int32)

    columns = {"tier": bits(30, 2), "storage": bits(20, 7), "os_month": month, "since_day": before(7, 13)}
    return table("device", [words], len(chunk), columns)


def form(chunk: Chunk, p: Person, h: Habits, n: Counts) -> Table:
    """The application form, filled in when observation begins."""
    z = h.effects
    education = np.clip(np.round(1.8 + 0.5 * p.income + 0.25 * p.discipline + 0.9 * z[34]), 0, 4).astype(np.uint64)
    payload = (_occupation(p, h) << np.uint64(9)) + (education << np.uint64(6))
    payload += np.minimum(n.typos, 30).astype(np.uint64)
    words = _happening(chunk, p, p.enrol, np.ones(len(chunk), dtype=np.bool_), payload)
    return table("form", [words], len(chunk), {"typos": bits(0, 6), "education": bits(6, 3), "occupation": bits(9, 3)})


def _occupation(p: Person, h: Habits) -> U64:
    """Codes of the registry's OCCUPATIONS."""
    lean = h.effects[35]
    rest = np.where(lean > 0.9, 7, np.where(lean > -0.2, 1, np.where(lean > -1.4, 2, 5)))
    rest = np.where((p.age < -1) & (lean < 0.3), 3, rest)
    rest = np.where((p.age > 1.8) & (lean > 0), 6, rest)
    rest = np.where((p.gender == 0) & (lean < -0.6), 4, rest)
    return np.where(h.salaried > 0.66, 0, rest).astype(np.uint64)


def own_app(chunk: Chunk, p: Person, h: Habits) -> Table:
    """The day observation begins, and the day the app was installed."""
    age = np.clip(np.round(280 * np.exp(0.40 * p.stability + 0.7 * h.effects[36])), 0, 2300).astype(np.uint64)
    words = _happening(chunk, p, p.enrol, np.ones(len(chunk), dtype=np.bool_), age)
    return table("own_app", [words], len(chunk), {"install_day": before(0, 12)})


def outcome(chunk: Chunk, *loans: Loans) -> Table:
    """Repayment receipts, on the day each arrives; those of labelled loans arrive after observation, or late in it."""
    parts = []
    for some in loans:
        ago = (some.receipt - some.start).astype(np.uint64)
        when = (some.owner.astype(np.uint64) << PHONE) + (some.receipt.astype(np.uint64) << DAY) + _MORNING
        parts.append(when + (ago << np.uint64(1)) + some.late.astype(np.uint64))
    return table("outcome", parts, len(chunk), {"start_day": before(1, 12), "late": bits(0, 1)})
