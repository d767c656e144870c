"""The table under the sampler, and that float64 never decides where it could be wrong (spec 6.4)."""

from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from model.privacy import noise
from model.privacy.bars import BITS, MARGIN, SLOTS, Bars, bars, below_curve
from model.privacy.noise import MAX_SIGMA, SeededSource, _candidates, _unsure

ALPHA = 1e-6
SIGMAS = [1, 2, 3, 15, 16, 31, 32, 33, 40, 1000, 15_000_001, 2**24 - 1, 2**24, MAX_SIGMA]


class Script:
    """Gives the words it was handed, in order, and fails when asked for more."""

    name = "script"

    def __init__(self, *words: int) -> None:
        self.left = b"".join(word.to_bytes(8, "little") for word in words)

    def take(self, count: int) -> bytes:
        assert count <= len(self.left)
        given, self.left = self.left[:count], self.left[count:]
        return given


def curve(table: Bars, value: int, digits: int = 90) -> Decimal:
    """peak·exp(-v²/2σ²) to `digits` digits, by another implementation of exp."""
    with localcontext() as context:
        context.prec = digits
        return table.peak * (-Decimal(value * value) / (2 * table.sigma * table.sigma)).exp()


def faults(table: Bars) -> list[str]:
    """What in the table contradicts the claim that its points under the curve have the law of h."""
    found = []
    width = 1 << table.shift
    start, level = table.start.tolist(), table.level.tolist()
    if start.count(0) == 0 or level.count(-1.0) != 1 or len(start) != SLOTS or len(level) != SLOTS - table.sure:
        found.append("slots")
    used = table.sure + level.index(-1.0)
    for first in range(-table.reach, table.reach, width):
        ends = (first, first + width - 1)
        near, far = min(ends, key=abs), max(ends, key=abs)
        under = start[: table.sure].count(first)
        over = [level[i - table.sure] for i in range(table.sure, used) if start[i] == first]
        if over != list(range(under, under + len(over))):
            found.append(f"levels at {first}")
        if under > curve(table, far) or under + len(over) < curve(table, near):
            found.append(f"bar at {first}")
    for block in range(60):
        far = table.reach + (block << table.sigma.bit_length())
        if curve(table, far) > Decimal(table.tail_share(block).numerator) / table.tail_share(block).denominator:
            found.append(f"tail block {block}")
    if any(rest != SLOTS for rest in level[used - table.sure + 1 :]) or set(start[used:]) - {0}:
        found.append("empty slots")
    return found


@pytest.mark.parametrize("sigma", SIGMAS)
def test_every_bar_covers_the_curve_and_every_sure_slot_lies_under_it(sigma: int) -> None:
    table = bars(sigma)
    assert faults(table) == []
    assert table.rate > 0.94 and table.sure > 0.92 * SLOTS
    assert table.shift + BITS <= 64 and table.reach + (1 << table.shift) <= 6 * sigma + (1 << table.shift)


@given(st.integers(1, MAX_SIGMA))
@settings(max_examples=6, deadline=None)
def test_bars_of_any_sigma(sigma: int) -> None:
    assert faults(bars(sigma)) == []


def test_control_a_wrong_table_is_found() -> None:
    table = bars(40)
    assert any("bar" in fault for fault in faults(replace(table, peak=table.peak + 2)))
    assert any("bar" in fault for fault in faults(replace(table, peak=table.peak - 2)))
    assert any("tail" in fault for fault in faults(replace(bars(3), reach=6)))
    assert any("levels" in fault for fault in faults(replace(table, level=table.level + (table.level == 1))))


@pytest.mark.parametrize("sigma", [1, 3, 1000, 15_000_001, MAX_SIGMA])
def test_float64_stays_far_inside_its_margin(sigma: int) -> None:
    table = bars(sigma)
    values = np.unique(np.linspace(-6 * sigma, 6 * sigma, 501).astype(np.int64))
    for value, seen in zip(values.tolist(), table.curve(values).tolist(), strict=True):
        assert abs(Decimal(seen) / curve(table, value) - 1) < Decimal(MARGIN / 16)
    assert abs(Decimal(table.curve(values[:1])[0] * (1 + MARGIN)) / curve(table, int(values[0])) - 1) > MARGIN / 16


def close_call(sigma: int) -> tuple[Bars, int, list[int]]:
    """A table, the word of a point in one of its unsure slots, and the curve's height in that slot to 192 bits."""
    table = bars(sigma)
    place = (1 << table.shift) // 2
    with localcontext() as context:
        context.prec = 90
        for spot, level in enumerate(table.level.tolist()):
            height = curve(table, int(table.start[table.sure + spot]) + place) - int(level)
            if level > 0 and Decimal("0.2") < height < Decimal("0.8"):
                bits = int(height * 2**192)
                return (
                    table,
                    (table.sure + spot) << (64 - BITS) | place,
                    [bits >> k & (2**64 - 1) for k in (128, 64, 0)],
                )
    raise AssertionError("no unsure slot is crossed by the curve")


@pytest.mark.parametrize("sigma", [40, 15_000_001, MAX_SIGMA])
def test_a_point_beside_the_curve_is_decided_exactly_on_both_sides(sigma: int) -> None:
    table, word, height = close_call(sigma)
    for last, kept in ((height[2] - 2, True), (height[2] + 2, False)):
        source = Script(word, height[0], height[1], last)
        assert (_candidates(table, 1, source).size == 1) is kept and source.left == b""
    for second, kept in ((height[1] - 1, True), (height[1] + 1, False)):  # decided one word earlier
        source = Script(word, height[0], second)
        assert (_candidates(table, 1, source).size == 1) is kept and source.left == b""
    for first, kept in ((height[0] - 2**54, True), (height[0] + 2**54, False)):  # float64 will do
        assert (_candidates(table, 1, Script(word, first)).size == 1) is kept


def test_control_float64_alone_decides_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "MARGIN", -1.0)
    wrong = 0
    for sigma in (40, 1000, 15_000_001):
        table, word, height = close_call(sigma)
        below, above = (_candidates(table, 1, Script(word, height[0], height[1] + d)).size == 1 for d in (-1, 1))
        wrong += (below, above) != (True, False)
    assert wrong == 3


@given(sigma=st.integers(1, 2**30), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_exact_comparison_against_ninety_digits(sigma: int, data: st.DataObject) -> None:
    table = bars(sigma)
    value = data.draw(st.integers(-8 * sigma, 8 * sigma))
    nudge = data.draw(st.sampled_from([-(2**100), -(2**63), -1, 1, 2**63, 2**100]))
    with localcontext() as context:
        context.prec = 90
        bits = max(0, int(curve(table, value) * 2**128) + nudge)
    more = Script(bits & (2**64 - 1), *[2**63] * 3)
    low = Fraction(bits >> 64, 2**64)

    def word() -> int:
        return int.from_bytes(more.take(8), "little")

    assert below_curve(table, value, low, Fraction(1, 2**64), word) is (nudge < 0)


def tails(sigma: int, tries: int) -> np.ndarray:
    value, kept = _unsure(bars(sigma), np.zeros(tries, np.int64), np.full(tries, -1.0), SeededSource(12, "tail"))
    return value[kept]


@pytest.mark.parametrize("sigma", [3, 6])
def test_the_tails_follow_the_law(sigma: int) -> None:
    draws, reach = tails(sigma, 50_000), bars(sigma).reach
    v = np.arange(-20 * sigma, 20 * sigma)
    v = v[(v >= reach) | (v < -reach)]
    seen = np.array([(draws == x).sum() for x in v])
    assert seen.sum() == draws.size > 400

    def p_value(width: float) -> float:
        weight = np.exp(-(v.astype(float) ** 2) / (2 * width**2))
        expected = weight / weight.sum() * draws.size
        keep = expected >= 5
        both = [np.append(counts[keep], counts[~keep].sum()) for counts in (seen, expected)]
        return float(stats.chisquare(*both).pvalue)

    assert p_value(sigma) > ALPHA > p_value(sigma * 1.2)


def test_the_tails_slot_leads_to_both_tails_and_every_block() -> None:
    table = bars(15_000_001)
    slot = table.sure + table.level.tolist().index(-1.0)

    class Coins(Script):
        def __init__(self, heads: int, *words: int) -> None:
            super().__init__(*words)
            self.coins = b"\x01" * heads + b"\x00"

        def take(self, count: int) -> bytes:
            if count > 1:
                return super().take(count)
            coin, self.coins = self.coins[:1], self.coins[1:]
            return coin

    for heads in (0, 1, 3):
        far = table.reach + (heads << 24) + 77
        for word, value in ((2 * 77, far), (2 * 77 + 1, -far - 1)):
            lane = slot << (64 - BITS)
            assert _candidates(table, 1, Coins(heads, lane, 2**28, word)).tolist() == [value]
            assert _candidates(table, 1, Coins(heads, lane, 2**63, word)).size == 0


def test_a_block_too_far_for_float64_is_decided_by_fractions() -> None:
    """Two thousand heads: the bar's height is no float64, and neither is the curve's."""
    table = bars(1)
    value, share = table.reach + (2000 << 1), table.tail_share(2000)
    assert float(share) == 0.0 == float(table.curve(np.array([value]))[0])

    class Heads(SeededSource):
        heads = 2000

        def take(self, count: int) -> bytes:
            self.heads -= count == 1
            return bytes([self.heads >= 0]) if count == 1 else super().take(count)

    _, kept = _unsure(table, np.zeros(1, np.int64), np.full(1, -1.0), Heads(1))
    assert not kept[0]
