"""The sampler against the law it states and against Canonne, Kamath and Steinke's own algorithm (spec 6.4)."""

import math
import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from model.errors import BudgetError
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import (
    DIRECT,
    LANES,
    MAX_SIGMA,
    OsSource,
    SeededSource,
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
    size = 150_000
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


@pytest.mark.parametrize("phones", [2, 9, 100])
def test_a_sum_of_phones_shares_follows_the_law_of_the_whole(phones: int) -> None:
    """Two servers' noises, or the shares of h phones: chi-square and moments against one discrete Gaussian of √h·σ."""
    shares = discrete_gaussian(5, phones * 60_000, SeededSource(21, "shares", phones)).reshape(phones, -1)
    total, whole = shares.sum(0), 5 * math.sqrt(phones)
    assert chi_square(total, whole) > ALPHA
    assert abs(total.mean()) < 5 * whole / math.sqrt(60_000)
    assert abs(total.var() / whole**2 - 1) < 5 * math.sqrt(2 / 60_000)
    assert abs(stats.kurtosis(total)) < 5 * math.sqrt(24 / 60_000)
    assert chi_square(total, whole * 1.1) < ALPHA  # control: as if a fifth of the shares were missing
    if phones == 2:
        assert chi_square(shares[0] * 2, whole) < ALPHA  # control: one share counted twice is another law


def test_sums_of_draws_have_the_variance_of_a_sum() -> None:
    """Draws are independent: neighbours in one call, and calls of one source, do not lean on each other."""
    source = SeededSource(7, "sums")
    sums = np.stack([discrete_gaussian(1e6, 3000, source) for _ in range(40)]).sum(0) / (1e6 * math.sqrt(40))
    assert stats.kstest(sums, "norm").pvalue > ALPHA > stats.kstest(sums * 1.25, "norm").pvalue
    row = discrete_gaussian(1e6, 200_000, source) / 1e6
    assert abs(np.mean(row[1:] * row[:-1])) < 5 / math.sqrt(row.size)
    assert abs(np.mean(row[1:] * (row[:-1] + 0.05 * row[1:]))) > 5 / math.sqrt(row.size)


@given(size=st.integers(0, 3000), sigma=st.integers(1, 2**40), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_size_and_sigma(size: int, sigma: int, seed: int) -> None:
    draws = discrete_gaussian(sigma, size, SeededSource(seed))
    assert draws.dtype == np.int64 and draws.shape == (size,)
    assert np.abs(draws).max(initial=0) <= 9 * sigma
    assert np.array_equal(draws, discrete_gaussian(sigma, size, SeededSource(seed)))


def test_more_draws_than_one_block_of_lanes_follow_the_law_too() -> None:
    draws = discrete_gaussian(7, 3 * LANES + 5, SeededSource(13))
    assert draws.size == 3 * LANES + 5 and chi_square(draws, 7) > ALPHA
    assert len({draws[i * LANES : i * LANES + 50].tobytes() for i in range(3)}) == 3


def test_sigma_is_rounded_up_never_down() -> None:
    assert np.array_equal(discrete_gaussian(6.01, 500, SeededSource(1)), discrete_gaussian(7, 500, SeededSource(1)))


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


@pytest.mark.parametrize("count", [1, DIRECT, DIRECT + 1, 5000])
def test_a_forked_process_does_not_repeat_its_parents_noise(count: int) -> None:
    source = OsSource()
    source.take(count)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.take(count + 31))
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reader, 10_000), source.take(count + 31)
    assert len(theirs) == len(ours) == count + 31 and theirs != ours
    os.close(reader)
    os.close(writer)


def test_every_long_request_stretches_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], os.urandom

    def urandom(count: int) -> bytes:
        asked.append(count)
        return real(count)

    monkeypatch.setattr(os, "urandom", urandom)
    source = OsSource()
    taken = [source.take(count) for count in (0, 8, DIRECT, DIRECT + 1, 4000, 4000)]
    assert [len(part) for part in taken] == [0, 8, DIRECT, DIRECT + 1, 4000, 4000]
    assert asked == [0, 8, DIRECT, 32, 32, 32] and taken[4] != taken[5]
    assert vars(source) == {}
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))  # control: with one key they would be equal
    assert source.take(4000) == source.take(4000)


def test_the_key_stream_is_aes_256_in_counter_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """NIST SP 800-38A F.5.5's key; the stream from counter zero is AES of 0, 1, 2, … under it."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    monkeypatch.setattr(os, "urandom", lambda count: key[:count])
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    assert block.update(bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")).hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"
    blocks = b"".join(block.update(i.to_bytes(16, "big")) for i in range(7))
    assert OsSource().take(100) == blocks[:100]


def test_the_sampler_takes_nothing_but_bytes_from_its_source() -> None:
    """Same bytes, same noise: no global generator takes part."""
    np.random.seed(0)  # noqa: NPY002 - shows that the global generator has no effect
    a = discrete_gaussian(1e7, 300, SeededSource(8))
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(a, discrete_gaussian(1e7, 300, SeededSource(8)))
