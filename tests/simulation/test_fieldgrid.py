"""Real messages of phones that are lost, late, doubled or hostile, on a virtual clock, through the real coordinator."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from fl_client.phones import Phone
from fl_client.single import OnePhone
from fl_server.app import Result
from fl_server.rounds import schedule
from fl_server.strategy import FederationStrategy
from model.contract.envelope import SigningKey
from model.contract.plan import TrainingPlan
from model.errors import RoundError
from model.risk.registry import FEATURES
from model.risk.schema import Schema
from simulation import fieldgrid
from simulation.attendance import COUNTED, DROPPED, LATE, OFFLINE, REFUSED, Attendance, Roll, Virtual
from simulation.availability import opening, tiers_of
from simulation.engine.reference import ReferenceEngine
from simulation.faults import TRICKS, Faults
from simulation.federate import federate
from simulation.fieldgrid import Field, VirtualClock
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

KEYS = [SigningKey.generate(), SigningKey.generate()]
PHONES, HOURS, ROUNDS = 130, 0.4, 2
OWN = [f for f in FEATURES.values() if f.permission == "O" and f.kind == "number"][:5]
HELD = np.arange(PHONES) % 2 == 0
DATA = replace(small_dataset(PHONES, seed=8), schema=Schema("own", "1", tuple(OWN)), holdout=HELD)
BAD = Virtual("always", HOURS, Faults(drop=0.08, slow=0.12, duplicate=0.1, hostile=0.1), 4)


@dataclass(frozen=True)
class Told:
    """An attendance by script: fates of phones by (round, id), and who answers twice."""

    fates: dict[tuple[int, int], int] = field(default_factory=dict)
    twice: bool = False

    def roll(self, ids: NDArray[np.uint64], tiers: NDArray[np.int8], round_: int) -> Roll:
        fate = np.array([self.fates.get((round_, int(i)), COUNTED) for i in ids], dtype=np.int8)
        return Roll(fate, (fate == COUNTED) & self.twice, np.where(fate == LATE, 2 * HOURS, 0.1))


def plan_of(topology: str) -> TrainingPlan:
    plan = small_plan(DATA, rounds=ROUNDS)
    return replace(plan, topology=topology, min_cohort=30)


PHASES = schedule(plan_of("farm"))


def prepared(folder: Path, topology: str) -> Workspace:
    workspace = Workspace(folder)
    folder.mkdir()
    workspace.prepare(DATA, plan_of(topology), KEYS)
    return workspace


def phone(i: int) -> Phone:
    rows = slice(int(DATA.offsets[i]), int(DATA.offsets[i + 1]))
    return Phone(np.asarray(DATA.x[rows]), DATA.y[rows], int(DATA.ids[i]), bool(DATA.holdout[i]))


def in_the_field(folder: Path, attendance: Attendance) -> Result:
    """One node a phone, over real messages."""
    who = Field(DATA.ids, tiers_of(DATA), attendance, HOURS, 4)
    return federate(prepared(folder, "field"), nodes=PHONES, phones=lambda i: OnePhone(phone(i)), field=who)


def in_a_farm(folder: Path, attendance: Attendance | None) -> Result:
    """The same phones behind one node."""
    workspace = prepared(folder, "farm")
    farm = replace(workspace.farm(0, 1, engine=ReferenceEngine()), attendance=attendance)
    return federate(workspace, phones=lambda i: farm)


def split_of(kind: str) -> NDArray[np.bool_]:
    return np.asarray(DATA.holdout if kind == "evaluate" else ~DATA.holdout)


def test_messages_and_farm_tell_one_story_of_every_phase(tmp_path: Path) -> None:
    field, farm = in_the_field(tmp_path / "field", BAD), in_a_farm(tmp_path / "farm", BAD)
    calm = in_a_farm(tmp_path / "calm", None)
    unit = plan_of("farm").privacy.grid_scale
    assert [r.kind for r in field.releases] == ["knots", "train", "train", "calibrate", "evaluate"]
    for release, same, other in zip(field.releases, farm.releases, calm.releases, strict=True):
        mine = split_of(release.kind)
        tally = BAD.roll(DATA.ids[mine], tiers_of(DATA)[mine], release.round).tally()
        assert release.phones == same.phones == tally["counted"] < other.phones
        named = [s for s in release.refused if "UpdateError" not in s]  # phones of the other split refuse the question
        assert len(named) == tally["refused"] > 0 and min(tally["dropped"], tally["late"], tally["duplicate"]) > 0
        assert np.abs(release.noised - same.noised).max() <= 1e-4 * unit
    assert np.abs(field.theta - farm.theta).max() <= 5e-5
    # The control: with the same noise, the missing phones are missing.
    assert np.abs(field.releases[0].noised - calm.releases[0].noised).max() > unit


@pytest.mark.parametrize("fate", [OFFLINE, DROPPED, LATE, REFUSED])
def test_a_fate_met_in_any_phase_leaves_a_phone_out_of_that_sum_alone(tmp_path: Path, fate: int, calm: Result) -> None:
    met = {(p.round, int(i)): fate for p in PHASES for i in DATA.ids[split_of(p.kind)][: 5 + p.round]}
    result = in_the_field(tmp_path / "w", Told(met))
    for release, whole in zip(result.releases, calm.releases, strict=True):
        missing = 5 + release.round
        assert release.phones == whole.phones - missing
        assert len(release.refused) - len(whole.refused) == (missing if fate == REFUSED else 0)
        assert release.replied == release.phones and release.asked == PHONES


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Half the phones are of the other split in each phase and say so."""
    logger = logging.getLogger("pocketscore.node")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The field run in which everybody answers, once."""
    return in_the_field(tmp_path_factory.mktemp("calm") / "w", Told())


def test_an_answer_that_comes_twice_counts_once(tmp_path: Path, calm: Result) -> None:
    twice = in_the_field(tmp_path / "w", Told(twice=True))
    for one, other in zip(calm.releases, twice.releases, strict=True):
        np.testing.assert_array_equal(one.noised, other.noised)
        assert (one.phones, sorted(one.refused)) == (other.phones, sorted(other.refused))


def test_each_trick_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: Result) -> None:
    said = {"nan": "", "length": "one vector of", "beyond": "over its bound", "stale": "came while"}
    met = {(p.round, int(i)): REFUSED for p in PHASES for i in DATA.ids[split_of(p.kind)][:4]}
    played = {int(i): TRICKS[n] for kind in ("train", "evaluate") for n, i in enumerate(DATA.ids[split_of(kind)][:4])}
    monkeypatch.setattr(fieldgrid, "trick", lambda id_, seed, round_: played[id_])
    result = in_the_field(tmp_path / "w", Told(met))
    for release, clean in zip(result.releases, calm.releases, strict=True):
        named = sorted(set(release.refused) - set(clean.refused), key=lambda text: int(text.split(":")[0][5:]))
        assert release.phones == clean.phones - 4 and len(named) == 4
        for text, node, which in zip(named, np.flatnonzero(split_of(release.kind)) + 2, TRICKS, strict=False):
            assert text.startswith(f"node {node}: ") and said[which] in text


def test_a_spoilt_answer_taken_for_a_good_one_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: Result
) -> None:
    """The control: a hostile phone whose trick leaves the answer valid is counted."""
    monkeypatch.setitem(fieldgrid.SPOIL, "length", lambda content: content)
    monkeypatch.setattr(fieldgrid, "trick", lambda *args: "length")
    result = in_the_field(tmp_path / "w", Told({(1, int(DATA.ids[1])): REFUSED}))
    assert [r.phones for r in result.releases] == [r.phones for r in calm.releases]


@pytest.mark.parametrize("fate", [DROPPED, LATE, REFUSED])
def test_below_the_minimum_cohort_nothing_is_released(tmp_path: Path, fate: int) -> None:
    met = {(1, int(i)): fate for i in DATA.ids[~DATA.holdout][29:]}
    with pytest.raises(RoundError, match="below the minimum cohort of 30; nothing was released"):
        in_the_field(tmp_path / "w", Told(met))
    assert [p.name for p in sorted((tmp_path / "w" / "releases").glob("release-*"))] == ["release-00000.cbor"]


def test_the_clock_passes_only_in_sleep_and_wakes_at_the_next_thing_due() -> None:
    clock = VirtualClock(10.0, [30.0, 20.0])
    assert clock.monotonic() == clock.monotonic() == 10.0
    for expected in (20.0, 30.0, 30.5):
        clock.sleep(0.5)
        assert clock.monotonic() == expected


def test_a_round_ends_on_its_deadline_or_with_its_last_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = []
    exchange = FederationStrategy._exchange

    def timed(self: FederationStrategy, grid: fieldgrid.FieldGrid, messages: list[Message]) -> list[Message]:
        replies = exchange(self, grid, messages)
        spent.append(grid.clock.now / 3600 - opening(int(messages[0].metadata.group_id), HOURS))
        return replies

    monkeypatch.setattr(FederationStrategy, "_exchange", timed)
    in_the_field(tmp_path / "w", Told({(2, int(DATA.ids[1])): LATE}))
    np.testing.assert_allclose(spent, [0.1, 0.1, HOURS, 0.1, 0.1])
