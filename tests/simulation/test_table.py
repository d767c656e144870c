"""A person's table as phones: values, labels, ids, protected columns, and a schema that no row has touched."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import InputError
from simulation.table import BUCKETS, Table, TableChoice, hash_code, read_table

FILE = """customer,age,city,sex,late
ann,31,Pune,f,0
bob,,Delhi,m,1
ann,32,,f,1
cid,44,Pune,m,
dan,51,Agra,f,no
bob,29,Pune,m,yes
"""


def table(folder: Path, text: str = FILE, *, target: str = "late", **choice: object) -> Table:
    path = folder / "loans.csv"
    path.write_text(text, "utf-8")
    return read_table(TableChoice(path, target, **choice))  # type: ignore[arg-type]


def test_rows_become_phones_without_an_id(tmp_path: Path) -> None:
    found = table(tmp_path, protected=("sex", "customer"))
    assert found.unit == "row" and found.dataset.phones == 6
    assert found.dataset.counts.tolist() == [1, 1, 1, 0, 1, 1]  # the fourth has no label: a phone without a row
    assert found.dataset.y.tolist() == [0, 1, 1, 0, 1]


def test_rows_of_one_id_are_one_phone_side_by_side(tmp_path: Path) -> None:
    found = table(tmp_path, id="customer", protected=("sex",)).dataset
    assert found.phones == 4  # ann, bob, cid, dan, in the order they appear
    assert found.counts.tolist() == [2, 2, 0, 1]
    ages = found.x[:, found.schema.index("age")]
    np.testing.assert_array_equal(ages, np.array([31, 32, np.nan, 29, 51], np.float32))
    assert found.y.tolist() == [0, 1, 1, 1, 0]
    assert found.protected["sex"].tolist() == ["f", "m", "m", "f"]


def test_protected_target_and_id_are_never_features(tmp_path: Path) -> None:
    found = table(tmp_path, id="customer", protected=("sex", "city")).dataset
    assert found.schema.names == ("age",)
    assert list(found.protected) == ["sex", "city"]
    control = table(tmp_path, id="customer").dataset
    assert control.schema.names == ("age", "city", "sex")


def test_text_becomes_the_public_hash_of_its_text(tmp_path: Path) -> None:
    found = table(tmp_path, id="customer").dataset
    codes = found.x[:, found.schema.index("city")].tolist()
    expected = [hash_code("city", "Pune", BUCKETS), None, hash_code("city", "Delhi", BUCKETS)]
    assert codes[0] == expected[0] and np.isnan(codes[1]) and codes[2] == expected[2]
    assert hash_code("city", "Pune", BUCKETS) != hash_code("town", "Pune", BUCKETS)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abcdefg"),
            st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
            st.one_of(st.none(), st.sampled_from(["red", "blue", "über", "a,b"])),
            st.sampled_from(["0", "1", ""]),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_a_table_and_its_dataset_say_the_same(tmp_path: Path, rows: list[tuple[str, float, str, str]]) -> None:
    rows = [*rows, ("y", 1.0, "red", "0"), ("z", 2.0, "blue", "1")]
    lines = [f'{i},{"" if n is None else repr(n)},"{t or ""}",{y}' for i, n, t, y in rows]
    data = table(tmp_path, "who,number,colour,late\n" + "\n".join(lines) + "\n", id="who").dataset
    order = list(dict.fromkeys(i for i, *_ in rows))
    expected = [(i, n, t, y) for who in order for i, n, t, y in rows if i == who and y]
    assert data.counts.tolist() == [sum(i == who and y != "" for i, _, _, y in rows) for who in order]
    assert data.y.tolist() == [float(y) for *_, y in expected]
    for got, (_, number, colour, _) in zip(data.x.tolist(), expected, strict=True):
        assert got[0] == number if number is not None else np.isnan(got[0])
        assert got[1] == hash_code("colour", colour, BUCKETS) if colour else np.isnan(got[1])


@pytest.mark.parametrize(
    ("cells", "positive"),
    [(("1", "0"), None), (("True", "false"), None), (("YES", "no"), None), (("bad", "good"), "bad"), (("2", "1"), "2"),
     (("1.0", "0.0"), None), (("2", "1"), "2.0")],
)  # fmt: skip
def test_targets(tmp_path: Path, cells: tuple[str, str], positive: str | None) -> None:
    found = table(tmp_path, f"a,late\n1,{cells[0]}\n2,{cells[1]}\n3,{cells[0]}\n", positive=positive)
    assert found.dataset.y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "choice", "words"),
    [
        ("a,late\n1,2\n2,1\n", {}, ["'late' is not 0 or 1", "'1', '2'", "--positive"]),
        ("a,late\n1,0.5\n2,1\n", {}, ["'late'", "'0.5'"]),
        ("a,late\n1,inf\n2,1\n", {}, ["'late'", "'inf'"]),
        ("a,late\n1,1\n2,1\n", {}, ["'late' has one class only", "'1'"]),
        ("a,late\n1,bad\n2,bad\n", {"positive": "bad"}, ["one class only"]),
        ("a,late\n1,bad\n2,ok\n", {"positive": "worse"}, ["no row has 'worse'", "'bad', 'ok'"]),
        ("a,late\n1,\n2,NA\n", {}, ["'late' is empty in every row"]),
        ("a,late\n1,1\n", {}, ["1 rows"]),
        ("a,late\n1,1\n2,0\n", {"target": "b"}, ["--target names 'b'", "'a', 'late'"]),
        ("a,late\n1,1\n2,0\n", {"id": "b"}, ["--id names 'b'"]),
        ("a,late\n1,1\n2,0\n", {"protected": ("b",)}, ["--protected names 'b'"]),
        ("a,late\n1,1\n2,0\n", {"protected": ("a",)}, ["no column left"]),
        ("a,late\n1,1\n2,0\n", {"id": "late"}, ["'late' cannot be the target and something else"]),
        ("a,late\n1,1\n2,0\n", {"protected": ("late",)}, ["'late' cannot be the target"]),
        ("id,a,late\nx,1,1\n,2,0\n", {"id": "id"}, ["id column 'id' is empty in row 3"]),
    ],
)
def test_refusals_name_column_and_next_step(
    tmp_path: Path, text: str, choice: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        table(tmp_path, text, **choice)  # type: ignore[arg-type]
    for part in words:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("[features.none]\nlower = 0\n", ["describes 'none'", "table lacks"]),
        ('[features.city]\nkind = "number"\n', ["'city' holds text", "a number"]),
    ],
)
def test_a_schema_file_that_does_not_fit(tmp_path: Path, schema: str, words: list[str]) -> None:
    (tmp_path / "s.toml").write_text(schema)
    with pytest.raises(InputError) as caught:
        table(tmp_path, schema=tmp_path / "s.toml")
    for part in words:
        assert part in str(caught.value)


def test_a_declared_list_gives_codes_by_place_and_others_one_more(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('[features.city]\nvalues = ["Delhi", "Pune"]\n[features.age]\nlower = 18\n')
    data = table(tmp_path, id="customer", schema=tmp_path / "s.toml").dataset
    codes = data.x[:, data.schema.index("city")]
    np.testing.assert_array_equal(codes, np.array([1, np.nan, 0, 1, 2], np.float32))  # Agra is not listed: 2
    assert data.schema.features[0].lower == 18.0


def test_a_number_may_be_declared_a_category(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('[features.grade]\nkind = "category"\nvalues = ["1", "2"]\n')
    data = table(tmp_path, "grade,late\n1,0\n2.0,1\n3,1\n", schema=tmp_path / "s.toml").dataset
    assert data.x[:, 0].tolist() == [0, 1, 2]


def test_huge_infinite_and_empty_columns(tmp_path: Path) -> None:
    found = table(tmp_path, "a,b,c,late\n1e300,inf,,0\n-1e300,-inf,,1\n1,2,,1\n")
    assert np.isfinite(found.dataset.x[:, 0]).all()
    assert np.isnan(found.dataset.x[:2, 1]).all()
    assert np.isnan(found.dataset.x[:, 2]).all()
    assert any("'c' is empty" in note for note in found.notes)
    assert any("'b' has 2 infinite cells" in note for note in found.notes)
    assert len(found.notes) == 2  # a huge number is a number: nothing to remark


def _random_file(seed: int, rows: int) -> str:
    source = random.Random(seed)
    lines = [
        f"{source.uniform(-10, 10) * 10 ** (seed % 5)},{source.choice('abcdefgh') * (1 + seed % 3)},{i % 2}"
        for i in range(rows)
    ]
    return "number,text,late\n" + "\n".join(lines) + "\n"


def test_the_schema_is_the_same_whatever_the_rows_say(tmp_path: Path) -> None:
    """No bound, category or count is read from rows: only header and kinds, which are public, reach the schema."""
    digests = {table(tmp_path, _random_file(seed, 40 + seed)).dataset.schema.digest for seed in range(12)}
    assert len(digests) == 1
    (tmp_path / "s.toml").write_text("[features.number]\nupper = 99\n")
    control = table(tmp_path, _random_file(0, 40), schema=tmp_path / "s.toml").dataset.schema.digest
    renamed = table(tmp_path, _random_file(0, 40).replace("number", "amount")).dataset.schema.digest
    assert control not in digests and renamed not in digests and control != renamed


def test_a_phone_keeps_its_side_of_the_split(tmp_path: Path) -> None:
    """The hash of the id decides: neither the other rows nor their order change it."""
    rows = [f"c{i},{i},{i % 2}" for i in range(400)]
    head = "who,a,late\n"
    first = table(tmp_path, head + "\n".join(rows) + "\n", id="who").dataset
    shuffled = random.Random(1).sample(rows, 300)
    second = table(tmp_path, head + "\n".join(shuffled) + "\n", id="who").dataset
    sides = dict(zip(first.ids.tolist(), first.holdout.tolist(), strict=True))
    assert [sides[i] for i in second.ids.tolist()] == second.holdout.tolist()
    assert 0.13 < first.holdout.mean() < 0.27
    salted = read_table(TableChoice(tmp_path / "loans.csv", "late", id="who"), split_seed=7).dataset
    assert salted.holdout.tolist() != second.holdout.tolist()


def test_a_small_table_holds_out_enough_to_evaluate(tmp_path: Path) -> None:
    for rows in (100, 120, 200):
        text = "a,late\n" + "".join(f"{i},{i % 2}\n" for i in range(rows))
        assert 30 <= table(tmp_path, text).dataset.holdout.sum() <= rows - 30


def test_long_ids_are_not_merged(tmp_path: Path) -> None:
    found = table(tmp_path, "who,a,late\n9007199254740993,1,0\n9007199254740992,2,1\n007,3,0\n7,4,1\n", id="who")
    assert found.dataset.phones == 4
