"""The byte form: RFC 8949 vectors, round trips, an independent encoder, and what a strict decoder refuses."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.canonical import MAX_DEPTH, MAX_ITEMS, decode, digest, encode, sha256_hex
from model.errors import ContractError

# RFC 8949, Appendix A: the entries within our types.
APPENDIX_A: list[tuple[Any, str]] = [
    (0, "00"), (23, "17"), (24, "1818"), (100, "1864"), (1000, "1903e8"), (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"), (18446744073709551615, "1bffffffffffffffff"),
    (-18446744073709551616, "3bffffffffffffffff"), (-1, "20"), (-10, "29"), (-100, "3863"), (-1000, "3903e7"),
    (0.0, "f90000"), (-0.0, "f98000"), (1.0, "f93c00"), (1.1, "fb3ff199999999999a"), (1.5, "f93e00"),
    (65504.0, "f97bff"), (100000.0, "fa47c35000"), (3.4028234663852886e38, "fa7f7fffff"),
    (1.0e300, "fb7e37e43c8800759c"), (5.960464477539063e-8, "f90001"), (0.00006103515625, "f90400"), (-4.0, "f9c400"),
    (-4.1, "fbc010666666666666"), (False, "f4"), (True, "f5"), (None, "f6"), (b"", "40"),
    (b"\x01\x02\x03\x04", "4401020304"), ("", "60"), ("a", "6161"), ("IETF", "6449455446"), ('"\\', "62225c"),
    ("ü", "62c3bc"), ("水", "63e6b0b4"), ([], "80"), ([1, 2, 3], "83010203"), ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"), ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"), (["a", {"b": "c"}], "826161a161626163"),
]  # fmt: skip

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=30), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), APPENDIX_A)
def test_rfc_8949_appendix_a(value: Any, expected: str) -> None:
    assert encode(value).hex() == expected
    back = decode(bytes.fromhex(expected))
    assert back == value and type(back) is type(value)


def test_keys_sort_bytewise_and_not_by_length_first() -> None:
    keys = ["aa", "b", "", "z" * 30, "a"]
    assert list(decode(encode(dict.fromkeys(keys, 0)))) == ["", "a", "b", "aa", "z" * 30]
    # The encoded length byte leads, so text keys of one width sort alike in both orders; the raw text does not.
    assert sorted(keys) != ["", "a", "b", "aa", "z" * 30]


@given(plain)
def test_round_trip_and_one_form(value: Any) -> None:
    data = encode(value)
    assert decode(data) == value
    assert encode(decode(data)) == data


@given(plain)
def test_an_independent_decoder_reads_the_same(value: Any) -> None:
    assert cbor2.loads(encode(value)) == value


@given(plain)
def test_an_independent_canonical_encoder_agrees(value: Any) -> None:
    # With text keys alone, the orders of RFC 7049 and RFC 8949 coincide: both put the shorter key first.
    assert cbor2.dumps(value, canonical=True) == encode(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except ContractError:
        return
    assert encode(value) == data


@given(plain, st.data())
def test_a_flipped_bit_is_another_value_or_refused(value: Any, data: st.DataObject) -> None:
    raw = bytearray(encode(value))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ContractError):
        assert encode(decode(bytes(raw))) == bytes(raw) != encode(value)


REFUSED = {
    "non-shortest integer": "1817",
    "non-shortest length": "580161",
    "non-shortest float": "fa3f800000",
    "double that fits single": "fb40f86a0000000000",
    "not a number": "f97e00",
    "infinity": "f97c00",
    "indefinite text": "7f61616162ff",
    "indefinite list": "9f01ff",
    "reserved length": "1c",
    "unsorted keys": "a2616201616101",
    "duplicate key": "a2616101616102",
    "integer key": "a10101",
    "bytes key": "a1416101",
    "tag": "c11a514b67b0",
    "undefined": "f7",
    "simple value": "f0",
    "break alone": "ff",
    "trailing byte": "0000",
    "nothing": "",
    "cut integer": "19",
    "cut text": "6261",
    "cut list": "8201",
    "invalid UTF-8": "61ff",
    "surrogate": "63eda080",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_case_13_other_forms_are_refused(data: str) -> None:
    with pytest.raises(ContractError):
        decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    "head", ["9b0000ffffffffffff", "bb0000ffffffffffff", "5b0000ffffffffffff", "7b0000ffffffffffff"]
)
def test_case_10_a_header_of_terabytes_is_refused_before_allocation(head: str) -> None:
    with pytest.raises(ContractError, match="announce"):
        decode(bytes.fromhex(head) + b"\x00" * 64)


def test_case_11_an_oversize_message_is_refused_unread() -> None:
    data = encode(b"x" * 1000)
    assert decode(data, max_bytes=len(data)) == b"x" * 1000
    with pytest.raises(ContractError, match="over its limit"):
        decode(data, max_bytes=len(data) - 1)
    with pytest.raises(ContractError, match="over its limit"):
        decode(b"\x5a\x00\x20\x00\x00" + bytes(1 << 21))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_case_13_deep_nesting_is_refused(depth: int) -> None:
    deepest = b"\x81" * MAX_DEPTH + b"\x00"
    assert encode(decode(deepest)) == deepest
    with pytest.raises(ContractError, match="deep"):
        decode(b"\x81" * depth + b"\x00")


@pytest.mark.parametrize("empty", [b"\x80", b"\xa0", b"\x00", b"\x60"])
def test_case_13_huge_in_items_is_refused_before_they_are_made(empty: bytes) -> None:
    few = b"\x98\xc8" + empty * 200
    assert len(decode(few, max_items=200)) == 200
    with pytest.raises(ContractError, match="more items"):
        decode(few, max_items=199)
    many = b"\x9a" + (MAX_ITEMS + 1).to_bytes(4, "big") + empty * (MAX_ITEMS + 1)
    tracemalloc.start()
    with pytest.raises(ContractError, match="more items"):
        decode(many)
    assert tracemalloc.get_traced_memory()[1] < 10_000
    tracemalloc.stop()


def test_items_are_counted_over_the_whole_message() -> None:
    nested = encode([[1, 2], {"a": 3}])
    assert decode(nested, max_items=6) == [[1, 2], {"a": 3}]
    with pytest.raises(ContractError, match="more items"):
        decode(nested, max_items=5)


def test_depth_may_be_lowered_and_never_raised() -> None:
    assert decode(encode([[1]]), max_depth=2) == [[1]]
    with pytest.raises(ContractError, match="deep"):
        decode(encode([[1]]), max_depth=1)
    with pytest.raises(ContractError, match="deep"):
        decode(b"\x81" * 17 + b"\x00", max_depth=100)


def test_encode_refuses_what_decode_could_not_read() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    bad: list[Any] = [
        float("nan"),
        float("inf"),
        2**64,
        -(2**64) - 1,
        {1: 2},
        {b"a": 1},
        "\ud800",
        object(),
        {1, 2},
        deep,
    ]
    for value in bad:
        with pytest.raises(ContractError):
            encode(value)


def test_tuples_are_lists_and_digests_follow_bytes() -> None:
    assert encode((1, 2)) == encode([1, 2])
    assert digest({"a": 1}) == sha256_hex(bytes.fromhex("a1616101"))
    assert digest({"a": 1}) != digest({"a": 1.0})
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
