"""The log takes appends only while it is whole; cuts, edits, deletions and forks are found."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server.log import ORIGIN, Log, read_frames
from model.canonical import encode
from model.contract import merkle
from model.contract.checkpoint import open_note
from model.contract.envelope import SigningKey
from model.errors import ContractError, InputError, RunError, SignatureError

KEY = SigningKey.from_private_bytes(b"\x07" * 32)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "log", public=KEY.public_bytes)
    for index in range(5):
        assert made.append({"kind": "charge", "n": index}) == index
    made.checkpoint(KEY)
    return made


def reopened(log: Log) -> Log:
    return Log(log.folder, public=KEY.public_bytes)


def test_entries_survive_and_the_head_is_signed(log: Log) -> None:
    again = reopened(log)
    assert [entry["n"] for entry in again.entries()] == [0, 1, 2, 3, 4]
    head = open_note((log.folder / "checkpoint").read_bytes(), {ORIGIN: KEY.public_bytes})
    assert (head.size, head.root) == (5, again.root) == (log.size, log.root)
    assert again.append({"kind": "release"}) == 5
    assert {path.name for path in log.folder.iterdir()} == {"entries", "checkpoint"}


def test_an_empty_log_has_the_empty_root(tmp_path: Path) -> None:
    empty = Log(tmp_path / "empty")
    assert empty.size == 0 and empty.root == merkle.EMPTY_ROOT and empty.entries() == []


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_case_26_truncated_log_takes_no_append(log: Log, cut: int) -> None:
    path = log.folder / "entries"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.raises(ContractError, match="cut inside entry 4"):
        log.append({"kind": "late"})
    with pytest.raises(ContractError, match="cut inside entry 4"):
        reopened(log)
    assert path.read_bytes() == whole[:-cut]
    path.write_bytes(whole)
    assert reopened(log).append({"kind": "late"}) == 5


def frames(entries: list[bytes]) -> bytes:
    return b"".join(len(e).to_bytes(4, "big") + merkle.leaf_hash(e) + e for e in entries)


def test_case_60_edited_entry(log: Log) -> None:
    path = log.folder / "entries"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContractError, match="edited at entry 4"):
        reopened(log)
    # An editor who also repairs the frame is found by the signed head.
    entries = [encode(entry) for entry in [{"kind": "charge", "n": 9}] * 5]
    path.write_bytes(frames(entries))
    with pytest.raises(ContractError, match="does not match its head of 5 entries"):
        reopened(log)
    with pytest.raises(ContractError, match="does not match its head"):
        log.append({"kind": "late"})


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_case_60_deleted_entry(log: Log, gone: int) -> None:
    path = log.folder / "entries"
    entries = read_frames(path.read_bytes())
    path.write_bytes(frames(entries[:gone] + entries[gone + 1 :]))
    with pytest.raises(ContractError, match="its head counts 5, the file holds 4"):
        reopened(log)
    path.write_bytes(frames(entries))
    assert reopened(log).size == 5


def test_case_60_a_head_signed_by_someone_else(log: Log) -> None:
    other = SigningKey.from_private_bytes(b"\x08" * 32)
    Log(log.folder).checkpoint(other)
    with pytest.raises(SignatureError, match="0 of 1 trusted signatures"):
        reopened(log)


def test_case_60_deleted_head_is_found_by_whoever_remembers_it(log: Log) -> None:
    remembered = open_note((log.folder / "checkpoint").read_bytes(), {ORIGIN: KEY.public_bytes})
    path = log.folder / "entries"
    path.write_bytes(frames(read_frames(path.read_bytes())[:3]))
    (log.folder / "checkpoint").unlink()
    shorter = reopened(log)  # whole in itself
    with pytest.raises(ContractError, match="lacks entries"):
        shorter.verify(remembered)


def test_case_59_forked_log(log: Log, tmp_path: Path) -> None:
    fork = Log(tmp_path / "fork", public=KEY.public_bytes)
    for index in range(8):
        fork.append({"kind": "charge", "n": index if index != 3 else 99})
    old = open_note((log.folder / "checkpoint").read_bytes(), {ORIGIN: KEY.public_bytes})
    proof = fork.consistency(old.size)
    assert not merkle.verify_consistency(old.size, fork.size, proof, old.root, fork.root)
    with pytest.raises(ContractError, match="does not match its head of 5"):
        fork.verify(old)
    for index in range(5, 8):  # the control: the true log, grown
        log.append({"kind": "charge", "n": index})
    assert merkle.verify_consistency(old.size, log.size, log.consistency(old.size), old.root, log.root)
    log.verify(old)


def test_two_writers_keep_one_order(log: Log) -> None:
    second = reopened(log)
    assert log.append({"kind": "a"}) == 5
    assert second.append({"kind": "b"}) == 6
    assert log.append({"kind": "c"}) == 7
    assert [entry["kind"] for entry in second.entries()][5:] == ["a", "b", "c"]


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(name: int) -> None:
        mine = Log(tmp_path / "log")
        for index in range(10):
            mine.append({"writer": name, "n": index})

    Log(tmp_path / "log")
    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Log(tmp_path / "log")
    assert found.size == 40
    assert len({(entry["writer"], entry["n"]) for entry in found.entries()}) == 40


def test_case_27_an_append_waits_for_the_other_writer(log: Log) -> None:
    handle = os.open(log.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    thread = threading.Thread(target=reopened(log).append, args=({"kind": "late"},))
    thread.start()
    thread.join(timeout=0.1)
    assert thread.is_alive() and reopened(log).size == 5
    os.close(handle)
    thread.join(timeout=10)
    assert reopened(log).size == 6


def test_case_25_disk_full_appends_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot be written .No space left on device.; free space"):
            log.append({"kind": "late"})
    assert reopened(log).size == log.size == 5
    assert log.append({"kind": "late"}) == 5


def test_limits(log: Log, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="log its digest"):
        log.append({"text": "x" * 70_000})
    with pytest.raises(ContractError, match="not 9"):
        log.inclusion(0, 9)
    with pytest.raises(ContractError, match="another log"):
        Log(log.folder, origin="someone/else")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be made"):
        Log(tmp_path / "file" / "log")


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), data=st.data())
def test_every_entry_is_provably_in(tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    for index in range(size):
        log.append({"n": index})
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    leaf = merkle.leaf_hash(encode({"n": index}))
    assert merkle.verify_inclusion(leaf, index, size, log.inclusion(index), log.root)
    assert not merkle.verify_inclusion(leaf, index, size, log.inclusion(index), merkle.leaf_hash(b""))
    head = merkle.root([merkle.leaf_hash(encode({"n": n})) for n in range(old)])
    assert merkle.verify_consistency(old, size, log.consistency(old), head, log.root)
