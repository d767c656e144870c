"""A store that was edited, cut, emptied, removed or set back serves nothing, and says so in one sentence."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fl_server.review.helper import store as store_module
from fl_server.review.helper.ledger import spent_by_plan
from fl_server.review.helper.records import read_log
from model.canonical import decode, encode, sha256_hex
from model.errors import RunError

from .conftest import Bench, events


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM log WHERE place = 1",
        "UPDATE log SET digest = 'x' WHERE place = 0",
        "DELETE FROM head",
        "DELETE FROM messages WHERE id IN (SELECT id FROM messages LIMIT 1)",
        "DELETE FROM messages",
        "PRAGMA foreign_keys=OFF; DELETE FROM releases",
        "UPDATE releases SET round = 2",
        "UPDATE releases SET batch_digest = 'x'",
        "UPDATE releases SET plan_name = 'other'",
        "UPDATE releases SET delta = 0.1",
        "UPDATE releases SET budget = 100",
        "UPDATE releases SET model_digest = 'x'",
        "UPDATE releases SET dim = dim + 1",
        "UPDATE releases SET reserved_at = reserved_at - 400 * 86400",
        "UPDATE releases SET phones = phones - 1",
        "UPDATE releases SET phones = 'x'",
        "UPDATE releases SET charge = X'A0'",
        "UPDATE releases SET charge = 'x'",
        "UPDATE releases SET answer = X'00'",
        "UPDATE releases SET answer = NULL, state = 'void'",
        "UPDATE releases SET answer = NULL, state = 'reserved'",
        "UPDATE messages SET id = X'00' WHERE id IN (SELECT id FROM messages LIMIT 1)",
        "UPDATE messages SET id = 'x' WHERE id IN (SELECT id FROM messages LIMIT 1)",
        "PRAGMA foreign_keys=OFF; UPDATE messages SET release = 7 WHERE id IN (SELECT id FROM messages LIMIT 1)",
        "DELETE FROM log; DELETE FROM head; DELETE FROM messages; DELETE FROM releases",
        "UPDATE log SET entry = X'00' WHERE place = 0",
        "UPDATE log SET entry = 'x' WHERE place = 0",
        "UPDATE head SET signed = X'A0'",
        "UPDATE head SET signed = 'x'",
    ],
)
def test_case_26_and_60_an_edited_store_serves_nothing(bench: Bench, damage: str) -> None:
    with bench.desk() as desk:
        desk.share(bench.request(bench.plan()).to_bytes())
    bench.desk().close()  # the control: unedited, it opens
    db = sqlite3.connect(bench.home.store)
    db.executescript(damage)
    db.commit()
    db.close()
    for read in (bench.desk, lambda: events(bench), lambda: spent_by_plan(bench.home)):
        with pytest.raises(RunError, match=f"{bench.home.store} .*make a new home"):
            read()
    bench.home.store.with_name("helper.sqlite.lock").open().close()


CHARGE = {"name": "z", "noise_multiplier": 80.0, "sensitivity": 0.1, "count": 9, "sampling": 0.1, "split": "all"}


@pytest.mark.parametrize("field", list(CHARGE))
def test_case_26_a_charge_that_was_edited(bench: Bench, field: str) -> None:
    with bench.desk() as desk:
        desk.share(bench.request(bench.plan()).to_bytes())
    db = sqlite3.connect(bench.home.store)
    charge = decode(db.execute("SELECT charge FROM releases").fetchone()[0])
    for value, whole in ((CHARGE[field], False), (charge[field], True)):
        db.execute("UPDATE releases SET charge = ?", (encode({**charge, field: value}),))
        db.commit()
        if whole:  # the control: put back, it opens
            bench.desk().close()
        else:
            with pytest.raises(RunError, match="releases that are not those of its log"):
                bench.desk()


def test_case_26_messages_swapped_between_two_batches(bench: Bench) -> None:
    plan = bench.plan()
    with bench.desk() as desk:
        for round_ in (1, 2):
            desk.share(bench.request(plan, round=round_).to_bytes())
    db = sqlite3.connect(bench.home.store)
    for which, release, other in (("min", 1, 2), ("max", 2, 1)):  # as many a batch as before
        db.execute(
            f"UPDATE messages SET release = ? WHERE id = (SELECT {which}(id) FROM messages WHERE release = ?)",
            (release, other),
        )
    db.commit()
    with pytest.raises(RunError, match="opened messages"):
        bench.desk()


@pytest.mark.parametrize("asked", ["a share", "junk"])
def test_case_26_a_store_that_is_gone_is_no_new_one(bench: Bench, asked: str) -> None:
    with bench.desk() as desk:
        desk.share(bench.request(bench.plan()).to_bytes() if asked == "a share" else b"junk")
    bench.home.store.unlink()
    for read in (lambda: events(bench), lambda: spent_by_plan(bench.home), bench.desk, bench.desk):
        with pytest.raises(RunError, match=r"has 0 log entries, though .*make a new home"):
            read()


def test_case_26_an_older_copy_of_the_store_is_behind_its_mark(bench: Bench) -> None:
    with bench.desk() as desk:
        desk.share(b"junk")
    older = bench.home.store.read_bytes()
    with bench.desk() as desk:
        desk.share(bench.request(bench.plan()).to_bytes())
    newer = bench.home.store.read_bytes()
    bench.home.store.write_bytes(older)
    with pytest.raises(RunError, match="has 1 log entries, though 3"):
        bench.desk()
    bench.home.store.write_bytes(newer)
    bench.desk().close()


def test_a_home_that_opened_and_never_answered_may_lose_its_store(bench: Bench) -> None:
    bench.desk().close()
    bench.home.store.unlink()
    bench.desk().close()
    assert events(bench) == []


@pytest.mark.parametrize("mark", [b"", b"junk", b"\xa0"])
def test_a_mark_that_is_none(bench: Bench, mark: bytes) -> None:
    with bench.desk() as desk:
        desk.share(b"junk")
    bench.home.path.joinpath("served.head").write_bytes(mark)
    with pytest.raises(RunError, match=r"served\.head that cannot be read .*make a new home"):
        bench.desk()


def test_the_mark_may_be_behind_where_nobody_was_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request = bench.request(bench.plan()).to_bytes()

    def full(store: Path, head: bytes) -> None:
        raise OSError(28, "No space left on device")

    with bench.desk() as desk:
        desk.share(b"junk")
        monkeypatch.setattr(store_module, "keep_mark", full)
        with pytest.raises(RunError, match="No space left"):
            desk.share(request)
        monkeypatch.undo()
    with bench.desk() as desk:
        assert bench.refusal(desk.share(request)).code == "void"


def test_case_60_a_log_of_entries_that_are_no_maps(bench: Bench) -> None:
    bench.desk().close()
    db = sqlite3.connect(bench.home.store)
    body = encode([1])
    db.execute("INSERT INTO log VALUES (0, ?, ?)", (body, sha256_hex(body)))
    db.commit()
    with pytest.raises(RunError, match="edited at entry 0"):
        bench.desk()


def test_case_60_a_reworded_entry_is_found(bench: Bench) -> None:
    with bench.desk() as desk:
        desk.share(b"junk")
        desk.share(b"")
    db = sqlite3.connect(bench.home.store)
    entry = decode(db.execute("SELECT entry FROM log WHERE place = 1").fetchone()[0])
    db.execute("UPDATE log SET entry = ? WHERE place = 1", (encode({**entry, "sentence": "all was well"}),))
    db.commit()
    with pytest.raises(RunError, match="edited at entry 1"):
        read_log(bench.home.store, bench.home.signing.public_bytes)


def test_a_head_signed_by_another_key_is_refused(bench: Bench, make: Any) -> None:
    other = make("other")
    for each in (bench, other):
        with each.desk() as desk:
            desk.share(b"junk")
    db = sqlite3.connect(bench.home.store)
    foreign = sqlite3.connect(other.home.store).execute("SELECT signed FROM head").fetchone()
    db.execute("UPDATE head SET signed = ?", foreign)
    db.commit()
    with pytest.raises(Exception, match="signature"):
        bench.desk()


def test_a_cut_file_is_refused(bench: Bench) -> None:
    with bench.desk() as desk:
        desk.share(bench.request(bench.plan()).to_bytes())
    os.truncate(bench.home.store, 4096 * 3)
    with pytest.raises(RunError):
        bench.desk()
