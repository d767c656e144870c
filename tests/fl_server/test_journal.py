"""The chained file: cut, edited, moved and half-written lines are found, and only one process writes (spec 6.7)."""

import errno
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from fl_server.journal import Journal, read_journal
from model.errors import BudgetError


def filled(path: Path, lines: int = 4) -> list[bytes]:
    with Journal(path) as journal:
        for i in range(lines):
            journal.append({"kind": "note", "value": i})
    return path.read_bytes().splitlines(keepends=True)


def test_lines_come_back_chained(tmp_path: Path) -> None:
    filled(tmp_path / "j.jsonl")
    entries = read_journal(tmp_path / "j.jsonl")
    assert [e["value"] for e in entries] == [0, 1, 2, 3]
    assert all(b["previous"] == a["digest"] for a, b in pairwise(entries))
    with Journal(tmp_path / "j.jsonl") as journal:
        assert journal.entries == entries
        journal.append({"kind": "note", "value": 4})
    assert len(read_journal(tmp_path / "j.jsonl")) == 5


DAMAGE: dict[str, Callable[[list[bytes]], bytes]] = {
    "cut within a line": lambda lines: b"".join(lines)[:-9],
    "cut at the end of a line": lambda lines: b"".join(lines[:-1]),
    "cut to nothing": lambda lines: b"",
    "a line removed from the middle": lambda lines: b"".join(lines[:1] + lines[2:]),
    "two lines swapped": lambda lines: b"".join([lines[0], lines[2], lines[1], lines[3]]),
    "a value edited": lambda lines: b"".join(lines).replace(b'"value":1', b'"value":7'),
    "a space added": lambda lines: b"".join(lines).replace(b'"value":1', b'"value": 1'),
    "a line repeated": lambda lines: b"".join([*lines, lines[-1]]),
    "not text": lambda lines: b"".join(lines) + b"\xff\xfe\n",
    "not a map": lambda lines: b"".join(lines) + b"[1]\n",
    "deep nesting": lambda lines: b"".join(lines) + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_case_26_truncated_ledger_is_found_and_nothing_is_appended(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "j.jsonl"
    lines = filled(path)
    assert len(read_journal(path)) == 4  # control: undamaged, it opens
    damaged = DAMAGE[damage](lines)
    path.write_bytes(damaged)
    for attempt in (read_journal, Journal):
        with pytest.raises(BudgetError, match=r"j\.jsonl"):
            attempt(path)
    assert path.read_bytes() == damaged


def test_case_26_a_lost_or_older_head_is_found(tmp_path: Path) -> None:
    path, head = tmp_path / "j.jsonl", tmp_path / "j.jsonl.head"
    lines = filled(path)
    older = f"1 {json.loads(lines[1])['digest']}\n"
    for text in (older, "nonsense", None):
        head.unlink(missing_ok=True) if text is None else head.write_text(text)
        with pytest.raises(BudgetError, match="head"):
            Journal(path)


def test_a_crash_between_line_and_head_is_made_good(tmp_path: Path) -> None:
    path, head = tmp_path / "j.jsonl", tmp_path / "j.jsonl.head"
    lines = filled(path)
    head.write_text(f"2 {json.loads(lines[2])['digest']}\n")
    with Journal(path) as journal:
        assert len(journal.entries) == 4
    assert head.read_text().startswith("3 ")


class FullDisk:
    """os.write until `room` bytes are gone, then the error of a full disk; a short write just before."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[: min(self.room, 50)]
        self.room -= len(part)
        return os.write(fd, part)


@pytest.mark.parametrize("room", range(0, 700, 23))
def test_case_25_disk_full_fails_closed_wherever_it_strikes(tmp_path: Path, room: int) -> None:
    path = tmp_path / "j.jsonl"
    acknowledged = 0
    journal = Journal(path, write=FullDisk(room))
    with pytest.raises(BudgetError, match="No space left"):
        for i in range(9):
            journal.append({"kind": "note", "value": i})
            acknowledged += 1
    with pytest.raises(BudgetError, match="open it again"):
        journal.append({"kind": "note", "value": 99})
    journal.close()
    kept = [e["value"] for e in read_journal(path)]
    assert kept[:acknowledged] == list(range(acknowledged)) and len(kept) <= acknowledged + 1
    with Journal(path) as again:  # once there is room, it goes on
        again.append({"kind": "note", "value": 100})


def test_a_full_disk_at_opening_is_one_sentence(tmp_path: Path) -> None:
    filled(tmp_path / "j.jsonl")
    with pytest.raises(BudgetError, match="free space"):
        Journal(tmp_path / "j.jsonl", write=FullDisk(0))
    Journal(tmp_path / "j.jsonl").close()


def test_reserved_keys_and_a_closed_file_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    with pytest.raises(BudgetError, match="digest"):
        journal.append({"digest": "0"})
    journal.close()
    journal.close()
    with pytest.raises(BudgetError):
        journal.append({"kind": "note"})
    with pytest.raises(BudgetError, match="cannot be opened"):
        Journal(tmp_path / "none" / "j.jsonl")
    with pytest.raises(BudgetError, match="cannot be read"):
        read_journal(tmp_path / "none.jsonl")
