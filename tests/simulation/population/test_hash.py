"""The counter-based generator: known answers, distribution, and independence of a draw from its neighbours."""

import numpy as np
import pytest

from simulation.population.hash import (
    GOLDEN,
    counted,
    draws,
    keys,
    logistic,
    lognormal,
    mix,
    normal,
    poisson,
    quantiles,
    uniform,
)


def test_mix_is_splitmix64():
    # first outputs of SplitMix64 from state 0, as its reference code prints them
    state = np.array([GOLDEN, 2 * int(GOLDEN) % 2**64, 3 * int(GOLDEN) % 2**64], dtype=np.uint64)
    assert [hex(v) for v in mix(state).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_blocks_do_not_change_the_words():
    state = np.arange(50_000, dtype=np.uint64)
    whole = mix(state.copy())
    assert np.array_equal(whole[49_990:], mix(state[49_990:].copy()))
    assert len(np.unique(whole)) == len(whole)


def test_keys_differ_by_seed_phone_and_stream():
    base = keys(1, [5], 2)[0]
    assert len({base, keys(2, [5], 2)[0], keys(1, [6], 2)[0], keys(1, [5], 3)[0]}) == 4
    assert keys(1, range(10), 2)[5] == base


def test_counted_words_are_the_draws_of_each_phone_alone():
    key = keys(3, [4, 9, 11], 1)
    word = counted(key, np.array([2, 0, 5]))
    assert np.array_equal(word[:2], draws(key[:1], 2)[:, 0])
    assert np.array_equal(word[2:], draws(key[2:], 5)[:, 0])


def test_uniform_and_normal_have_their_moments():
    word = draws(keys(0, range(1000), 9), 200).ravel()
    u, z = uniform(word), normal(word)
    assert u.min() > 0 and u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.003) and u.var() == pytest.approx(1 / 12, abs=0.002)
    assert z.mean() == pytest.approx(0, abs=0.01) and z.var() == pytest.approx(1, abs=0.015)
    assert lognormal(word, 0.5).mean() == pytest.approx(1, abs=0.01)
    assert np.array_equal(quantiles(8), -quantiles(8)[::-1])


@pytest.mark.parametrize("mean", [0.05, 1.0, 6.0, 9.9, 10.1, 40.0, 900.0])
def test_poisson_counts_have_mean_and_variance_equal(mean):
    count = poisson(keys(1, range(40_000), 5), np.full(40_000, mean))
    assert count.min() >= 0
    assert count.mean() == pytest.approx(mean, rel=0.03, abs=0.01)
    assert count.var() == pytest.approx(mean, rel=0.05, abs=0.01)


def test_poisson_inversion_is_exact_below_ten():
    count = poisson(keys(1, range(40_000), 6), np.full(40_000, 2.0))
    expected = np.exp(-2.0) * np.array([1, 2, 2, 4 / 3]) * 40_000
    found = np.bincount(count, minlength=4)[:4]
    assert (((found - expected) ** 2) / expected).sum() < 16  # 4 cells, far in the tail


def test_logistic_is_one_half_at_zero():
    assert logistic(np.zeros(1))[0] == 0.5
