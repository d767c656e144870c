"""Translation to and from Flower's messages, and what a reply may not contain (cases 7–10, 14)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from fl_client.app import make_client_app
from fl_server.budget import Budget
from fl_server.checkpoint import Checkpoint
from fl_server.coordinator import Coordinator
from fl_server.strategy import FederationStrategy, read_answer
from model.contract.envelope import SigningKey
from model.errors import ContractError
from simulation.grid import InProcessGrid, run_in_process
from simulation.small import small_dataset, small_plan
from simulation.workspace import Workspace

VECTOR = np.arange(5, dtype=np.int64)


def reply() -> RecordDict:
    return RecordDict({"partial": ConfigRecord({"header": b"h"}), "sum": ArrayRecord({"sum": Array(VECTOR)})})


def test_a_reply_is_a_header_and_the_bytes_of_one_vector() -> None:
    answer = read_answer(4, reply())
    assert (answer.node, answer.header) == (4, b"h")
    np.testing.assert_array_equal(np.frombuffer(answer.vector, "<i8"), VECTOR)


@pytest.mark.parametrize("length", [1, 9, 10, 99, 100, 12_345])
def test_every_length_has_its_one_header(length: int) -> None:
    content = reply()
    content["sum"]["sum"] = Array(np.full(length, 7, dtype=np.int64))
    assert len(read_answer(4, content).vector) == 8 * length


def _weights(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"num-examples": 1e12})


def _weight_in_header(content: RecordDict) -> None:
    content["partial"]["weight"] = 1e12


def _floats(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR.astype(np.float64))


def _big_endian(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR.astype(">i8"))


def _matrix(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR[None, :].copy())


def _terabytes(content: RecordDict) -> None:
    head = (
        np.lib.format.magic(1, 0) + b"v\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776,), }"
    )
    content["sum"]["sum"] = Array("int64", (1 << 40,), "numpy.ndarray", head.ljust(127) + b"\n" + bytes(8))


def _pickle(content: RecordDict) -> None:
    content["sum"]["sum"] = Array("object", (1,), "numpy.ndarray", b"\x80\x04.")


def _two(content: RecordDict) -> None:
    content["sum"]["again"] = Array(VECTOR)


def _text_header(content: RecordDict) -> None:
    content["partial"]["header"] = "h"


@pytest.mark.parametrize(
    "spoil",
    [_weights, _weight_in_header, _floats, _big_endian, _matrix, _terabytes, _pickle, _two, _text_header],
    ids=lambda f: f.__name__,
)
def test_cases_07_to_10_and_14_replies_of_another_form(spoil: Callable[[RecordDict], None]) -> None:
    content = reply()
    spoil(content)
    with pytest.raises(ContractError):
        read_answer(4, content)


def masked_reply() -> RecordDict:
    parts = ConfigRecord({"header": b"h", "seeds": b"s" * 105})
    return RecordDict({"masked": parts, "sum": ArrayRecord({"sum": Array(VECTOR.astype(np.uint32))})})


@pytest.mark.parametrize("length", [1, 9, 10, 99, 100, 12_345])
def test_a_masked_reply_has_seeds_and_four_bytes_a_number(length: int) -> None:
    content = masked_reply()
    content["sum"]["sum"] = Array(np.full(length, 7, dtype=np.uint32))
    answer = read_answer(4, content)
    assert (answer.header, answer.seeds, len(answer.vector)) == (b"h", b"s" * 105, 4 * length)
    assert read_answer(4, reply()).seeds is None


def _no_seeds(content: RecordDict) -> None:
    del content["masked"]["seeds"]


def _text_seeds(content: RecordDict) -> None:
    content["masked"]["seeds"] = "s"


def _both_forms(content: RecordDict) -> None:
    content["partial"] = ConfigRecord({"header": b"h"})


def _unmasked_width(content: RecordDict) -> None:
    content["sum"]["sum"] = Array(VECTOR)


@pytest.mark.parametrize(
    "spoil",
    [_weights, _floats, _two, _terabytes, _no_seeds, _text_seeds, _both_forms, _unmasked_width],
    ids=lambda f: f.__name__,
)
def test_cases_07_to_10_and_14_masked_replies_of_another_form(spoil: Callable[[RecordDict], None]) -> None:
    content = masked_reply()
    spoil(content)
    with pytest.raises(ContractError):
        read_answer(4, content)


def test_flowers_own_start_drives_the_phases_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.folder.mkdir()
    data = small_dataset(200, seed=1)
    plan = small_plan(data, rounds=2)
    workspace.prepare(data, plan, [SigningKey.generate(), SigningKey.generate()])
    farm, trust, server = workspace.farm(0, 1), workspace.trust(), ServerApp()
    client = make_client_app(lambda context: farm, lambda context: trust)
    releases: list[str] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        with Budget(workspace.ledger, plan) as budget, Checkpoint(workspace.releases, plan.digest) as checkpoint:
            coordinator = Coordinator(workspace.signed(), plan, budget, checkpoint)
            FederationStrategy(coordinator).start(grid, ArrayRecord(), num_rounds=7)
            releases[:] = [release.kind for release in coordinator.releases]

    run_in_process(server, InProcessGrid(client, [{}]))
    assert releases == ["knots", "train", "train", "calibrate", "evaluate"]
