"""Models of one node or a few, compiled and plain, on the same feeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from distort.engine import load_model
from distort.kernels.compiler.codegen import target
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.library import Library, compile_text, module_text
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.compiler.specialise import specialise
from distort.kernels.program import Program

Array = np.ndarray[Any, Any]
DOMAINS = {"": 21, "com.microsoft": 1, "ai.onnx.ml": 3}


def model_of(
    nodes: Sequence[NodeProto], feeds: Mapping[str, Array], weights: Mapping[str, Array], fetch: Sequence[str]
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
    opsets = [helper.make_opsetid(name, version) for name, version in DOMAINS.items()]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString()


def limited(limit: str) -> Library:
    """A library for this machine as if it had no more than ``limit``, as ``DISTORT_CPU`` says it."""
    target.host.cache_clear()
    os.environ[target.LIMIT_VARIABLE] = limit
    try:
        return Library(target.host())
    finally:
        del os.environ[target.LIMIT_VARIABLE]
        target.host.cache_clear()


def both(
    nodes: Sequence[NodeProto],
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array],
    fetch: Sequence[str] = ("y",),
    n_threads: int = 1,
    library: Library | None = None,
) -> tuple[list[Any], list[Any], list[str]]:
    """(results of the compiled program, those of the plain one, kinds of its operations)."""
    graph = load_model(model_of(nodes, feeds, weights, fetch)).graph
    program = CompiledProgram(graph, n_threads=n_threads, library=library)
    plan = program.prepare([(feeds[name].dtype, feeds[name].shape) for name in program.inputs])
    kinds = [f"host {op.node.op_type}" if isinstance(op, Host) else op.kind for op in plan.operations]
    return program.run(feeds), Program(graph).run(feeds), kinds


def agree(results: Sequence[Any], expected: Sequence[Any], rtol: float = 0.0, atol: float = 0.0) -> None:
    for result, wanted in zip(results, expected, strict=True):
        assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(result, wanted, rtol, atol)
        else:
            np.testing.assert_array_equal(result, wanted)


def object_for(
    triple: str,
    features: Mapping[str, bool],
    nodes: Sequence[NodeProto],
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array],
    fetch: Sequence[str] = ("y",),
) -> tuple[bytes, set[str]]:
    """A model's kernels compiled for another processor, and their families."""
    other = target.of_features(triple, "", dict(features))
    graph = load_model(model_of(nodes, feeds, weights, fetch)).graph
    types = [(value.dtype, value.shape) for value in feeds.values()]
    plan = specialise(graph, list(fetch), list(feeds), types, other, 1, Constants(), {})
    keys = {step.call.key for step in plan.steps if step.call is not None}
    return compile_text(module_text(keys, other), other), {key.family for key in keys}
