"""A CSV or Parquet file as named columns of numbers or text, refused in one sentence where it cannot be read."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from model.errors import InputError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none", "?", "#N/A", ".")
MAX_COLUMNS = 2000
MAX_NAME = 128


def read_columns(path: Path) -> dict[str, pa.Array]:
    """Every column as float64 or string, nulls where missing. InputError on anything that is not such a table."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a .csv or .parquet file")
    readers = {".csv": _csv, ".parquet": _parquet, ".pq": _parquet}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path.name} ends in {path.suffix!r}; save it as .csv or .parquet")
    table = readers[path.suffix.lower()](path)
    if table.num_rows == 0:
        raise InputError(f"{path.name} has a header but no rows; bring a table with rows")
    return {name: _simple(name, table.column(i).combine_chunks()) for i, name in enumerate(table.column_names)}


def _csv(path: Path) -> pa.Table:
    names = _header(path)
    _check_names(path, names)
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in names}, null_values=list(MISSING), strings_can_be_null=True
    )
    read = pyarrow.csv.ReadOptions(column_names=names, skip_rows=1)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        return pyarrow.csv.read_csv(path, convert_options=convert, read_options=read, parse_options=parse)
    except pa.ArrowInvalid as error:
        if "empty" in str(error).lower():
            raise InputError(f"{path.name} has a header but no rows; bring a table with rows") from error
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path.name} is not a regular CSV table ({reason}); mend that row and try again") from error


def _header(path: Path) -> list[str]:
    data = path.read_bytes()
    if not data.strip():
        raise InputError(f"{path.name} is empty; bring a file with a header and rows")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = _column_at(data, error.start)
        raise InputError(
            f"{path.name} has a byte that is not UTF-8 in line {line}{column}; save the file as UTF-8"
        ) from error
    return [name.strip() for name in next(csv.reader(text.splitlines()))]


def _column_at(data: bytes, start: int) -> str:
    """ ", column 'x'" where the position can be told from the commas before it, else nothing."""
    header = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    names = next(csv.reader([header]))
    line_start = data.rfind(b"\n", 0, start) + 1
    place = data.count(b",", line_start, start)
    return f", column {names[place].strip()!r}" if line_start and place < len(names) else ""


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
            raise InputError(f"{path.name} has two columns named {name!r} (the {place}th is the second); rename one")


def _simple(name: str, column: pa.Array) -> pa.Array:
    """float64 where every cell present is a number, truth value or date; else text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _simple(name, column.cast(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text_or_number(column.cast(pa.string()))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64())
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_time(kind):
        return column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).cast(pa.float64())
    raise InputError(f"column {name!r} holds {kind}, neither numbers nor text; drop it or turn it into one of them")


def _text_or_number(column: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(column)
    empty = pc.is_in(trimmed, value_set=pa.array(MISSING))
    present = pc.if_else(empty, pa.scalar(None, pa.string()), trimmed)
    try:
        return present.cast(pa.float64())
    except pa.ArrowInvalid:
        return present
