"""ModelCompiler: models written anew, whole or not at all, weights where they were told to go."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import distort
from distort.capi import onnxruntime_pybind11_state as C

WEIGHT = np.arange(600, dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Add", ["a", "w"], ["y"], name="add")]
    info = helper.make_tensor_value_info
    weights = [numpy_helper.from_array(WEIGHT, "w")]
    graph = helper.make_graph(nodes, "g", [info("x", 1, [600])], [info("y", 1, [600])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _run(path: Path) -> list[float]:
    return distort.InferenceSession(path).run(None, {"x": np.ones(600, np.float32)})[0].tolist()


def _operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


def test_to_a_file_to_bytes_and_to_a_function(model: bytes, tmp_path: Path) -> None:
    options = distort.SessionOptions()
    compiler = distort.ModelCompiler(options, model)
    compiler.compile_to_file(str(tmp_path / "out.onnx"))
    assert _run(tmp_path / "out.onnx") == (WEIGHT + 1).tolist()
    assert _operators(compiler.compile_to_bytes()) == ["Identity", "Add"]  # not optimized unless asked for
    parts: list[bytes] = []
    compiler.compile_to_stream(parts.append)
    assert b"".join(parts) == compiler.compile_to_bytes()
    level = distort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert _operators(distort.ModelCompiler(options, model, graph_optimization_level=level).compile_to_bytes()) == [
        "Add"
    ]


def test_the_name_beside_the_input(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(model)
    distort.ModelCompiler(distort.SessionOptions(), tmp_path / "in.onnx").compile_to_file()
    assert _run(tmp_path / "in_ctx.onnx") == (WEIGHT + 1).tolist()


def test_weights_in_a_file(model: bytes, tmp_path: Path) -> None:
    options = distort.SessionOptions()
    for threshold, external in ((1024, True), (4096, False)):
        compiler = distort.ModelCompiler(options, model, False, "weights.bin", threshold)
        target = tmp_path / f"{threshold}.onnx"
        compiler.compile_to_file(str(target))
        (tensor,) = onnx.load(target, load_external_data=False).graph.initializer
        assert (tensor.data_location == onnx.TensorProto.EXTERNAL) is external
        assert _run(target) == (WEIGHT + 1).tolist()


def test_weights_where_a_function_says(model: bytes, tmp_path: Path) -> None:
    asked = []
    with open(tmp_path / "mine.bin", "wb") as file:

        def place(name: str, value: distort.OrtValue, info: object) -> distort.OrtExternalInitializerInfo:
            asked.append((name, value.shape(), info))
            offset = file.tell()
            file.write(value.numpy().tobytes())
            return distort.OrtExternalInitializerInfo("mine.bin", offset, value.tensor_size_in_bytes())

        compiler = distort.ModelCompiler(distort.SessionOptions(), model, get_initializer_location_func=place)
        compiler.compile_to_file(str(tmp_path / "out.onnx"))
    assert asked == [("w", [600], None)]
    assert _run(tmp_path / "out.onnx") == (WEIGHT + 1).tolist()


def test_errors_leave_nothing_behind(model: bytes, tmp_path: Path) -> None:
    options = distort.SessionOptions()
    target = tmp_path / "out.onnx"
    target.write_bytes(b"before")
    flags = distort.OrtCompileApiFlags
    with pytest.raises(C.Fail, match="exists already"):
        distort.ModelCompiler(options, model, flags=flags.ERROR_IF_OUTPUT_FILE_EXISTS).compile_to_file(str(target))
    with pytest.raises(C.Fail, match="Unable to compile any nodes"):
        distort.ModelCompiler(options, model, flags=flags.ERROR_IF_NO_NODES_COMPILED).compile_to_file(str(target))
    with pytest.raises(C.InvalidArgument, match="No such file or directory"):
        distort.ModelCompiler(options, model).compile_to_file(str(tmp_path / "no" / "x.onnx"))
    with pytest.raises(C.Fail, match="beside the model"):
        distort.ModelCompiler(options, model, False, str(tmp_path / "w.bin")).compile_to_file(str(target))

    def refuse(*_: object) -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        distort.ModelCompiler(options, model, get_initializer_location_func=refuse).compile_to_file(str(target))  # type: ignore[arg-type]  # it never returns
    with pytest.raises(C.Fail, match="KeyError"):
        distort.ModelCompiler(options, model).compile_to_stream(refuse)
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert target.read_bytes() == b"before"


def test_what_can_not_be_compiled(model: bytes) -> None:
    options = distort.SessionOptions()
    cases: list[tuple[object, type[Exception], str]] = [
        ("", ValueError, "Input model path is empty"),
        (b"", ValueError, "Input model bytes array is empty"),
        (None, TypeError, "Unable to load from type"),
        ("/nowhere.onnx", C.InvalidArgument, "Input model path does not exist"),
        (b"garbage", C.InvalidProtobuf, "protobuf parsing failed"),
    ]
    for source, error, text in cases:
        with pytest.raises(error, match=text):
            distort.ModelCompiler(options, source)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="with both"):
        distort.ModelCompiler(options, model, False, "w", get_initializer_location_func=lambda *_: None)
    compiler = distort.ModelCompiler(options, model)
    with pytest.raises(C.InvalidArgument, match="output_dir or model_name is empty"):
        compiler.set_ep_context_binary_information("", "")
    with pytest.raises(TypeError, match="incompatible function arguments"):
        compiler.set_ep_context_data_write_func(3)  # type: ignore[arg-type]  # that is the point
