"""Graphs lowered for a GPU, fused, and run in host memory, step by step.

Libraries are those that are here. Element-wise operations and reductions are the CPU compiler's kernels: what is tested
are the libraries' operations, what becomes part of them, and how values lie between.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from distort.engine import load_model
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.fuse import fuse
from distort.kernels.compiler.ir import Address, Buffer, Host, Operation, Place, Tensor
from distort.kernels.compiler.library import Library
from distort.kernels.compiler.specialise import lowered
from distort.kernels.cuda.attending import attend
from distort.kernels.cuda.builder import CudaBuilder
from distort.kernels.cuda.device_libraries import Libraries, LibraryOperation
from distort.kernels.program import Program

from .device_memory import Block

Array = np.ndarray[Any, Any]
_LIBRARY = Library()


def model_of(
    nodes: Sequence[Any], feeds: Mapping[str, Array], weights: Mapping[str, Array], fetch: Sequence[str]
) -> bytes:
    def kind(array: Array) -> int:
        return int(helper.np_dtype_to_tensor_dtype(array.dtype))

    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind(value), value.shape) for name, value in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in fetch],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString()


class _Builder(CudaBuilder):
    def _takes(self, added: Sequence[Operation]) -> bool:
        return all(isinstance(o, LibraryOperation) or o.kind in ("map", "rows") for o in added)


@dataclass
class Ran:
    results: list[Array]
    expected: list[Array]
    operations: list[Operation]

    @property
    def kinds(self) -> list[str]:
        return [f"host {o.node.op_type}" if isinstance(o, Host) else o.kind for o in self.operations]

    def close(self, rtol: float = 1e-5, atol: float = 1e-5) -> None:
        """Whether results are those of the plain program."""
        for result, wanted in zip(self.results, self.expected, strict=True):
            assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
            if wanted.dtype.kind in "iub":
                np.testing.assert_array_equal(result, wanted)
            else:
                np.testing.assert_allclose(result.astype(np.float64), wanted.astype(np.float64), rtol, atol)


class _Run:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._blocks: dict[Buffer, Block] = {}

    def address(self, buffer: Buffer, offset: int = 0) -> int:
        if buffer.place is Place.CONSTANT:
            assert buffer.array is not None
            return int(buffer.array.__array_interface__["data"][0]) + offset
        if buffer not in self._blocks:
            self._blocks[buffer] = Block(max(buffer.nbytes, 1))
        return self._blocks[buffer].address + offset

    def view(self, tensor: Tensor) -> Array:
        self.address(tensor.buffer)
        nbytes = tensor.dtype.itemsize
        whole = self._blocks[tensor.buffer].view(tensor.dtype, (tensor.buffer.nbytes // nbytes,))
        strides = [step * nbytes for step in tensor.strides]
        return np.lib.stride_tricks.as_strided(whole[tensor.offset :], tensor.shape, strides)

    def operation(self, operation: Operation) -> None:
        if not isinstance(operation, LibraryOperation):
            for call in operation.calls(host(), 1):
                scratch = np.empty(call.scratch_nbytes + 64, np.uint8)
                words = [
                    self.address(w.buffer, w.offset)
                    if isinstance(w, Address)
                    else w
                    if isinstance(w, int)
                    else scratch.ctypes.data
                    for w in call.words
                ]
                kernel = _LIBRARY.get([call.key])[call.key]
                function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)(kernel)
                memory = np.array(words, np.int64)
                function(memory.ctypes.data, 0, 1, 0)
            return
        call = operation.library_call()
        workspace = Block(call.workspace_nbytes)
        tensors = [*operation.inputs, *operation.outputs]
        addresses = [self.address(t.buffer, t.offset * t.dtype.itemsize) for t in tensors]
        call.run(addresses, workspace.address if call.workspace_nbytes else 0, self._stream.ptr)
        self._stream.synchronize()
        workspace.check()

    def check(self) -> None:
        for block in self._blocks.values():
            block.check()


def run(
    nodes: Sequence[Any],
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array],
    libraries: Libraries,
    stream: Any,
    fetch: Sequence[str] = ("y",),
) -> Ran:
    """A model of these nodes: what the GPU's operations make, and what the plain program does."""
    graph = load_model(model_of(nodes, feeds, weights, fetch)).graph
    builder = _Builder(graph, host(), 1, Constants(), {}, keep_qdq=True)
    builder.use(libraries)
    types = [(value.dtype, value.shape) for value in feeds.values()]
    operations, results = lowered(builder, list(fetch), list(feeds), types)
    operations = attend(fuse(operations, host()), libraries)
    assert not any(isinstance(o, Host) for o in operations), [o.names for o in operations if isinstance(o, Host)]
    made = _Run(stream)
    for name, value in feeds.items():
        tensor = builder.find(name)
        assert tensor is not None
        made.view(tensor)[...] = value
    for operation in operations:
        made.operation(operation)
    made.check()
    found = []
    for result in results:
        assert result.value is not None or result.tensor is not None
        found.append(result.value if result.value is not None else made.view(result.tensor))  # type: ignore[arg-type]
    return Ran(found, Program(graph).run(feeds), operations)
