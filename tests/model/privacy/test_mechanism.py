"""The mechanism description: exact fields, ranges, and one digest a value (spec 6.1)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ContractError
from model.privacy.mechanism import SPLITS, GaussianRelease

GOOD = GaussianRelease("training", 20.0, 1.0, 20, 1.0, "train")


@given(
    z=st.floats(0, 1e6),
    sensitivity=st.floats(1e-6, 1e6),
    count=st.integers(1, 10**6),
    sampling=st.floats(1e-6, 1),
    split=st.sampled_from(SPLITS),
)
def test_to_dict_and_back(z: float, sensitivity: float, count: int, sampling: float, split: str) -> None:
    release = GaussianRelease("knots", z, sensitivity, count, sampling, split)
    assert GaussianRelease.from_dict(release.to_dict()) == release
    assert release.sigma == z * sensitivity


def test_whole_numbers_become_floats_so_that_equal_mechanisms_have_one_digest() -> None:
    assert type(replace(GOOD, noise_multiplier=20).noise_multiplier) is float


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": 3},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("nan")},
        {"noise_multiplier": "20"},
        {"sensitivity": 0.0},
        {"sensitivity": float("inf")},
        {"count": 0},
        {"count": 2.0},
        {"count": True},
        {"sampling": 0.0},
        {"sampling": 1.01},
        {"split": "everyone"},
    ],
)
def test_a_value_outside_its_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ContractError):
        GaussianRelease.from_dict({**GOOD.to_dict(), **change})


def test_missing_and_unknown_keys_are_refused() -> None:
    raw = GOOD.to_dict()
    for bad in ({**raw, "kind": "laplace"}, {k: v for k, v in raw.items() if k != "count"}, [], None):
        with pytest.raises(ContractError):
            GaussianRelease.from_dict(bad)  # type: ignore[arg-type]
