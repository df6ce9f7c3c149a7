"""Files and feeds that are wrong: an error of onnxruntime's class and grammar, and nothing left behind.

Expectations were observed with onnxruntime 1.32; where it is installed the same table runs against it too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

GOOD = '<ir_version: 9, opset_import: ["" : 17]> g (float[2,N] x) => (float[2,N] y) { a = Relu (x) y = Sqrt (a) }'
FOREIGN = (
    '<ir_version: 9, opset_import: ["" : 17, "my.domain" : 1]> '
    "g (float[2] x) => (float[2] y) { [foreign] y = my.domain.Foo (x) }"
)
UNKNOWN = '<ir_version: 9, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { [unknown] y = Foo (x) }'
EXTERNAL = '<ir_version: 9, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Add (x, w) }'


def serialized(text: str) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


def with_external_weight(location: str) -> bytes:
    model = onnx.parser.parse_model(EXTERNAL)
    tensor = model.graph.initializer.add(name="w", dims=[2], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model.SerializeToString()


def runtimes() -> Iterator[Any]:
    yield pytest.param("distort", id="distort")
    yield pytest.param("distort-parallel", id="distort-parallel")
    missing = importlib.util.find_spec("onnxruntime") is None
    yield pytest.param("onnxruntime", id="onnxruntime", marks=pytest.mark.skipif(missing, reason="optional oracle"))


class Runtime:
    def __init__(self, name: str) -> None:
        self.module: ModuleType = importlib.import_module(name.split("-")[0])
        self.parallel = name.endswith("parallel")
        self.is_ours = self.module.__name__ == "distort"

    def open(self, model: str | bytes) -> Any:
        options = self.module.SessionOptions()
        options.log_severity_level = 4
        if self.parallel:
            options.execution_mode = self.module.ExecutionMode.ORT_PARALLEL
            options.add_session_config_entry("distort.start", "wait")
            options.inter_op_num_threads = 2
        return self.module.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def error(self, name: str) -> type[Exception]:
        builtin = {"ValueError": ValueError, "TypeError": TypeError}.get(name)
        return builtin or getattr(
            importlib.import_module(f"{self.module.__name__}.capi.onnxruntime_pybind11_state"), name
        )


@pytest.fixture(scope="module", params=runtimes())
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return Runtime(request.param)


FILES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "missing": (lambda path: None, "NoSuchFile", r"\[ONNXRuntimeError\] : 3 : NO_SUCHFILE : .*File doesn't exist"),
    "empty": (lambda path: path.write_bytes(b"") and None, "InvalidArgument", "No graph was found in the protobuf"),
    "cut short": (
        lambda path: path.write_bytes(serialized(GOOD)[:-7]) and None,
        "InvalidProtobuf",
        r": 7 : INVALID_PROTOBUF : Load model from .*model\.onnx failed:Protobuf parsing failed",
    ),
    "not a model": (
        lambda path: path.write_bytes(b"hello world, this is no model") and None,
        "InvalidProtobuf",
        "Protobuf parsing failed",
    ),
    "a folder": (lambda path: path.mkdir(), "InvalidProtobuf", "Protobuf parsing failed"),
    "external data outside the folder": (
        lambda path: (
            (path.parent.parent / "weights.bin").write_bytes(bytes(8))
            and path.write_bytes(with_external_weight("../weights.bin"))
            and None
        ),
        "Fail",
        r"initializer: w\..*escapes model directory",
    ),
    "external data at an absolute path": (
        lambda path: path.write_bytes(with_external_weight("/etc/hostname")) and None,
        "Fail",
        r"initializer: w\..*Absolute path not allowed",
    ),
    "external data missing": (
        lambda path: path.write_bytes(with_external_weight("missing.bin")) and None,
        "Fail",
        r"initializer: w\..*does not exist",
    ),
    "external data too short": (
        lambda path: (
            (path.parent / "short.bin").write_bytes(bytes(4))
            and path.write_bytes(with_external_weight("short.bin"))
            and None
        ),
        "Fail",
        r"External initializer: w .*size to read: 8 given file_length: 4",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_file(runtime: Runtime, case: str, tmp_path: Path) -> None:
    write, error, message = FILES[case]
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    write(path)
    with pytest.raises(runtime.error(error), match=message):
        runtime.open(str(path))


CONTENTS: dict[str, tuple[Any, str, str]] = {
    "no bytes": (b"", "InvalidArgument", "No graph was found in the protobuf"),
    "other bytes": (b"hello world", "InvalidProtobuf", "protobuf parsing failed"),
    "a number": (123, "TypeError", "Unable to load from type '<class 'int'>'"),
    "an operator of a foreign domain": (serialized(FOREIGN), "Fail", r"my\.domain:Foo\(-1\) is not a registered"),
    "an unknown operator": (
        serialized(UNKNOWN),
        "InvalidGraph",
        r'In Node, \("unknown", Foo.*No Op registered for Foo with domain_version of 17',
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_content(runtime: Runtime, case: str) -> None:
    content, error, message = CONTENTS[case]
    with pytest.raises(runtime.error(error), match=message):
        runtime.open(content)


X = np.ones((2, 3), np.float32)
FEEDS: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "missing": (None, {}, "ValueError", r"Required inputs \(\['x'\]\) are missing from input feed \(\[\]\)"),
    "unknown": (None, {"z": X, "x": X}, "InvalidArgument", r": 2 : INVALID_ARGUMENT : Invalid input name: z"),
    "wrong size": (
        None,
        {"x": np.ones((3, 3), np.float32)},
        "InvalidArgument",
        r"Got invalid dimensions for input: x for the following indices\n index: 0 Got: 3 Expected: 2\n",
    ),
    "wrong rank": (
        None,
        {"x": np.ones(2, np.float32)},
        "InvalidArgument",
        r"Invalid rank for input: x Got: 1 Expected: 2",
    ),
    "wrong type": (
        None,
        {"x": np.ones((2, 3))},
        "InvalidArgument",
        r"Unexpected input data type. Actual: \(tensor\(double\)\) , expected: \(tensor\(float\)\)",
    ),
    "unknown fetch": (["q"], {"x": X}, "InvalidArgument", "Invalid output name:q"),
}


@pytest.fixture(scope="module")
def session(runtime: Runtime) -> Iterator[Any]:
    opened = runtime.open(serialized(GOOD))
    yield opened
    if runtime.is_ours:
        opened.close()


@pytest.mark.parametrize("case", FEEDS)
def test_feeds(runtime: Runtime, session: Any, case: str) -> None:
    fetches, feeds, error, message = FEEDS[case]
    with pytest.raises(runtime.error(error), match=message):
        session.run(fetches, feeds)
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X)
