"""Graphs lowered to operations that CUDA C is printed for, run by the simulator, against the NumPy kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser

from distort.graph import reader
from distort.graph.ir import Graph
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.fuse import fuse
from distort.kernels.compiler.ir import Operation, Place
from distort.kernels.compiler.specialise import Result, lowered
from distort.kernels.cuda.builder import CudaBuilder
from distort.kernels.cuda.codegen import prints
from distort.kernels.program import Program

from .simulating import WAYS, Array, Memory, run_all

_NAMES = {"float32": "float", "float64": "double"}


class _Builder(CudaBuilder):
    """Takes what is printed, and nothing that libraries do."""

    def _takes(self, added: Sequence[Operation]) -> bool:
        return all(prints(operation) for operation in added)


def graph_of(text: str, feeds: dict[str, Array], opset: int) -> Graph:
    declared = ", ".join(
        f"{_NAMES.get(a.dtype.name, a.dtype.name.replace('_', ''))}[{','.join(map(str, a.shape))}] {name}"
        for name, a in feeds.items()
    )
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> g ({declared})'
    return reader.read_model(onnx.parser.parse_model(f"{head} => {text}")).graph


def operations_of(graph: Graph, feeds: dict[str, Array]) -> tuple[list[Operation], list[Result]]:
    constants = Constants()
    builder = _Builder(graph, host(), 1, constants, {})
    types = [(a.dtype, a.shape) for a in feeds.values()]
    operations, results = lowered(builder, graph.outputs, list(feeds), types)
    return fuse(operations, host()), results


def run(operations: Sequence[Operation], results: Sequence[Result], feeds: dict[str, Array], way: Any) -> list[Array]:
    memory = Memory()
    arrays = list(feeds.values())
    for operation in operations:
        for tensor in (*operation.inputs, *operation.outputs):
            if tensor.buffer.place is Place.FEED:
                memory.bytes_of(tensor.buffer)[:] = np.frombuffer(arrays[tensor.buffer.number].tobytes(), np.uint8)
    run_all(operations, memory, way)
    assert not memory.error.any(), "refused"
    made = []
    for result in results:
        assert result.tensor is not None or result.value is not None
        made.append(memory.view(result.tensor) if result.tensor is not None else result.value)
    return [array for array in made if array is not None]


def check(
    text: str,
    feeds: dict[str, Array],
    *,
    opset: int = 21,
    kinds: Sequence[str] | None = None,
    rtol: float = 1e-4,
    atol: float = -1.0,
    ways: Sequence[Any] = WAYS,
) -> list[Operation]:
    """Lower, run by each way, compare. ``kinds`` of operations that there are; returns the operations."""
    return check_graph(graph_of(text, feeds, opset), feeds, kinds=kinds, rtol=rtol, atol=atol, ways=ways)


def check_graph(
    graph: Graph,
    feeds: dict[str, Array],
    *,
    kinds: Sequence[str] | None = None,
    rtol: float = 1e-4,
    atol: float = -1.0,
    ways: Sequence[Any] = WAYS,
) -> list[Operation]:
    """As :func:`check`."""
    operations, results = operations_of(graph, feeds)
    found = [operation.kind for operation in operations]
    assert "host" not in found
    assert kinds is None or found == list(kinds)
    with np.errstate(all="ignore"):
        expected = Program(graph).run(feeds)
    for way in ways:
        for got, want in zip(run(operations, results, feeds, way), expected, strict=True):
            assert got.dtype == want.dtype and got.shape == want.shape
            if want.dtype.kind in "biu":
                np.testing.assert_array_equal(got, want)
            else:
                one, other = (x.astype(np.float64) for x in (got, want))
                np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol / 10 if atol < 0 else atol)
    return operations
