"""Inputs and attributes that no operator can take: an error of onnxruntime's class that names node and operator."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx import parser

import distort
from distort.capi import onnxruntime_pybind11_state as runtime

_A, _B = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
_IMAGE, _FILTERS = np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 2, 3, 3), np.float32)


_LSTM = [(2, 1, 3), (1, 12, 9), (1, 12, 3)]


def _i(*values: int) -> Any:
    return np.array(values, np.int64)


#: (node, inputs, class of the error: Fail or InvalidArgument, what its text says)
CASES: list[tuple[str, list[Any], str, str]] = [
    ("Add (x, y)", [_A, _B], "Fail", r"\[2, 3\] and \[2, 4\]"),
    ("Max (x, y)", [_A, _B], "Fail", "broadcast"),
    ("Sum (x, y)", [_A, _B], "Fail", "broadcast"),
    ("PRelu (x, y)", [_A, _B], "Fail", "broadcast"),
    ("Pow (x, y)", [_A, _B], "Fail", "broadcast"),
    ("Less (x, y)", [_A, _B], "Fail", "broadcast"),
    ("And (x, y)", [_A > 0, _B > 0], "Fail", "broadcast"),
    ("Where (x, y, z)", [_A > 0, _A, _B], "Fail", "broadcast"),
    ("MatMul (x, y)", [_A, _B], "Fail", "dimension mismatch: left .2, 3., right .2, 4."),
    ("Gemm (x, y)", [_A, _B], "InvalidArgument", r"\[2, 3\]"),
    ("Einsum <equation = \"ij,jk\"> (x, y)", [_A, _B], "InvalidArgument", ""),
    ("Expand (x, y)", [_A, _i(2, 4)], "InvalidArgument", "expand|Expand"),
    ("Concat <axis = 0> (x, y)", [_A, _B], "Fail", r"\[2, 3\], \[2, 4\]"),
    ("Reshape (x, y)", [_A, _i(4, 2)], "Fail", r"\{2,3\}, requested shape:\{4,2\}"),
    ("Reshape (x, y)", [_A, _i(-1, -1)], "Fail", ""),
    ("Squeeze (x, y)", [_A, _i(0)], "Fail", ""),
    ("Unsqueeze (x, y)", [_A, _i(7)], "Fail", ""),
    ("Gather (x, y)", [_A, _i(4)], "InvalidArgument", "idx=4"),
    ("GatherElements (x, y)", [_A, _i(7)[None]], "Fail", "7"),
    ("GatherND (x, y)", [_A, _i(0, 9)[None]], "InvalidArgument", "9"),
    ("ScatterElements (x, y, z)", [_A, _i(7)[None], _A[:1, :1]], "InvalidArgument", "7"),
    ("ScatterND (x, y, z)", [_A, _i(0, 9)[None], _A[0, :1]], "InvalidArgument", "9"),
    ("Slice (x, y, y)", [_A, _i(4, 2, 1)], "InvalidArgument", ""),
    ("Slice (x, y, y, z, w)", [_A, _i(1), _i(0), _i(0)], "InvalidArgument", "step"),
    ("Tile (x, y)", [_A, _i(7)], "InvalidArgument", ""),
    ("TopK (x, y)", [_A, _i(9)], "Fail", r"k argument \[9\]"),
    ("OneHot (x, y, z)", [_i(1), np.array(0), np.array([0, 1], np.float32)], "InvalidArgument", "[Dd]epth"),
    ("Pad (x, y)", [_A, _i(1, 2, 3)], "Fail", "3 pads"),
    ("Range (x, y, z)", [np.array(0), np.array(5), np.array(0)], "InvalidArgument", "delta"),
    ("Conv (x, y)", [_IMAGE, _FILTERS], "Fail", ""),
    ("ConvTranspose (x, y)", [_IMAGE, _FILTERS], "InvalidArgument", ""),
    ("MaxPool <kernel_shape = [9, 9]> (x)", [_IMAGE], "Fail", ""),
    ("BatchNormalization (x, y, y, y, y)", [_IMAGE, np.zeros(4, np.float32)], "InvalidArgument", ""),
    ("InstanceNormalization (x, y, y)", [_IMAGE, np.zeros(4, np.float32)], "InvalidArgument", ""),
    ("CumSum (x, y)", [_A, np.array(5)], "Fail", ""),
    ("ReduceSum (x, y)", [_A, _i(5)], "Fail", ""),
    ("DepthToSpace <blocksize = 2> (x)", [_IMAGE], "InvalidArgument", ""),
    ("ReverseSequence (x, y)", [_A, _i(1, 2, 9)], "Fail", ""),
    ("NonMaxSuppression (x, y)", [np.zeros((1, 3, 4), "f"), np.zeros((1, 1, 5), "f")], "Fail", ""),
    ("Det (x)", [_A], "InvalidArgument", ""),
    ("SequenceAt (x, y)", [[_A], np.array(4)], "InvalidArgument", ""),
    ("SplitToSequence (x, y)", [_A, _i(1, 2, 3)], "InvalidArgument", ""),
    ("Resize (x, , y)", [_A, np.array([1, 2, 3], np.float32)], "Fail", ""),
    ("QuantizeLinear (x, y)", [_A, np.zeros(7, np.float32)], "Fail", ""),
    ("LSTM <hidden_size = 3> (x, y, z)", [np.zeros(n, "f") for n in _LSTM], "InvalidArgument", ""),
]  # fmt: skip


def _model(node: str, inputs: list[Any]) -> bytes:
    """Ranks are left open, so that nothing can be refused while loading."""
    kinds = {"float32": "float", "bool": "bool", "int64": "int64"}
    names = "xyzw"[: len(inputs)]
    types = [
        f"seq({kinds[value[0].dtype.name]}[])" if isinstance(value, list) else f"{kinds[value.dtype.name]}[]"
        for value in inputs
    ]
    declared = ", ".join(f"{type_} {name}" for type_, name in zip(types, names, strict=True))
    outputs = "out, second" if node.startswith("TopK") else "out"
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({declared}) => (float[] out) {{ [bad] {outputs} = {node} }}'
    model = parser.parse_model(text)
    for value in model.graph.input:
        tensor = value.type.sequence_type.elem_type if value.type.HasField("sequence_type") else value.type
        tensor.tensor_type.ClearField("shape")
    model.graph.output[0].ClearField("type")
    return bytes(model.SerializeToString())


def _case_name(case: tuple[str, list[Any], str, str]) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", case[0]).strip("-")


@pytest.mark.parametrize("case", CASES, ids=_case_name)
def test_bad_input(case: tuple[str, list[Any], str, str]) -> None:
    node, inputs, status, text = case
    feeds = dict(zip("xyzw", inputs, strict=False))
    with pytest.raises(getattr(runtime, status), match=text or node.split()[0]) as caught:
        distort.InferenceSession(_model(node, inputs)).run(None, feeds)
    assert f"{node.split()[0]} node. Name:'bad'" in str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=_case_name)
def test_onnxruntime_raises_the_same_class(case: tuple[str, list[Any], str, str]) -> None:
    rival = pytest.importorskip("onnxruntime")
    node, inputs, status, _ = case
    options = rival.SessionOptions()
    options.log_severity_level = 4
    feeds = dict(zip("xyzw", inputs, strict=False))
    with pytest.raises(getattr(rival.capi.onnxruntime_pybind11_state, status)):
        rival.InferenceSession(_model(node, inputs), options, providers=["CPUExecutionProvider"]).run(None, feeds)
