"""Log lines: by severity, to stderr or to a callback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

import distort
from distort import logs
from distort.capi import onnxruntime_pybind11_state as C

Line = tuple[int, str, str, str, str]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    found: list[Line] = []
    severity = logs.DEFAULT.severity
    distort.set_default_logger_callback(lambda *line: found.append(line), 0)
    yield found
    distort.set_default_logger_callback(None)
    logs.DEFAULT.severity = severity


def _options(severity: int = -1, logid: str = "") -> distort.SessionOptions:
    options = distort.SessionOptions()
    options.log_severity_level = severity
    options.logid = logid
    return options


def test_a_callback_gets_every_line(mul: bytes, lines: list[Line]) -> None:
    session = distort.InferenceSession(mul, _options(logid="mine"))
    assert any("Session successfully initialized" in line[4] for line in lines)
    assert {(line[1], line[2]) for line in lines} == {("onnxruntime", "mine")}
    assert all(re.fullmatch(r"\w+\.py:\d+ \w+", line[3]) for line in lines)
    lines.clear()
    run_options = distort.RunOptions()
    run_options.logid = "first"
    session.run(None, {"X": np.ones((3, 2), np.float32)}, run_options)
    assert [(line[0], line[2], line[4]) for line in lines] == [
        (0, "mine:first", "Begin execution"),
        (0, "mine:first", "Done execution"),
    ]


def test_severity_of_session_and_run(mul: bytes, lines: list[Line]) -> None:
    session = distort.InferenceSession(mul, _options(3))
    feeds = {"X": np.ones((3, 2), np.float32)}
    session.run(None, feeds)
    assert lines == []
    run_options = distort.RunOptions()
    run_options.log_severity_level = 0
    session.run(None, feeds, run_options)
    assert len(lines) == 2
    distort.set_default_logger_severity(4)
    lines.clear()
    distort.InferenceSession(mul)
    assert lines == []


def test_a_failed_run_is_an_error(lines: list[Line]) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] a, float[M] b) => (float[K] y) { y = Add (a, b) }'
    )
    session = distort.InferenceSession(model.SerializeToString(), _options(2))
    with pytest.raises(C.Fail):
        session.run(None, {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})
    ((severity, _, _, _, message),) = lines
    assert severity == 3
    assert "while running Add node" in message


def test_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[2] y) { y = Identity (x) }'
    )
    session = distort.InferenceSession(model.SerializeToString(), _options(logid="here"))
    assert session.run(None, {"x": np.zeros(3, np.float32)})[0].shape == (3,)
    text = capsys.readouterr().err
    wanted = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \[W:onnxruntime:here, loading\.py:\d+ verify_shapes\] Expected shape "
    )
    assert re.fullmatch(wanted + r"from model of \{2\} does not match actual shape of \{3\} for output y\n", text)
    session = distort.InferenceSession(model.SerializeToString(), _options(3))
    session.run(None, {"x": np.zeros(3, np.float32)})
    assert capsys.readouterr().err == ""


def test_an_overwritten_config_entry_and_an_initializer_that_is_an_input(lines: list[Line]) -> None:
    options = _options()
    options.add_session_config_entry("a.b", "1")
    options.add_session_config_entry("a.b", "2")
    assert lines[0][4] == "Config with key [a.b] already exists with value [1]. It will be overwritten"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, float[2] w = {1, 2}) => (float[2] y){ y = Add (x, w) }'
    )
    distort.InferenceSession(model.SerializeToString(), options)
    assert any(line[0] == 2 and line[4].startswith("Initializer w appears in graph inputs") for line in lines)


def test_a_callback_that_raises(
    mul: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: seen.append(raised.exc_value))

    def raising(*line: object) -> None:
        raise ValueError("no")

    severity = logs.DEFAULT.severity
    distort.set_default_logger_callback(raising, 1)
    try:
        distort.InferenceSession(mul)
    finally:
        distort.set_default_logger_callback(None)
        logs.DEFAULT.severity = severity
    assert seen
    assert all(isinstance(error, ValueError) for error in seen)
    assert "Session successfully initialized" in capsys.readouterr().err  # the line itself is not lost


def test_what_is_no_callback() -> None:
    with pytest.raises(RuntimeError, match="callback must be a callable"):
        distort.set_default_logger_callback("x")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Invalid logging severity"):
        distort.set_default_logger_callback(None, 5)


def test_config_in_the_model(mul: bytes, lines: list[Line]) -> None:
    model = onnx.load_from_string(mul)
    config = {"session_options": {"intra_op_num_threads": 1, "graph_optimization_level": 0, "surprise": 3}}
    entry = model.metadata_props.add(key="ort_config", value=json.dumps(config))
    session = distort.InferenceSession(model.SerializeToString(), read_config_from_model=1)
    assert session._sess._loaded.engine.config.intra_op_threads == 1
    assert session._sess._loaded.engine.config.level == "disable"
    assert any("surprise" in line[4] for line in lines)
    assert distort.InferenceSession(model.SerializeToString())._sess._loaded.engine.config.intra_op_threads == 0
    entry.value = "{"
    with pytest.raises(C.Fail, match="ort_config can't be read"):
        distort.InferenceSession(model.SerializeToString(), read_config_from_model=1)
