"""Hostile ONNX files are refused before they are loaded, or in the cage; the same file untouched passes."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fl_client import hardened, onnxwire, probe
from model.errors import ModelError
from model.risk.onnx_ops import ALLOWED_OPS

F = 3


def constant(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def graph() -> onnx.GraphProto:
    """A small additive model: contributions = (x, 0 where NaN) · w, pd = sigmoid(sum), score on 300–900."""
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["known"]),
        helper.make_node("Clip", ["known", "low", "high"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "weights"], ["contributions"]),
        helper.make_node("ReduceSum", ["contributions", "axis"], ["logit"], keepdims=0),
        helper.make_node("Sigmoid", ["logit"], ["pd"]),
        helper.make_node("Mul", ["pd", "span"], ["points"]),
        helper.make_node("Sub", ["top", "points"], ["score"]),
    ]
    constants = [
        constant("zero", 0),
        constant("low", -5),
        constant("high", 5),
        constant("weights", [0.5, -1.0, 0.25]),
        constant("axis", [1], np.int64),
        constant("span", 600),
        constant("top", 900),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", F])]
    outputs = [
        helper.make_tensor_value_info("pd", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("contributions", TensorProto.FLOAT, ["N", F]),
    ]
    return helper.make_graph(nodes, "risk", inputs, outputs, constants)


def model(change: Callable[[onnx.ModelProto], None] | None = None) -> bytes:
    built = helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if change:
        change(built)
    return built.SerializeToString()


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    def change(built: onnx.ModelProto) -> None:
        built.graph.node.append(helper.make_node(op, inputs, outputs, **attributes))

    return change


def refused(onnx_bytes: bytes, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        hardened.check(onnx_bytes, F)
    with pytest.raises(ModelError, match=match):
        hardened.session(onnx_bytes, F)


def test_the_untouched_model_passes_and_scores() -> None:
    facts = hardened.check(model(), F)
    assert (facts.features, facts.nodes, facts.initialisers, facts.elements) == (F, 8, 7, 9)
    assert facts.ops <= set(ALLOWED_OPS)
    hardened.probe_in_subprocess(model())
    rows = np.array([[np.nan, 0, 0], [1, 2, 3]], dtype=np.float32)
    pd, score, contributions = hardened.session(model(), F).run(None, {"features": rows})
    assert pd[0] == pytest.approx(0.5) and score[0] == pytest.approx(600)
    assert contributions[1].tolist() == [0.5, -2.0, 0.75]


def test_the_wire_reader_sees_what_onnx_sees() -> None:
    read, built = onnxwire.parse(model()), onnx.ModelProto.FromString(model())
    assert [n["op_type"] for n in read["graph"]["node"]] == [n.op_type for n in built.graph.node]
    assert [t["dims"] for t in read["graph"]["initializer"]] == [list(t.dims) for t in built.graph.initializer]
    assert bytes(read["graph"]["initializer"][3]["raw_data"]) == built.graph.initializer[3].raw_data


# --- case 49: external data ---------------------------------------------------------------------------------------


def external(location: str) -> bytes:
    def change(built: onnx.ModelProto) -> None:
        tensor = built.graph.initializer[3]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return model(change)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.bin"
    path.write_bytes(np.array([9, 9, 9], dtype=np.float32).tobytes())
    return path


def test_case_49_external_data_by_traversal(secret: Path) -> None:
    refused(external("../secret.bin"), "external data")
    refused(external(str(secret)), "external data")


def test_case_49_external_data_by_symlink(secret: Path) -> None:
    (secret.parent / "weights.bin").symlink_to(secret)
    refused(external("weights.bin"), "external data")


def test_case_49_external_data_by_hardlink(secret: Path) -> None:
    import onnxruntime as ort

    os.link(secret, secret.parent / "weights.bin")
    path = secret.parent / "model.onnx"
    path.write_bytes(external("weights.bin"))
    # The control: onnxruntime, given the path, does read the linked file. That is why a phone never gives it one.
    answer = ort.InferenceSession(str(path)).run(["contributions"], {"features": np.ones((1, F), dtype=np.float32)})[0]
    assert answer.tolist() == [[9, 9, 9]]
    refused(path.read_bytes(), "external data")


def test_case_49_external_data_flag_without_entries() -> None:
    def change(built: onnx.ModelProto) -> None:
        built.graph.initializer[3].data_location = TensorProto.EXTERNAL

    refused(model(change), "external data")


def test_case_49_external_data_inside_an_attribute() -> None:
    tensor = constant("value", [1.0])
    tensor.external_data.add(key="location", value="/etc/passwd")
    refused(model(node("Constant", [], ["extra"], value=tensor)), "external data")


# --- case 50: operators and domains -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op", ["ConstantOfShape", "Expand", "Tile", "Range", "NonZero", "RandomNormal", "Pad", "Resize"]
)
def test_case_50_op_outside_the_allowlist(op: str) -> None:
    assert op not in ALLOWED_OPS
    refused(model(node(op, ["features"], ["extra"])), f"operator {op}, which is not on the allowlist")


def test_case_50_domain_outside_the_allowlist() -> None:
    refused(model(node("Relu", ["pd"], ["extra"], domain="com.microsoft")), r"operator com\.microsoft\.Relu")

    def imports(built: onnx.ModelProto) -> None:
        built.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))

    refused(model(imports), "domain outside the allowlist")

    def other(built: onnx.ModelProto) -> None:
        built.opset_import[0].domain = "ai.onnx.ml"

    refused(model(other), "domain outside the allowlist")


def test_case_50_function_of_its_own() -> None:
    def change(built: onnx.ModelProto) -> None:
        body = [helper.make_node("Relu", ["a"], ["b"])]
        built.functions.append(helper.make_function("x", "Relu", ["a"], ["b"], body, built.opset_import))

    refused(model(change), "functions of its own")


def test_no_allowed_op_makes_an_output_whose_size_is_a_value() -> None:
    # Such an op could behave in the probe and explode on a person's own row.
    by_value = {"ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "TopK", "NonZero", "Upsample"}
    control_flow = {"If", "Loop", "Scan", "SequenceMap"}
    assert not set(ALLOWED_OPS) & (by_value | control_flow)


# --- cases 51 and 52: bombs ---------------------------------------------------------------------------------------


def test_case_51_memory_bomb() -> None:
    def change(built: onnx.ModelProto) -> None:
        built.graph.initializer.append(constant("shape", [1 << 10, 1 << 20], np.int64))
        built.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["extra"]))

    bomb = model(change)
    assert len(bomb) < 1000
    refused(bomb, "ConstantOfShape")


def broadcast_bomb(built: onnx.ModelProto) -> None:
    """32 K × 32 K floats, 4 GiB, from two small constants and allowed operators."""
    built.graph.initializer.extend([constant("tall", np.ones((1 << 15, 1))), constant("wide", np.ones((1, 1 << 15)))])
    built.graph.node.append(helper.make_node("Add", ["tall", "wide"], ["square"]))
    built.graph.node.append(helper.make_node("ReduceSum", ["square"], ["extra"], keepdims=0))
    built.graph.node[6].input[1] = "extra"


def test_case_51_memory_bomb_from_allowed_operators_is_caught_in_the_cage() -> None:
    bomb = model(broadcast_bomb)
    hardened.check(bomb, F)  # nothing in its form is wrong
    with pytest.raises(ModelError, match=r"first run under limits .*bad_alloc"):
        hardened.probe_in_subprocess(bomb)


def test_a_cpu_bomb_from_allowed_operators_is_caught_in_the_cage() -> None:
    def change(built: onnx.ModelProto) -> None:
        tall, wide = np.full((512, 1), 1e-2), np.full((1, 512), 1e-2)
        built.graph.initializer.extend([constant("tall", tall), constant("wide", wide)])
        built.graph.node.append(helper.make_node("Mul", ["tall", "wide"], ["m0"]))
        for i in range(1000):  # 1000 products of 512 × 512 matrices: 270 GFLOP in a file of 30 KB
            built.graph.node.append(helper.make_node("MatMul", [f"m{i}", "m0"], [f"m{i + 1}"]))
        built.graph.node.append(helper.make_node("ReduceSum", ["m1000"], ["extra"], keepdims=0))
        # The answer must depend on it, or the loader drops it.
        built.graph.node.append(helper.make_node("Clip", ["extra", "zero", "zero"], ["nothing"]))
        built.graph.node.append(helper.make_node("Add", ["pd", "nothing"], ["sum"]))
        built.graph.node.append(helper.make_node("Mul", ["sum", "span"], ["more"]))
        built.graph.node.append(helper.make_node("Sub", ["top", "more"], ["late"]))
        built.graph.node[7].output[0] = "unused"
        built.graph.node[-1].output[0] = "score"

    with pytest.raises(ModelError, match="stopped by signal"):
        hardened.probe_in_subprocess(model(change), cpu_seconds=1)


def test_case_52_loop_bomb() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("go_out", TensorProto.BOOL, [])],
    )

    def change(built: onnx.ModelProto) -> None:
        built.graph.initializer.extend([constant("count", 1 << 40, np.int64), constant("yes", True, np.bool_)])
        built.graph.node.append(helper.make_node("Loop", ["count", "yes"], [], body=body))

    refused(model(change), "a subgraph")


# --- other forms --------------------------------------------------------------------------------------------------


def rename_input(built: onnx.ModelProto) -> None:
    built.graph.input[0].name = "raw"


def double_input(built: onnx.ModelProto) -> None:
    built.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def fixed_rows(built: onnx.ModelProto) -> None:
    built.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def extra_output(built: onnx.ModelProto) -> None:
    built.graph.output.append(helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"]))


def short_data(built: onnx.ModelProto) -> None:
    built.graph.initializer[3].raw_data = b"\0" * 8


def huge_dims(built: onnx.ModelProto) -> None:
    built.graph.initializer[3].dims[:] = [1 << 40]


def negative_dims(built: onnx.ModelProto) -> None:
    built.graph.initializer[3].dims[:] = [-3]


def text_tensor(built: onnx.ModelProto) -> None:
    built.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"hello"]))


def metadata(built: onnx.ModelProto) -> None:
    built.metadata_props.add(key="source", value="/home/someone/train.py")


def old_opset(built: onnx.ModelProto) -> None:
    built.opset_import[0].version = 7


def docs(built: onnx.ModelProto) -> None:
    built.graph.doc_string = "a stack trace"


def many_nodes(built: onnx.ModelProto) -> None:
    built.graph.node.extend([helper.make_node("Relu", ["pd"], [f"r{i}"]) for i in range(1100)])


def many_initialisers(built: onnx.ModelProto) -> None:
    built.graph.initializer.extend([constant(f"k{i}", 0) for i in range(1100)])


def sparse(built: onnx.ModelProto) -> None:
    built.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (rename_input, "exactly one input"),
        (double_input, "exactly one input"),
        (fixed_rows, "with F fixed"),
        (extra_output, "exactly the outputs"),
        (short_data, "does not fit its shape"),
        (huge_dims, "dimensions over the limit"),
        (negative_dims, "dimensions over the limit"),
        (text_tensor, "strings"),
        (metadata, "metadata"),
        (old_opset, "operator set 7"),
        (docs, "bytes of text in doc_string"),
        (many_nodes, "over the limits"),
        (many_initialisers, "over the limits"),
        (sparse, "sparse tensors"),
    ],
)
def test_forms_a_phone_does_not_run(change: Callable[[onnx.ModelProto], None], match: str) -> None:
    refused(model(change), match)


def test_other_bytes_are_refused() -> None:
    refused(b"", "not an ONNX model")
    refused(b"ORTM" * 8, "model")
    refused(b"\x3a" + b"\xff" * 9 + b"\x01", "ends early")
    refused(b"\x15\0\0\0\0", "in a form that is not allowed")  # field 2 as a float
    refused(b"\x12\x02\xff\xff", "not UTF-8")
    refused(b"\x0a\x01\x08", "in a form that is not allowed")  # a packed number where one number stands
    refused(b"\x08" + b"\xff" * 20 + b"\x01", "a number over 64 bits")
    refused(model() + model(), "twice")  # protobuf would merge them
    refused(b"\0" * (hardened.MAX_BYTES + 1), "over the limit")
    with pytest.raises(ModelError, match="takes 3 features where this phone's schema has 4"):
        hardened.check(model(), 4)


def test_a_graph_that_does_not_hold_together_is_a_model_error() -> None:
    def change(built: onnx.ModelProto) -> None:
        built.graph.node[0].input[0] = "nowhere"

    with pytest.raises(ModelError, match="cannot be loaded"):
        hardened.session(model(change), F)
    with pytest.raises(ModelError, match="failed its first run"):
        hardened.probe_in_subprocess(model(change))


def test_a_model_that_answers_nan_is_refused_in_the_cage() -> None:
    def change(built: onnx.ModelProto) -> None:
        built.graph.node[2].input[0] = "features"  # NaN goes straight through

    with pytest.raises(ModelError, match="not finite"):
        hardened.probe_in_subprocess(model(change))


def probe_here(onnx_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """The cage's own program in this process, its limits left off."""
    limits: list[int] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, values: limits.append(kind))
    monkeypatch.setattr(sys, "argv", ["probe.py", str(F), "10", str(64 << 20)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(onnx_bytes)))
    code = probe.main()
    assert {resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE} <= set(limits)
    return code


def test_the_program_in_the_cage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe_here(model(), monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["rss_kib"] > 0
    for change, words in ((relu_probability, "outside 0 to 1"), (wrong_axis, "answers shapes"), (text_tensor, "")):
        assert (probe_here(model(change), monkeypatch) != 0) == bool(words)
        assert words in capsys.readouterr().out


def relu_probability(built: onnx.ModelProto) -> None:
    built.graph.node[5].op_type = "Relu"


def wrong_axis(built: onnx.ModelProto) -> None:
    built.graph.initializer[4].raw_data = b"\0" * 8


@pytest.mark.parametrize(("change", "words"), [(relu_probability, "outside 0 to 1"), (wrong_axis, "answers shapes")])
def test_a_model_that_answers_no_risk_is_refused_in_the_cage(
    change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        hardened.probe_in_subprocess(model(change))


def test_a_model_that_does_not_answer_in_time_is_refused() -> None:
    with pytest.raises(ModelError, match=r"within 0\.001 s"):
        hardened.probe_in_subprocess(model(), seconds=0.001)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_crash_the_reader(data: st.DataObject) -> None:
    good = bytearray(model())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        hardened.check(cut)
    except ModelError as error:
        assert str(error).endswith("tell its publisher")


def test_the_hardened_load_needs_neither_torch_nor_flwr_nor_onnx() -> None:
    code = (
        "import sys; from fl_client import hardened, trusted; hardened.session(sys.stdin.buffer.read());"
        "print(sorted({'torch','flwr','onnx','tuf','urllib3','scipy','pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=model(), capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
