"""What the ingress takes apart and reads, and that nothing in a reply makes it allocate, unpack or believe (13.14)."""

from __future__ import annotations

import ast
import io
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fl_server import ingress, ingress_steps
from fl_server.ingress import MAX_HEADER_BYTES, MAX_SENTENCE, Masked, OpenSum, Plain, one_line, read, take_apart
from fl_server.ingress_steps import STEPS, Mail, OpenStep, read_mail
from fl_server.schedule import schedule
from model.canonical import decode, encode
from model.contract.masked import MASKED_SCHEMA, SEED_BYTES, MaskedHeader
from model.contract.pairing import PAIRING_SCHEMA, PairingMessage
from model.contract.plan import TrainingPlan
from model.contract.promise import Neighbours
from model.contract.sealed import RecipientKey
from model.contract.update import PARTIAL_SCHEMA, PartialHeader
from model.errors import ContractError, UpdateError
from model.secagg.context import Context
from model.secagg.messages import BOX, CHECKS, COMMITMENT, TAG, Advert, Agreement, Deal, Reveal, Upload, Wire
from model.secagg.shares import SHARE
from simulation.small import small_dataset, small_plan

FARM = small_plan(small_dataset(200, seed=1), rounds=2)
KEY = RecipientKey.generate().public_bytes.hex()
NEIGHBOURS = Neighbours(degree=10, threshold=6, corrupt=0.05, dropout=0.1)
MODEL, DIM = "ab" * 32, 12


def opened(plan: TrainingPlan = FARM, dim: int = DIM) -> OpenSum:
    return OpenSum(plan, schedule(plan)[1], dim, MODEL)


def in_mode(mode: str, **changes: Any) -> TrainingPlan:
    graph = {"honest": 5, "neighbours": NEIGHBOURS} if mode == "pairwise" else {}
    key = {"helper_key": KEY} if mode == "helper" else {}
    return replace(FARM, privacy=replace(FARM.privacy, mode=mode, **key, **graph), **changes)


HELPED = in_mode("helper")


def reply(plan: TrainingPlan = FARM, phones: int = 3, dim: int = DIM, fill: int = 1) -> RecordDict:
    header = PartialHeader(PARTIAL_SCHEMA, plan.digest, 1, "train", phones, dim)
    vector = ArrayRecord({"sum": Array(np.full(dim, fill, dtype=np.int64))})
    return RecordDict({"partial": ConfigRecord({"header": encode(header.to_dict())}), "sum": vector})


def masked_reply(plan: TrainingPlan = HELPED, phones: int = 2, seeds: bytes | None = None) -> RecordDict:
    header = MaskedHeader(MASKED_SCHEMA, plan.digest, 1, "train", phones, DIM, MODEL)
    sealed = bytes(phones * SEED_BYTES) if seeds is None else seeds
    parts = ConfigRecord({"header": encode(header.to_dict()), "seeds": sealed})
    vector = ArrayRecord({"sum": Array(np.full(DIM, 7, dtype=np.uint32))})
    return RecordDict({"masked": parts, "sum": vector})


def taken(content: RecordDict, plan: TrainingPlan = FARM) -> Plain | Masked:
    return read(take_apart(content, opened(plan)), opened(plan))


def test_an_unmasked_reply_is_phones_and_numbers() -> None:
    got = taken(reply(fill=-5))
    assert isinstance(got, Plain) and got.phones == 3 and got.vector.dtype == np.int64
    np.testing.assert_array_equal(got.vector, np.full(DIM, -5))


def test_a_masked_reply_is_phones_residues_and_a_seed_for_each() -> None:
    got = taken(masked_reply(), HELPED)
    assert isinstance(got, Masked) and got.phones == 2 and got.vector.dtype == np.uint32
    assert [len(seed) for seed in got.seeds] == [SEED_BYTES] * 2


@given(st.integers(1, 100_000))
def test_the_one_header_is_what_numpy_writes(dim: int) -> None:
    for dtype in (np.int64, np.uint32):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(dim, dtype=dtype), allow_pickle=False)
        head = ingress._npy_header(dim, np.dtype(dtype).str)
        assert buffer.getvalue() == head + bytes(dim * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("dim", [1, 9, 10, 99, 100, 12_345])
def test_every_length_has_its_one_size(dim: int) -> None:
    good = reply(dim=dim)
    assert len(take_apart(good, opened(dim=dim)).vector) == 8 * dim
    with pytest.raises(ContractError, match=f"one vector of {dim + 1} "):
        take_apart(good, opened(dim=dim + 1))


def _huge_records(content: RecordDict) -> None:
    for i in range(3000):
        content[f"r{i}"] = MetricRecord({"num-examples": 1})


def _huge_keys(content: RecordDict) -> None:
    content["partial"].update({f"k{i}": b"" for i in range(3000)})


def _huge_shape(content: RecordDict) -> None:
    content["sum"]["sum"] = Array("int64", (1 << 40,) * 3000, "numpy.ndarray", content["sum"]["sum"].data)


def _claims_terabytes(content: RecordDict) -> None:
    data = content["sum"]["sum"].data
    content["sum"]["sum"] = Array("int64", (DIM,), "numpy.ndarray", data.replace(b"(12,)", b"(1099511627776,)"[:5]))


def _bomb(content: RecordDict) -> None:
    content["sum"]["sum"] = Array("int64", (DIM,), "numpy.ndarray", zlib.compress(bytes(1 << 26), 9))


def _zip_bomb(content: RecordDict) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, sum=np.zeros(1 << 20, dtype=np.int64))
    content["sum"]["sum"] = Array("int64", (DIM,), "numpy.ndarray", buffer.getvalue())


def _deep(content: RecordDict) -> None:
    content["partial"]["header"] = b"\x81" * (MAX_HEADER_BYTES - 1) + b"\x00"


def _many(content: RecordDict) -> None:
    content["partial"]["header"] = b"\x99\x0f\x00" + b"\x80" * 0x0F00


def _announced(content: RecordDict) -> None:
    content["partial"]["header"] = b"\x5b" + (1 << 40).to_bytes(8, "big")


def _long(content: RecordDict) -> None:
    content["partial"]["header"] = encode({"x": "a" * MAX_HEADER_BYTES})


BOMBS = [
    _huge_records, _huge_keys, _huge_shape, _claims_terabytes, _bomb, _zip_bomb, _deep, _many, _announced, _long,
]  # fmt: skip


@pytest.mark.parametrize("spoil", BOMBS, ids=lambda spoil: spoil.__name__)
def test_cases_10_to_13_cost_less_memory_than_the_reply_has(spoil: Callable[[RecordDict], None]) -> None:
    content, place = reply(), opened()
    spoil(content)
    with pytest.raises(ContractError):
        read(take_apart(content, place), place)  # what is kept from one reply to the next is kept now
    tracemalloc.start()
    with pytest.raises(ContractError):
        read(take_apart(content, place), place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


def test_the_memory_test_sees_what_an_unpacking_reader_takes() -> None:
    content = reply()
    _bomb(content)
    tracemalloc.start()
    zlib.decompress(content["sum"]["sum"].data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak > 1 << 25


@pytest.mark.parametrize("module", [ingress, ingress_steps])
def test_case_09_and_12_the_door_has_nothing_that_unpickles_or_unpacks(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not names & {"pickle", "marshal", "zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile", "torch", "joblib"}
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not called & {"load", "loads", "numpy", "frombuffer", "fromstring", "read_array", "decompress"}


@pytest.mark.parametrize("mode", ["central", "off"])
def test_case_14_the_field_sends_nothing_unmasked_but_in_a_simulation(mode: str) -> None:
    simulated = in_mode(mode, topology="field")
    assert taken(reply(simulated, phones=1), simulated).phones == 1
    real = replace(simulated, simulation=False)
    with pytest.raises(UpdateError, match="from the field"):
        taken(reply(real, phones=1), real)
    farm = replace(real, topology="farm")
    assert taken(reply(farm), farm).phones == 3


def test_in_mode_local_a_phone_in_the_field_hides_its_own_answer() -> None:
    local = in_mode("local", topology="field", simulation=False)
    assert taken(reply(local, phones=1), local).phones == 1


def test_a_masking_plan_takes_no_unmasked_answer_and_the_reverse() -> None:
    for mode, said in (("helper", "without a mask"), ("pairwise", "outside the steps")):
        plan = in_mode(mode)
        with pytest.raises(UpdateError, match=said):
            taken(reply(plan), plan)
    with pytest.raises(UpdateError, match="mode central"):
        taken(masked_reply(FARM), FARM)


@pytest.mark.parametrize("phones", [0, 2, 1 << 40])
@pytest.mark.parametrize("mode", ["helper", "local"])
def test_case_14_the_field_counts_one(mode: str, phones: int) -> None:
    plan = in_mode(mode, topology="field")
    make = (lambda n: masked_reply(plan, n, bytes(SEED_BYTES))) if mode == "helper" else (lambda n: reply(plan, n))
    assert taken(make(1), plan).phones == 1
    with pytest.raises((ContractError, UpdateError), match="phones, not the 1"):
        taken(make(phones), plan)


def test_case_11_sealed_seeds_are_bounded_by_the_phones_a_node_may_have() -> None:
    field = in_mode("helper", topology="field")
    with pytest.raises(ContractError, match="exceed"):
        take_apart(masked_reply(field, 1, bytes(2 * SEED_BYTES)), opened(field))
    most = opened(HELPED).most_phones
    take_apart(masked_reply(HELPED, seeds=bytes(most * SEED_BYTES)), opened(HELPED))
    with pytest.raises(ContractError, match="exceed"):
        take_apart(masked_reply(HELPED, seeds=bytes(most * SEED_BYTES + 1)), opened(HELPED))


def test_half_a_seed_and_a_sum_of_nobody() -> None:
    with pytest.raises(ContractError, match="whole number"):
        taken(masked_reply(seeds=bytes(2 * SEED_BYTES + 1)), HELPED)
    with pytest.raises(UpdateError, match="not zero"):
        taken(masked_reply(phones=0), HELPED)


def test_a_refusal_that_quotes_is_kept_short() -> None:
    long = ContractError("a message has the key '" + "x" * 9000 + "\n'")
    assert len(one_line(long)) == MAX_SENTENCE and one_line(long).isprintable()
    assert one_line(ContractError("short\x1b[31m")) == "short [31m"
    content = reply()
    content["partial"]["header"] = encode({"a" * 4000: 1})
    with pytest.raises(ContractError) as caught:
        taken(content)
    assert len(str(caught.value)) > 4000 and len(one_line(caught.value)) == MAX_SENTENCE


MESSAGES: dict[str, Wire] = {
    "advertise": Advert(bytes(32), bytes(32), bytes(32), bytes(64)),
    "share": Deal(bytes(10 * BOX), bytes(10 * COMMITMENT), bytes(32)),
    "upload": Upload(bytes(4 * (DIM + CHECKS)), bytes(2), bytes(10 * TAG)),
    "agree": Agreement(bytes(64), bytes(10 * TAG)),
    "unmask": Reveal(bytes(2), bytes(10 * SHARE)),
}


PLACE = Context("cd" * 32, "train", 1, MODEL, DIM)


def opened_step(step: str, most: int = 3) -> OpenStep:
    return OpenStep(step, PLACE, 2, NEIGHBOURS, most)


def enveloped(step: str, body: bytes, /, **changes: Any) -> bytes:
    said = PairingMessage(PAIRING_SCHEMA, PLACE.plan_digest, 1, "train", 2, step, body).to_dict()
    return encode({**said, **changes})


def step_reply(phones: list[int], messages: list[Any]) -> RecordDict:
    return RecordDict({"pairing": ConfigRecord({"attempt": 2, "phones": phones, "messages": messages})})


def said(step: str, data: bytes) -> Mail:
    return read_mail(step_reply([1], [data]), {0, 1}, opened_step(step))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_takes_its_own_message_and_no_other(step: str) -> None:
    body = MESSAGES[step].to_bytes()
    assert said(step, enveloped(step, body)) == Mail({1: body}, ())
    wrong = Agreement(bytes(64), b"") if step == "advertise" else MESSAGES["advertise"]
    for data, why in (
        (enveloped(step, wrong.to_bytes()), "schema"),
        (enveloped(step, body, step="share" if step == "unmask" else "unmask"), "another step"),
        (enveloped(step, body, attempt=1), "another step"),
        (enveloped(step, body, round=2), "another step"),
        (enveloped(step, body, plan_digest="00" * 32), "another step"),
        (enveloped(step, body, weight=5), "lacks or adds"),
        (enveloped(step, encode({**decode(body), "weight": 5})), "lacks or adds"),
        (enveloped(step, body + b"\0"), "after its end"),
    ):
        mail = said(step, data)
        assert mail.bodies == {} and len(mail.refused) == 1 and why in mail.refused[0]


@pytest.mark.parametrize("step", STEPS)
def test_case_11_a_step_is_bounded_by_the_plan(step: str) -> None:
    most = opened_step(step).most_bytes
    assert len(MESSAGES[step].to_bytes()) <= most
    assert "exceed" in said(step, bytes(most + 513)).refused[0]
    crowd = step_reply([0, 1, 2, 3], [b""] * 4)
    with pytest.raises(ContractError, match="at most 3"):
        read_mail(crowd, {0, 1, 2, 3}, opened_step(step))


def test_one_phone_of_a_farm_costs_only_itself() -> None:
    good = enveloped("agree", MESSAGES["agree"].to_bytes())
    mail = read_mail(step_reply([0, 1, 2], [good, b"\x81" * 500, good]), {0, 1}, opened_step("agree"))
    assert list(mail.bodies) == [0] and len(mail.refused) == 2 and "not asked" in mail.refused[1]


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        RecordDict({"pairing": ConfigRecord({"attempt": 2, "phones": [0]})}),
        RecordDict({**step_reply([0], [b""]), "metrics": MetricRecord({"num-examples": 5})}),
        step_reply([0, 0], [b"", b""]),
        step_reply([0], []),
        RecordDict({"pairing": ConfigRecord({"attempt": 2, "phones": [0.0], "messages": [b""]})}),
        RecordDict({"pairing": ConfigRecord({"attempt": 2, "phones": 0, "messages": b""})}),
    ],
)
def test_cases_08_and_14_a_step_carries_nothing_else(content: RecordDict) -> None:
    with pytest.raises(ContractError):
        read_mail(content, {0}, opened_step("agree"))
    assert said("agree", "text").refused == ("a reply's message must be bytes; use the same release on both sides",)  # type: ignore[arg-type]
