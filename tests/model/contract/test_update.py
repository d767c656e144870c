"""Tasks, partials and vectors: what may enter a sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.canonical import decode, encode
from model.contract.update import (
    PARTIAL_SCHEMA,
    TASK_SCHEMA,
    PartialHeader,
    TaskHeader,
    check_answer,
    check_vector,
    norm_bound,
    read_vector,
)
from model.errors import ContractError, UpdateError

TASK = TaskHeader(TASK_SCHEMA, "ab" * 32, 3, "train")
PARTIAL = PartialHeader(PARTIAL_SCHEMA, "ab" * 32, 3, "train", 1, 4)
GOOD = np.array([3, 0, -4, 0], dtype="<i8")


def test_headers_round_trip() -> None:
    assert TaskHeader.from_dict(decode(encode(TASK.to_dict()))) == TASK
    assert PartialHeader.from_dict(decode(encode(PARTIAL.to_dict()))) == PARTIAL
    check_answer(TASK, PARTIAL, dim=4, max_phones=1, field=True)


def test_case_08_missing_or_extra_key() -> None:
    raw = PARTIAL.to_dict()
    for name in raw:
        with pytest.raises(ContractError, match=name):
            PartialHeader.from_dict({key: value for key, value in raw.items() if key != name})


@pytest.mark.parametrize("name", ["weight", "num_examples", "num-examples"])
def test_case_14_any_client_supplied_weight(name: str) -> None:
    with pytest.raises(ContractError, match=name):
        PartialHeader.from_dict({**PARTIAL.to_dict(), name: 2})


@pytest.mark.parametrize(("round_", "digest"), [(2, "ab" * 32), (4, "ab" * 32), (3, "cd" * 32)])
def test_case_15_16_stale_or_future_round_or_other_plan(round_: int, digest: str) -> None:
    other = replace(PARTIAL, round=round_, plan_digest=digest)
    with pytest.raises(UpdateError, match="current task"):
        check_answer(TASK, other, dim=4, max_phones=1, field=True)


def test_kind_dimension_and_count_must_fit() -> None:
    farm = replace(PARTIAL, phones=900)
    check_answer(TASK, farm, dim=4, max_phones=1000, field=False)
    for bad, field in ((farm, True), (replace(PARTIAL, phones=0), True), (replace(PARTIAL, phones=1001), False),
                       (replace(PARTIAL, kind="knots"), False), (replace(PARTIAL, dim=5), False)):  # fmt: skip
        with pytest.raises(UpdateError):
            check_answer(TASK, bad, dim=4, max_phones=1000, field=field)


@pytest.mark.parametrize(
    "change",
    [{"schema": TASK_SCHEMA}, {"plan_digest": "AB" * 32}, {"plan_digest": "ab"}, {"round": -1}, {"kind": "fit"},
     {"phones": -1}, {"phones": 1 << 41}, {"dim": 0}, {"dim": 1 << 21}],
)  # fmt: skip
def test_header_ranges(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        replace(PARTIAL, **change)
    with pytest.raises(ContractError):
        TaskHeader("pocketscore.task/2", "ab" * 32, 0, "train")


def test_case_04_all_zero_is_accepted() -> None:
    zeros = np.zeros(4, dtype="<i8")
    assert check_vector(zeros, 4, 0.0) is zeros


def test_case_03_norm_above_the_bound() -> None:
    assert check_vector(GOOD, 4, 5.0) is GOOD
    with pytest.raises(UpdateError, match="norm 5 over"):
        check_vector(GOOD, 4, 4.999)
    with pytest.raises(UpdateError, match="norm"):
        check_vector(np.full(4, -(2**63), dtype="<i8"), 4, 1e18)
    with pytest.raises(UpdateError, match="norm"):
        check_vector(GOOD, 4, float("nan"))


@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (4, 1), (1, 4), (2, 2), ()])
def test_case_05_06_wrong_shape_does_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(UpdateError, match="shape"):
        check_vector(np.zeros(shape, dtype="<i8"), 4, 9.0)


@pytest.mark.parametrize("dtype", [">i8", "<i4", "<u8", "<f8", "<f4", "O", "?", "S8"])
def test_case_01_02_07_09_wrong_type_or_byte_order(dtype: str) -> None:
    """Floats never enter, so neither NaN nor infinity can; objects are never unpickled."""
    with pytest.raises(UpdateError, match="type"):
        check_vector(np.zeros(4, dtype=dtype), 4, 9.0)
    with pytest.raises(UpdateError, match="list"):
        check_vector([0, 0, 0, 0], 4, 9.0)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_bytes_round_trip(values: list[int]) -> None:
    vector = np.array(values, dtype="<i8")
    assert np.array_equal(read_vector(vector.tobytes(), len(values)), vector)


def test_case_10_11_bytes_must_be_exactly_the_dimension() -> None:
    for data, dim in ((GOOD.tobytes()[:-1], 4), (GOOD.tobytes() + b"\0", 4), (b"", 0), (b"", 1 << 60), (b"", -1)):
        with pytest.raises(UpdateError, match="integers"):
            read_vector(data, dim)


@given(st.integers(1, 50), st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_the_norm_bound_covers_rounding(phones: int, values: list[float]) -> None:
    clipped = np.array(values) / max(1.0, float(np.linalg.norm(values)))
    summed = phones * np.rint(clipped * 1024)
    assert np.linalg.norm(summed) <= norm_bound(1.0, 1024, len(values), phones) * (1 + 1e-12)
