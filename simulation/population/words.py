"""Events as 64-bit words, so that one plain sort puts a chunk in phone, day and minute order (spec 4.7).

    63      52 51   44 43     33 32  32 31       0
    | phone  | day    | minute  | flag | payload |

A chunk holds at most 4,096 phones; days are 0 … 255. The arithmetic is on 32-bit halves and integer tables: half the
memory traffic, and the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fl_client.events import COLUMNS, Column, Table
from model.errors import InputError
from simulation.population.hash import U64, Floats, Ints, counted, keys, quantiles

U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]

MAX_PHONES = 1 << 12
PHONE, DAY, MINUTE = np.uint64(52), np.uint64(44), np.uint64(33)
HIGH = np.uint64(32)
HIGH_PHONE, HIGH_DAY, HIGH_MINUTE = np.uint32(20), np.uint32(12), np.uint32(1)
_Z_UNIT = 256
_Z = np.round(quantiles(12) * _Z_UNIT).astype(np.int32)
PER_OCTAVE = 200
AMOUNTS = np.array([0, *(round(2.0 ** (i / PER_OCTAVE)) for i in range(4095))], dtype=np.uint32)
"""Amount code → whole rupees (or seconds): 0, then 1 to 1.45 million in steps of a third of a percent."""


@dataclass(frozen=True)
class Chunk:
    """K phones: seed, numbers (K,), the high word of each at its first day (K,), and its days of span (K,)."""

    seed: int
    numbers: Ints
    head: U32
    span: U32

    def __len__(self) -> int:
        return len(self.numbers)


def chunk(seed: int, numbers: Ints, enrol: Ints, span: Ints) -> Chunk:
    """The chunk of the phones `numbers`, each observed for `span` days from day `enrol`."""
    if len(numbers) > MAX_PHONES:
        raise InputError(f"a chunk of {len(numbers)} phones is too long for its event words; use at most {MAX_PHONES}")
    place = np.arange(len(numbers), dtype=np.uint32)
    head = (place << HIGH_PHONE) | (enrol.astype(np.uint32) << HIGH_DAY)
    return Chunk(seed, numbers, head, span.astype(np.uint32))


@dataclass(frozen=True)
class Sample:
    """n events to be of one stream: `counts` (K,) a phone, and `word` (n,) the random word of each."""

    chunk: Chunk
    counts: Ints
    word: U64

    def take(self, low: int, bits: int) -> npt.NDArray[np.uint16]:
        """(n,) up to 16 bits of each word, starting at bit `low`."""
        found = (self.word >> np.uint64(low)).astype(np.uint16)
        if bits < 16:
            found &= np.uint16((1 << bits) - 1)
        return found

    def each(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(n,) the per-phone `value` (K,) of every event."""
        return np.repeat(value, self.counts)

    def spread(self) -> U32:
        """(n,) high words: the phone, and a day uniform over its span, from the top 16 bits."""
        day = self.take(48, 16).astype(np.uint32)
        day *= self.each(self.chunk.span)
        day >>= np.uint32(16)
        day <<= HIGH_DAY
        day += self.each(self.chunk.head)
        return day

    def amount(self, centre: Ints, width: Ints, low: int) -> U32:
        """(n,) amount codes, normal on the code scale with the phone's `centre` and `width` (K,), from 12 bits."""
        found: I32 = _Z.take(self.take(low, 12).astype(np.intp))
        found *= self.each(width.astype(np.int32))
        found >>= 8
        found += self.each(centre.astype(np.int32))
        return np.clip(found, 1, 4095, out=found).view(np.uint32)

    def choose(self, table: npt.NDArray[np.uint8], bits: int, low: int) -> npt.NDArray[np.uint8]:
        """(n,) a code of each event, drawn from its phone's row of `slots` with `bits` bits of the word."""
        place = self.take(low, bits).astype(np.uint32)
        place += self.each(np.arange(len(self.counts), dtype=np.uint32) << np.uint32(bits))
        return table.take(place.astype(np.intp))

    def below(self, share: Floats, low: int) -> npt.NDArray[np.bool_]:
        """(n,) true with the phone's probability `share` (K,), from 12 bits."""
        level = np.round(share * 4096).astype(np.uint16)
        found: npt.NDArray[np.bool_] = self.take(low, 12) < self.each(level)
        return found


def sample(chunk: Chunk, stream: int, counts: Ints) -> Sample:
    """`counts` (K,) events of a stream."""
    return Sample(chunk, counts, counted(keys(chunk.seed, chunk.numbers, stream), counts))


def pack(high: U32, low: U32 | np.uint32) -> U64:
    """(n,) words of two halves."""
    word = high.astype(np.uint64)
    word <<= HIGH
    word |= low
    return word


def code(amount: Floats) -> Ints:
    """Amount codes nearest to the amounts (≥ 1) on the log scale."""
    found: Ints = np.clip(np.round(np.log2(amount) * PER_OCTAVE) + 1, 1, 4095).astype(np.int64)
    return found


def width(log_sd: Floats) -> Ints:
    """Standard deviation on the code scale for a standard deviation of the natural logarithm."""
    found: Ints = np.round(log_sd * (PER_OCTAVE / np.log(2))).astype(np.int64)
    return found


def slots(weights: Floats, bits: int) -> npt.NDArray[np.uint8]:
    """(K·2**bits,) codes: phone k's row holds code c as often as its share of `weights` (C, K), to half a slot."""
    share = np.cumsum(weights, axis=0)
    edges = np.round(share / share[-1] * (1 << bits)).astype(np.int64)
    counts = np.diff(edges, axis=0, prepend=0).T.ravel()
    return np.repeat(np.tile(np.arange(len(weights), dtype=np.uint8), weights.shape[1]), counts)


@dataclass(frozen=True)
class Halves:
    """The sorted words of a chunk as two (n,) halves."""

    high: U32
    low: U32

    @property
    def day(self) -> I32:
        """(n,) the day."""
        return ((self.high >> HIGH_DAY) & np.uint32(255)).view(np.int32)


Reader = Callable[[Halves], Column]


def table(name: str, parts: Sequence[U64], phones: int, unpack: Mapping[str, Reader]) -> Table:
    """The events in `parts`, sorted, as the typed columns of type `name`; `unpack` reads all but day and minute."""
    words = np.concatenate(parts) if len(parts) != 1 else parts[0]
    words.sort()
    offsets = np.searchsorted(words, np.arange(phones + 1, dtype=np.uint64) << PHONE).astype(np.int64)
    halves = Halves((words >> HIGH).astype(np.uint32), words.astype(np.uint32))
    minute = (halves.high >> HIGH_MINUTE).astype(np.int16) & np.int16(2047)
    columns: dict[str, Column] = {"day": halves.day, "minute": minute}
    for column, read in unpack.items():
        columns[column] = read(halves).astype(COLUMNS[name][column], copy=False)
    return Table(offsets, columns)


def bits(low: int, count: int) -> Reader:
    """Reader of one payload field."""
    return lambda halves: (halves.low >> np.uint32(low)) & np.uint32((1 << count) - 1)


def flag(halves: Halves) -> Column:
    """Reader of the flag above the payload."""
    return halves.high & np.uint32(1)


def money(halves: Halves) -> Column:
    """Reader of the amount code in the low 12 bits, as rupees or seconds."""
    return AMOUNTS.take((halves.low & np.uint32(4095)).astype(np.intp))


def before(low: int, count: int) -> Reader:
    """Reader of a day kept as the number of days before the event's own day."""
    return lambda halves: halves.day - bits(low, count)(halves).view(np.int32)
