"""Models read without a copy of their weights: what is parsed, and what the weights are views of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from distort.graph import reader, wire
from distort.graph.errors import ModelError
from distort.graph.tensors import file_of

LARGE = wire.LEAST_NBYTES // 4


def _model(sizes: list[int], name: str = "g") -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(n).astype(np.float32), f"w{i}") for i, n in enumerate(sizes)]
    names = [f"w{i}" for i in range(len(sizes))]
    node = helper.make_node("Concat", names, ["y"], axis=0)
    graph = helper.make_graph([node], name, [], [helper.make_tensor_value_info("y", 1, [None])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@given(
    st.lists(st.sampled_from([0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 40 * LARGE]), max_size=5), st.text(max_size=200)
)
@settings(max_examples=30, deadline=None)
def test_what_is_left_out_is_the_raw_data_of_large_initializers(sizes: list[int], name: str) -> None:
    model = _model(sizes, name)
    content = model.SerializeToString()
    found = wire.split(memoryview(content))
    large = [i for i, n in enumerate(sizes) if n >= LARGE]
    if not large:
        assert found is None
        return
    assert found is not None
    assert list(found.raw) == large
    for i, (begin, end) in found.raw.items():
        assert content[begin:end] == model.graph.initializer[i].raw_data
        model.graph.initializer[i].ClearField("raw_data")
    assert onnx.ModelProto.FromString(found.message) == model


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_are_left_to_protobuf(data: st.DataObject) -> None:
    content = bytearray(_model([3, LARGE, 5]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 120))
        content[at] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 60]))])

    def read(apart: bool) -> object:
        try:
            if apart:
                parsed = reader.parse_apart(cut)
                return reader.read_model(parsed.proto, raw=parsed.raw)
            return reader.read_model(reader.parse(cut)[0])
        except ModelError as error:
            return error.status

    apart, whole = read(True), read(False)
    assert type(apart) is type(whole)
    if isinstance(apart, str):
        assert apart == whole


@pytest.mark.parametrize("mapped", [False, True])
def test_weights_are_those_of_the_file(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "m.onnx"
    model = _model([7, LARGE, 3 * LARGE + 1])
    path.write_bytes(model.SerializeToString())
    parsed = reader.parse_apart(str(path), mapped)
    graph = reader.read_model(parsed.proto, parsed.path, raw=parsed.raw).graph
    for tensor in model.graph.initializer:
        value = graph.initializers[tensor.name]
        assert isinstance(value, np.ndarray)
        assert not value.flags.writeable
        np.testing.assert_array_equal(value, numpy_helper.to_array(tensor))
        assert (file_of(value) is not None) == (mapped and value.size >= LARGE)


def test_a_file_that_is_written_over_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(_model([LARGE]).SerializeToString())
    parsed = reader.parse_apart(str(path), mapped=True)
    found = file_of(parsed.raw[0])
    assert found is not None
    file, _ = found
    assert not file.was_written_over()
    other = tmp_path / "other.onnx"
    other.write_bytes(path.read_bytes())
    os.replace(other, path)  # a new file under the old name
    assert not file.was_written_over()
    parsed = reader.parse_apart(str(path), mapped=True)
    found = file_of(parsed.raw[0])
    assert found is not None
    with open(path, "ab") as opened:
        opened.write(b"x")
    assert found[0].was_written_over()
    path.unlink()
    assert not found[0].was_written_over()
