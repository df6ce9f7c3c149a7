"""Cases of operators by version: inputs, and what independent numpy code says comes out.

A case holds for several versions of an operator; each is run in a model of just that opset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

#: (domain, operator) -> its versions, ascending
VERSIONS: dict[tuple[str, str], list[int]] = {}
for _schema in defs.get_all_schemas_with_history():
    if _schema.domain in ("", "ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.preview"):
        VERSIONS.setdefault((_schema.domain, _schema.name), []).append(_schema.since_version)
for _versions in VERSIONS.values():
    _versions.sort()


@dataclass(frozen=True)
class Case:
    op_type: str
    versions: tuple[int, ...]
    inputs: Sequence[Any]  # arrays, lists (sequences), None: absent
    expected: Sequence[Any]  # arrays, lists; None: an output that nobody wants; a callable judges its output
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    label: str = ""
    rtol: float = 1e-5
    atol: float = 1e-6
    #: what onnxruntime answers otherwise, and why that is its mistake; "" where it must agree
    onnxruntime_differs: str = ""
    default_opset: int = 0  # for domains other than the default: that of ai.onnx beside it; 0: the newest

    def name(self, version: int) -> str:
        return f"{self.op_type}-{version}" + (f"-{self.label}" if self.label else "")


def case(
    op_type: str,
    *versions: int,
    inputs: Sequence[Any] = (),
    expected: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    domain: str = "",
    **more: Any,
) -> Case:
    """``versions`` are the operator's own (those of its schemas); none: all of them."""
    known = VERSIONS[domain, op_type]
    assert set(versions) <= set(known), f"{op_type} has the versions {known}"
    return Case(op_type, versions or tuple(known), inputs, expected, attributes or {}, domain, **more)


def since(op_type: str, first: int, last: int = 10**6, domain: str = "") -> tuple[int, ...]:
    """The operator's versions from ``first`` to ``last``."""
    return tuple(version for version in VERSIONS[domain, op_type] if first <= version <= last)


def type_of(value: Any) -> onnx.TypeProto:
    if isinstance(value, list):
        return helper.make_sequence_type_proto(type_of(value[0]))
    if isinstance(value, dict):
        key, item = next(iter(value.items()))
        element = onnx.TensorProto.STRING if isinstance(key, str) else onnx.TensorProto.INT64
        scalar = np.asarray(item)
        item_type = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(scalar.dtype), scalar.shape)
        return helper.make_map_type_proto(element, item_type)
    array = np.asarray(value)
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def model_of(item: Case, version: int) -> onnx.ModelProto:
    names = ["" if value is None else f"x{position}" for position, value in enumerate(item.inputs)]
    outputs = ["" if value is None else f"y{position}" for position, value in enumerate(item.expected)]
    node = helper.make_node(item.op_type, names, outputs, "node", domain=item.domain, **item.attributes)
    feeds = [
        helper.make_value_info(name, type_of(value)) for name, value in zip(names, item.inputs, strict=True) if name
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    opsets = [helper.make_opsetid(item.domain, version)]
    if item.domain:
        opsets.append(helper.make_opsetid("", item.default_opset or 21))
    graph = helper.make_graph([node], "graph", feeds, results)
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets, True))


def feeds_of(item: Case) -> dict[str, Any]:
    return {
        f"x{position}": value if isinstance(value, list | dict) else np.asarray(value)
        for position, value in enumerate(item.inputs)
        if value is not None
    }


def assert_same(got: Any, want: Any, rtol: float, atol: float) -> None:
    """Types, shapes and values; floats within tolerances, NaN equal to NaN."""
    if callable(want):
        want(got)
    elif isinstance(want, list):
        assert isinstance(got, list)
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, rtol, atol)
    elif isinstance(want, dict):
        assert isinstance(got, dict)
        assert got.keys() == want.keys()
        for key, value in want.items():
            np.testing.assert_allclose(got[key], value, rtol=rtol, atol=atol)
    else:
        got, want = np.asarray(got), np.asarray(want)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind in "OUSb":
            assert got.tolist() == want.tolist()
        else:
            wide = np.complex128 if want.dtype.kind == "c" else np.longdouble if want.dtype.kind in "iu" else np.float64
            np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol)
