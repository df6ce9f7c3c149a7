"""Our graph -> files, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from distort.graph import reader, writer
from distort.graph.errors import ModelError
from distort.graph.functions import expand
from distort.graph.ir import Graph, Model, Node

Read = Callable[[str], Model]


def plain(value: Any) -> Any:
    """A graph as nested tuples that compare."""
    if isinstance(value, Graph):
        types = {name: str(known) for name, known in value.types.items() if name in (*value.inputs, *value.outputs)}
        return (
            *(value.inputs, value.outputs, value.defaults, types, [plain(node) for node in value.nodes]),
            {name: plain(item) for name, item in value.initializers.items()},
        )
    if isinstance(value, Node):
        attributes = {name: plain(item) for name, item in value.attributes.items()}
        return (value.op_type, value.domain, value.inputs, value.outputs, attributes, value.name, value.opset)
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tolist())
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, reader.AttributeReference):
        return ("reference", value.name, value.kind)
    return value


def through_bytes(model: Model) -> Model:
    return reader.load(writer.to_proto(model).SerializeToString())


EVERYTHING = """<ir_version: 9, opset_import: ["" : 17, "f" : 1], producer_name: "p", model_version: 3>
g (float[N, 2] x, bool c, float[2] d) => (float[N, 2] y)
<float[2] d = {1, 2}, int64[2] k = {3, 4}, string[1] s = {"é"}> {
    [a] b = LeakyRelu<alpha = 0.1>(x)
    e = If(c)<then_branch = t () => (float[N, 2] z) <float[2] w = {5, 6}> { z = Mul(b, w) },
              else_branch = u () => (float[N, 2] v) { v = Transpose<perm = [0, 1]>(b) }>
    h = f.twice<slope = 0.5>(e)
    i = Clip(h, "", "")
    j = Cast<to = 1>(k)
    y = Add(i, j)
}
<domain: "f", opset_import: ["" : 17]> twice<slope>(p) => (r) { q = LeakyRelu<alpha : float = @slope>(p) r = Add(q, q) }
"""


def test_round_trip(read: Read) -> None:
    model = read(EVERYTHING)
    again = through_bytes(model)
    assert plain(again.graph) == plain(model.graph)
    assert (again.opsets, again.ir_version, again.producer_name, again.version) == (model.opsets, 9, "p", 3)
    (key,) = model.functions
    assert plain(again.functions[key].nodes) == plain(model.functions[key].nodes)
    assert again.functions[key].attributes == ["slope"]


@pytest.mark.parametrize(
    "dtype",
    [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, np.bool_, np.uint64, np.complex64],
)
@pytest.mark.parametrize("external", [False, True])
def test_round_trip_of_element_types(read: Read, tmp_path: Path, dtype: Any, external: bool) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    values = np.arange(4097 * 3).reshape(4097, 3) % 7
    model.graph.initializers["w"] = values.astype(dtype)
    writer.save(model, tmp_path / "m.onnx", external=external)
    again = reader.load(tmp_path / "m.onnx").graph.initializers["w"]
    assert plain(again) == plain(model.graph.initializers["w"])
    assert (tmp_path / "m.onnx.data").exists() == external


def test_external_data_is_aligned_and_small_tensors_stay_inside(read: Read, tmp_path: Path) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.initializers.update(
        a=np.ones(3, np.float32), b=np.arange(1000, dtype=np.float32), c=np.arange(2000.0)[::2]
    )
    writer.save(model, tmp_path / "m.onnx", external=True)
    proto, _ = reader.parse(tmp_path / "m.onnx")
    locations = {t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer}
    assert locations["a"] == {}
    assert [int(locations[name]["offset"]) % 4096 for name in "bc"] == [0, 0]
    assert locations["b"]["location"] == "m.onnx.data"
    again = reader.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(again.graph.initializers["c"], np.arange(0, 2000.0, 2))


def test_weights_that_no_message_holds_go_beside_it(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_MESSAGE_NBYTES", 2**24 + 5000)
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.initializers["w"] = np.zeros(1251, np.float32)
    writer.save(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").stat().st_size == 5004


@pytest.mark.parametrize("external", [False, True])
def test_a_failed_write_leaves_the_folder_as_it_was(read: Read, tmp_path: Path, external: bool) -> None:
    (tmp_path / "m.onnx").write_bytes(b"before")
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.initializers["w"] = np.zeros(1000, np.float32)
    model.graph.nodes[0].attributes["strange"] = [object()]
    with pytest.raises(TypeError, match="attribute strange"):
        writer.save(model, tmp_path / "m.onnx", external=external)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"before"


def test_an_empty_list_keeps_its_kind(read: Read) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.nodes = [Node("Constant", "", [], ["k"], {"value_floats": []}, opset=17)]
    proto = writer.to_proto(model)
    assert proto.graph.node[0].attribute[0].type == 6


def test_initializers_that_are_no_inputs_need_ir_4(read: Read) -> None:
    model = read('<ir_version: 3, opset_import: ["" : 8]>g (float[2] x) => (float[2] y) { y = Relu(x) }')
    assert writer.to_proto(model).ir_version == 3
    model.graph.initializers["w"] = np.zeros(1, np.float32)
    assert writer.to_proto(model).ir_version == 4


def test_inlined_bodies_raise_the_opset_import_where_all_agree(read: Read) -> None:
    model = read("g (float[2] x) => (float[2] y) { a = Softsign(x) y = Relu(a) }")
    expand(model, lambda domain, op_type, opset: op_type != "Softsign")
    again = through_bytes(model)
    versions = {node.op_type: node.opset for node in again.graph.nodes}
    assert versions["Relu"] in (17, 18)
    assert again.opsets[""] == versions["Relu"]


def test_opsets_that_contradict_each_other_are_named(read: Read) -> None:
    model = read("g (float[4] x) => (float[2] y, float[2] z) { y, z = Split(x) }")
    model.graph.nodes.append(Node("Split", "", ["x"], ["p", "q"], {"num_outputs": 2}, opset=18))
    with pytest.raises(ModelError, match=r"No opset of domain 'ai.onnx' has all of Split\(17\), Split\(18\)"):
        writer.to_proto(model)


def test_carried_annotations(read: Read) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.nodes[0].metadata = {"stage": "1"}
    model.metadata = {"a": "é"}
    again = through_bytes(model)
    assert (again.graph.nodes[0].metadata, again.metadata) == ({"stage": "1"}, {"a": "é"})
