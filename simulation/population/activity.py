"""The frequent events: app sessions, browsing, messages, wallet payments, charging, places, contacts, calls (spec 4.7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fl_client.events import Table
from simulation.population.habits import Habits
from simulation.population.hash import U64, Floats, Ints, draws, field, keys, lognormal, mix, poisson
from simulation.population.latents import OBSERVATION_END, Person, Stream
from simulation.population.words import DAY, MINUTE, PHONE, Chunk, Sample, bits, choose, money, sample, slots, table

_APP_BITS, _MESSAGE_BITS, _WALLET_BITS = 9, 8, 8
_COUNTERPARTY_BITS = 10
_DAY_MINUTES = 1440
_HOUR_WEIGHTS = (1, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 10, 11, 11, 10, 10, 10, 11, 12, 13, 13, 12, 8, 3)


def _diurnal(bits: int) -> npt.NDArray[np.uint64]:
    """Minutes of the day, each hour as often as its weight: a table to draw the time of an event from."""
    edge = np.cumsum([0, *_HOUR_WEIGHTS]) / sum(_HOUR_WEIGHTS)
    place = (np.arange(1 << bits) + 0.5) / (1 << bits)
    return np.floor(np.interp(place, edge, np.arange(25) * 60.0)).astype(np.uint64) << MINUTE


_MINUTES = _diurnal(12)


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
        600 * part * use * lognormal(word[11], 0.8),
        130 * part * use * lognormal(word[12], 0.7),
        170 * part * lognormal(word[13], 0.4),
        4.5 * fixed * np.exp(0.4 * p.volatility + 0.3 * (word[13] % np.uint64(3) == 0) - 0.15),
        0.45 * fixed * np.exp(0.6 * p.volatility + 0.35 * p.debt - 0.25 * p.discipline - 0.25 * p.income),
        105 * part * np.exp(0.3 * p.digital + 0.15 * p.income - 0.05) * lognormal(word[14], 0.6),
        6.0 * fixed * np.exp(-0.25 * p.income + 0.25 * p.debt) * lognormal(word[15], 0.35),
        122 * fixed * lognormal(word[16], 0.2),
        8.0 * fixed,
        25 * fixed * lognormal(word[17], 0.6),
        2.2 * np.exp(-0.30 * p.discipline - 0.10 * p.digital),
    ])  # fmt: skip
    found = np.minimum(poisson(word[: len(means)], np.minimum(means, 4000.0)), 4095)
    return Counts(*found)


def _usual(word: U64, low: int) -> U64:
    """(n,) minute field at the usual hours, from 12 bits."""
    return _MINUTES.take(field(word, low, 12).view(np.int64))


def app_session(chunk: Chunk, h: Habits, n: Counts) -> Table:
    """App sessions: by night (23 to 5) with the person's own probability, category by the person's own mix."""
    s = sample(chunk, Stream.APP_SESSION, n.app_session)
    words = s.spread(48)
    words += _session_minute(s, h)
    words |= choose(s, slots(h.app_mix, _APP_BITS), _APP_BITS, 12) << np.uint64(12)
    words |= s.amount(h.session_code, h.session_width, 0)
    return table("app_session", [words], len(chunk), {"category": bits(12, 4), "duration_s": _seconds})


def _seconds(words: U64) -> npt.NDArray[np.uint32]:
    return np.minimum(money()(words), 14_400)


def _session_minute(s: Sample, h: Habits) -> U64:
    at_night = (s.word >> np.uint64(21)).astype(np.uint16) & np.uint16(0xFFF)
    threshold = np.round(h.night * 4096).astype(np.uint16)
    table = np.concatenate([300 + np.arange(4096) * 1080 // 4096, (1380 + np.arange(4096) * 360 // 4096) % 1440])
    place = field(s.word, 33, 12).view(np.int64)
    place += (at_night < s.each(threshold)).astype(np.int64) << 12
    return (table.astype(np.uint64) << MINUTE).take(place)


def browse(chunk: Chunk, n: Counts) -> Table:
    """Page visits by category; no feature reads them."""
    s = sample(chunk, Stream.BROWSE, n.browse)
    words = s.spread(48) + _usual(s.word, 36) + field(s.word, 0, 9)
    return table("browse", [words], len(chunk), {"category": lambda w: (w & np.uint64(15)) % 10, "visits": bits(4, 5)})


def message_words(chunk: Chunk, n: Counts) -> U64:
    """Everyday messages: debits, one-time passwords, personal ones (templates 1, 4, 5)."""
    s = sample(chunk, Stream.SMS, n.message)
    kind = np.array([1] * 7 + [4] * 5 + [5] * 4, dtype=np.uint64).take(field(s.word, 12, 4).view(np.int64))
    amount = s.amount(np.full(len(chunk), 1650), np.full(len(chunk), 260), 0) * (kind == 1)
    sender = field(s.word, 16, 5) << np.uint64(12)
    return s.spread(48) + _usual(s.word, 36) + (kind << np.uint64(30)) + sender + amount


def upi(chunk: Chunk, h: Habits, n: Counts, subscriptions: U64) -> Table:
    """Wallet payments: to people and shops the person comes back to, and from people; some fail."""
    s = sample(chunk, Stream.UPI, n.upi)
    which = choose(s, slots(h.upi_mix, _WALLET_BITS), _WALLET_BITS, 40)
    failed = (field(s.word, 12, 12) < s.each(np.round(h.upi_fail * 4096).astype(np.uint64))) & (which != 1)
    words = s.spread(48) + _usual(s.word, 24)
    words += np.array([0, 1 << 32, 1 << 29 | 1 << 27, 4 << 29 | 1 << 27], dtype=np.uint64).take(which.view(np.int64))
    words += failed.astype(np.uint64) << np.uint64(28)
    words += _counterparty(s, h, which) << np.uint64(12)
    words += s.amount(h.upi_code, np.full(len(chunk), 290), 0)
    return table("upi", [words, subscriptions], len(chunk), _upi_columns(chunk))


def _counterparty(s: Sample, h: Habits, which: U64) -> U64:
    """(n,) place in the person's own list, the first places most often (u² of the list's length)."""
    u = (s.word * np.uint64(0xD1342543DE82EF95)) >> np.uint64(48)
    size = np.where(which < 2, s.each(h.friends), s.each(h.shops)).astype(np.uint64)
    return (((u * u) >> np.uint64(16)) * size) >> np.uint64(16)


def _upi_columns(chunk: Chunk) -> dict[str, object]:
    key = keys(chunk.seed, chunk.numbers, Stream.UPI) | np.uint64(1)

    def identity(words: U64) -> npt.NDArray[np.uint64]:
        own = key.take((words >> PHONE).view(np.int64))
        place = field(words, 12, _COUNTERPARTY_BITS) | (field(words, 27, 1) << np.uint64(20))
        return mix(own + place) >> np.uint64(32)

    return {
        "direction": bits(32, 1), "kind": bits(29, 3), "status": bits(28, 1), "counterparty_kind": bits(27, 1),
        "amount": money(), "counterparty_hash": identity,
    }  # fmt: skip


def charge(chunk: Chunk, h: Habits, n: Counts) -> Table:
    """Charging around the person's usual hour, from around the person's usual level."""
    s = sample(chunk, Stream.CHARGE, n.charge)
    level = s.amount(np.round(h.charge_level * 16).astype(np.int64) + 800, np.full(len(chunk), 280), 0).view(np.int64)
    percent = np.clip((level - 800) >> 4, 1, 95).astype(np.uint64)
    hour = s.amount(np.round(h.charge_hour * 60).astype(np.int64) + 1440, np.round(h.charge_spread * 60), 12)
    words = s.spread(48) + ((hour % np.uint64(_DAY_MINUTES)) << MINUTE)
    words += (percent << np.uint64(10)) + np.uint64(10) + (field(s.word, 24, 7) * np.uint64(2))
    return table("charge", [words], len(chunk), {"start_pct": bits(10, 7), "minutes": bits(0, 10)})


def mobility(chunk: Chunk, p: Person, h: Habits) -> Table:
    """One record a day: how many cells, and whether the night was at home; no feature reads it."""
    s = sample(chunk, Stream.MOBILITY, p.span)
    day = np.arange(len(s.word), dtype=np.uint64) - np.repeat(np.cumsum(p.span) - p.span, p.span).astype(np.uint64)
    home = field(s.word, 0, 12) < s.each(np.round(h.home * 4096).astype(np.uint64))
    words = (s.head & ~np.uint64(127)) + (day << DAY) + (np.uint64(1439) << MINUTE)
    words += (home.astype(np.uint64) << np.uint64(8)) + np.uint64(1) + field(s.word, 12, 4)
    return table("mobility", [words], len(chunk), {"cell_count": bits(0, 8), "home": bits(8, 1)})


def contact(chunk: Chunk, n: Counts) -> Table:
    """Sealed: contacts added. Policy refuses every feature of them."""
    s = sample(chunk, Stream.CONTACT, n.contact)
    words = s.spread(48) + _usual(s.word, 36) + field(s.word, 0, 32)
    return table("contact", [words], len(chunk), {"peer_hash": bits(0, 32)})


def call(chunk: Chunk, n: Counts) -> Table:
    """Sealed: calls. Policy refuses every feature of them."""
    s = sample(chunk, Stream.CALL, n.call)
    words = s.spread(48) + _usual(s.word, 36) + field(s.word, 0, 32)
    return table("call", [words], len(chunk), {"peer_hash": bits(12, 20), "duration_s": bits(0, 12)})


def spells(mask: npt.NDArray[np.bool_], words: U64) -> U64:
    """(m,) the words (S, K) that happen."""
    return words[mask]


def level(x: Floats) -> U64:
    """Probabilities as 16-bit thresholds."""
    return np.round(np.clip(x, 0, 1) * 65536).astype(np.uint64)
