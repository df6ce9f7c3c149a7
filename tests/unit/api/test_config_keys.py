"""Config entries that onnxruntime documents: obeyed, refused, or told to have no effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import distort
from distort import config_keys, logs
from distort.capi import onnxruntime_pybind11_state as C

FEEDS = {"X": np.ones((3, 2), np.float32)}


def _options(**entries: str) -> distort.SessionOptions:
    options = distort.SessionOptions()
    for key, value in entries.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    return options


def _parse(text: str, opset: int = 17) -> bytes:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}').SerializeToString()


CONSTANTS = _parse(
    "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> { c = Add (a, b) \n y = Add (c, x) }"
)


def test_the_page_is_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "config_keys.md"
    assert page.read_text(encoding="utf-8") == config_keys.table_text()


def _operators(**entries: str) -> list[str]:
    session = distort.InferenceSession(CONSTANTS, _options(**entries))
    return [node.op_type for node in session._sess._loaded.engine.model.graph.nodes]


def test_optimizers() -> None:
    assert _operators() == ["Add"]
    assert _operators(optimization__disable_specified_optimizers="Foo;ConstantFolding") == ["Add", "Add"]
    limit = "optimization__constant_folding_max_output_size_in_bytes"
    assert _operators(**{limit: "4"}) == ["Add", "Add"]
    assert _operators(**{limit: "8"}) == ["Add"]
    with pytest.raises(C.InvalidArgument, match="wants a number of bytes, got 'abc'"):
        _operators(**{limit: "abc"})


def test_formats(mul: bytes, tmp_path: Path) -> None:
    with pytest.raises(C.NotImplemented, match="load_model_format is ORT"):
        distort.InferenceSession(mul, _options(session__load_model_format="ORT"))
    distort.InferenceSession(mul, _options(session__save_model_format="ORT"))
    options = _options(session__save_model_format="ORT")
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    with pytest.raises(C.NotImplemented, match="save_model_format is ORT"):
        distort.InferenceSession(mul, options)
    content = b"\x18\0\0\0ORTM" + bytes(32)
    (tmp_path / "m.ort").write_bytes(content)
    for source in (content, tmp_path / "m.ort"):
        with pytest.raises(C.NotImplemented, match="onnxruntime's own format"):
            distort.InferenceSession(source)


def test_no_fallback_to_the_cpu(mul: bytes) -> None:
    options = _options(session__disable_cpu_ep_fallback="1")
    with pytest.raises(C.Fail, match="fallback to CPU EP has been explicitly disabled"):
        distort.InferenceSession(mul, options)
    with pytest.raises(C.InvalidArgument, match="explicitly added the CPU EP"):
        distort.InferenceSession(mul, options, ["CPUExecutionProvider"])


def test_strict_types_and_unreleased_opsets(mul: bytes) -> None:
    model = _parse("g (float[2] x) => (float[3] y) { y = Abs (x) }")
    with pytest.raises(C.Fail, match=r"Inferred shape and existing shape differ in dimension 0: \(2\) vs \(3\)"):
        distort.InferenceSession(model, _options(session__strict_shape_type_inference="1"))
    distort.InferenceSession(model)
    newer = onnx.load_from_string(mul)
    newer.opset_import[0].version = 99
    with pytest.raises(C.Fail, match="Opset 99 is under development"):
        distort.InferenceSession(newer.SerializeToString())
    options = _options(session__allow_released_opsets_only="0")
    assert distort.InferenceSession(newer.SerializeToString(), options).run(None, FEEDS)


def test_weights_beside_the_optimized_model(tmp_path: Path) -> None:
    start = "session.optimized_model_external_initializers_"
    for least, external in (("8", True), ("9", False)):
        options = _options(**{f"{start}file_name": "w.bin", f"{start}min_size_in_bytes": least})
        options.optimized_model_filepath = str(tmp_path / f"{least}.onnx")
        distort.InferenceSession(CONSTANTS, options)
        (tensor,) = onnx.load(tmp_path / f"{least}.onnx", load_external_data=False).graph.initializer
        assert (tensor.data_location == onnx.TensorProto.EXTERNAL) is external
        y = distort.InferenceSession(tmp_path / f"{least}.onnx").run(None, {"x": np.zeros(2, np.float32)})[0]
        assert y.tolist() == [4, 6]


def test_what_has_no_effect_is_told(mul: bytes) -> None:
    lines: list[tuple[int, str]] = []
    severity = logs.DEFAULT.severity
    distort.set_default_logger_callback(lambda *line: lines.append((line[0], line[4])), 1)
    try:
        entries = {
            "session__set_denormal_as_zero": "1",
            "session__intra_op__spin_backoff_max": "0",
            "session__moe__offload__mode": "x",
            "session__no_such_thing": "1",
            "mine": "1",
            "session__disable_prepacking": "0",
        }
        distort.InferenceSession(mul, _options(**entries))
        told = {text.split("'")[1]: level for level, text in lines if "no effect" in text}
        assert told == {
            "session.set_denormal_as_zero": 2,
            "session.intra_op.spin_backoff_max": 1,
            "session.moe.offload.mode": 1,
            "session.no_such_thing": 2,
            "mine": 1,
        }
        lines.clear()
        distort.RunOptions().add_run_config_entry("qnn.htp_perf_mode", "burst")
        assert "has no effect: it steers the QNN provider" in lines[0][1]
    finally:
        distort.set_default_logger_callback(None)
        logs.DEFAULT.severity = severity


def test_a_graph_id_that_is_no_number(mul: bytes) -> None:
    options = distort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "x")
    with pytest.raises(C.InvalidArgument, match="Failed to parse the cuda graph annotation id: x"):
        distort.InferenceSession(mul).run(None, FEEDS, options)


def test_run_options_of_gpus_on_the_cpu(mul: bytes) -> None:
    """A run on the CPU waits for itself, has no graph, and no arena of a GPU to shrink."""
    session = distort.InferenceSession(mul)
    for name, value in [("disable_synchronize_execution_providers", "1"), ("gpu_graph_id", "-1")]:
        options = distort.RunOptions()
        options.add_run_config_entry(name, value)
        assert len(session.run(None, FEEDS, options)) == 1
    options = distort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:0")
    with pytest.raises(C.InvalidArgument, match="memory arena shrink list: gpu:0"):
        session.run(None, FEEDS, options)
