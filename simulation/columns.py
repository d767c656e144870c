"""A CSV or Parquet file as named columns of numbers or text, refused in one sentence where it cannot be read."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from model.errors import InputError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none", "?", "#N/A", ".")
MAX_COLUMNS = 2000
MAX_NAME = 128


def read_columns(path: Path, as_text: Collection[str] = ()) -> dict[str, pa.Array]:
    """Every column as float64 or string, nulls where missing. InputError on anything that is not such a table.

    Names in `as_text` keep their cells as they are written: as a float, a long id would lose digits. Dates become days
    since 1970-01-01.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a .csv or .parquet file")
    readers = {".csv": _csv, ".parquet": _parquet, ".pq": _parquet}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path.name} ends in {path.suffix!r}; save it as .csv or .parquet")
    table = readers[path.suffix.lower()](path)
    if table.num_rows == 0:
        raise InputError(f"{path.name} has a header but no rows; bring a table with rows")
    named = {name: table.column(i).combine_chunks() for i, name in enumerate(table.column_names)}
    return {name: _simple(name, column, name in as_text) for name, column in named.items()}


def _csv(path: Path) -> pa.Table:
    text = _decoded(path)
    names, lines = _header(text)
    _check_names(path, names)
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in names}, null_values=list(MISSING), strings_can_be_null=True
    )
    read = pyarrow.csv.ReadOptions(column_names=names, skip_rows=lines)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        return pyarrow.csv.read_csv(path, convert_options=convert, read_options=read, parse_options=parse)
    except pa.ArrowInvalid as error:
        if "empty" in str(error).lower() or "could not skip" in str(error).lower():
            raise InputError(f"{path.name} has a header but no rows; bring a table with rows") from error
        raise InputError(_irregular(path, text, len(names), lines) or _sentence(path, error)) from error


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable and try again") from error
    if not data.strip():
        raise InputError(f"{path.name} is empty; bring a file with a header and rows")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = _column_at(data, error.start)
        raise InputError(
            f"{path.name} has a byte that is not UTF-8 in line {line}, column {column}; save the file as UTF-8"
        ) from error


def _header(text: str) -> tuple[list[str], int]:
    """Column names, each on one line, and the lines that the header takes."""
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        names = next((row for row in rows if any(cell.strip() for cell in row)), [])
    except csv.Error as error:
        raise InputError("the header has a quote that is never closed; close it and try again") from error
    return [" ".join(name.split("\n")).strip() for name in names], rows.line_num


def _irregular(path: Path, text: str, width: int, skipped: int) -> str | None:
    """One sentence naming the first line whose cells are not as many as the header's."""
    lines = io.StringIO(text, newline="")
    rows = csv.reader(line for number, line in enumerate(lines) if number >= skipped)
    line = skipped + 1
    try:
        for row in rows:
            if row and len(row) != width:
                cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                return f"{path.name} has {cells} in line {line} and {width} in its header; mend that line"
            line = skipped + rows.line_num + 1
    except csv.Error:
        return f"{path.name} has a quote from line {line} on that is never closed; close it and try again"
    return None


def _sentence(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0].rstrip(".")
    return f"{path.name} is not a regular CSV table ({reason}); mend it and try again"


def _column_at(data: bytes, start: int) -> str:
    """The column of a byte: its name, or its number where the header has none for it."""
    names = next(csv.reader([data.split(b"\n", 1)[0].decode("utf-8-sig", "replace")]))
    begin = data.rfind(b"\n", 0, start) + 1
    place = len(next(csv.reader([data[begin : start + 1].decode("latin-1")]))) - 1
    return repr(names[place].strip()) if begin and place < len(names) else str(place + 1)


def _parquet(path: Path) -> pa.Table:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path.name} is not a Parquet file ({reason}); export it again") from error
    _check_names(path, table.column_names)
    return table


def _check_names(path: Path, names: list[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{path.name} has {len(names)} columns; keep at most {MAX_COLUMNS}")
    for place, name in enumerate(names, 1):
        if not name or len(name) > MAX_NAME:
            raise InputError(f"column {place} of {path.name} has no name, or one over {MAX_NAME} characters; rename it")
        if names.index(name) != place - 1:
            first = names.index(name) + 1
            raise InputError(f"{path.name} has two columns named {name!r} (number {first} and {place}); rename one")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InputError(f"{path.name} has one column only, {names[0]!r}; separate its cells by commas")


def _simple(name: str, column: pa.Array, as_text: bool = False) -> pa.Array:
    """float64 where every cell present is a number, truth value or date; else text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _simple(name, column.cast(kind.value_type), as_text)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        trimmed = _trimmed(column.cast(pa.string()))
        return trimmed if as_text else _numbers_or(trimmed)
    if pa.types.is_integer(kind):
        return column.cast(pa.string()) if as_text else column.cast(pa.float64(), safe=False)
    if pa.types.is_boolean(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).cast(pa.float64())
        return pc.divide(seconds, 86_400.0)
    raise InputError(f"column {name!r} holds {kind}, neither numbers nor text; drop it or turn it into one of them")


def _trimmed(column: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(column)
    empty = pc.is_in(trimmed, value_set=pa.array(MISSING))
    return pc.if_else(empty, pa.scalar(None, pa.string()), trimmed)


def _numbers_or(text: pa.Array) -> pa.Array:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        return text
