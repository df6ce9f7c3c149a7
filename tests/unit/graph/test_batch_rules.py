"""One row for what must be proved of an operator, and one for what must be refused; what is proved is run in parts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from distort.engine import has_kernel
from distort.graph import reader
from distort.graph.batch import BatchProof, Refusal, prove
from distort.graph.batch.rules import known_operators
from distort.graph.functions import expand
from distort.graph.ir import Graph
from distort.graph.operators import latest_opsets
from distort.kernels.program import Program

from .batch_rows import ML, MS, ROWS, Row

N_SAMPLES = 5
_INPUT = re.compile(r"(\w+)(?:\[([^\]]*)\])? (\w+)")
_DTYPES = {"float": np.float32, "double": np.float64}


def graph_of(row: Row) -> Graph:
    opsets = f'"" : {row.opset}, "{MS}" : 1, "{ML}" : 3, "my.domain" : 1'
    outputs = ", ".join(f"float[{name}_dim] {name}" for name in row.outputs.split(", "))
    weights = f"<{row.weights}>" if row.weights else ""
    text = f"<ir_version: 9, opset_import: [{opsets}]>\n g ({row.inputs}) => ({outputs}) {weights} {{\n{row.nodes}\n}}"
    proto: onnx.ModelProto = parser.parse_model(text)
    model = reader.read_model(proto)
    expand(model, has_kernel)
    return model.graph


def axes_and_shapes(row: Row) -> tuple[dict[str, int | None], dict[str, tuple[int, ...]], dict[str, str]]:
    axes: dict[str, int | None] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    types = {}
    for kind, dims, name in _INPUT.findall(row.inputs):
        names = [dim.strip() for dim in dims.split(",")] if dims else []
        axes[name] = names.index("N") if "N" in names else None
        shapes[name] = tuple(N_SAMPLES if dim == "N" else int(dim) for dim in names)
        types[name] = kind
    return axes, shapes, types


@pytest.mark.parametrize("row", ROWS, ids=Row.name)
def test_row(row: Row) -> None:
    graph = graph_of(row)
    axes, shapes, types = axes_and_shapes(row)
    proof = prove(graph, axes, shapes)
    if row.refused:
        assert isinstance(proof, Refusal)
        assert row.refused in proof.reason
        return
    assert isinstance(proof, BatchProof), str(proof)
    random = np.random.default_rng(0)
    feeds = {}
    for name, shape in shapes.items():
        if types[name] in _DTYPES:
            feeds[name] = random.uniform(-1, 1, shape).astype(_DTYPES[types[name]])
        else:
            feeds[name] = random.integers(row.low, row.high, shape).astype(types[name])
    program = Program(graph)
    whole = dict(zip(graph.outputs, program.run(feeds), strict=True))
    pieces = []
    for part in (slice(0, 1), slice(1, 3), slice(3, N_SAMPLES)):
        given = {n: v if axes[n] is None else v[(slice(None),) * axes[n] + (part,)] for n, v in feeds.items()}
        pieces.append(dict(zip(graph.outputs, program.run(given), strict=True)))
    for name, axis in proof.outputs.items():
        assert axis is not None
        _same(name, [piece[name] for piece in pieces], whole[name], axis)
        if name in proof.layouts and isinstance(whole[name], np.ndarray):
            known = proof.layouts[name].of(N_SAMPLES)
            assert len(known) == whole[name].ndim
            assert all(dim in (None, real) for dim, real in zip(known, whole[name].shape, strict=True))


def _same(name: str, parts: list[Any], whole: Any, axis: int) -> None:
    if isinstance(whole, list):
        assert [item for part in parts for item in part] == whole
        return
    joined = np.concatenate(parts, axis)
    assert (joined.dtype, joined.shape) == (whole.dtype, whole.shape), name
    if whole.dtype.kind == "f":
        np.testing.assert_allclose(joined, whole, rtol=1e-5, atol=1e-6, err_msg=name)
    else:
        np.testing.assert_array_equal(joined, whole, err_msg=name)


def test_rules_are_known_operators() -> None:
    """A rule for an operator that nothing here runs would never be tried."""
    ours = {(domain, op) for domain, op in known_operators() if domain in ("", MS, ML)}
    newest = latest_opsets()
    old = {("", "Upsample"), ("", "Scatter")}
    assert {key for key in ours - old if not _runs(key[0], key[1], newest[key[0]])} == set()


def _runs(domain: str, op_type: str, opset: int) -> bool:
    """Whether a kernel runs it, or its body does."""
    if has_kernel(domain, op_type, opset):
        return True
    if not onnx.defs.has(op_type, domain):
        return False
    schema = onnx.defs.get_schema(op_type, opset, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)
