"""Events as 64-bit words: phone | day | minute | payload, so one plain sort puts a chunk in phone and day order (spec 4.7).

    63      52 51   44 43     33 32        0
    | phone  | day    | minute  | payload  |

A chunk holds at most 4,096 phones; days are 0 … 255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fl_client.events import COLUMNS, Column, Table
from simulation.population.hash import U64, Ints, counted, field, keys, quantiles

MAX_PHONES = 1 << 12
PHONE, DAY, MINUTE = np.uint64(52), np.uint64(44), np.uint64(33)
_SPAN = np.uint64(127)
_Z_BITS = 12
_Z_UNIT = 256
_Z = np.round(quantiles(_Z_BITS) * _Z_UNIT).astype(np.int32)
PER_OCTAVE = 200
AMOUNTS = np.array([0, *(round(2.0 ** (i / PER_OCTAVE)) for i in range(4095))], dtype=np.uint32)
"""Amount code → whole rupees (or seconds): 0, then 1 to 1.45 million in steps of a third of a percent."""


@dataclass(frozen=True)
class Chunk:
    """K phones of a chunk: the seed, their numbers (K,), and the head word of each: place, first day, days of span."""

    seed: int
    numbers: Ints
    head: U64

    def __len__(self) -> int:
        return len(self.numbers)


def chunk(seed: int, numbers: Ints, enrol: Ints, span: Ints) -> Chunk:
    """The chunk of the phones `numbers`, each observed for `span` days from day `enrol`."""
    place = np.arange(len(numbers), dtype=np.uint64)
    return Chunk(seed, numbers, (place << PHONE) | (enrol.astype(np.uint64) << DAY) | span.astype(np.uint64))


@dataclass(frozen=True)
class Sample:
    """n events to be of one stream: `counts` (K,) a phone, `word` (n,) their random words, `head` (n,) their phones'."""

    counts: Ints
    word: U64
    head: U64

    def each(self, value: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """(n,) the per-phone `value` (K,) of every event."""
        return np.repeat(value, self.counts)

    def spread(self, low: int) -> U64:
        """(n,) phone and day, uniform over the phone's span, from 16 bits of the word."""
        day = (field(self.word, low, 16) * (self.head & _SPAN)) >> np.uint64(16)
        return (self.head & ~_SPAN) + (day << DAY)

    def amount(self, centre: Ints, width: Ints, low: int) -> U64:
        """(n,) amount codes, normal on the code scale with the phone's `centre` and `width` (K,), from 12 bits."""
        z = _Z.take((self.word >> np.uint64(low)).astype(np.uint16) & np.uint16(0xFFF))
        code = self.each((width + 0).astype(np.int32)) * z
        code >>= 8
        code += self.each(centre.astype(np.int32))
        return np.clip(code, 1, 4095, out=code).astype(np.uint64)


def sample(chunk: Chunk, stream: int, counts: Ints) -> Sample:
    """`counts` (K,) events of a stream."""
    word = counted(keys(chunk.seed, chunk.numbers, stream), counts)
    return Sample(counts, word, np.repeat(chunk.head, counts))


def code(amount: npt.NDArray[np.float64]) -> Ints:
    """Amount codes nearest to the amounts (≥ 1) on the log scale."""
    return np.clip(np.round(np.log2(amount) * PER_OCTAVE) + 1, 1, 4095).astype(np.int64)


def width(log_sd: npt.NDArray[np.float64]) -> Ints:
    """Standard deviation on the code scale for a standard deviation of the natural logarithm."""
    return np.round(log_sd * (PER_OCTAVE / np.log(2))).astype(np.int64)


def slots(weights: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.uint8]:
    """(K·2**bits,) codes: phone k's row holds each code c as often as its share of `weights` (C, K), largest error 1/2 slot."""
    share = np.cumsum(weights, axis=0)
    edges = np.round(share / share[-1] * (1 << bits)).astype(np.int64)
    counts = np.diff(edges, axis=0, prepend=0).T.ravel()
    return np.repeat(np.tile(np.arange(len(weights), dtype=np.uint8), weights.shape[1]), counts)


def choose(sample: Sample, table: npt.NDArray[np.uint8], bits: int, low: int) -> U64:
    """(n,) a code of each event, drawn from its phone's row of `slots` with `bits` bits of the word."""
    row = np.arange(len(sample.counts), dtype=np.int64) << bits
    place = np.repeat(row, sample.counts)
    place += field(sample.word, low, bits).view(np.int64)
    return table.take(place).astype(np.uint64)


def table(name: str, parts: Sequence[U64], phones: int, unpack: Mapping[str, Callable[[U64], Column]]) -> Table:
    """The events in `parts`, sorted and unpacked to the typed columns of type `name`.

    `unpack` gives each column but day and minute from the words; day and minute are always the same fields.
    """
    words = np.concatenate(parts) if len(parts) != 1 else parts[0]
    words.sort()
    offsets = np.searchsorted(words, np.arange(phones + 1, dtype=np.uint64) << PHONE)
    columns: dict[str, Column] = {
        "day": (field(words, 44, 8)).astype(np.int32),
        "minute": (field(words, 33, 11)).astype(np.int16),
    }
    for column, read in unpack.items():
        columns[column] = read(words).astype(COLUMNS[name][column], copy=False)
    return Table(offsets.astype(np.int64), columns)


def bits(low: int, count: int) -> Callable[[U64], Column]:
    """Reader of one payload field."""
    return lambda words: field(words, low, count)


def money(low: int = 0) -> Callable[[U64], Column]:
    """Reader of an amount code as rupees or seconds."""
    return lambda words: AMOUNTS.take(field(words, low, 12).view(np.int64))
