"""What may enter a sum, what a kill leaves behind, and what is charged when (cases 1, 3, 5–9, 14–18, 21–25, 27)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_server import rounds
from fl_server.budget import Budget, read_ledger
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Answer, Coordinator, Question
from model.canonical import decode, encode
from model.contract.envelope import SigningKey, sign
from model.contract.plan import DOMAIN, TrainingPlan
from model.contract.update import PARTIAL_SCHEMA, PartialHeader
from model.errors import BudgetError, RoundError, RunError
from model.privacy.noise import ByteSource, SeededSource
from simulation.small import small_dataset, small_plan

DATA = small_dataset(200, seed=1)
PLAN = small_plan(DATA, rounds=2)
SIGNED = sign(DOMAIN, PLAN.to_dict(), [SigningKey.generate()])


class Killed(Exception):
    """The process ends here."""


@contextmanager
def running(folder: Path, plan: TrainingPlan = PLAN, **options: object) -> Iterator[Coordinator]:
    folder.mkdir(exist_ok=True)
    with Budget(folder / "ledger.jsonl", plan) as budget, Checkpoint(folder / "releases", plan.digest) as checkpoint:
        yield Coordinator(SIGNED, plan, budget, checkpoint, **options)  # type: ignore[arg-type]


def answer(coordinator: Coordinator, question: Question, node: int = 2, phones: int = 100, **changes: object) -> Answer:
    size = rounds.dimension(coordinator.plan, coordinator.state, question.phase.kind)
    place = {"plan_digest": coordinator.plan.digest, "round": question.phase.round, "kind": question.phase.kind}
    header = {"schema": PARTIAL_SCHEMA, "phones": phones, "dim": size, **place, **changes}
    vector = np.arange(size, dtype="<i8") + node
    return Answer(node, encode(header), vector.tobytes())


def closed(coordinator: Coordinator, *, phones: int = 100) -> None:
    question = coordinator.open()
    assert question is not None
    coordinator.close(question, [2], [answer(coordinator, question, phones=phones)])


def finish(coordinator: Coordinator) -> np.ndarray:
    while (question := coordinator.open()) is not None:
        phones = min(100, question.phase.population)
        coordinator.close(question, [2], [answer(coordinator, question, phones=phones)])
    assert coordinator.state.theta is not None
    return coordinator.state.theta


def refusals(tmp_path: Path, bad: object) -> tuple[str, ...]:
    """What the release says was left out, when one good node and one bad answer came."""
    with running(tmp_path) as coordinator:
        question = coordinator.open()
        assert question is not None
        wrong = bad(coordinator, question) if callable(bad) else bad
        release = coordinator.close(question, [2, 3], [answer(coordinator, question), wrong])
        assert release.phones == 100 and release.replied == 1 and release.asked == 2
        return release.refused


def test_a_good_answer_is_not_refused(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        question = coordinator.open()
        assert question is not None
        both = [answer(coordinator, question, node, 50) for node in (2, 3)]
        release = coordinator.close(question, [2, 3], both)
        assert release.refused == () and release.phones == 100 and release.replied == 2


def test_case_03_norm_above_the_clip(tmp_path: Path) -> None:
    def bad(coordinator: Coordinator, question: Question) -> Answer:
        good = answer(coordinator, question, 3, phones=1)
        vector = np.zeros(len(good.vector) // 8, dtype="<i8")
        vector[0] = 10 * PLAN.privacy.grid_scale
        return replace(good, vector=vector.tobytes())

    assert "norm" in refusals(tmp_path, bad)[0]


@pytest.mark.parametrize("size", [1, 5], ids=["case_06_one_number", "case_05_wrong_shape"])
def test_case_05_and_06_wrong_shape_does_not_broadcast(tmp_path: Path, size: int) -> None:
    def bad(coordinator: Coordinator, question: Question) -> Answer:
        return replace(answer(coordinator, question, 3, dim=size), vector=bytes(8 * size))

    assert f"{size} numbers" in refusals(tmp_path, bad)[0]


def test_case_07_wrong_dtype_is_known_by_its_bytes(tmp_path: Path) -> None:
    def bad(coordinator: Coordinator, question: Question) -> Answer:
        good = answer(coordinator, question, 3)
        return replace(good, vector=np.zeros(len(good.vector) // 8, dtype="<f4").tobytes())

    assert "bytes" in refusals(tmp_path, bad)[0]


@pytest.mark.parametrize("extra", [{"weight": 1e12}, {"samples": 3}], ids=["case_14_weight", "case_08_unknown_key"])
def test_case_08_and_14_no_further_keys_and_no_weight(tmp_path: Path, extra: dict[str, object]) -> None:
    assert "lacks or adds" in refusals(tmp_path, lambda c, q: answer(c, q, 3, **extra))[0]


def test_case_08_missing_key(tmp_path: Path) -> None:
    def bad(coordinator: Coordinator, question: Question) -> Answer:
        good = answer(coordinator, question, 3)
        header = decode(good.header)
        del header["phones"]
        return replace(good, header=encode(header))

    assert "phones" in refusals(tmp_path, bad)[0]


def test_case_09_and_13_a_header_that_is_no_canonical_map(tmp_path: Path) -> None:
    deep = b"\x81" * 5000 + b"\x00"
    for bad in (b"\x80\x04\x95pickle", deep, b""):
        assert "node 3" in refusals(tmp_path / str(len(bad)), lambda c, q, b=bad: Answer(3, b, b""))[0]


@pytest.mark.parametrize("round_", [0, 2], ids=["case_15_stale", "case_16_future"])
def test_case_15_and_16_another_round(tmp_path: Path, round_: int) -> None:
    with running(tmp_path) as coordinator:
        closed(coordinator)
        question = coordinator.open()
        assert question is not None and question.phase.round == 1
        wrong = answer(coordinator, question, 3, round=round_)
        release = coordinator.close(question, [2, 3], [answer(coordinator, question), wrong])
        assert "fetch the current task" in release.refused[0] and release.replied == 1


def test_case_17_identical_twice_counts_once_and_different_twice_not_at_all(tmp_path: Path) -> None:
    with running(tmp_path / "same") as coordinator:
        question = coordinator.open()
        assert question is not None
        once = answer(coordinator, question)
        assert coordinator.close(question, [2], [once, once]).phones == 100
    with running(tmp_path / "other") as coordinator:
        question = coordinator.open()
        assert question is not None
        good, first = answer(coordinator, question), answer(coordinator, question, 3, 50)
        second = replace(first, vector=bytes(len(first.vector)))
        release = coordinator.close(question, [2, 3], [good, first, second])
        assert release.phones == 100 and "two different" in release.refused[0]


def test_case_18_a_node_that_was_not_asked(tmp_path: Path) -> None:
    assert "not asked" in refusals(tmp_path, lambda c, q: answer(c, q, 99))[0]


def test_a_field_node_counts_one(tmp_path: Path) -> None:
    plan = replace(PLAN, topology="field")
    with running(tmp_path, plan) as coordinator:
        question = coordinator.open()
        assert question is not None
        many = [answer(coordinator, question, node, phones=1) for node in range(2, 40)]
        crowd = answer(coordinator, question, 99, phones=2)
        release = coordinator.close(question, [*range(2, 40), 99], [*many, crowd])
        assert release.phones == 38 and "counts 2 phones" in release.refused[0]


def test_case_21_below_the_minimum_nothing_is_released_and_the_reservation_stays(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        question = coordinator.open()
        assert question is not None
        with pytest.raises(RoundError, match="below the minimum cohort"):
            coordinator.close(question, [2], [answer(coordinator, question, phones=29)])
    assert not list((tmp_path / "releases").glob("release-*"))
    assert [r.state for r in read_ledger(tmp_path / "ledger.jsonl")] == ["reserved"]
    with running(tmp_path) as coordinator:
        closed(coordinator)
    assert [r.state for r in read_ledger(tmp_path / "ledger.jsonl")] == ["committed"]


def test_case_22_a_plan_over_its_budget_asks_nobody(tmp_path: Path) -> None:
    poor = replace(PLAN, privacy=replace(PLAN.privacy, epsilon_budget=0.01))
    with pytest.raises(BudgetError, match="budget"), running(tmp_path, poor):
        pytest.fail("the coordinator must not start")


def test_case_22_reserved_before_anything_is_asked(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        coordinator.open()
    assert [(r.name, r.state) for r in read_ledger(tmp_path / "ledger.jsonl")] == [("knots", "reserved")]


def test_case_23_killed_while_collecting_resumes_on_the_same_reservation(tmp_path: Path) -> None:
    with running(tmp_path / "whole") as coordinator:
        whole = finish(coordinator)
    with running(tmp_path / "killed") as coordinator:
        closed(coordinator)
        coordinator.open()
    with running(tmp_path / "killed") as coordinator:
        np.testing.assert_array_equal(finish(coordinator), whole)
    names = [r.name for r in read_ledger(tmp_path / "killed" / "ledger.jsonl")]
    assert names == ["knots", "training", "training", "calibration", "evaluation"]


def killing(phase_round: int) -> object:
    def source(phase: rounds.Phase) -> ByteSource:
        if phase.round == phase_round:
            raise Killed
        return SeededSource(0, phase.kind, phase.round)

    return source


def test_case_24_killed_while_drawing_never_draws_again(tmp_path: Path) -> None:
    with pytest.raises(Killed), running(tmp_path, source=killing(1)) as coordinator:
        closed(coordinator)
        closed(coordinator)
    drawn: list[int] = []

    def counting(phase: rounds.Phase) -> ByteSource:
        drawn.append(phase.round)
        return SeededSource(0, phase.kind, phase.round)

    with running(tmp_path, source=counting) as coordinator:
        assert coordinator.releases[1].void and coordinator.state.closed == 2
        finish(coordinator)
    assert 1 not in drawn and drawn == [2, 3, 4]
    states = {(r.name, r.round): r.state for r in read_ledger(tmp_path / "ledger.jsonl")}
    assert states["training", 1] == "void" and states["training", 2] == "committed"


def test_case_24_killed_between_release_and_ledger_gives_the_same_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as coordinator:
        closed(coordinator)
        question = coordinator.open()
        assert question is not None
        monkeypatch.setattr(coordinator._budget, "commit", _kill)
        with pytest.raises(Killed):
            coordinator.close(question, [2], [answer(coordinator, question)])
    kept = (tmp_path / "releases" / "release-00001.cbor").read_bytes()
    with running(tmp_path) as coordinator:
        assert coordinator.state.closed == 2
    assert (tmp_path / "releases" / "release-00001.cbor").read_bytes() == kept
    assert [r.state for r in read_ledger(tmp_path / "ledger.jsonl")] == ["committed", "committed"]


def _kill(*_: object) -> None:
    raise Killed


def test_case_25_a_full_disk_releases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with running(tmp_path) as coordinator:
        question = coordinator.open()
        assert question is not None
        monkeypatch.setattr("fl_server.checkpoint.os.replace", full)
        with pytest.raises(RunError, match="No space left"):
            coordinator.close(question, [2], [answer(coordinator, question)])
    assert not list((tmp_path / "releases").glob("*release*"))


def test_case_26_a_damaged_release_is_found(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        closed(coordinator)
    path = tmp_path / "releases" / "release-00000.cbor"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="damaged"), running(tmp_path):
        pytest.fail("a damaged folder must not open")


def test_case_26_an_edited_release_disagrees_with_the_ledger(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        closed(coordinator)
    path = tmp_path / "releases" / "release-00000.cbor"
    raw = decode(path.read_bytes())
    raw["noised"] = bytes(len(raw["noised"]))
    path.write_bytes(encode(raw))
    with pytest.raises(RunError, match="disagree"), running(tmp_path):
        pytest.fail("an edited folder must not open")


def test_case_27_two_runs_on_one_folder(tmp_path: Path) -> None:
    with Checkpoint(tmp_path, PLAN.digest), pytest.raises(RunError, match="another run"), Checkpoint(tmp_path, "x"):
        pytest.fail("the second must not get in")


def test_another_plans_releases_are_refused(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        closed(coordinator)
    with Checkpoint(tmp_path / "releases", "0" * 64) as checkpoint, pytest.raises(RunError, match="another plan"):
        checkpoint.releases()


def test_a_round_is_released_once(tmp_path: Path) -> None:
    with running(tmp_path) as coordinator:
        closed(coordinator)
        with pytest.raises(RunError, match="released once"):
            coordinator._checkpoint.commit(coordinator.releases[0])


def test_a_budget_of_another_plan_is_refused(tmp_path: Path) -> None:
    other = replace(PLAN, seed=5)
    with (
        Budget(tmp_path / "l", other) as budget,
        Checkpoint(tmp_path / "r", PLAN.digest) as checkpoint,
        pytest.raises(RunError, match="another plan"),
    ):
        Coordinator(SIGNED, PLAN, budget, checkpoint)


def test_headers_are_read_as_written() -> None:
    header = PartialHeader(PARTIAL_SCHEMA, PLAN.digest, 1, "train", 3, 4)
    assert PartialHeader.from_dict(decode(encode(header.to_dict()))) == header
