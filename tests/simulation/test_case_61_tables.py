"""Case 61: whatever a person's table holds, it works, or one sentence says which column and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

NAMES = ("age", "city", "paid")


def rows_of(count: int, seed: int = 1) -> list[list[str]]:
    """Age, city and outcome, the older and those of c1 defaulting more."""
    random = np.random.Generator(np.random.Philox(seed))
    age, city = random.normal(50, 20, count), random.integers(0, 4, count)
    bad = random.random(count) < 1 / (1 + np.exp(-((age - 55) / 15 + (city == 1))))
    return [[f"{a:.2f}", f"c{c}", str(int(b))] for a, c, b in zip(age, city, bad, strict=True)]


def text_of(rows: Sequence[Sequence[str]], names: Sequence[str] = NAMES) -> str:
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows([names, *rows])
    return held.getvalue()


class Attempt:
    """One command line over one file, in a folder of its own."""

    def __init__(self, cli, folder: Path) -> None:  # type: ignore[no-untyped-def]
        self.cli, self.folder = cli, folder
        self.file = folder / "loans.csv"
        self.out = folder / "runs" / "mine"

    def __call__(self, data: str | bytes, *options: str, target: str = "paid"):  # type: ignore[no-untyped-def]
        self.file.write_bytes(data.encode() if isinstance(data, str) else data)
        fixed = ("--target", target, "--rounds", 2, "--no-baselines", "--json", "--out", self.out)
        return self.cli("simulate", "--data", self.file, *fixed, *options)

    def refused(self, data: str | bytes, *options: str, target: str = "paid") -> str:
        """The sentence; nothing may be left where the run would have been."""
        sentence: str = self(data, *options, target=target).sentence
        assert not self.out.parent.exists() or list(self.out.parent.iterdir()) == []
        return sentence


@pytest.fixture
def attempt(cli, tmp_path: Path) -> Attempt:  # type: ignore[no-untyped-def]
    return Attempt(cli, tmp_path)


def say(sentence: str, *parts: str) -> None:
    for part in parts:
        assert part in sentence


def test_case_61_an_empty_file(attempt: Attempt) -> None:
    say(attempt.refused(""), "loans.csv is empty")


def test_case_61_a_header_only(attempt: Attempt) -> None:
    say(attempt.refused("age,city,paid\n"), "header but no rows")


def test_case_61_duplicate_headers(attempt: Attempt) -> None:
    say(attempt.refused(text_of(rows_of(120), ("age", "age", "paid"))), "two columns named 'age'", "rename one")


def test_case_61_a_byte_that_is_not_utf8(attempt: Attempt) -> None:
    data = text_of(rows_of(120)).encode().replace(b"c1", b"caf\xe9", 1)
    line = data[: data.index(b"\xe9")].count(b"\n") + 1
    say(attempt.refused(data), f"line {line}", "column 'city'", "UTF-8")


def test_case_61_a_ragged_row(attempt: Attempt) -> None:
    rows = rows_of(120)
    rows[6] = rows[6][:2]
    say(attempt.refused(text_of(rows)), "2 cells in line 8", "3 in its header")


def test_case_61_separated_by_semicolons(attempt: Attempt) -> None:
    say(attempt.refused(text_of(rows_of(120)).replace(",", ";")), "one column only", "commas")


def test_case_61_thirty_rows(attempt: Attempt) -> None:
    say(attempt.refused(text_of(rows_of(30))), "30 phones", "minimum cohort of 30", "bring at least 90")


@pytest.mark.parametrize("outcome", ["0", "1"])
def test_case_61_one_class_only(attempt: Attempt, outcome: str) -> None:
    rows = [[*row[:2], outcome] for row in rows_of(120)]
    say(attempt.refused(text_of(rows)), "'paid' has one class only")


def test_case_61_a_target_that_is_not_0_or_1(attempt: Attempt) -> None:
    rows = [[*row[:2], "bad" if row[2] == "1" else "good"] for row in rows_of(120)]
    say(attempt.refused(text_of(rows)), "'paid' is not 0 or 1", "'bad', 'good'", "--positive")
    say(attempt.refused(text_of(rows), "--positive", "worse"), "no row has 'worse'")


def test_case_61_a_target_without_cells(attempt: Attempt) -> None:
    say(attempt.refused(text_of([[*row[:2], ""] for row in rows_of(120)])), "'paid' is empty in every row")


def test_case_61_a_target_that_is_not_there(attempt: Attempt) -> None:
    say(attempt.refused(text_of(rows_of(120)), target="late"), "--target names 'late'", "'age', 'city', 'paid'")


def test_case_61_only_protected_columns(attempt: Attempt) -> None:
    say(attempt.refused(text_of(rows_of(120)), "--protected", "age, city"), "no column left as a feature")


def test_case_61_another_kind_of_file(attempt: Attempt) -> None:
    attempt.file = attempt.folder / "loans.xlsx"
    say(attempt.refused("PK"), "loans.xlsx", ".csv or .parquet")


def test_case_61_a_schema_file_that_is_not_toml(attempt: Attempt) -> None:
    schema = attempt.folder / "s.toml"
    schema.write_text("[features\n")
    say(attempt.refused(text_of(rows_of(120)), "--schema", str(schema)), "s.toml", "--schema")


def test_case_61_a_mended_command_is_not_taken_for_another_run(attempt: Attempt) -> None:
    """A refusal leaves nothing that would stand in the way of the next attempt with other options."""
    attempt.refused(text_of(rows_of(30)))
    say(attempt.refused(text_of(rows_of(40)), "--rounds", "3"), "40 phones")


def _changed(place: int, cell: str, every: int = 1) -> str:
    rows = [[cell if j == place and i % every == 0 else c for j, c in enumerate(r)] for i, r in enumerate(rows_of(150))]
    return text_of(rows)


WORKS: dict[str, str | bytes] = {
    "text columns": text_of([[f"{row[0]} years", *row[1:]] for row in rows_of(150)]),
    "missing cells": _changed(0, "", 3),
    "missing text": _changed(1, "NA", 3),
    "target cells missing": _changed(2, "", 4),
    "an empty column": _changed(0, ""),
    "a constant column": _changed(0, "7"),
    "infinite cells": _changed(0, "-inf", 5),
    "huge numbers": _changed(0, "1e300", 5),
    "byte order mark": b"\xef\xbb\xbf" + text_of(rows_of(150)).encode(),
    "carriage returns": text_of(rows_of(150)).replace("\n", "\r\n"),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", WORKS)
def test_case_61_works(attempt: Attempt, name: str) -> None:
    summary = attempt(WORKS[name], "--score", "0").summary
    assert summary["phones"] == 150
    assert summary["labelled_rows"] == (112 if name == "target cells missing" else 150)
    assert summary["model"]["features"] == 2
    assert (attempt.out / "report.html").exists() and (attempt.out / "bundle.cbor").exists()


@pytest.mark.integration
def test_case_61_baselines_bear_an_empty_column_and_one_default(attempt: Attempt) -> None:
    """They are fitted by default, in a process beside the run, which must not fail for a column or a rare outcome."""
    rows = [[age, "", str(int(i % 50 == 0))] for i, (age, *_) in enumerate(rows_of(150))]
    summary = attempt(text_of(rows), "--score", "0", "--baselines").summary
    assert set(summary["auc"]) >= {"central", "boosting", "silo"}


def test_case_61_names_that_are_not_utf8(attempt: Attempt) -> None:
    odd = "caf\udce9"  # as Python reads the byte E9 on a command line
    out, file = attempt.out, attempt.file
    attempt.out = attempt.folder / "runs" / odd
    say(attempt.refused(text_of(rows_of(120))), "--out", "not UTF-8")
    attempt.out, attempt.file = out, attempt.folder / f"{odd}.csv"
    say(attempt.refused(text_of(rows_of(120))), "--data", "not UTF-8")
    attempt.file = file
    say(attempt.refused(text_of(rows_of(120)), target=odd), "--target", "not UTF-8")


@pytest.mark.integration
def test_case_61_all_oddities_at_once_up_to_the_lender(attempt: Attempt) -> None:
    """Odd names and odd cells pass training, the ONNX file, the manifest, a phone and the lender."""
    names = ['what\'s, "it" \\ {0}', "  जगह with blanks ", "Zahlung [bold]€[/bold]", "always 3", "nothing", "sex", "id"]
    rows = [
        [row[0] if i % 9 else ("inf" if i % 2 else ""), row[1] if i % 7 else "", ["ok", "säumig"][int(row[2])], "3", "",
         "fm"[i % 2], f"0{i}"]
        for i, row in enumerate(rows_of(4000))
    ]  # fmt: skip
    options = (
        "--positive",
        "säumig",
        "--id",
        "id",
        "--protected",
        "sex",
        "--epsilon",
        "100",
        "--score",
        "5",
        "--rounds",
        "6",
    )
    said = attempt(text_of(rows, names), *options, target="Zahlung [bold]€[/bold]")
    summary = said.summary
    assert summary["model"]["features"] == 4 and summary["epsilon"]["unit"] == "phone"
    assert summary["release"] is not None, said
    assert summary["auc"]["federated"] > 0.7
    assert summary["scored"]["envelopes_opened"] == summary["scored"]["phones"] == 5
    assert summary["egress"]["undeclared"] == 0
