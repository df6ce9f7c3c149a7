"""What the CPU's kernels make of an operation whose tensors are views of arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.ir import Address, Operation
from distort.kernels.compiler.library import Library

from .simulating import WAYS, Array, Memory, run_all

_LIBRARY = Library()


def on_cpu(operation: Operation) -> None:
    """Run it: results are in the arrays that its outputs are views of."""
    for call in operation.calls(host(), 1):
        scratch = np.empty(call.scratch_nbytes + 64, np.uint8)
        words = []
        for word in call.words:
            if isinstance(word, Address):
                assert word.buffer.array is not None
                words.append(word.buffer.array.__array_interface__["data"][0] + word.offset)
            else:
                words.append(word if isinstance(word, int) else scratch.ctypes.data)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)(_LIBRARY.get([call.key])[call.key])
        memory = np.array(words, np.int64)
        function(memory.ctypes.data, 0, 1, 0)


def difference(got: Array, want: Array) -> float:
    """The largest, in units in the last place of what is wanted; infinite where NaN or infinities differ."""
    if want.dtype.kind not in "fV" and want.dtype.name != "bfloat16":
        return 0.0 if np.array_equal(got, want) else np.inf
    if want.dtype.itemsize > 2:
        spacing = np.spacing(np.abs(want)).astype(np.float64)
    else:
        digits = 10 if want.dtype == np.float16 else 7
        _, exponent = np.frexp(np.abs(want.astype(np.float64)))
        spacing = np.maximum(2.0 ** (exponent - 1 - digits), 2.0**-24 if digits == 10 else 2.0**-133)
    one, other = got.astype(np.float64), want.astype(np.float64)
    alike = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        wrong = np.where(alike, 0, np.abs(one - other) / spacing)
    return float(np.where(np.isnan(wrong), np.inf, wrong).max(initial=0))


def agree(operation: Operation, most_ulp: float = 0, ways: Sequence[Any] = WAYS, atol: float = 0) -> None:
    """Run an operation by each way of the simulator and on the CPU, and compare all of the memory of its results."""
    found = []
    for way in ways:
        memory = Memory()
        run_all([operation], memory, way)
        found.append([memory.bytes_of(tensor.buffer).view(tensor.dtype) for tensor in operation.outputs])
    on_cpu(operation)
    for results in found:
        for tensor, got in zip(operation.outputs, results, strict=True):
            assert tensor.buffer.array is not None
            want = tensor.buffer.array.reshape(-1)
            with np.errstate(all="ignore"):
                close = np.abs(got.astype(np.float64) - want.astype(np.float64)) <= atol if atol else np.zeros(1, bool)
            worst = difference(np.where(close, want, got), want)
            assert worst <= most_ulp, (worst, got[:20], want[:20])
