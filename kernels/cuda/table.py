"""``python -m distort.kernels.cuda.table`` writes docs/gpu_operators.md: what runs each operator on a GPU.

What is compiled is found by lowering onnx's own test cases of one node, so onnx's tests are read.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node
from distort.graph.reader import read_model
from distort.graph.types import DTYPE_OF
from distort.kernels.compiler.account import has_code
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.specialise import lowered
from distort.kernels.cuda import lower
from distort.kernels.cuda.builder import CudaBuilder
from distort.kernels.cuda.codegen.narrow import NARROW
from distort.kernels.cuda.device_libraries import Libraries
from distort.kernels.cuda.dnn_graphs import AttentionProblem, ConvProblem, refusal
from distort.kernels.cuda.fallback import CONDITIONS, LIBRARIES, REASONS, dtypes_of, reason_of_values
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.plan import target_of
from distort.kernels.cuda.product_problems import ProductProblem
from distort.kernels.cuda.waits import WAITS
from distort.kernels.cuda.weights import is_planned
from distort.kernels.registry import find, registered

_HEAD = """# Operators on a GPU

What runs each operator where `CUDAExecutionProvider` has its node. `python -m distort.kernels.cuda.table` writes it; a
test holds it against the code.

*Compiled*: `yes` where all of onnx's test cases of the operator become CUDA C or a library's call (as far as cuBLASLt's
and cuDNN's documentation goes), `in part` where some
do, `?` where there is a lowering and onnx has no such cases. *Otherwise* is what runs a node that is not compiled:
`CuPy`, its kernel over CuPy; `CPU`, its kernel over NumPy, with copies that `explain()` names. *Waits*: what for that
kernel waits for the GPU, so that its node can't be part of a CUDA graph.

8-bit floats and integers of 2 and 4 bits are a byte each on a GPU, where what is compiled reads and makes them (casts,
quantization, and what only moves elements). CuPy has no arrays of them, nor of text and of floats of 4 bits: a node
that isn't compiled and reads or makes such values runs over NumPy.

"""
_CAPABILITY = (8, 0)
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")


class _Obliging(Libraries):
    """Libraries that take what they are documented to take: they need not be here for the table."""

    @property
    def products(self) -> Any:
        return self

    @property
    def networks(self) -> Any:
        return self

    def plan(self, problem: ProductProblem) -> ProductProblem:
        return problem

    def supports(self, problem: ConvProblem | AttentionProblem) -> bool:
        return not refusal(problem, self.compute_capability)


def table_text() -> str:
    """The content that docs/gpu_operators.md should have."""
    compiled = _compiled()
    lines = ["| operator | compiled | otherwise | waits |\n|---|---|---|---|\n"]
    for domain, op_type in _operators():
        key = domain, op_type
        why = REASONS.get(key)
        otherwise = f"CPU: {why}" if why else "CuPy; CPU for some types and attributes" if key in CONDITIONS else "CuPy"
        if key in LIBRARIES:
            otherwise = f"CuPy with lib{LIBRARIES[key]}; CPU where that isn't installed"
        name = f"{domain}.{op_type}" if domain else op_type
        lines.append(f"| {name} | {compiled.get(key, '')} | {otherwise} | {WAITS.get(key, '')} |\n")
    return _HEAD + "".join(lines)


def _operators() -> list[tuple[str, str]]:
    ours = (kernel for kernel in registered() if kernel.module.startswith("distort.kernels.ops."))
    return sorted({(kernel.domain, kernel.op_type) for kernel in ours})


def _compiled() -> dict[tuple[str, str], str]:
    tried: dict[tuple[str, str], list[bool]] = {}
    for graph, feeds in _cases():
        node = graph.nodes[0]
        if node.op_type in _CONTROL or REASONS.get((node.domain, node.op_type)):
            continue
        values = [feeds.get(name) for name in node.inputs]
        found = tried.setdefault((node.domain, node.op_type), [])
        if all(_is_array(value) for value in values) and _is_planned(node, values):
            found.append(_compiles(graph, node, feeds))
    told = {key: "yes" if all(found) else "in part" for key, found in tried.items() if any(found)}
    return {**{key: "?" for key in _operators() if key not in tried and _has_lowering(*key)}, **told}


def _has_lowering(domain: str, op_type: str) -> bool:
    return has_code(domain, op_type) or (domain, op_type) in lower.HOME


def _is_planned(node: Node, values: Sequence[Any]) -> bool:
    """Whether a plan has tensors of what the node reads and makes, and no condition sends it to the CPU."""
    dtypes = [*dtypes_of(values), DTYPE_OF.get(node.attributes.get("to", 0))]
    if any(dtype is not None and dtype.name in NARROW for dtype in dtypes):
        return all(dtype is None or is_planned(dtype) for dtype in dtypes)
    return reason_of_values(node, dtypes_of(values)) is None


def _is_array(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray)


def _compiles(graph: Graph, node: Node, feeds: Mapping[str, Any]) -> bool:
    """Whether no kernel over CuPy or NumPy is left; what steers the node (shapes, axes) is constant."""
    entry = find(node.domain, node.op_type, node.opset)
    steering = {node.inputs[i] for i in (entry.host if entry is not None else ()) if i < len(node.inputs)} - {""}
    graph.initializers.update({name: feeds[name] for name in steering if name in feeds})
    names = [name for name in graph.inputs if name in feeds and name not in steering]
    graph.inputs = names
    builder = CudaBuilder(graph, target_of(_CAPABILITY), 1, Constants(), {}, keep_qdq=True)
    builder.use(_Obliging(10 * _CAPABILITY[0] + _CAPABILITY[1], CudaOptions()))
    types = [(feeds[name].dtype, feeds[name].shape) for name in names]
    operations, _ = lowered(builder, graph.outputs, names, types)
    return not any(isinstance(operation, Host) for operation in operations)


def _cases() -> Iterator[tuple[Graph, dict[str, Any]]]:
    """onnx's test cases of one node, with values for its inputs."""
    from onnx import TensorProto, numpy_helper
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # expected values overflow on purpose when they are made
        cases = load_model_tests(kind="node")
    for case in cases:
        if case.model is None or len(case.model.graph.node) != 1:
            continue
        for inputs, _ in case.data_sets or ():
            values = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in inputs]
            values = [np.asarray(v) if isinstance(v, np.generic) else v for v in values]
            graph = read_model(case.model).graph
            if find(graph.nodes[0].domain, graph.nodes[0].op_type, graph.nodes[0].opset) is not None:
                named = zip(graph.inputs, values, strict=False)
                yield graph, {name: value for name, value in named if value is not None}


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "docs" / "gpu_operators.md"
    target.write_text(table_text())
