"""What leaves in each privacy mode: under masks nothing but a sealed sum, in mode local nothing without own noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_client.egress import MemoryEgress
from fl_client.local import own_noise
from fl_client.phones import Partial, Task
from fl_client.replies import write_partial, write_reply
from fl_client.update import Delta, Sealed, seal_sum
from model.canonical import decode
from model.contract.masked import SEED_BYTES, MaskedHeader, split_seeds
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.contract.releases import charge_of, share_sigma
from model.contract.sealed import RecipientKey
from model.errors import EgressError, RoundError, UpdateError
from model.privacy.noise import OsSource, SeededSource
from model.secagg.context import Context
from model.secagg.two_server import open_seeds, unshield
from simulation.small import small_dataset, small_plan

KEY = RecipientKey.from_private_bytes(bytes([7]) * 32)
DATA = small_dataset(100, seed=1)
DIM = 24
CONTEXT = Context("ab" * 32, "train", 1, "cd" * 32, DIM)


def plan_of(mode: str, **changes: Any) -> TrainingPlan:
    plan = small_plan(DATA, rounds=2, **changes)
    parts: dict[str, Any] = {"mode": mode}
    if mode == "helper":
        parts["helper_key"] = KEY.public_bytes.hex()
    if mode == "pairwise":
        parts |= {"honest": 10, "neighbours": Neighbours(20, 11)}
    return replace(plan, privacy=replace(plan.privacy, **parts))


def task_of(mode: str, **changes: Any) -> Task:
    return Task("train", 1, plan_of(mode, **changes), None, np.zeros(DIM, np.float32), "cd" * 32)


def test_a_masked_reply_opens_to_the_sum_and_to_nothing_else() -> None:
    task, units = task_of("helper"), np.arange(DIM) - 7
    reply = write_reply(task, Partial(3, units), MemoryEgress(0), OsSource())
    assert set(reply.config_records) == {"masked"} and set(reply.array_records) == {"sum"}
    parts = reply.config_records["masked"]
    header, seeds = MaskedHeader.from_dict(decode(parts["header"])), split_seeds(parts["seeds"])
    assert (header.phones, header.dim, header.model_digest, len(seeds)) == (3, DIM, "cd" * 32, 3)
    vector = reply.array_records["sum"]["sum"].numpy()
    assert vector.dtype == np.uint32
    masks = open_seeds(seeds, KEY, replace(CONTEXT, plan_digest=task.plan.digest))
    np.testing.assert_array_equal(unshield(vector, masks), units)


def test_one_phone_sends_four_bytes_a_number_and_one_seed() -> None:
    door = MemoryEgress(0)
    write_reply(task_of("helper"), Partial(1, np.zeros(DIM, np.int64)), door, OsSource())
    (line,) = door.lines()
    assert line.type == "masked/1" and 4 * DIM + SEED_BYTES < line.bytes < 4 * DIM + SEED_BYTES + 350
    assert door.summary()["masked/1"]["messages"] == 1


@pytest.mark.parametrize("mode", ["helper", "pairwise"])
def test_no_unmasked_reply_can_be_written_where_answers_are_masked(mode: str) -> None:
    partial, door = Partial(1, np.zeros(DIM, np.int64)), MemoryEgress(0)
    with pytest.raises(UpdateError, match="without its mask"):
        write_partial(task_of(mode), partial, door)
    assert door.lines() == []
    write_partial(task_of("central"), partial, door)  # control
    assert door.lines()[0].type == "update/1"


def test_a_field_node_masks_one_phone() -> None:
    task = task_of("helper", topology="field")
    with pytest.raises(UpdateError, match="one phone"):
        write_reply(task, Partial(2, np.zeros(DIM, np.int64)), MemoryEgress(0), OsSource())
    write_reply(task, Partial(1, np.zeros(DIM, np.int64)), MemoryEgress(0), OsSource())


@pytest.mark.parametrize("shape", [(DIM + 1,), (1,), (DIM, 1)])
def test_case_05_and_06_another_shape_is_not_masked(shape: tuple[int, ...]) -> None:
    with pytest.raises(UpdateError, match="shape"):
        write_reply(task_of("helper"), Partial(1, np.zeros(shape, np.int64)), MemoryEgress(0), OsSource())


def test_sealed_is_made_from_encoded_alone() -> None:
    encoded = Delta(np.full(DIM, 0.01)).clip(0.5).encode(1 << 20)
    sealed = encoded.seal(KEY.public_bytes, CONTEXT, SeededSource(1))
    again = seal_sum(encoded.units, 1, KEY.public_bytes, CONTEXT, SeededSource(1))
    assert sealed.vector == again.vector and sealed.seeds != again.seeds  # sealing itself is randomised
    with pytest.raises(UpdateError, match="only seal_sum"):
        Sealed(1, bytes(4 * DIM), bytes(SEED_BYTES), CONTEXT, None)


def masked(**changes: Any) -> tuple[dict[str, Any], bytes, bytes]:
    header = {"schema": "pocketscore.masked/1", "plan_digest": "ab" * 32, "round": 1, "kind": "train"}
    header |= {"phones": 2, "dim": 4, "model_digest": "cd" * 32, **changes}
    return header, bytes(16), bytes(2 * SEED_BYTES)


BAD: dict[str, dict[str, Any]] = {
    "a weight (case 14)": {"weight": 3},
    "an unmasked schema": {"schema": "pocketscore.partial/1"},
    "another kind": {"kind": "norms"},
    "a longer vector than sent": {"dim": 5},
    "more phones than seeds": {"phones": 3},
    "fewer phones than seeds": {"phones": 1},
    "no model digest": {"model_digest": ""},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_the_egress_lets_only_the_declared_masked_message_out(changes: dict[str, Any]) -> None:
    door = MemoryEgress(0)
    with pytest.raises(EgressError, match="nothing left the phone"):
        door.masked(*masked(**changes))
    assert door.lines() == []
    head, vector, seeds = door.masked(*masked())
    assert decode(head)["phones"] == 2 and (len(vector), len(seeds)) == (16, 2 * SEED_BYTES)
    assert door.lines()[0].bytes == len(head) + 16 + 2 * SEED_BYTES


def test_each_phone_in_mode_local_adds_noise_of_its_own() -> None:
    task = task_of("local")
    charge = charge_of(task.plan, "train")
    assert charge is not None
    sigma, phones = share_sigma(task.plan, charge), 100
    noise = own_noise(task.plan, "train", phones, 5000, SeededSource(3))
    assert abs(noise.std() / (sigma * np.sqrt(phones)) - 1) < 5 / np.sqrt(2 * 5000)
    door = MemoryEgress(0)
    reply = write_reply(task, Partial(1, np.zeros(DIM, np.int64)), door, OsSource())
    sent = reply.array_records["sum"]["sum"].numpy()
    assert (sent != 0).sum() > DIM - 2 and door.lines()[0].type == "update/1"


def test_mode_local_sends_nothing_without_noise() -> None:
    task = replace(task_of("local", noise_multiplier=0.0), kind="train")
    with pytest.raises(RoundError, match="no noise"):
        write_reply(task, Partial(1, np.zeros(DIM, np.int64)), MemoryEgress(0), OsSource())
