"""The fuzzer in seconds: what it once found stays mended, and it finds faults that are planted (case 13)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import canonical
from model.errors import ContractError

from . import __main__ as command
from . import drive
from .doors import SEEDS, Door, doors
from .drive import Broken, Hunt, examined
from .good import good
from .mutate import Mutator

DOORS = doors()


@pytest.mark.parametrize("name", DOORS)
def test_a_good_input_is_taken_and_its_file_is_what_the_code_makes(name: str) -> None:
    assert (SEEDS / name / "good.bin").read_bytes() == good()[name]
    assert examined(DOORS[name], good()[name]) == "taken"


@pytest.mark.parametrize(
    "path", sorted(SEEDS.glob("*/found-*.bin")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_was_found_once_is_refused_or_taken(path: Path) -> None:
    examined(DOORS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", DOORS)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**64 - 1), raw=st.binary(max_size=300))
def test_case_13_near_good_and_random_bytes_are_taken_or_refused(name: str, seed: int, raw: bytes) -> None:
    kept = DOORS[name].seeds
    examined(DOORS[name], Mutator(Random(seed)).mutated(kept[seed % len(kept)], raw))
    examined(DOORS[name], raw)


def _no_depth(data: bytes) -> None:
    canonical._read(data, 0, 1 << 30, [1 << 18])


def _no_items(data: bytes) -> None:
    canonical._read(data, 0, canonical.MAX_DEPTH, [1 << 60])


def _believes_lengths(data: bytes) -> None:
    if data[:1] == b"\x5b":
        bytearray(min(int.from_bytes(data[1:9], "big"), 1 << 24))
    canonical.decode(data)


def _trusts_keys(data: bytes) -> None:
    raw = canonical.decode(data)
    len(raw["list"]) + raw["map"]["a"]["b"].index("text")


PLANTED: dict[str, tuple[Callable[[Any], None], str]] = {
    "no limit of depth": (_no_depth, "RecursionError"),
    "no limit of items": (_no_items, "bytes of memory"),
    "believes a length": (_believes_lengths, "bytes of memory"),
    "trusts that keys are there": (_trusts_keys, "Error"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_soon(name: str) -> None:
    call, what = PLANTED[name]
    hunt = Hunt(Door("canonical", call), Random(7), weigh=1.0)
    found = [finding for finding in (hunt.step() for _ in range(4000)) if finding is not None]
    assert any(what in finding.what for finding in found)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock takes a millisecond, so that a second holds the same inputs on every machine."""
    clock = itertools.count()
    ticking = SimpleNamespace(monotonic=lambda: next(clock) / 1000, thread_time=lambda: 0.0)
    monkeypatch.setattr(command, "time", ticking)
    monkeypatch.setattr(drive, "time", ticking)


def test_an_input_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(seconds: float) -> str:
        monkeypatch.setattr(drive, "time", SimpleNamespace(thread_time=itertools.count(0, seconds).__next__))
        return examined(Door("canonical", len), b"", seconds=drive.MAX_SECONDS)

    assert takes(drive.MAX_SECONDS) == "taken"
    with pytest.raises(Broken, match=r"3\.0 seconds for an input of 0 bytes"):
        takes(3.0)


@pytest.mark.usefixtures("ticks")
def test_the_command_keeps_what_it_finds_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SEEDS", tmp_path / "seeds")
    found = command.hunt([Door("canonical", _trusts_keys)], seconds=1.0, seed=1)
    kept = sorted((tmp_path / "seeds" / "canonical").glob("found-*.bin"))
    assert found and len(kept) == len(found)
    assert {path.read_bytes() for path in kept} == {finding.data for finding in found}


@pytest.mark.usefixtures("ticks")
def test_a_run_without_findings_ends_with_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "SEEDS", tmp_path)
    assert command.main(["--seconds", "0.2", "--door", "canonical", "--seed", "1"]) == 0
    assert not list(tmp_path.rglob("*"))


def test_refusals_alone_are_no_findings() -> None:
    def refuse(data: bytes) -> None:
        raise ContractError("it is refused; send another")

    hunt = Hunt(Door("canonical", refuse), Random(1))
    assert [hunt.step() for _ in range(50)] == [None] * 50
