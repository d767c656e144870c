"""The ε ledger: charged before the noise, by one process, and never forgotten (spec 6.8; cases 22 to 27)."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_server.analytics import noisy_grid
from fl_server.budget import Budget, Reservation, merge, read_ledger
from fl_server.journal import Journal
from model.contract.plan import LocalTraining, ModelChoice, ServerOptimiser, TrainingPlan
from model.contract.promise import PrivacyPlan
from model.errors import BudgetError
from model.privacy.accountant import calibrate, released
from model.privacy.mechanism import GaussianRelease
from model.privacy.noise import OsSource
from model.risk.schema import Feature, Schema

SHARES = {"knots": 0.1, "training": 0.8, "calibration": 0.1}
ROUNDS = 4


def make_plan(
    budget: float = 1.5, charges: tuple[GaussianRelease, ...] | None = None, **privacy: object
) -> TrainingPlan:
    if charges is None:
        charges = calibrate(1.5, 1e-5, rounds=ROUNDS, shares=SHARES)
    terms = PrivacyPlan("central", 1e-5, budget, "zero-out", "phone", charges)
    return TrainingPlan(
        name="tiny",
        purpose="credit",
        created_at=0,
        schema=Schema("tiny", "1", (Feature("a"),)),
        review_features=(),
        policy_pack="in-rbi-2025",
        topology="farm",
        phones=1000,
        holdout_phones=250,
        min_cohort=30,
        rounds=ROUNDS,
        participation=1.0,
        model=ModelChoice(),
        local=LocalTraining(1, 0.1, 0, 0.0, 1.0),
        server=ServerOptimiser("fedavg", 1.0, 0.8, 0.5, 0.0, 0.99, 1e-8),
        privacy=replace(terms, **privacy),  # type: ignore[arg-type]
    )


class Watched(OsSource):
    """Counts the bytes taken, so that a test sees whether noise was drawn at all."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, count: int) -> bytes:
        self.taken += count
        return super().take(count)


def release(budget: Budget, name: str, source: OsSource, round: int = 0) -> tuple[Reservation, str]:
    """The one order: reserve, draw; the caller keeps the result and commits it."""
    reservation = budget.reserve(name, round)
    noised = noisy_grid(np.zeros(5, np.int64), reservation.release, source)
    return reservation, hashlib.sha256(noised.astype("<i8").tobytes()).hexdigest()


def spend_all(budget: Budget) -> None:
    for planned in budget.plan.privacy.charges:
        for i in range(planned.count):
            budget.commit(budget.reserve(planned.name, i), "r")


def test_a_whole_plan_is_spent_exactly(tmp_path: Path) -> None:
    plan = make_plan()
    with Budget(tmp_path / "ledger.jsonl", plan) as budget:
        assert budget.total() == 0
        spend_all(budget)
        assert set(budget.charges()) == set(plan.privacy.charges)
        assert budget.total() == pytest.approx(released(plan.privacy.charges, 1e-5), rel=1e-12)
        assert set(budget.total_by_split()) == {"train", "holdout"}
    ledger = read_ledger(tmp_path / "ledger.jsonl")
    assert {r.state for r in ledger} == {"committed"} and merge(r.release for r in ledger) == budget.charges()


def test_epsilon_grows_with_every_reservation_not_with_commits(tmp_path: Path) -> None:
    with Budget(tmp_path / "ledger.jsonl", make_plan()) as budget:
        totals = []
        for i in range(ROUNDS):
            reservation = budget.reserve("training", i)
            totals.append(budget.total())
            budget.commit(reservation, "r")
            assert budget.total() == totals[-1]
        assert totals == sorted(set(totals)) and len(totals) == ROUNDS


def test_case_22_an_exhausted_budget_refuses_before_any_noise_is_drawn(tmp_path: Path) -> None:
    source = Watched()
    with Budget(tmp_path / "ledger.jsonl", make_plan()) as budget:
        budget.commit(*release(budget, "training", source))
        assert source.taken > 0  # control: an affordable release does draw
        for i in range(1, ROUNDS):
            budget.reserve("training", i)
        budget.reserve("knots")
        budget.reserve("calibration")
        before, spent = source.taken, budget.total()
        with pytest.raises(BudgetError, match="exhausted"):
            release(budget, "training", source, ROUNDS)
        assert (source.taken, budget.total()) == (before, spent)
        budget.commit(*release(budget, "evaluation", source))  # the other split still has its own


def test_case_22_a_plan_over_its_budget_is_refused_before_the_run(tmp_path: Path) -> None:
    Budget.require(make_plan(1.5))
    dear = make_plan(1.4)
    with pytest.raises(BudgetError, match=r"would spend ε 1\.5 of a budget of 1\.4"):
        Budget.require(dear)
    with pytest.raises(BudgetError):
        Budget(tmp_path / "ledger.jsonl", dear)
    with pytest.raises(BudgetError, match="inf"):
        Budget.require(make_plan(charges=(GaussianRelease("training", 0.0, 1.0, 4, 1.0, "train"),)))
    assert not list(tmp_path.iterdir())


CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_budget import Budget, make_plan
budget = Budget({path!r}, make_plan())
budget.commit(budget.reserve("knots"), "k")
budget.reserve("training", 0)
print("reserved", flush=True)
{then}
"""


def child(path: Path, then: str) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parent), path=str(path), then=then)
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_case_23_after_kill_9_what_was_reserved_stays_spent(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with child(path, "os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait() == -signal.SIGKILL
    with Budget(path, make_plan()) as budget:
        (open_one,) = budget.unfinished
        assert (open_one.name, open_one.round) == ("training", 0)
        knots_alone = released([r.release for r in budget.reservations[:1]], 1e-5)
        assert budget.total() > knots_alone > 0
        spent = budget.total()
        budget.void(open_one)
        assert budget.total() == spent and not budget.unfinished


def test_case_24_the_same_release_or_none_never_a_second_draw(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Budget(path, make_plan()) as budget:
        reservation, result = release(budget, "training", OsSource())
    with Budget(path, make_plan()) as budget:  # died after the noise, before the commit
        with pytest.raises(BudgetError, match="already charged"):
            release(budget, "training", OsSource())
        budget.commit(reservation, result)
        with pytest.raises(BudgetError, match="not open"):
            budget.commit(reservation, "another result")
        with pytest.raises(BudgetError, match="already charged"):
            budget.reserve("training", 0)
    assert [r.result for r in read_ledger(path)] == [result]


def test_a_voided_release_may_be_charged_again_only_within_the_budget(tmp_path: Path) -> None:
    with Budget(tmp_path / "a.jsonl", make_plan()) as budget:
        budget.void(budget.reserve("training", 0))
        for i in range(ROUNDS - 1):
            budget.reserve("training", i)
        budget.reserve("knots")
        budget.reserve("calibration")
        with pytest.raises(BudgetError, match="exhausted"):
            budget.reserve("training", ROUNDS - 1)
    with Budget(tmp_path / "b.jsonl", make_plan(3.0)) as roomy:
        for _ in range(ROUNDS + 1):
            roomy.void(roomy.reserve("training", 0))
        assert roomy.total() > 1.2


def test_case_25_disk_full_fails_closed(tmp_path: Path) -> None:
    path, full = tmp_path / "ledger.jsonl", False

    def write(fd: int, data: bytes) -> int:
        if full:
            os.write(fd, data[:11])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    source = Watched()
    with Budget(path, make_plan(), write=write) as budget:
        budget.commit(*release(budget, "knots", source))
        before, spent, full = source.taken, budget.total(), True
        for _ in range(2):
            with pytest.raises(BudgetError):
                release(budget, "training", source)
        assert (source.taken, budget.total()) == (before, spent)
    full = False
    with Budget(path, make_plan()) as budget:
        assert budget.total() == spent
        release(budget, "training", source)


def test_case_26_a_truncated_ledger_gives_no_budget_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Budget(path, make_plan()) as budget:
        spend_all(budget)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    for attempt in (lambda: Budget(path, make_plan()), lambda: read_ledger(path)):
        with pytest.raises(BudgetError, match="head"):
            attempt()
    assert path.read_bytes() == b"".join(lines[:5])
    path.write_bytes(b"".join(lines))
    Budget(path, make_plan()).close()


def test_case_27_two_processes_on_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with child(path, "sys.stdin.read()") as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "reserved\n"
        size = path.stat().st_size
        with pytest.raises(BudgetError, match="in use by another process"):
            Budget(path, make_plan())
        assert path.stat().st_size == size
        assert len(read_ledger(path)) == 2  # a reader needs no lock
        process.stdin.close()
        assert process.wait() == 0
    Budget(path, make_plan()).close()


def test_a_ledger_belongs_to_one_plan(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Budget(path, make_plan()).close()
    with pytest.raises(BudgetError, match="another plan"):
        Budget(path, make_plan(1.6))
    Budget(path, make_plan()).close()


def test_only_what_the_plan_names_can_be_charged(tmp_path: Path) -> None:
    with Budget(tmp_path / "ledger.jsonl", make_plan()) as budget:
        with pytest.raises(BudgetError, match="name it there first"):
            budget.reserve("curves")
        assert budget.reservations == ()


def test_mode_off_is_recorded_but_has_no_epsilon(tmp_path: Path) -> None:
    silent = GaussianRelease("training", 0.0, 1.0, 1, 1.0, "train")
    with Budget(tmp_path / "ledger.jsonl", make_plan(charges=(silent,), mode="off")) as budget:
        budget.commit(budget.reserve("training"), "r")
        budget.reserve("training", 1)
        assert budget.total() is None and budget.total_by_split() == {}


def test_sampled_plans_are_priced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    charges = (GaussianRelease("training", 1.5, 1.0, 100, 0.05, "train"),)
    with Budget(tmp_path / "ledger.jsonl", make_plan(2.0, charges)) as budget:
        monkeypatch.setattr("fl_server.budget.promised", lambda *_: pytest.fail("priced again within the plan"))
        budget.reserve("training", 0)


@pytest.mark.parametrize(
    "line", [{"kind": "refund", "of": 1}, {"kind": "commit", "of": 7}, {"kind": "commit", "of": 1}]
)
def test_a_line_without_meaning_is_refused(tmp_path: Path, line: dict[str, object]) -> None:
    path = tmp_path / "ledger.jsonl"
    with Budget(path, make_plan()) as budget:
        budget.void(budget.reserve("knots"))
    with Journal(path) as journal:
        journal.append({**line, "result": ""})
    with pytest.raises(BudgetError, match="no known meaning"):
        Budget(path, make_plan())


def test_in_mode_helper_the_budget_bounds_the_coordinators_own_epsilon(tmp_path: Path) -> None:
    """Sampling amplifies against whoever reads releases and not against the coordinator, who saw who took part."""
    charges = (GaussianRelease("training", 1.5, 1.0, 100, 0.05, "train"),)
    central = make_plan(2.0, charges)
    helper = replace(central, privacy=replace(central.privacy, mode="helper", helper_key="ab" * 32))
    Budget.require(central)
    with pytest.raises(BudgetError, match=r"would spend ε 49\.88 of a budget of 2"):
        Budget.require(helper)
    with Budget(
        tmp_path / "ledger.jsonl", replace(helper, privacy=replace(helper.privacy, epsilon_budget=50))
    ) as budget:
        budget.reserve("training", 0)
        assert budget.total() == budget.total_by_split()["train"] > 2.7
