"""`--schema FILE.toml`: what a person may declare, and which key is wrong where it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import InputError
from simulation.declared import Declared

WHOLE = """
[features.income]
lower = 0
upper = 500000.0
grid = "linear"
sign = -1
unit = "INR"
reason = "your income"
required = true
[features."home town"]
kind = "category"
values = ["Pune", "Delhi"]
"""


def declared(folder: Path, text: str | bytes) -> Declared:
    path = folder / "s.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Declared.read(path)


def test_every_key_reaches_the_feature(tmp_path: Path) -> None:
    file = declared(tmp_path, WHOLE)
    income = file.feature("income", "number", 64)
    assert (income.lower, income.upper, income.grid, income.sign) == (0.0, 500000.0, "linear", -1)
    assert isinstance(income.lower, float)
    assert (income.unit, income.reason, income.required) == ("INR", "your income", True)
    town = file.feature("home town", "category", 64)
    assert (town.kind, town.values, town.buckets) == ("category", ("Pune", "Delhi"), 2)


def test_without_a_file_nothing_is_declared() -> None:
    feature = Declared.read(None).feature("x", "category", 64)
    assert (feature.buckets, feature.values, feature.lower, feature.upper) == (64, (), -1e7, 1e7)
    assert feature.reason == "the value of x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[features.a\n", ["cannot be read", "--schema"]),
        (b"# caf\xe9\n", ["cannot be read"]),
        ("[columns.a]\nlower = 1\n", ["only [features.NAME]"]),
        ("features = 3\n", ["only [features.NAME]"]),
        ("[features]\na = 3\n", ["features.a is no table"]),
        ("[features.a]\nlowest = 1\n", ["features.a", "lowest is unknown", "lower"]),
        ('[features.a]\nlower = "1"\n', ["features.a.lower", "number", "'1'"]),
        ("[features.a]\nupper = inf\n", ["features.a.upper", "finite"]),
        ("[features.a]\nlower = nan\n", ["features.a.lower", "finite"]),
        ("[features.a]\nlower = true\n", ["features.a.lower", "number"]),
        ("[features.a]\nbuckets = 2.5\n", ["features.a.buckets", "whole number"]),
        ("[features.a]\nsign = true\n", ["features.a.sign"]),
        ('[features.a]\nrequired = "yes"\n', ["features.a.required", "true or false"]),
        ('[features.a]\nvalues = "ab"\n', ["features.a.values", "list"]),
        ("[features.a]\nvalues = [1]\n", ["features.a.values", "texts"]),
        ('[features.a]\nvalues = ["x", "x"]\n', ["features.a.values", "different"]),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        declared(tmp_path, text)
    assert "\n" not in str(caught.value)
    for part in words:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ("lower = 5\nupper = 5", "lower bound"),
        ("sign = 2", "sign"),
        ('grid = "log"', "grid"),
        ('kind = "date"', "kind"),
        ('kind = "category"\nbuckets = 0', "buckets"),
        ('kind = "category"\nbuckets = 3\nvalues = ["a", "b"]', "2 values for 3 buckets"),
    ],
)
def test_a_feature_that_cannot_be(tmp_path: Path, keys: str, word: str) -> None:
    file = declared(tmp_path, f"[features.a]\n{keys}\n")
    with pytest.raises(InputError, match="'a'") as caught:
        file.feature("a", "number", 64)
    assert word in str(caught.value) and "mend the file" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
        Declared.read(tmp_path / "nowhere.toml")
