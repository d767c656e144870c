"""The alarm on a sum's norm: silent for honest phones at the stated rate, loud where the clip cannot have held."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server.alarm import FALSE_ALARM, SETTLED, noise_norm, signal_norm, watch, watched
from fl_server.rounds import Release
from model.contract.releases import charge_of
from model.errors import RoundError
from model.privacy.noise import SeededSource, discrete_gaussian
from simulation.small import small_dataset, small_plan

SCALE, CLIP, PHONES, DIM = 2**20, 1.0, 50, 400


def summed(length: float, sigma: int = 0, counter: int = 0) -> np.ndarray:
    """A sum of norm `length` · PHONES · CLIP, and noise of σ grid units."""
    direction = np.ones(DIM) / math.sqrt(DIM)
    total = np.trunc(length * PHONES * CLIP * SCALE * direction).astype(np.int64)
    return total + (discrete_gaussian(sigma, DIM, SeededSource(4, "alarm", counter)) if sigma else 0)


def of(released: np.ndarray, sigma: float = 0.0, earlier: list[float] | None = None):  # type: ignore[no-untyped-def]
    return watch(released, phones=PHONES, clip=CLIP, scale=SCALE, sigma=sigma, earlier=earlier or [])


@settings(max_examples=20, deadline=None)
@given(length=st.floats(0, 1), sigma=st.sampled_from([0, 10, 1 << 20, 15 << 20]), counter=st.integers(0, 2**32))
def test_honest_phones_however_they_agree_are_never_impossible(length: float, sigma: int, counter: int) -> None:
    assert not of(summed(length, sigma, counter), sigma).impossible


@pytest.mark.parametrize("sigma", [0, 1 << 20])
def test_one_phone_a_thousand_clip_norms_long_is_found(sigma: int) -> None:
    found = of(summed(1000 / PHONES, sigma), sigma)
    assert found.impossible and found.raised and "exceeds" in found.sentence


def test_control_one_phone_ten_clip_norms_long_hides_among_fifty() -> None:
    assert not of(summed(10 / PHONES)).raised


def test_the_noise_bound_holds_at_its_rate_and_is_not_idle() -> None:
    sigma, tail, draws = 50, 0.05, 2000
    noise = discrete_gaussian(sigma, 40 * draws, SeededSource(1, "bound")).reshape(draws, 40)
    norms = np.linalg.norm(noise, axis=1)
    over = float((norms > noise_norm(40, sigma, tail)).mean())
    assert over <= tail
    assert float((norms > 0.75 * noise_norm(40, sigma, tail)).mean()) > tail  # a bound a quarter lower would fail


def test_the_noise_bound_covers_chi_square() -> None:
    from scipy.stats import chi2

    for dim in (10, 400, 10_000):
        for tail in (1e-1, 1e-6, 1e-12):
            exact = math.sqrt(chi2.isf(tail, dim))
            assert exact <= noise_norm(dim, 1.0, tail) <= 1.6 * exact


def test_a_signal_is_the_norm_without_its_noise() -> None:
    sigma = 1 << 20
    released = summed(0.5, sigma)
    found = signal_norm(float(np.linalg.norm(released.astype(float))), DIM, sigma)
    assert found == pytest.approx(0.5 * PHONES * SCALE, rel=0.1)
    assert signal_norm(1.0, 100, 5.0) == 0.0


def test_growth_is_unusual_and_shrinking_is_not() -> None:
    first = of(summed(0.2)).signal
    assert of(summed(0.2)).usual is None
    assert not of(summed(0.25), earlier=[first]).raised
    found = of(summed(0.4), earlier=[first])
    assert found.unusual and not found.impossible and "usual" in found.sentence


def test_a_sum_that_stays_long_is_unusual_once_training_has_settled() -> None:
    first = of(summed(0.2)).signal
    assert not of(summed(0.19), earlier=[first] * (SETTLED - 1)).raised
    assert of(summed(0.19), earlier=[first] * SETTLED).unusual


@settings(max_examples=20, deadline=None)
@given(counter=st.integers(0, 2**32))
def test_noise_alone_is_not_unusual(counter: int) -> None:
    sigma = 1 << 20
    earlier = [of(summed(0.01, sigma, counter + i), sigma).signal for i in range(1, 4)]
    assert not of(summed(0.01, sigma, counter), sigma, earlier).raised


def test_an_alarm_is_plain_values() -> None:
    raw = of(summed(0.1)).to_dict()
    assert raw["sentence"] == "the sum's norm is possible and usual"
    assert {type(value) for value in raw.values()} <= {float, bool, str, type(None)}


@pytest.mark.parametrize("wrong", [{"phones": -1}, {"clip": 0.0}, {"scale": 0}, {"sigma": -1.0}, {"false_alarm": 0.0}])
def test_what_describes_no_sum_is_refused(wrong: dict[str, float]) -> None:
    given_ = {"phones": 5, "clip": 1.0, "scale": 4, "sigma": 0.0} | wrong
    with pytest.raises(RoundError):
        watch(np.ones(3, dtype=np.int64), **given_)  # type: ignore[arg-type]


def released(round_: int, noised: np.ndarray, void: bool = False) -> Release:
    return Release("train", round_, 50, 50, 50, ("a garbage sum",) if void else (), noised, void=void)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_noise_of_two_servers_is_reckoned_with_as_it_is_and_not_as_if_they_were_equal(share: float) -> None:
    """A sum just within what √(1 + r²) of the helper's noise allows is possible, just beyond it is not (13.16.2)."""
    plan = small_plan(small_dataset(60))
    parts = {"mode": "helper", "helper_key": "ab" * 32, "coordinator_noise": share}
    plan = replace(plan, privacy=replace(plan.privacy, **parts))  # type: ignore[arg-type]
    charge = charge_of(plan, "train")
    assert charge is not None
    scale, dim = plan.privacy.grid_scale, 100
    most = 50 * plan.local.clip_norm * scale + noise_norm(
        dim, math.sqrt(1 + share**2) * charge.sigma * scale, FALSE_ALARM
    )
    for factor, alarms in ((0.999, 0), (1.001, 1)):
        one = np.zeros(dim, dtype=np.int64)
        one[0] = int(factor * most)
        assert len(watched(plan, [released(1, one)])) == alarms


@pytest.mark.parametrize("mode", [{"mode": "central"}, {"mode": "helper", "helper_key": "ab" * 32}])
def test_a_run_names_the_rounds_that_are_void_or_too_long(mode: dict[str, str]) -> None:
    plan = small_plan(small_dataset(60))
    plan = replace(plan, privacy=replace(plan.privacy, **mode))
    scale, dim = plan.privacy.grid_scale, 100
    fine = np.full(dim, int(2 * plan.local.clip_norm * scale / math.sqrt(dim)))
    rounds = [released(1, fine), released(2, 1_000_000 * fine), released(3, fine, void=True), released(4, fine)]
    found = watched(plan, [replace(rounds[0], kind="knots", noised=rounds[1].noised), *rounds])
    assert [number for number, _ in found] == [2, 3]
    assert "exceeds" in found[0][1] and found[1][1] == "void: a garbage sum"
    assert watched(plan, [rounds[0], rounds[3]]) == []
