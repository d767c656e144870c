"""Our accountant beside Microsoft's prv-accountant, and our noise beside OpenDP's: development oracles (spec 6.4, 6.6).

prv-accountant composes privacy loss random variables in floating point (Gopi, Lee and Wutschitz, NeurIPS 2021), with no
code in common with dp-accounting or with the closed form. OpenDP draws its discrete Gaussian by CKS'20 in Rust.
"""

import numpy as np
import pytest
from scipy import stats

from model.privacy.accountant import epsilon
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import SeededSource, discrete_gaussian

ALPHA = 1e-6


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta", "published"),
    [
        (0.01, 1.0, 1000, 1e-6, 2.125),
        (0.1, 1.0, 100, 1e-6, 8.06),
        (0.1, 0.7, 50, 1e-5, 10.71),
        (1.0, 5.0, 50, 1e-6, 7.29),
    ],
)
def test_epsilon_is_within_one_percent_of_prv_accountant(
    q: float, z: float, rounds: int, delta: float, published: float
) -> None:
    prv = pytest.importorskip("prv_accountant")
    one = prv.GaussianMechanism(noise_multiplier=z) if q == 1 else prv.PoissonSubsampledGaussianMechanism(q, z)
    accountant = prv.PRVAccountant(prvs=[one], max_self_compositions=[rounds], eps_error=0.02, delta_error=delta / 1000)
    low, estimate, high = accountant.compute_epsilon(delta=delta, num_self_compositions=[rounds])
    ours = epsilon([GaussianRelease("training", z, 1.0, rounds, q, "train")], delta)
    assert abs(ours / estimate - 1) < 0.01
    assert low < ours < high and ours == pytest.approx(published, abs=0.0051)
    control = epsilon([GaussianRelease("training", 0.97 * z, 1.0, rounds, q, "train")], delta)
    assert abs(control / estimate - 1) > 0.01  # noise 3 % short is told apart


def test_the_noise_is_opendps_noise() -> None:
    prelude = pytest.importorskip("opendp.prelude")
    prelude.enable_features("contrib")
    space = (prelude.vector_domain(prelude.atom_domain(T=int)), prelude.l2_distance(T=float))
    theirs = np.asarray(prelude.m.make_gaussian(*space, scale=7.0)([0] * 40_000))
    ours = discrete_gaussian(7, 40_000, SeededSource(8, "peers"))

    def cells(draws: np.ndarray) -> np.ndarray:
        return np.bincount(np.clip(draws, -25, 25) + 25, minlength=51)

    assert stats.chi2_contingency(np.stack([cells(theirs), cells(ours)])).pvalue > ALPHA
    assert stats.ks_2samp(theirs, discrete_gaussian(8, 40_000, SeededSource(9, "peers"))).pvalue < ALPHA
    assert abs(theirs.var() / ours.var() - 1) < 0.05 and abs(theirs.mean()) < 0.2
