"""What a node believes, what it answers, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fl_client.answers import answer_size
from fl_client.app import Trust, make_client_app, read_task
from fl_client.egress import MemoryEgress
from fl_client.phones import Partial, Phone, Task
from fl_client.replies import write_partial
from fl_client.single import OnePhone
from model.canonical import encode
from model.contract.envelope import SigningKey, sign
from model.contract.plan import DOMAIN, TrainingPlan
from model.contract.update import TASK_SCHEMA
from model.errors import (
    ContractError,
    EgressError,
    PocketScoreError,
    PolicyError,
    RoundError,
    SignatureError,
    UpdateError,
)
from model.risk.knots import Knots, rows_histogram
from model.secagg.context import model_digest
from simulation.grid import identity
from simulation.small import small_dataset, small_plan

DATA = small_dataset(200, seed=1)
PLAN = small_plan(DATA, rounds=3)
KEYS = [SigningKey.generate(), SigningKey.generate()]
TRUST = Trust({key.keyid: key.public_bytes for key in KEYS}, tuple(key.keyid for key in KEYS))
KNOTS = Knots.from_histogram(rows_histogram(DATA.x, np.ones(len(DATA.y)), DATA.schema), DATA.schema, 5)
DIMENSION = 1 + sum(len(mass) for mass in KNOTS.mass)


def message(plan: TrainingPlan = PLAN, keys: list[SigningKey] = KEYS, **header: object) -> RecordDict:
    place = {"schema": TASK_SCHEMA, "plan_digest": plan.digest, "round": 1, "kind": "train", **header}
    signed = sign(DOMAIN, plan.to_dict(), keys).to_bytes()
    task = {"header": encode(place), "plan": signed, "knots": encode(KNOTS.to_dict())}
    flat = Array(np.zeros(DIMENSION, dtype=np.float32))
    return RecordDict({"task": ConfigRecord(task), "model": ArrayRecord({"flat": flat})})


def test_a_task_with_both_signatures_is_believed() -> None:
    task = read_task(message(), TRUST, "train")
    assert (task.kind, task.round, len(task.flat)) == ("train", 1, DIMENSION) and task.knots == KNOTS


def test_case_40_a_task_is_known_by_the_model_it_brought() -> None:
    sent = model_digest(bytes(4 * DIMENSION), encode(KNOTS.to_dict()))
    assert read_task(message(), TRUST, "train").model_digest == sent
    other = message()
    flat = np.zeros(DIMENSION, dtype=np.float32)
    flat[0] = np.nextafter(np.float32(0), np.float32(1))
    other["model"]["flat"] = Array(flat)
    assert read_task(other, TRUST, "train").model_digest != sent


def test_case_41_a_signed_plan_whose_sums_could_wrap_is_refused() -> None:
    masked = replace(PLAN.privacy, mode="helper", helper_key="09" + "00" * 31, delta=1e-7)
    read_task(message(replace(PLAN, privacy=masked)), TRUST, "train")  # control
    with pytest.raises(RoundError, match="could wrap"):
        read_task(message(replace(PLAN, privacy=masked, phones=100_000)), TRUST, "train")


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS[1:], [*KEYS[:1], SigningKey.generate()]])
def test_one_signature_is_not_enough(keys: list[SigningKey]) -> None:
    with pytest.raises(SignatureError):
        read_task(message(keys=keys), TRUST, "train")


def test_a_plan_its_policy_pack_forbids_is_refused_though_signed() -> None:
    with pytest.raises(PolicyError, match="30"):
        read_task(message(replace(PLAN, min_cohort=10)), TRUST, "train")


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"plan_digest": "0" * 64}, RoundError),
        ({"kind": "evaluate"}, RoundError),
        ({"round": 99}, RoundError),
        ({"weight": 2}, ContractError),
    ],
)
def test_a_header_that_does_not_fit_is_refused(header: dict[str, object], error: type[PocketScoreError]) -> None:
    with pytest.raises(error):
        read_task(message(**header), TRUST, "train")


def _extra(content: RecordDict) -> None:
    content["more"] = MetricRecord({"count": 1})


def _extra_array(content: RecordDict) -> None:
    content["model"]["second"] = Array(np.zeros(1, dtype=np.float32))


def _terabytes(content: RecordDict) -> None:
    body = (
        np.lib.format.magic(1, 0) + b"v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    )
    content["model"]["flat"] = Array("float32", (1 << 40,), "numpy.ndarray", body.ljust(128) + bytes(16))


def _doubles(content: RecordDict) -> None:
    content["model"]["flat"] = Array(np.zeros(DIMENSION))


def _pickled(content: RecordDict) -> None:
    content["model"]["flat"] = Array("object", (1,), "pickle", b"\x80\x04.")


def _text(content: RecordDict) -> None:
    content["task"]["knots"] = "none"


@pytest.mark.parametrize("spoil", [_extra, _extra_array, _terabytes, _doubles, _pickled, _text])
def test_cases_07_to_10_on_the_phone(spoil: Callable[[RecordDict], None]) -> None:
    content = message()
    spoil(content)
    with pytest.raises(ContractError):
        read_task(content, TRUST, "train")


def task_of(kind: str, plan: TrainingPlan = PLAN, flat: np.ndarray | None = None) -> Task:
    knots = None if kind == "knots" else KNOTS
    size = 0 if kind == "knots" else DIMENSION
    return Task(kind, 1, plan, knots, np.zeros(size, dtype=np.float32) if flat is None else flat)


def test_a_field_node_refuses_any_count_but_one() -> None:
    task = task_of("train", replace(PLAN, topology="field"))
    good = write_partial(task, Partial(1, np.zeros(DIMENSION, dtype=np.int64)), MemoryEgress(0))
    assert set(good) == {"partial", "sum"}
    for count in (0, 2):
        with pytest.raises(UpdateError, match="one phone"):
            write_partial(task, Partial(count, np.zeros(DIMENSION, dtype=np.int64)), MemoryEgress(0))


@pytest.mark.parametrize("values", [np.zeros(1, dtype=np.int64), np.zeros(DIMENSION), np.zeros(DIMENSION, dtype=">i8")])
def test_an_answer_of_another_form_does_not_leave(values: np.ndarray) -> None:
    with pytest.raises(UpdateError):
        write_partial(task_of("train"), Partial(30, values), MemoryEgress(0))


@pytest.mark.parametrize("kind", ["knots", "train", "calibrate", "evaluate"])
@pytest.mark.parametrize("rows", [0, 3])
def test_one_phone_answers_every_question_within_its_reach(kind: str, rows: int) -> None:
    phone = Phone(DATA.x[:rows], DATA.y[:rows], 7, holdout=kind == "evaluate")
    flat = np.concatenate([np.zeros(DIMENSION), [-1.0, 0.5]]).astype(np.float32) if kind == "evaluate" else None
    task = task_of(kind, flat=flat)
    partial = OnePhone(phone).partial(task)
    reach = {"knots": np.sqrt(len(DATA.schema.features)), "train": PLAN.local.clip_norm}.get(kind, 1.0)
    assert partial.phones == 1 and partial.sum.shape == (answer_size(task),)
    assert np.linalg.norm(partial.sum.astype(float)) <= reach * PLAN.privacy.grid_scale
    assert bool(partial.sum.any()) == bool(rows)


def test_a_phone_of_the_other_split_looks_absent() -> None:
    with pytest.raises(UpdateError, match="holdout"):
        OnePhone(Phone(DATA.x[:1], DATA.y[:1])).partial(task_of("evaluate"))


def test_a_client_app_answers_or_names_the_class_of_its_refusal() -> None:
    door = MemoryEgress(0)
    one = OnePhone(Phone(DATA.x[:2], DATA.y[:2], 7))
    app = make_client_app(lambda context: one, lambda context: TRUST, lambda context: door)
    replies = []
    with identity(2):
        for kind in ("train", "query.evaluate"):
            content = message(kind=kind.removeprefix("query."))
            replies.append(app(Message(content, 2, kind), Context(1, 2, {}, RecordDict(), {})))
    assert replies[0].content.array_records["sum"]["sum"].numpy().any()
    assert replies[1].error.reason == "UpdateError"
    sent = replies[0].content
    size = len(sent.config_records["partial"]["header"]) + 8 * DIMENSION
    assert door.summary() == {"update/1": {"messages": 1, "bytes": size}}  # the refusal left nothing


def test_an_answer_that_the_door_refuses_does_not_leave() -> None:
    class Shut(MemoryEgress):
        def _leave(self, *arguments: object) -> None:
            raise EgressError("the door is shut; nothing left the phone")

    one = OnePhone(Phone(DATA.x[:2], DATA.y[:2], 7))
    app = make_client_app(lambda context: one, lambda context: TRUST, lambda context: Shut(0))
    with identity(2):
        reply = app(Message(message(kind="train"), 2, "train"), Context(1, 2, {}, RecordDict(), {}))
    assert (reply.has_content(), reply.error.reason) == (False, "EgressError")


def test_a_farms_process_loads_no_torch() -> None:
    code = "import sys, simulation.flower; sys.exit('torch' in sys.modules or 'dp_accounting' in sys.modules)"
    project = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=project, check=False).returncode == 0
    control = "import sys, fl_client.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", control], cwd=project, check=False).returncode == 1
