"""What a run over a SuperLink is expected to take, and which are refused before anything is made."""

from __future__ import annotations

import pytest

from model.errors import InputError
from simulation import pace
from simulation.experiment.request import Request
from simulation.pace import MOST_SECONDS, expected_seconds, require_bearable
from simulation.planning import Options


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "processors", lambda: 2)


def test_a_masked_sum_asks_five_times_and_every_phone_counts() -> None:
    once, masked = expected_seconds("central", 20, 400, 2), expected_seconds("pairwise", 20, 0, 2)
    assert masked - pace.BOOT_SECONDS == pytest.approx(5 * (once - pace.BOOT_SECONDS))
    assert expected_seconds("central", 20, 900, 2) == once
    assert expected_seconds("pairwise", 20, 900, 2) > masked


def test_more_nodes_than_cores_wait_for_each_other() -> None:
    one, two, eight = (expected_seconds("central", 20, 400, farms) for farms in (1, 2, 8))
    assert one == two < eight


def request(rounds: int, phones: int, grid: str = "superlink", privacy: str = "pairwise") -> Request:
    return Request(phones, options=Options(rounds=rounds, privacy=privacy), grid=grid)


def test_a_run_of_hours_is_refused_with_what_it_would_take() -> None:
    with pytest.raises(InputError, match=r"^203 sums of --privacy pairwise over a SuperLink would take about 19\d min"):
        request(200, 400)


@pytest.mark.parametrize(
    ("rounds", "phones", "grid", "privacy"),
    [(20, 400, "superlink", "pairwise"), (200, 400, "in-process", "pairwise"), (200, 400, "superlink", "central")],
)
def test_the_usual_rounds_and_what_costs_no_processes_are_not(
    rounds: int, phones: int, grid: str, privacy: str
) -> None:
    assert request(rounds, phones, grid, privacy).phones == phones


def test_the_bound_is_what_is_said() -> None:
    phones = int((MOST_SECONDS - expected_seconds("pairwise", 20, 0, 2)) / (23 * pace.PHONE_SECONDS))
    require_bearable("pairwise", 20, phones, 2)
    with pytest.raises(InputError, match="about 31 minutes"):
        require_bearable("pairwise", 20, phones + 2, 2)
