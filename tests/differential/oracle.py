"""One node through distort and through onnxruntime, compared. onnxruntime is an optional oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import distort

#: the newest default opset and IR that onnxruntime 1.32 supports
OPSET, IR_VERSION = 26, 13


def one_node_model(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    n_outputs: int = 1,
    wanted: Sequence[bool] | None = None,
    domain: str = "com.microsoft",
    opset: int = 1,
    default_opset: int = OPSET,
    constant: Sequence[int] = (),
    output_types: Mapping[int, int] | None = None,
) -> bytes:
    """A model of one node. ``None`` is an absent input; ``constant`` names positions that become initializers;
    ``output_types`` gives the element types of outputs that onnxruntime doesn't infer."""
    names = ["" if value is None else f"x{position}" for position, value in enumerate(inputs)]
    outputs = [f"y{position}" if wanted is None or wanted[position] else "" for position in range(n_outputs)]
    node = helper.make_node(op_type, names, outputs, "node", domain=domain, **dict(attributes or {}))
    feeds, initializers = [], []
    for position, value in enumerate(inputs):
        if value is None:
            continue
        if position in constant:
            initializers.append(onnx.numpy_helper.from_array(value, names[position]))
        else:
            element = helper.np_dtype_to_tensor_dtype(value.dtype)
            feeds.append(helper.make_tensor_value_info(names[position], element, value.shape))
    results = [
        helper.make_tensor_value_info(name, output_types[position], None)
        if output_types and position in output_types
        else onnx.ValueInfoProto(name=name)
        for position, name in enumerate(outputs)
        if name
    ]
    graph = helper.make_graph([node], "graph", feeds, results, initializers)
    opsets = [helper.make_opsetid("", default_opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, opset))
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def feeds_of(inputs: Sequence[Any], constant: Sequence[int] = ()) -> dict[str, Any]:
    return {f"x{i}": value for i, value in enumerate(inputs) if value is not None and i not in constant}


def assert_same(got: Any, want: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Same types, shapes and values; floats within tolerances."""
    if isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, rtol, atol)
        return
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype.kind in "OUSb":
        assert got.tolist() == want.tolist()
    else:
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol)


def answers(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    constant: Sequence[int] = (),
    **model: Any,
) -> list[Any]:
    """What distort alone answers: for what onnxruntime's documentation defines and its CPU kernel lacks."""
    session = distort.InferenceSession(one_node_model(op_type, inputs, attributes, constant=constant, **model))
    return list(session.run(None, feeds_of(inputs, constant)))


def against_onnxruntime(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    constant: Sequence[int] = (),
    **model: Any,
) -> list[Any]:
    """Both answers agree; returns ours. Skips where onnxruntime is not installed."""
    rival = pytest.importorskip("onnxruntime")
    proto = one_node_model(op_type, inputs, attributes, constant=constant, **model)
    options = rival.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = rival.GraphOptimizationLevel.ORT_DISABLE_ALL
    feeds = feeds_of(inputs, constant)
    want = rival.InferenceSession(proto, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    got = distort.InferenceSession(proto).run(None, feeds)
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        assert_same(ours, theirs, rtol, atol)
    return list(got)
