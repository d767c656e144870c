"""The sampler against the law it states and against Canonne, Kamath and Steinke's own algorithm (spec 6.4)."""

import math
import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from model.errors import BudgetError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import (
    MAX_SIGMA,
    OsSource,
    SeededSource,
    _below,
    _exp_power,
    discrete_gaussian,
    grid_sigma,
)

ALPHA = 1e-6  # a right sampler fails a seeded test of this size once in a million seeds
Below = Callable[[int], int]


class Reference:
    """CKS'20, Algorithms 1 to 3, in Python integers: slow, exact, and written without a look at the fast one."""

    def __init__(self, seed: int) -> None:
        self._source = SeededSource(seed, "reference")

    def below(self, bound: int) -> int:
        bits = (bound - 1).bit_length()
        while True:
            word = int.from_bytes(self._source.take((bits + 7) // 8), "big") >> (-bits % 8)
            if word < bound:
                return word

    def bernoulli(self, p: Fraction) -> bool:
        return self.below(p.denominator) < p.numerator

    def bernoulli_exp(self, gamma: Fraction) -> bool:
        while gamma > 1:
            if not self.bernoulli_exp(Fraction(1)):
                return False
            gamma -= 1
        k = 1
        while self.bernoulli(gamma / k):
            k += 1
        return k % 2 == 1

    def laplace(self, t: int) -> int:
        while True:
            u = self.below(t)
            if not self.bernoulli_exp(Fraction(u, t)):
                continue
            v = 0
            while self.bernoulli_exp(Fraction(1)):
                v += 1
            x = u + t * v
            negative = self.below(2) == 1
            if not (negative and x == 0):
                return -x if negative else x

    def gaussian(self, sigma: int) -> int:
        t = sigma + 1
        while True:
            y = self.laplace(t)
            gap = abs(y) - Fraction(sigma * sigma, t)
            if self.bernoulli_exp(gap * gap / (2 * sigma * sigma)):
                return y


def mass(sigma: float, reach: int) -> np.ndarray:
    v = np.arange(-reach, reach + 1)
    weight = np.exp(-(v.astype(float) ** 2) / (2 * sigma**2))
    return weight / weight.sum()


def chi_square(draws: np.ndarray, sigma: float) -> float:
    """p-value of `draws` under the stated law, cells of at least five expected, tails pooled."""
    reach = math.ceil(12 * sigma) + 2
    expected = mass(sigma, reach) * draws.size
    seen = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    keep = np.flatnonzero(expected >= 5)
    first, last = keep[0], keep[-1]

    def pool(counts: np.ndarray) -> np.ndarray:
        return np.concatenate([[counts[:first].sum()], counts[first : last + 1], [counts[last + 1 :].sum()]])

    return float(stats.chisquare(pool(seen), pool(expected)).pvalue)


@pytest.mark.parametrize("sigma", [1, 2, 3, 7, 40])
def test_small_sigmas_follow_the_exact_law(sigma: int) -> None:
    draws = discrete_gaussian(sigma, 100_000, SeededSource(11, "law", sigma))
    assert chi_square(draws, sigma) > ALPHA


def test_control_a_wrong_sigma_or_a_doubled_zero_fails_the_same_test() -> None:
    draws = discrete_gaussian(7, 100_000, SeededSource(11, "law", 7))
    assert chi_square(draws, 7 * 1.03) < ALPHA and chi_square(draws, 7 * 0.97) < ALPHA
    rounded = np.rint(np.random.default_rng(1).normal(0, 1, 100_000)).astype(np.int64)
    assert chi_square(rounded, 1) < ALPHA  # a rounded continuous Gaussian is another law
    assert chi_square(np.where(draws % 50 == 1, 0, draws), 7) < ALPHA


@pytest.mark.parametrize("sigma", [3, 20_000_003])
def test_it_agrees_with_the_reference_sampler(sigma: int) -> None:
    slow = Reference(5)
    reference = np.array([slow.gaussian(sigma) for _ in range(4000)], dtype=float)
    fast = discrete_gaussian(sigma, 40_000, SeededSource(6)).astype(float)
    edges = np.quantile(fast, np.linspace(0, 1, 21)[1:-1]) if sigma > 100 else np.arange(-6.5, 7)

    def table(draws: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(edges, draws), minlength=len(edges) + 1)

    assert stats.chi2_contingency(np.stack([table(reference), table(fast)])).pvalue > ALPHA
    assert stats.chi2_contingency(np.stack([table(reference * 1.15), table(fast)])).pvalue < ALPHA


@pytest.mark.parametrize("sigma", [1000.0, 2e7, 5.24e8, 1e9, float(MAX_SIGMA)])
def test_large_sigmas_have_gaussian_moments_and_shape(sigma: float) -> None:
    size = 60_000
    unit = discrete_gaussian(sigma, size, SeededSource(3, "moments", int(sigma))).astype(float) / sigma
    assert abs(unit.mean()) < 5 / math.sqrt(size)
    assert abs(unit.var() - 1) < 5 * math.sqrt(2 / size)
    assert abs(stats.kurtosis(unit)) < 5 * math.sqrt(24 / size)
    assert stats.kstest(unit, "norm").pvalue > ALPHA
    assert stats.kstest(unit * 1.05, "norm").pvalue < ALPHA


def test_the_low_bits_of_large_noise_are_uniform() -> None:
    draws = discrete_gaussian(2e7, 60_000, SeededSource(4, "bits"))
    assert stats.chisquare(np.bincount(draws & 63, minlength=64)).pvalue > ALPHA
    assert stats.chisquare(np.bincount((draws // 2) * 2 & 63, minlength=64)).pvalue < ALPHA


def test_sigma_is_rounded_up_never_down() -> None:
    assert np.array_equal(discrete_gaussian(6.01, 500, SeededSource(1)), discrete_gaussian(7, 500, SeededSource(1)))


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


def test_the_smoothing_bound_that_the_accounting_rests_on() -> None:
    """Continuous N(0, σ²-r²) then rounding by a discrete Gaussian of width r is the discrete Gaussian (spec 6.5)."""
    sigma, r = 3.0, 1.0
    s = math.sqrt(sigma**2 - r**2)
    tail = 2 * sum(math.exp(-2 * (math.pi * r * k) ** 2) for k in range(1, 9))
    eta = math.log((1 + tail) / (1 - tail))
    x = np.arange(-12, 13)
    y = np.linspace(-40, 40, 160_001)
    rounding = np.exp(-((x[:, None] - y) ** 2) / (2 * r * r))
    around = np.exp(-((np.arange(-60, 61)[:, None] - y) ** 2) / (2 * r * r)).sum(0)
    law = (stats.norm.pdf(y, 0, s) * rounding / around).sum(1) * (y[1] - y[0])
    exact = mass(sigma, 60)[60 - 12 : 60 + 13]
    assert np.abs(np.log(law / exact)).max() <= eta + 1e-12 < 2e-8
    assert np.abs(np.log(law / mass(sigma * 1.001, 60)[48:73])).max() > 1e-4
    assert 2 * math.exp(-2 * (math.pi * 2) ** 2) < 2**-112  # r = 2, which `grid_sigma` pays for


def test_grid_sigma_pays_for_the_grid() -> None:
    release = GaussianRelease("training", 20.0, 1.0, 20, 1.0, "train")
    assert grid_sigma(release, 2**20) == 20 * 2**20 + 1
    for z in (2.0, 2.5, 10.0, 1234.5):
        width = grid_sigma(GaussianRelease("training", z, 1.0, 1, 1.0, "train"), 1)
        assert width**2 - 4 >= z**2
    for z in (0.0, 1.0, 1e15):
        with pytest.raises(BudgetError):
            grid_sigma(GaussianRelease("training", z, 1.0, 1, 1.0, "train"), 1)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2.0 * MAX_SIGMA])
def test_noise_that_protects_nobody_is_refused(sigma: float) -> None:
    with pytest.raises(BudgetError):
        discrete_gaussian(sigma, 10, OsSource())


def test_seeded_bytes_depend_on_seed_label_and_counter_alone() -> None:
    first = SeededSource(1, "a", 2).take(64)
    assert first == SeededSource(1, "a", 2).take(64)
    assert len({first, SeededSource(2, "a", 2).take(64), SeededSource(1, "b", 2).take(64)}) == 3
    assert SeededSource(1, "a", 3).take(64) != first
    source = SeededSource(1, "a", 2)
    assert source.take(30) + source.take(34) == first


def test_operating_system_noise_is_fresh_each_time() -> None:
    a, b = (discrete_gaussian(1e6, 200, OsSource()) for _ in range(2))
    assert a.dtype == np.int64 and a.shape == (200,) and not np.array_equal(a, b)
    assert discrete_gaussian(1e6, 0, OsSource()).shape == (0,)


def test_a_forked_process_does_not_repeat_its_parents_noise() -> None:
    source = OsSource()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.take(32))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 32) != source.take(32)
    os.close(reader)
    os.close(writer)


def test_the_sampler_takes_nothing_but_bytes_from_its_source() -> None:
    """Same bytes, same noise: no global generator takes part."""
    np.random.seed(0)  # noqa: NPY002 - shows that the global generator has no effect
    a = discrete_gaussian(1e7, 300, SeededSource(8))
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(a, discrete_gaussian(1e7, 300, SeededSource(8)))
