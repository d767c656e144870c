"""The verdict of the benchmark of a score's start: each limit is judged, and by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import device_score

LIMITS = {"ms_median": 500.0, "mib_peak": 100.0, "ratio_median": 2.5}


def test_what_is_at_its_limit_passes() -> None:
    assert device_score.over({**LIMITS, "ms_best": 1e9}, LIMITS) == []


@pytest.mark.parametrize("name", LIMITS)
def test_each_figure_over_its_limit_is_told(name: str) -> None:
    (told,) = device_score.over({**LIMITS, name: LIMITS[name] * 1.01}, LIMITS)
    assert told.startswith(name) and f"over {LIMITS[name]:g}" in told


@pytest.mark.parametrize(("given", "code"), [((), 0), (("--max-ratio", "1.9"), 1), (("--max-ms", "199"), 1)])
def test_the_command_ends_with_1_on_a_miss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr(device_score, "unit", lambda: 100.0)
    monkeypatch.setattr(device_score, "measure", lambda home, out: (200.0, 150.0, 90.0))
    monkeypatch.setattr(sys, "argv", ["device_score.py", "home", "--runs", "3", *given])
    assert device_score.main() == code
    assert '"ratio_median": 2.0' in capsys.readouterr().out
