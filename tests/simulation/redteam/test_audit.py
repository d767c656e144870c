"""The mechanism audit: real releases lose what is claimed and no more, and each of the faults is found.

The command takes its noise from the operating system and so can err, which `test_audit_bounds` bounds. Here the noise
protects nobody and is seeded: one commit has one verdict. Masks and keys are fresh each time, and cancel exactly.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from model.errors import InputError
from model.privacy.noise import OsSource, SeededSource
from simulation.redteam import commands, mechanisms
from simulation.redteam.audit import FEWEST, TIGHT, TRIALS, Case, Finding, cases, run, shared
from simulation.redteam.bounds import Bound, Claim
from simulation.redteam.mechanisms import MECHANISMS
from simulation.redteam.mutants import LESS, MUTANTS
from simulation.redteam.trials import AXES, CLIP, LOUD, SCALE, Parts, canary, charge_of, encoded, takes_part

OPERATING_SYSTEM = mechanisms.OsSource
FITTING = [(mode, mutant.name) for mutant in MUTANTS.values() for mode in mutant.modes if mode in MECHANISMS]


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of a stream of its own for each block of trials, the same on every run."""
    blocks = itertools.count()
    monkeypatch.setattr(mechanisms, "OsSource", lambda: SeededSource(13, "audit", next(blocks)))


def test_the_audit_itself_takes_noise_from_the_operating_system() -> None:
    assert OPERATING_SYSTEM is OsSource and mechanisms.OsSource is not OsSource


@pytest.mark.integration
@pytest.mark.no_cover  # hundreds of thousands of releases; the command below is covered, by fewer
@pytest.mark.parametrize("mode", list(MECHANISMS))
def test_a_release_loses_what_is_claimed_and_no_more(mode: str) -> None:
    """Spec 13.12: .90 ≤ mu proved / mu claimed ≤ 1, at 50,000 trials a side; the control of every mutant."""
    for finding in run(Case(mode, trials=TRIALS)):
        assert TIGHT <= finding.ratio <= 1.0, finding
        assert finding.sharp and finding.passed


@pytest.mark.integration
@pytest.mark.no_cover
@pytest.mark.parametrize(("mode", "mutant"), FITTING)
def test_every_fault_is_found_by_whom_it_helps(mode: str, mutant: str) -> None:
    findings = run(Case(mode, mutant, FEWEST))
    assert any(finding.faulty for finding in findings)
    for finding in findings:
        assert (finding.ratio > 1.0) == finding.faulty, finding
        assert finding.passed


def test_five_kinds_of_fault_are_put_in() -> None:
    one_server = {"helper-silent", "coordinator-silent", "coordinator-short"}
    assert set(MUTANTS) == {"halved-noise", "varying-weights", "leaking-clip", "coin-again"} | one_server
    assert {mode for mode, _ in FITTING} == set(MECHANISMS)


def test_two_unequal_noises_are_claimed_apart_and_a_coordinator_that_adds_less_is_short_of_its_own() -> None:
    """13.16.7: μ 1 against the coordinator, 2 against the helper; the fault is a share of the share."""
    unequal, equal = MECHANISMS["unequal"], MECHANISMS["helper"]
    assert [unequal.against(o) for o in unequal.observers] == [Claim(1.0), Claim(2.0)]
    assert [equal.against(o) for o in equal.observers] == [Claim(1.0), Claim(1.0)]
    assert unequal.coordinator_noise == LESS
    none, short = np.zeros(20_000, dtype=np.int64), MUTANTS["coordinator-short"].put(Parts())
    real, less = (parts.release(none, charge_of(Claim(2.0)), SCALE, OsSource()) for parts in (Parts(), short))
    assert less.std() / real.std() == pytest.approx(LESS, rel=0.05)


def test_the_canary_is_clipped_to_the_clip_along_every_axis() -> None:
    """The most that a phone can add; a canary below the clip would blunt the audit."""
    for axis in AXES:
        units = encoded(canary(axis, True), CLIP, SCALE)
        length = float(np.linalg.norm(units)) / SCALE
        assert CLIP * (1 - 1e-5) < length <= CLIP
    assert float(np.linalg.norm(canary(AXES[0], True))) == LOUD * CLIP
    assert not encoded(canary(AXES[0], False), CLIP, SCALE).any()


def test_mutants_differ_from_the_real_thing_where_they_say() -> None:
    ids = np.arange(2000, dtype=np.uint64)
    real, again = Parts().coin, MUTANTS["coin-again"].put(Parts()).coin
    assert (real(ids, 3, 0, 0.5) == real(ids, 3, 1, 0.5)).all()
    assert (again(ids, 3, 0, 0.5) == takes_part(ids, 3, 0, 0.5)).all()
    assert 0.4 < (again(ids, 3, 0, 0.5) != again(ids, 3, 1, 0.5)).mean() < 0.6
    leaking, weighted = (MUTANTS[name].put(Parts()).encode for name in ("leaking-clip", "varying-weights"))
    assert np.linalg.norm(leaking(canary(AXES[3], True), CLIP, SCALE)) > 9 * SCALE
    assert np.linalg.norm(leaking(canary(AXES[0], True), CLIP, SCALE)) <= SCALE
    assert not leaking(canary(AXES[0], False), CLIP, SCALE).any()
    assert np.linalg.norm(weighted(canary(AXES[0], True), CLIP, SCALE)) > 2.9 * SCALE
    assert not MUTANTS["helper-silent"].put(Parts()).helper(1e6, 9, OsSource()).any()


def test_verdicts() -> None:
    """More than claimed fails; far less fails in a full audit; a mutant that is not found fails."""

    def passes(mu: float, mutant: str = "", trials: int = TRIALS, observer: str = "coordinator") -> tuple[bool, str]:
        finding = Finding(Case("helper", mutant, trials), observer, Claim(1.0), Bound(mu, 0.1, 0.2, 0.0, 1), 0.0)
        return finding.passed, commands.verdict(finding)

    assert passes(0.95) == (True, "✓ holds")
    assert passes(1.01) == (False, "✗ over")
    assert passes(0.89) == (False, "✗ blunt")
    assert passes(0.89, trials=FEWEST) == (True, "✓ holds")
    assert passes(1.5, "helper-silent") == (True, "✓ found")
    assert passes(0.95, "helper-silent") == (False, "✗ missed")
    assert passes(0.85, "helper-silent", observer="helper") == (True, "✓ holds")
    assert passes(1.5, "helper-silent", observer="helper") == (False, "✗ over")


@pytest.mark.parametrize(
    ("mode", "mutant", "trials", "part"),
    [
        ("telepathy", "", TRIALS, "no mode 'telepathy'"),
        ("central", "gremlin", TRIALS, "no mutant is named 'gremlin'"),
        ("central", "helper-silent", TRIALS, "does not fit mode 'central'"),
        ("central", "", FEWEST - 1, "trials a side is outside"),
    ],
)
def test_what_cannot_be_audited_is_refused(mode: str, mutant: str, trials: int, part: str) -> None:
    with pytest.raises(InputError, match=part):
        Case(mode, mutant, trials)


def test_cases_are_each_mode_as_it_is_and_with_its_mutants() -> None:
    chosen = cases(["central", "sampled"], ["coin-again", "halved-noise"])
    assert [(c.mode, c.mutant, c.trials) for c in chosen] == [
        ("central", "", TRIALS),
        ("sampled", "", TRIALS),
        ("sampled", "coin-again", FEWEST),
        ("central", "halved-noise", FEWEST),
    ]


@pytest.mark.integration
def test_processes_share_the_trials() -> None:
    done: list[tuple[int, int]] = []
    with shared(2) as each:
        (finding,) = run(Case("central", "halved-noise", FEWEST), each=each, progress=lambda *at: done.append(at))
    assert finding.passed and done[-1] == (2 * FEWEST // 1000, 2 * FEWEST // 1000)


def test_command_prints_a_table_and_json() -> None:
    words = ["audit", "--mode", "central", "--mutant", "none", "--trials", str(FEWEST), "--workers", "1"]
    table = CliRunner().invoke(commands.app, words)
    assert table.exit_code == 0 and "✓ holds" in table.output
    (line,) = json.loads(CliRunner().invoke(commands.app, [*words, "--json"]).stdout)
    assert line["mode"] == "central" and line["observer"] == "public" and line["mutant"] is None
    assert 0.5 < line["ratio"] <= 1 and line["passed"] is True and line["claim"] == {"mu": 1.0, "sampling": 1.0}


def test_command_ends_in_one_when_a_gate_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    missed = Finding(Case("central"), "public", Claim(1.0), Bound(1.2, 0.1, 0.2, 0.0, 1), 0.0)
    monkeypatch.setattr("simulation.redteam.audit.run", lambda *_, **__: [missed])
    result = CliRunner().invoke(commands.app, ["audit", "--mode", "central", "--mutant", "none"])
    assert result.exit_code == 1 and "✗ over" in result.output


@pytest.mark.parametrize("words", [["--mode", "x"], ["--mutant", ","], ["--mode", "none", "--mutant", "none"]])
def test_command_refuses_what_it_does_not_know(words: list[str]) -> None:
    result = CliRunner().invoke(commands.app, ["audit", "--mode", "central", *words])
    assert isinstance(result.exception, InputError)


def test_the_help_names_the_least_number_of_trials() -> None:
    assert f"{FEWEST:,} or more" in " ".join(
        CliRunner().invoke(commands.app, ["audit", "--help"], env={"COLUMNS": "200"}).output.split()
    )


@pytest.mark.parametrize("words", [["--workers", "0"], ["--seed", "-1"]])
def test_command_refuses_numbers_out_of_range(words: list[str]) -> None:
    assert CliRunner().invoke(commands.app, ["audit", "--mode", "central", *words]).exit_code == 2
