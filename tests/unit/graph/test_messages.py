"""Models read without protobuf are what protobuf reads."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from distort.graph import messages, reader

_TEXT = """<ir_version: 10, opset_import: ["" : 21, "local" : 1], producer_name: "somebody", model_version: -3,
  doc_string: "what", metadata_props: ["key" : "värde"]>
g (float[N, 3] x, seq(int64[2]) s) => (float[M, ?] y)
  <float[2] w = {1.5, -2}, int64[3] many = {-1, 300, 70000}, float16[1] h = {1}, string[2] t = {"a", "ü"}> {
  a = local.twice <scale: float = 0.5> (x)
  b = Conv <kernel_shape = [3, 300], pads = [0, -1, 0, 1], auto_pad = "NOTSET"> (a, w)
  y = If (b) <then_branch = inner () => (float[2] z) { z = Constant <value = float[2] {1, 2}> () },
              else_branch = other () => (float q) { q = Constant <value_float = -3.25> () }>
}
<domain: "local", opset_import: ["" : 21]>
twice <scale> (v) => (r) { c = Constant <value_float: float = @scale> ()  r = Mul (v, c) }
"""


def _models() -> list[bytes]:
    made = onnx.parser.parse_model(_TEXT)
    graph = made.graph
    graph.initializer.append(helper.make_tensor("d", TensorProto.DOUBLE, [2], [1.25, -1e300]))
    graph.initializer.append(helper.make_tensor("u", TensorProto.UINT64, [2], [1 << 63, 5]))
    graph.initializer.append(helper.make_tensor("r", TensorProto.FLOAT, [300], np.arange(300.0), raw=False))
    graph.initializer.append(onnx.numpy_helper.from_array(np.arange(500), "raw"))
    values, indices = helper.make_tensor("sv", 1, [1], [2.0]), helper.make_tensor("si", TensorProto.INT64, [1], [3])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5]))
    node = graph.node[0]
    node.attribute.append(helper.make_attribute("floats", [0.5, float("nan"), -1.0]))
    node.attribute.append(helper.make_attribute("strings", ["a", b"\xff"]))
    node.attribute.append(helper.make_attribute("tensors", [helper.make_tensor("n", TensorProto.BOOL, [1], [True])]))
    node.attribute.append(helper.make_attribute("type", helper.make_tensor_type_proto(1, [1, "K", None])))
    annotation = graph.quantization_annotation.add(tensor_name="x")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    tensor = graph.initializer.add(name="out", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="file")
    return [made.SerializeToString(), onnx.ModelProto(ir_version=8, graph=onnx.GraphProto()).SerializeToString()]


MODELS = _models()


def require_same(ours: Any, theirs: Any) -> None:
    for field in theirs.DESCRIPTOR.fields:
        if field.name in ("training_info", "segment"):
            continue
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(b, (str, bytes, int, float)):
            assert a == b or (a != a and b != b), field.full_name
            assert ours.HasField(field.name) == theirs.HasField(field.name), field.full_name
        elif hasattr(b, "DESCRIPTOR"):
            assert ours.HasField(field.name) == theirs.HasField(field.name), field.full_name
            if theirs.HasField(field.name):
                require_same(a, b)
        else:
            assert len(a) == len(b), field.full_name
            for one, other in zip(a, b, strict=True):
                if hasattr(other, "DESCRIPTOR"):
                    require_same(one, other)
                else:
                    assert struct.pack("d", one) == struct.pack("d", other) if type(one) is float else one == other
    for group in theirs.DESCRIPTOR.oneofs:
        assert ours.WhichOneof(group.name) == theirs.WhichOneof(group.name)


@pytest.mark.parametrize("content", MODELS)
def test_a_model_is_read_as_protobuf_reads_it(content: bytes) -> None:
    ours = messages.read(content)
    assert ours is not None
    require_same(ours, onnx.ModelProto.FromString(content))
    assert ours.SerializeToString() == content


def test_bytes_that_were_changed_are_read_so_or_left_to_protobuf() -> None:
    random_ = random.Random(3)
    content, n_read = MODELS[0], 0
    for _ in range(4000):
        changed = bytearray(content)
        for _ in range(random_.choice((1, 1, 2, 8))):
            at = random_.randrange(len(changed))
            how = random_.randrange(3)
            if how == 0:
                changed[at] = random_.randrange(256)
            elif how == 1:
                del changed[at : at + random_.randrange(1, 4)]
            else:
                changed[at:at] = bytes(random_.randrange(256) for _ in range(random_.randrange(1, 4)))
        ours = messages.read(bytes(changed))
        if ours is not None:
            n_read += 1
            require_same(ours, onnx.ModelProto.FromString(bytes(changed)))
    assert n_read > 500


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x01\x08\x02",  # a number twice: the last one counts
        _field(7, _field(2, b"a")) + _field(7, _field(2, b"b")),  # a message twice: they are merged
        _field(2, b"\xff"),  # no UTF-8
        b"\x08" + b"\xff" * 9 + b"\x7f",  # more than 64 bits
        b"\x08" + b"\x80" * 11,  # without end
        b"\x09" + bytes(8),  # not the field's type
        b"\xf8\x07\x01",  # an unknown field
        b"\x43\x44",  # a group
        _field(7, _field(1, _field(10, b""))),  # where a node is placed
        _field(7, _field(5, b"\x10\xff\xff\xff\xff\xff\x01")),  # a number that 32 bits don't hold
        _field(7, _field(1, _field(5, b"\xa0\x01\x63"))),  # an enumeration's unknown number
        _field(7, _field(11, _field(2, _field(1, b"") + _field(4, b"")))),  # two of which one may be there
        b"\x3a\x05",  # ends early
    ],
)
def test_what_is_odd_is_left_to_protobuf(content: bytes) -> None:
    assert messages.read(content) is None


def test_what_is_deep_is_left_to_protobuf() -> None:
    type_ = onnx.TypeProto()
    inner = type_
    for _ in range(45):
        inner = inner.sequence_type.elem_type
    inner.tensor_type.elem_type = 1
    made = onnx.ModelProto()
    made.graph.input.add(name="x").type.CopyFrom(type_)
    assert messages.read(made.SerializeToString()) is None


def test_what_is_long_is_left_to_protobuf_unless_it_is_bulk() -> None:
    made = onnx.ModelProto()
    made.graph.node.add(op_type="Relu", input=[f"some name {i}" for i in range(30_000)])
    assert messages.read(made.SerializeToString()) is None
    made.graph.node[0].ClearField("input")
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(300_000, np.int8), "w"))
    content = made.SerializeToString()
    ours = messages.read(content)
    assert ours is not None
    require_same(ours, made)


_SCRIPT = """
import sys
import distort
distort.InferenceSession(sys.argv[1])
print("google.protobuf" in sys.modules)
"""


def test_a_small_model_needs_no_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { a = Add(x, x) y = Relu(a) }'
    onnx.save(onnx.parser.parse_model(text), path)
    for expected in ("True", "False"):  # onnx's inference is asked the first time
        command = [sys.executable, "-c", _SCRIPT, str(path)]
        environment = {"DISTORT_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=60)
        assert done.stdout.split() == [expected]


def test_graphs_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    content = onnx.parser.parse_model(_TEXT).SerializeToString()
    ours = reader.load(content)
    monkeypatch.setattr(messages, "read", lambda content: None)
    theirs = reader.load(content)
    assert str(ours.graph.types) == str(theirs.graph.types)
    assert [(n.op_type, n.inputs, n.outputs, n.opset) for n in ours.graph.nodes] == [
        (n.op_type, n.inputs, n.outputs, n.opset) for n in theirs.graph.nodes
    ]
    for name, value in ours.graph.initializers.items():
        np.testing.assert_array_equal(value, theirs.graph.initializers[name])
