"""The encrypted store: nothing readable on disk, nothing moved, cut or forgotten."""

import sqlite3
import struct
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_client.store import SqliteStore
from model.errors import InputError, SchemaError

ROOT = b"r" * 32
MARKER = 0x4D41524B45525F31  # "MARKER_1" as a number
TEXT = "PLANTED-ROW-NAME"
KIND = "planted_kind"


class PlainCipher:
    """The control: a store that encrypts nothing."""

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        return context + b"|" + plaintext

    def open(self, body: bytes, context: bytes) -> bytes:
        return body[len(context) + 1 :]


def plant(store: SqliteStore) -> None:
    store.append_events(KIND, {"day": np.array([5], "<i4"), "amount": np.array([MARKER], "<i8")})
    store.put_row({TEXT: 1234.5678})
    store.append("consent", {"id": "PLANTED-CONSENT-ID"})
    store.next_number("planted-lender")


def markers() -> list[bytes]:
    numbers = [struct.pack("<q", MARKER), struct.pack(">q", MARKER), struct.pack(">d", 1234.5678)]
    return [*numbers, TEXT.encode(), KIND.encode(), b"PLANTED-CONSENT-ID", b"planted-lender"]


def bytes_on_disk(folder) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_no_plaintext_in_any_of_the_stores_files(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite", ROOT)
    plant(store)
    assert (tmp_path / "store.sqlite-wal").stat().st_size > 0
    open_bytes = bytes_on_disk(tmp_path)
    store.close()
    for data in (open_bytes, bytes_on_disk(tmp_path)):
        assert [m for m in markers() if m in data] == []


def test_the_same_search_finds_an_unencrypted_store(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite", ROOT, cipher=PlainCipher())
    plant(store)
    store.close()
    data = bytes_on_disk(tmp_path)
    found = [m for m in markers() if m in data]
    assert len(found) >= 5
    assert TEXT.encode() in found
    assert struct.pack("<q", MARKER) in found


def test_everything_comes_back_after_reopening(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT)
    store.append_events("upi", {"day": np.array([1, 2], "<i4"), "amount": np.array([1.5, 2.5], "<f4")})
    store.append_events("upi", {"day": np.array([3], "<i4"), "amount": np.array([9.0], "<f4")})
    store.put_row({"a": 1.0, "b": float("nan")})
    store.put_row({"a": 2.0, "b": float("nan")})
    store.append("ledger", {"n": 1})
    store.append("ledger", {"n": 2})
    assert [store.next_number("x"), store.next_number("y"), store.next_number("x")] == [1, 1, 2]
    store.close()
    again = SqliteStore(tmp_path / "s", ROOT)
    events = again.events()
    assert list(events) == ["upi"]
    assert events["upi"]["day"].tolist() == [1, 2, 3]
    assert events["upi"]["amount"].dtype == np.dtype("<f4")
    row = again.row()
    assert row is not None and row["a"] == 2.0 and np.isnan(row["b"])
    assert [entry["n"] for entry in again.entries("ledger")] == [1, 2]
    assert again.entries("consent") == []
    assert again.next_number("x") == 3
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


@given(hnp.arrays(st.sampled_from(["<i4", "<f8", "<u2", "?"]), st.integers(0, 20)))
def test_any_numeric_column_round_trips(column):
    store = SqliteStore(":memory:", ROOT)
    store.append_events("k", {"day": np.arange(len(column)), "v": column})
    back = store.events()["k"]["v"]
    assert back.dtype == column.dtype
    assert back.tobytes() == column.tobytes()
    store.close()


def test_another_key_does_not_open_it(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT)
    store.append("t", {"n": 1})
    store.close()
    with pytest.raises(InputError):
        SqliteStore(tmp_path / "s", b"x" * 32)


def test_a_record_moved_to_another_place_is_refused(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT)
    store.append("t", {"n": 1})
    store.append("t", {"n": 2})
    store.close()
    db = sqlite3.connect(tmp_path / "s")
    (first, second) = [body for (body,) in db.execute("SELECT body FROM record ORDER BY seq")]
    db.execute("UPDATE record SET body = ? WHERE seq = 1", (second,))
    db.execute("UPDATE record SET body = ? WHERE seq = 2", (first,))
    db.commit()
    db.close()
    with pytest.raises(InputError, match="does not open"):
        SqliteStore(tmp_path / "s", ROOT).entries("t")


def test_case_26_a_cut_store_is_detected_and_nothing_is_appended(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT)
    for n in range(3):
        store.append("t", {"n": n})
    store.close()
    db = sqlite3.connect(tmp_path / "s")
    db.execute("DELETE FROM record WHERE seq = 3")
    db.commit()
    db.close()
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(InputError, match="cut or added to"):
        SqliteStore(tmp_path / "s", ROOT)
    assert (tmp_path / "s").read_bytes() == before


def test_case_26_a_truncated_file_is_one_sentence(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT)
    store.append("t", {"blob": b"x" * 20_000})
    store.close()
    data = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be used"):
        SqliteStore(tmp_path / "s", ROOT).entries("t")


def test_retention_drops_old_days_from_the_disk_too(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT, cipher=PlainCipher())  # readable, so that the search can see
    old, new = 0x0123456789ABCDEF, 0x1122334455667788
    store.append_events("upi", {"day": np.array([1, 50]), "v": np.array([old, new])})
    store.append_events("bill", {"day": np.array([2]), "v": np.array([old])})
    assert struct.pack("<q", old) in bytes_on_disk(tmp_path)
    assert store.retain(first_day=10) == 2
    assert store.retain(first_day=10) == 0
    events = store.events()
    assert events["upi"]["day"].tolist() == [50]
    assert "bill" not in events
    store.close()
    data = bytes_on_disk(tmp_path)
    assert struct.pack("<q", old) not in data
    assert struct.pack("<q", new) in data
    again = SqliteStore(tmp_path / "s", ROOT, cipher=PlainCipher())
    assert again.events()["upi"]["v"].tolist() == [new]


@pytest.mark.parametrize(
    "columns",
    [
        {"amount": np.zeros(1)},
        {"day": np.zeros(1), "amount": np.zeros(2)},
        {"day": np.zeros(1), "who": np.array(["a"])},
        {"day": np.zeros((1, 1))},
    ],
)
def test_columns_that_are_no_events_are_refused(columns):
    store = SqliteStore(":memory:", ROOT)
    with pytest.raises(SchemaError):
        store.append_events("k", columns)
    assert store.events() == {}


def test_a_failed_append_leaves_nothing(tmp_path):
    store = SqliteStore(tmp_path / "s", ROOT)
    store.append("t", {"n": 1})
    blocker = sqlite3.connect(tmp_path / "s")
    store._db.execute("PRAGMA busy_timeout=0")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="cannot be written"):
        store.next_number("x")
    blocker.rollback()
    assert store.next_number("x") == 1


def test_two_connections_never_share_a_number_or_lose_a_record(tmp_path):
    SqliteStore(tmp_path / "s", ROOT).close()
    numbers: list[int] = []

    def count() -> None:
        for _ in range(20):
            store = SqliteStore(tmp_path / "s", ROOT)  # opening checks the head while the other appends
            numbers.append(store.next_number("x"))
            store.append("t", {"n": 1})
            store.close()

    threads = [Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 61))
    assert len(SqliteStore(tmp_path / "s", ROOT).entries("t")) == 60


def test_an_unusable_path_is_one_sentence(tmp_path):
    (tmp_path / "not.sqlite").write_bytes(b"this is no database at all" * 50)
    for path in (tmp_path / "no" / "s", tmp_path / "not.sqlite"):
        with pytest.raises(InputError, match="cannot be used"):
            SqliteStore(path, ROOT)
