"""The frequent events: sessions, browsing, messages, payments, charging, places, contacts, calls (spec 4.7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fl_client.events import SMS_TEMPLATES, Column, Table
from simulation.population.habits import Habits
from simulation.population.hash import U64, Ints, draws, keys, lognormal, mix, poisson
from simulation.population.latents import OBSERVATION_END, Person, Stream
from simulation.population.words import (
    AMOUNTS,
    HIGH_DAY,
    HIGH_MINUTE,
    HIGH_PHONE,
    U32,
    Chunk,
    Halves,
    Reader,
    Sample,
    bits,
    flag,
    money,
    pack,
    sample,
    slots,
    table,
)

_APP_BITS, _WALLET_BITS = 9, 8
_DAY_MINUTES = 1440
TEMPLATE, SENDER = 29, 12
KIND, STATUS, SHOP, COUNTERPARTY = 29, 28, 27, 12
_EVERYDAY = np.array([SMS_TEMPLATES.index(name) for name in ["debit"] * 7 + ["otp"] * 5 + ["personal"] * 4], np.uint32)
_UPI_LOW = np.array([0, 0, 1 << KIND | 1 << SHOP, 4 << KIND | 1 << SHOP], dtype=np.uint32)
_WHO = np.uint32((1 << SHOP) | (0x3FF << COUNTERPARTY))
_SECOND_DRAW = np.uint64(0xD1342543DE82EF95)
_SECONDS = np.minimum(AMOUNTS, 14_400).astype(np.uint16)
_HOUR_WEIGHTS = (1, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 10, 11, 11, 10, 10, 10, 11, 12, 13, 13, 12, 8, 3)


def _diurnal() -> npt.NDArray[np.uint32]:
    """(4096,) minutes of the day, each hour as often as its weight: a table to draw the time of an event from."""
    edge = np.cumsum([0, *_HOUR_WEIGHTS]) / sum(_HOUR_WEIGHTS)
    place = (np.arange(4096) + 0.5) / 4096
    minutes: U32 = np.floor(np.interp(place, edge, np.arange(25) * 60.0)).astype(np.uint32)
    return minutes << HIGH_MINUTE


def _day_and_night() -> npt.NDArray[np.uint32]:
    """(8192,) 4096 minutes between 5 and 23 h, then 4096 between 23 and 5 h."""
    step = np.arange(4096)
    minutes = np.concatenate([300 + step * 1080 // 4096, (1380 + step * 360 // 4096) % 1440])
    return minutes.astype(np.uint32) << HIGH_MINUTE


_MINUTES, _BY_NIGHT = _diurnal(), _day_and_night()


@dataclass(frozen=True)
class Counts:
    """Events of each frequent type a phone (K,)."""

    app_session: Ints
    browse: Ints
    message: Ints
    gig: Ints
    bounce: Ints
    upi: Ints
    topup: Ints
    charge: Ints
    contact: Ints
    call: Ints
    typos: Ints


def counts(seed: int, p: Person) -> Counts:
    """Poisson counts over each phone's span, with log-normal person effects (sd .8 sessions, .6 wallet)."""
    word = draws(keys(seed, p.number, Stream.COUNTS), 18)
    part = p.span / OBSERVATION_END * p.activity
    use = np.exp(0.2 * p.digital - 0.02)
    fixed = p.span / OBSERVATION_END
    means = np.stack([
        660 * part * use * lognormal(word[11], 0.8),
        130 * part * use * lognormal(word[12], 0.7),
        170 * part * lognormal(word[13], 0.4),
        4.5 * fixed * np.exp(0.4 * p.volatility + 0.3 * (word[13] % np.uint64(3) == 0) - 0.15),
        0.45 * fixed * np.exp(0.6 * p.volatility + 0.45 * p.debt - 0.25 * p.discipline - 0.25 * p.income),
        105 * part * np.exp(0.3 * p.digital + 0.15 * p.income - 0.05) * lognormal(word[14], 0.6),
        6.0 * fixed * np.exp(-0.25 * p.income + 0.40 * p.debt) * lognormal(word[15], 0.35),
        122 * fixed * lognormal(word[16], 0.2),
        8.0 * fixed,
        25 * fixed * lognormal(word[17], 0.6),
        2.2 * np.exp(-0.30 * p.discipline - 0.10 * p.digital),
    ])  # fmt: skip
    found = np.minimum(poisson(word[: len(means)], np.minimum(means, 4000.0)), 4095)
    return Counts(*found)


def _when(s: Sample, low: int) -> U32:
    """(n,) high words at the usual hours, from 12 bits at `low` and the top 16."""
    high = s.spread()
    high += _MINUTES.take(s.take(low, 12).astype(np.intp))
    return high


def app_session(chunk: Chunk, h: Habits, n: Counts) -> Table:
    """App sessions: by night (23 to 5 h) with the person's own probability, category by the person's own mix."""
    s = sample(chunk, Stream.APP_SESSION, n.app_session)
    high = s.spread()
    night = s.below(h.night, 21).astype(np.uint16)
    night <<= np.uint16(12)
    night |= s.take(33, 12)
    high += _BY_NIGHT.take(night.astype(np.intp))
    low = s.choose(slots(h.app_mix, _APP_BITS), _APP_BITS, 12).astype(np.uint32)
    low <<= np.uint32(12)
    low |= s.amount(h.session_code, h.session_width, 0)
    return table("app_session", [pack(high, low)], len(chunk), {"category": bits(12, 4), "duration_s": _seconds})


def _seconds(halves: Halves) -> Column:
    return _SECONDS.take((halves.low & np.uint32(4095)).astype(np.intp))


def browse(chunk: Chunk, n: Counts) -> Table:
    """Page visits by category; no feature reads them."""
    s = sample(chunk, Stream.BROWSE, n.browse)
    kind = s.take(0, 12) % np.uint16(10) + (s.take(12, 5) << np.uint16(4))
    return table("browse", [pack(_when(s, 36), kind)], len(chunk), {"category": bits(0, 4), "visits": bits(4, 5)})


def message_words(chunk: Chunk, n: Counts) -> U64:
    """Everyday messages: debits, one-time passwords, personal ones."""
    s = sample(chunk, Stream.SMS, n.message)
    kind = _EVERYDAY.take(s.take(12, 4).astype(np.intp))
    low = s.amount(np.full(len(chunk), 1650), np.full(len(chunk), 260), 0) * (kind == 1)
    low |= kind << np.uint32(TEMPLATE)
    low |= s.take(16, 5).astype(np.uint32) << np.uint32(SENDER)
    return pack(_when(s, 36), low)


def upi(chunk: Chunk, h: Habits, n: Counts, subscriptions: U64) -> Table:
    """Wallet payments: to people and shops the person comes back to, and from people; some fail."""
    s = sample(chunk, Stream.UPI, n.upi)
    which = s.choose(slots(h.upi_mix, _WALLET_BITS), _WALLET_BITS, 40)
    failed = s.below(h.upi_fail, 12) & (which != 1)
    low = _UPI_LOW.take(which) | (failed.astype(np.uint32) << np.uint32(STATUS))
    low |= _counterparty(s, h, which) << np.uint32(COUNTERPARTY)
    low |= s.amount(h.upi_code, np.full(len(chunk), 290), 0)
    high = _when(s, 24)
    high |= which == 1
    return table("upi", [pack(high, low), subscriptions], len(chunk), _upi_columns(chunk))


def _counterparty(s: Sample, h: Habits, which: npt.NDArray[np.uint8]) -> U32:
    """(n,) place in the person's own list, the first places most often (u² of the list's length)."""
    u = ((s.word * _SECOND_DRAW) >> np.uint64(48)).astype(np.uint32)
    size = np.where(which < 2, s.each(h.friends), s.each(h.shops)).astype(np.uint32)
    return (((u * u) >> np.uint32(16)) * size) >> np.uint32(16)


def _upi_columns(chunk: Chunk) -> dict[str, Reader]:
    key = keys(chunk.seed, chunk.numbers, Stream.UPI) | np.uint64(1)

    def identity(halves: Halves) -> Column:
        own = key.take((halves.high >> HIGH_PHONE).astype(np.intp))
        return mix(own + (halves.low & _WHO)) >> np.uint64(32)

    return {
        "direction": flag, "kind": bits(KIND, 3), "status": bits(STATUS, 1), "counterparty_kind": bits(SHOP, 1),
        "amount": money, "counterparty_hash": identity,
    }  # fmt: skip


def charge(chunk: Chunk, h: Habits, n: Counts) -> Table:
    """Charging around the person's usual hour, from around the person's usual level."""
    s = sample(chunk, Stream.CHARGE, n.charge)
    level = s.amount(np.round(h.charge_level * 16).astype(np.int64) + 800, np.full(len(chunk), 280), 0)
    percent = np.clip((level.view(np.int32) - 800) >> 4, 1, 95).astype(np.uint32)
    minute = s.amount(np.round(h.charge_hour * 60).astype(np.int64) + 1440, np.round(h.charge_spread * 60), 12)
    high = s.spread() + ((minute % np.uint32(_DAY_MINUTES)) << HIGH_MINUTE)
    low = (percent << np.uint32(10)) + (s.take(24, 7) * np.uint16(2) + np.uint16(10))
    return table("charge", [pack(high, low)], len(chunk), {"start_pct": bits(10, 7), "minutes": bits(0, 10)})


def mobility(chunk: Chunk, p: Person, h: Habits) -> Table:
    """One record a day: how many cells, and whether the night was at home; no feature reads it."""
    s = sample(chunk, Stream.MOBILITY, p.span)
    day = (np.arange(len(s.word)) - s.each(np.cumsum(p.span) - p.span)).astype(np.uint32)
    high = s.each(chunk.head) + (day << HIGH_DAY) + (np.uint32(_DAY_MINUTES - 1) << HIGH_MINUTE)
    low = (s.below(h.home, 0).astype(np.uint16) << np.uint16(8)) + np.uint16(1) + s.take(12, 4)
    return table("mobility", [pack(high, low)], len(chunk), {"cell_count": bits(0, 8), "home": bits(8, 1)})


def contact(chunk: Chunk, n: Counts) -> Table:
    """Sealed: contacts added. Policy refuses every feature of them."""
    s = sample(chunk, Stream.CONTACT, n.contact)
    words = pack(_when(s, 36), s.word.astype(np.uint32))
    return table("contact", [words], len(chunk), {"peer_hash": bits(0, 32)})


def call(chunk: Chunk, n: Counts) -> Table:
    """Sealed: calls. Policy refuses every feature of them."""
    s = sample(chunk, Stream.CALL, n.call)
    words = pack(_when(s, 36), s.word.astype(np.uint32))
    return table("call", [words], len(chunk), {"peer_hash": bits(12, 20), "duration_s": bits(0, 12)})
