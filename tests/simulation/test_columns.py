"""A CSV or Parquet file as columns of numbers or text, and one sentence where it is not such a file."""

from __future__ import annotations

import datetime
import decimal
import math
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import InputError
from simulation.columns import MISSING, read_columns

DAY = datetime.date(2020, 1, 2)
LATE = decimal.Decimal("1.25")


def read(folder: Path, text: str | bytes, name: str = "t.csv") -> dict[str, list[object]]:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return {key: column.to_pylist() for key, column in read_columns(path).items()}


def refusal(folder: Path, text: str | bytes, name: str = "t.csv") -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text, name)
    return str(caught.value)


def test_numbers_text_and_missing_cells(tmp_path: Path) -> None:
    found = read(tmp_path, "age,city\n 31 , Pune\n,\n1e3,NA\n?,x\n")
    assert found == {"age": [31.0, None, 1000.0, None], "city": ["Pune", None, None, "x"]}


@pytest.mark.parametrize("mark", [*MISSING, '""', "  "])
def test_every_mark_of_a_missing_cell(tmp_path: Path, mark: str) -> None:
    assert read(tmp_path, f"a,b\n{mark},1\n2,2\n")["a"] == [None, 2.0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_line_ends_byte_order_mark_and_blank_lines(tmp_path: Path, end: str, start: str) -> None:
    text = f"{start}a,b\n1,x\n2,y\n".replace("\n", end)
    assert read(tmp_path, text) == {"a": [1.0, 2.0], "b": ["x", "y"]}


def test_odd_names_are_kept(tmp_path: Path) -> None:
    text = '"a, ""quoted""",  two words ,आय,"over\ntwo lines",\u2028sep\n1,2,3,4,5\n'
    assert list(read(tmp_path, text)) == ['a, "quoted"', "two words", "आय", "over two lines", "sep"]
    assert read(tmp_path, text)["over two lines"] == [4.0]


def test_cells_with_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    assert read(tmp_path, 'a,b\n"x, ""y""\nz",1\n')["a"] == ['x, "y"\nz']


cell = st.one_of(
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**53), 2**53),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cells=st.lists(cell, min_size=1, max_size=20))
def test_numbers_survive_the_file(tmp_path: Path, cells: list[float | int | None]) -> None:
    text = "a,b\n" + "".join(f"{'' if c is None else repr(c)},x\n" for c in cells)
    found = read(tmp_path, text)["a"]
    assert found == [None if c is None else float(c) for c in cells]


word = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(words=st.lists(word, min_size=1, max_size=10))
def test_texts_survive_the_file(tmp_path: Path, words: list[str]) -> None:
    quoted = ['"' + text.replace('"', '""') + '"' for text in words]
    found = read(tmp_path, "a,b\nnot a number,x\n" + "".join(f"{text},x\n" for text in quoted))["a"][1:]
    # Arrow trims what Unicode calls blank, and so do we; nothing else may change.
    assert len(found) == len(words)
    for mine, theirs in zip(words, found, strict=True):
        if theirs is None:
            assert mine.strip() in MISSING
        else:
            assert theirs in mine and mine.replace(str(theirs), "", 1).strip() == ""


def test_ids_keep_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,x\n9007199254740993,1\n9007199254740992,2\n007,3\n7,4\nNA,5\n")
    assert read_columns(path, {"id"})["id"].to_pylist() == ["9007199254740993", "9007199254740992", "007", "7", None]
    assert len(set(read_columns(path)["id"].to_pylist())) == 3  # as floats, four ids would be two


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 2**60 + 1]), [1.0, None, float(2**60)]),
        (pa.array([2**64 - 1], pa.uint64()), [2.0**64]),
        (pa.array([0.5, None, math.inf], pa.float32()), [0.5, None, math.inf]),
        (pa.array([1.5], pa.float16()), [1.5]),
        (pa.array([True, None, False]), [1.0, None, 0.0]),
        (pa.array([LATE, None]), [1.25, None]),
        (pa.array([LATE], pa.decimal256(50, 3)), [1.25]),
        (pa.array([DAY, None]), [18263.0, None]),
        (pa.array([DAY], pa.date64()), [18263.0]),
        (pa.array([datetime.datetime(2020, 1, 2, 12)], pa.timestamp("ns", "UTC")), [18263.5]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array([3, 4]).dictionary_encode(), [3.0, 4.0]),
        (pa.array(["1", " x "], pa.large_string()), ["1", "x"]),
        (pa.array(["1", "2", "NA"], pa.large_string()), [1.0, 2.0, None]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_columns(tmp_path: Path, column: pa.Array, expected: list[object]) -> None:
    pyarrow.parquet.write_table(pa.table({"c": column, "other": list(range(len(column)))}), tmp_path / "t.parquet")
    assert read_columns(tmp_path / "t.parquet")["c"].to_pylist() == expected


def test_parquet_ids_keep_every_digit(tmp_path: Path) -> None:
    ids = [2**53 + 1, 2**53]
    pyarrow.parquet.write_table(pa.table({"id": ids}), tmp_path / "t.pq")
    assert read_columns(tmp_path / "t.pq", {"id"})["id"].to_pylist() == [str(i) for i in ids]


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([b"x"]), pa.array([1], pa.duration("s"))])
def test_a_column_of_something_else_is_named(tmp_path: Path, column: pa.Array) -> None:
    pyarrow.parquet.write_table(pa.table({"odd one": column}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"^column 'odd one' holds .*; drop it"):
        read_columns(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("  \n ", ["is empty"]),
        ("a,b\n", ["header but no rows"]),
        ("a,b", ["header but no rows"]),
        ("a,a\n1,2\n", ["two columns named 'a'", "1 and 2"]),
        ("a,\n1,2\n", ["column 2", "no name"]),
        ("a," + "b" * 129 + "\n1,2\n", ["column 2", "128"]),
        ("a,b\n1,2\n3\n", ["1 cell in line 3", "2 in its header"]),
        ('a,b\n"1\n",2\n3,4,5\n', ["3 cells in line 4"]),
        ("a;b\n1;2\n", ["one column only", "'a;b'", "commas"]),
        ("a\tb\n1\t2\n", ["one column only", "commas"]),
        ('"a,b\n' + "1,2\n" * 40_000, ["quote", "never closed"]),
        (b"a,b\n1,x\n2,caf\xe9\n", ["not UTF-8", "line 3", "'b'"]),
        (b'a,b\n"1,5",caf\xe9\n', ["line 2", "'b'"]),
        (b"a,caf\xe9\n1,2\n", ["line 1", "column 2"]),
        ("a,b\n1,2\n".encode("utf-16"), ["not UTF-8", "line 1"]),
        (",".join(f"c{i}" for i in range(2001)) + "\n", ["2001 columns", "2000"]),
    ],
)
def test_refusals_name_the_place(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    sentence = refusal(tmp_path, text)
    assert "t.csv" in sentence or "column" in sentence or "header" in sentence
    assert "\n" not in sentence
    for part in words:
        assert part in sentence


@pytest.mark.parametrize("name", ["t.xlsx", "t.tsv", "t"])
def test_other_kinds_of_file(tmp_path: Path, name: str) -> None:
    assert "save it as .csv or .parquet" in refusal(tmp_path, "a,b\n1,2\n", name)


def test_no_file_a_folder_and_a_false_parquet(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("missing.csv", "folder.csv"):
        with pytest.raises(InputError, match="is not a file"):
            read_columns(tmp_path / name)
    assert "is not a Parquet file" in refusal(tmp_path, "a,b\n1,2\n", "t.parquet")
    assert "is not a Parquet file" in refusal(tmp_path, b"PAR1" + os.urandom(64) + b"PAR1", "t.parquet")
