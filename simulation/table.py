"""Bring your own table: a CSV or Parquet file's rows (or ids) become phones (spec 4.10).

What is public: the column names, and whether a column holds numbers or text. Everything finer (bounds, categories,
signs) comes from a fixed public grid, public hash buckets, or the person's `--schema` file, never from the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.errors import InputError, SchemaError
from model.risk.schema import Feature, Schema
from simulation.columns import MISSING, read_columns
from simulation.dataset import Dataset, holdout_by_id, holdout_share
from simulation.declared import Declared

BUCKETS = 64
MIN_ROWS = 2
EXACT = 2.0**53
LARGEST = float(np.finfo(np.float32).max)
YES = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


@dataclass(frozen=True)
class TableChoice:
    """What a person says about a table: the target column, and optionally id, protected columns and a schema file."""

    path: Path
    target: str
    positive: str | None = None
    id: str | None = None
    protected: tuple[str, ...] = ()
    schema: Path | None = None


@dataclass(frozen=True)
class Table:
    """A table as phones: the dataset, the privacy unit ("phone" with an id column, else "row"), and remarks."""

    dataset: Dataset
    unit: str
    notes: tuple[str, ...] = field(default=())


def read_table(choice: TableChoice, *, split_seed: int = 0) -> Table:
    """The file as a dataset; InputError, in one sentence, naming the column and the next step."""
    columns = read_columns(choice.path, {choice.id} if choice.id else ())
    declared = Declared.read(choice.schema)
    _require(choice, columns)
    labels = _labels(columns[choice.target], choice)
    used = [n for n in columns if n not in {choice.target, choice.id, *choice.protected}]
    if not used:
        raise InputError(f"{choice.path.name} has no column left as a feature; name fewer columns as protected")
    features, values, notes = _features(columns, used, declared)
    ids = _ids(columns, choice, len(labels))
    schema = _schema(choice.path.stem, features)
    protected = {name: _text(columns[name]) for name in choice.protected}
    dataset = _phones(schema, ids, np.column_stack(values).astype(np.float32), labels, protected, split_seed)
    return Table(dataset, "phone" if choice.id else "row", tuple(notes))


def hash_code(name: str, text: str, buckets: int) -> int:
    """The public code of a category's text: SHA-256 of column and text, modulo the number of buckets."""
    digest = hashlib.sha256(f"{name}\x00{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % buckets


def _require(choice: TableChoice, columns: Mapping[str, pa.Array]) -> None:
    wanted = {"--target": choice.target} | ({"--id": choice.id} if choice.id else {})
    for option, name in [*wanted.items(), *(("--protected", p) for p in choice.protected)]:
        if name not in columns:
            raise InputError(f"{option} names {name!r}, which {choice.path.name} lacks; it has {_list(columns)}")
    if choice.target == choice.id or choice.target in choice.protected:
        raise InputError(f"{choice.target!r} cannot be the target and something else too; choose another column")
    if len(columns[choice.target]) < MIN_ROWS:
        raise InputError(f"{choice.path.name} has {len(columns[choice.target])} rows; bring a table with more")


def _labels(column: pa.Array, choice: TableChoice) -> NDArray[np.float32]:
    """1 for the positive class, 0 for the other, NaN where the cell is empty (a phone without a label)."""
    text = _text(column)
    present = text[text != ""]
    seen = sorted(set(present.tolist()))
    if choice.positive is not None:
        positive = _matching(choice.positive, seen)
        if positive is None:
            raise InputError(f"no row has {choice.positive!r} in {choice.target!r}; it holds {_list(seen)}")
        marks = {value: float(value == positive) for value in seen}
    else:
        marks = {value: YES[value.lower()] for value in seen if value.lower() in YES}
        if len(marks) < len(seen):
            raise InputError(
                f"target {choice.target!r} is not 0 or 1 but holds {_list(seen)}; name the bad outcome with --positive"
            )
    if not seen:
        raise InputError(f"target {choice.target!r} is empty in every row; choose the column that holds the outcome")
    if len(set(marks.values())) < 2:
        raise InputError(f"target {choice.target!r} has one class only ({_list(seen)}); it needs good and bad rows")
    return np.array([marks.get(value, np.nan) for value in text.tolist()], dtype=np.float32)


def _matching(positive: str, seen: Sequence[str]) -> str | None:
    if positive in seen:
        return positive
    return next((value for value in seen if _same_number(value, positive)), None)


def _same_number(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def _features(
    columns: Mapping[str, pa.Array], used: Sequence[str], declared: Declared
) -> tuple[list[Feature], list[NDArray[np.float64]], list[str]]:
    features, values, notes = [], [], []
    unknown = sorted(set(declared.features) - set(columns))
    if unknown:
        raise InputError(f"the schema file describes {_list(unknown)}, which the table lacks; mend its names")
    for name in used:
        column = columns[name]
        number = not pa.types.is_string(column.type)
        feature = declared.feature(name, "number" if number else "category", BUCKETS)
        if feature.kind == "number" and not number:
            raise InputError(f"column {name!r} holds text, but the schema file calls it a number; mend either")
        features.append(feature)
        values.append(_numbers(column) if feature.kind == "number" else _codes(_text(column), feature))
        if feature.kind == "number" and (endless := int(pc.sum(pc.is_inf(column)).as_py() or 0)):
            notes.append(f"column {name!r} has {endless} infinite cells; they count as missing")
        if column.null_count == len(column):
            notes.append(f"column {name!r} is empty in every row; it cannot help the model")
    return features, values, notes


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    """Missing and infinite cells are NaN; a number beyond float32, which no bound reaches, stays a number."""
    cells = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(cells), np.clip(cells, -LARGEST, LARGEST), np.nan)


def _codes(text: NDArray[np.str_], feature: Feature) -> NDArray[np.float64]:
    """Code of each cell: its place in the public list (a value not listed is code `buckets`: other), or its hash."""
    distinct, place = np.unique(text, return_inverse=True)
    listed = {value: float(i) for i, value in enumerate(feature.values)}

    def code(value: str) -> float:
        if value == "":
            return np.nan
        if feature.values:
            return listed.get(value, float(feature.buckets))
        return float(hash_code(feature.name, value, feature.buckets))

    return np.array([code(value) for value in distinct.tolist()])[place]


def _text(column: pa.Array) -> NDArray[np.str_]:
    """Cells as text, "" where missing; whole numbers without a trailing .0."""
    if pa.types.is_floating(column.type):
        return np.array([_cell(value) for value in column.to_pylist()], dtype=np.str_)
    return np.array(pc.fill_null(pc.cast(column, pa.string()), "").to_pylist(), dtype=np.str_)


def _cell(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if abs(value) < EXACT and value == int(value) else str(value)


def _ids(columns: Mapping[str, pa.Array], choice: TableChoice, rows: int) -> NDArray[np.str_]:
    if choice.id is None:
        return np.arange(1, rows + 1).astype(np.str_)
    ids = _text(columns[choice.id])
    if (ids == "").any():
        raise InputError(f"id column {choice.id!r} is empty in row {int(np.argmax(ids == '')) + 2}; fill every id in")
    return ids


def _schema(name: str, features: Sequence[Feature]) -> Schema:
    try:
        return Schema(name=f"table:{name}"[:128], version="1", features=tuple(features))
    except SchemaError as error:
        raise InputError(str(error)) from error


def _phones(
    schema: Schema,
    ids: NDArray[np.str_],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    protected: Mapping[str, NDArray[np.str_]],
    split_seed: int,
) -> Dataset:
    """Group rows by id (order of first appearance); a row without a label leaves its phone but not its place."""
    _, first, owner = np.unique(ids, return_index=True, return_inverse=True)
    appearance = np.argsort(np.argsort(first, kind="stable"), kind="stable")[owner]
    labelled = ~np.isnan(y)
    order = np.argsort(appearance[labelled], kind="stable")
    counts = np.bincount(appearance[labelled], minlength=len(first))
    first = np.sort(first)
    hashed = np.array([_hash64(value) for value in ids[first].tolist()], dtype=np.uint64)
    return Dataset(
        schema=schema,
        ids=hashed,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        x=np.ascontiguousarray(x[labelled][order]),
        y=y[labelled][order],
        protected={name: values[first] for name, values in protected.items()},
        holdout=holdout_by_id(hashed, holdout_share(len(hashed)), split_seed),
    )


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(b"phone\x00" + text.encode()).digest()[:8], "big")


def _list(names: Sequence[str] | Mapping[str, object]) -> str:
    shown = [repr(name) for name in list(names)[:6]]
    return ", ".join(shown) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


__all__ = ["MISSING", "Table", "TableChoice", "hash_code", "read_table"]
