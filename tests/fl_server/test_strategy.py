"""Translation to and from Flower's messages, and what a reply may not contain (cases 7–10, 14)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_server.strategy import read_answer
from model.errors import ContractError

VECTOR = np.arange(5, dtype=np.int64)


def reply() -> RecordDict:
    return RecordDict({"partial": ConfigRecord({"header": b"h"}), "sum": ArrayRecord({"sum": Array(VECTOR)})})


def test_a_reply_is_a_header_and_the_bytes_of_one_vector() -> None:
    answer = read_answer(4, reply())
    assert (answer.node, answer.header) == (4, b"h")
    np.testing.assert_array_equal(np.frombuffer(answer.vector, "<i8"), VECTOR)


@pytest.mark.parametrize("length", [1, 9, 10, 99, 100, 12_345])
def test_every_length_has_its_one_header(length: int) -> None:
    content = reply()
    content["sum"]["sum"] = Array(np.full(length, 7, dtype=np.int64))
    assert len(read_answer(4, content).vector) == 8 * length


def _weights(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"num-examples": 1e12})


def _weight_in_header(content: RecordDict) -> None:
    content["partial"]["weight"] = 1e12


def _floats(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR.astype(np.float64))


def _big_endian(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR.astype(">i8"))


def _matrix(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR[None, :].copy())


def _terabytes(content: RecordDict) -> None:
    head = (
        np.lib.format.magic(1, 0) + b"v\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776,), }"
    )
    content["sum"]["sum"] = Array("int64", (1 << 40,), "numpy.ndarray", head.ljust(127) + b"\n" + bytes(8))


def _pickle(content: RecordDict) -> None:
    content["sum"]["sum"] = Array("object", (1,), "numpy.ndarray", b"\x80\x04.")


def _two(content: RecordDict) -> None:
    content["sum"]["again"] = Array(VECTOR)


def _text_header(content: RecordDict) -> None:
    content["partial"]["header"] = "h"


@pytest.mark.parametrize(
    "spoil",
    [_weights, _weight_in_header, _floats, _big_endian, _matrix, _terabytes, _pickle, _two, _text_header],
    ids=lambda f: f.__name__,
)
def test_cases_07_to_10_and_14_replies_of_another_form(spoil: Callable[[RecordDict], None]) -> None:
    content = reply()
    spoil(content)
    with pytest.raises(ContractError):
        read_answer(4, content)
