"""Karney's sampler, which decides by uniform integers alone, as the reference of the fast one (spec 6.4).

Algorithm D ("Sampling exactly from the normal distribution", ACM TOMS 42(1), 2016, §5) for mean 0 and a whole σ, on
many lanes at once: v = s·(kσ + j), and with x = j/σ the weight factors as exp(-k²/2)·exp(-x(2k+x)/2). Bernoulli(p) with
p = exp(-a/b) is von Neumann's alternating series over exact fractions (Canonne, Kamath and Steinke, NeurIPS 2020,
Algorithm 1). It shares nothing with the fast sampler but its source of bytes.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from model.privacy.noise import ByteSource, SeededSource, discrete_gaussian

ALPHA = 1e-6  # a right sampler fails a seeded test of this size once in a million seeds
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Fractions = Sequence[tuple[U64, U64]]


def karney(sigma: int, lanes: int, source: ByteSource) -> I64:
    """The draws of a whole σ that survive rejection among `lanes` tries."""
    k = _whole_part(lanes, source)
    width = np.full(k.size, sigma, np.uint64)
    j = _below(width, source)
    two = np.uint64(2)
    x = [(j, width), (two * k * width + j, (two * k + two) * width)]
    kept = _exp_power(k + np.uint64(1), x, source)
    magnitude = (k * width + j)[kept].astype(np.int64)
    negative = (_words(magnitude.size, source) & np.uint64(1)).astype(np.bool_)
    once = ~(negative & (magnitude == 0))
    signed: I64 = np.where(negative, -magnitude, magnitude)[once]
    return signed


def _whole_part(lanes: int, source: ByteSource) -> U64:
    """Draws of k ≥ 0 with weight exp(-k²/2) = exp(-½)^k · exp(-1)^(k(k-1)/2); at most `lanes` of them."""
    k = np.zeros(lanes, np.uint64)
    alive = np.arange(lanes)
    one = np.uint64(1)
    while alive.size:
        half = (np.ones(alive.size, np.uint64), np.full(alive.size, 2, np.uint64))
        alive = alive[_exp_trial(alive.size, [half], source)]
        k[alive] += one
    pairs: U64 = (k * (k - one)) >> one
    return k[_exp_power(pairs, [], source)]


def _exp_power(times: U64, fractions: Fractions, source: ByteSource) -> Flags:
    """Bernoulli(exp(-times · ∏ fractions)) a lane: `times` trials, all of which must succeed."""
    verdict = np.ones(times.size, np.bool_)
    alive = np.flatnonzero(times)
    done = 0
    while alive.size:
        success = _exp_trial(alive.size, [(n[alive], d[alive]) for n, d in fractions], source)
        verdict[alive[~success]] = False
        done += 1
        alive = alive[success & (times[alive] > done)]
    return verdict


def _exp_trial(lanes: int, fractions: Fractions, source: ByteSource) -> Flags:
    """Bernoulli(exp(-γ)) a lane with γ = ∏ fractions in [0, 1]: the first i whose Bernoulli(γ/i) fails is odd."""
    verdict = np.zeros(lanes, np.bool_)
    alive = np.arange(lanes)
    i = 0
    while alive.size:
        i += 1
        heads: Flags = np.ones(alive.size, np.bool_)
        if i > 1:
            heads = _below(np.full(alive.size, i, np.uint64), source) == 0
        for numerator, denominator in fractions:
            heads &= _below(denominator, source) < numerator
        verdict[alive[~heads]] = i % 2 == 1
        alive = alive[heads]
        fractions = [(n[heads], d[heads]) for n, d in fractions]
    return verdict


def _below(bound: U64, source: ByteSource) -> U64:
    """Uniform integers in [0, bound), exactly: words of the last incomplete stretch of `bound` are drawn again."""
    word = _words(bound.size, source)
    top = ~np.uint64(0) - (~bound + np.uint64(1)) % bound
    late = np.flatnonzero(word > top)
    while late.size:
        word[late] = _words(late.size, source)
        late = late[word[late] > top[late]]
    result: U64 = word % bound
    return result


def _words(count: int, source: ByteSource) -> U64:
    return np.frombuffer(source.take(8 * count), dtype="<u8").astype(np.uint64)


@pytest.mark.parametrize("sigma", [3, 40, 15_000_001])
def test_the_fast_sampler_agrees_with_karneys(sigma: int) -> None:
    reference = karney(sigma, 300_000, SeededSource(5, "karney")).astype(float) / sigma
    fast = discrete_gaussian(sigma, 200_000, SeededSource(6)).astype(float) / sigma
    edges = np.arange(-4, 4.1, 1 / 3) + 0.01  # between the integers where σ = 3

    def table(draws: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.bincount(np.searchsorted(edges, draws), minlength=len(edges) + 1)

    assert stats.chi2_contingency(np.stack([table(reference), table(fast)])).pvalue > ALPHA
    nudged = np.where(np.arange(fast.size) % 20 == 0, 0, fast)
    assert stats.chi2_contingency(np.stack([table(reference), table(nudged)])).pvalue < ALPHA


@pytest.mark.parametrize("times", [0, 1, 3])
def test_bernoulli_of_exp_has_its_probability(times: int) -> None:
    size = 60_000
    fraction = (np.full(size, 3, np.uint64), np.full(size, 7, np.uint64))
    hits = _exp_power(np.full(size, times, np.uint64), [fraction], SeededSource(9, "exp", times))
    p = math.exp(-times * 3 / 7)
    assert abs(hits.mean() - p) <= 5 * math.sqrt(p * (1 - p) / size)


@pytest.mark.parametrize("bound", [1, 2, 3, 2**63 + 1, 2**64 - 1])
def test_integers_below_a_bound_are_below_it_and_uniform(bound: int) -> None:
    draws = _below(np.full(20_000, bound, np.uint64), SeededSource(2, "below", bound % 997))
    assert int(draws.max()) < bound
    if bound < 4:
        assert stats.chisquare(np.bincount(draws.astype(int), minlength=bound)).pvalue > ALPHA or bound == 1
    else:
        assert stats.kstest(draws.astype(float) / bound, "uniform").pvalue > ALPHA


def test_a_modulo_without_rejection_would_be_biased() -> None:
    bound = 2**63 + 2**62  # 2**64 is no multiple of it: the lower third of the range would come twice as often
    words = np.frombuffer(SeededSource(2).take(8 * 20_000), "<u8")
    assert stats.kstest((words % np.uint64(bound)).astype(float) / bound, "uniform").pvalue < ALPHA
    fair = _below(np.full(20_000, bound, np.uint64), SeededSource(2)).astype(float) / bound
    assert stats.kstest(fair, "uniform").pvalue > ALPHA
