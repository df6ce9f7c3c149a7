"""Types and shapes of every value, by onnx's own inference over a proto without the large weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import facts, type_hooks
from .errors import ModelError
from .ir import Graph, Model, Node, SparseInitializer
from .onnx_parts import native, protobuf
from .operators import operator
from .outline import STEERING_NBYTES, outline
from .tensors import array_to_proto
from .types import (
    SequenceType,
    TensorType,
    ValueType,
    element_of,
    from_json,
    to_json,
    type_from_proto,
    type_to_proto,
)
from .writer import node_to_proto


def infer(model: Model, dims: Mapping[str, int] | None = None) -> list[str]:
    """Fill ``graph.types``, bodies of control flow excepted. Returns notes: what could not be inferred and why.

    ``dims`` gives sizes to symbolic dimensions. What the model declares of an intermediate value is taken only where
    inference says nothing.
    """
    graph = model.graph
    if dims:
        graph.types = {name: with_dims(known, dims) for name, known in graph.types.items()}
    for name, value in graph.initializers.items():
        if name not in graph.types:
            graph.types[name] = _type_of(value)
    try:
        _take(graph, inferred_types(model))
        # what a hook says of one operator's outputs lets onnx go on from there, up to the next such operator
        while type_hooks.any_for(graph.nodes) and _ask_hooks(graph):
            _take(graph, inferred_types(model))
    except InferenceFailed as error:
        return [f"shapes were not inferred: {error}"]
    return []


def check_strictly(proto: Any) -> None:
    """Raise ModelError where a declared type or shape contradicts what onnx infers."""
    onnx = native()
    try:
        onnx.shape_inference.infer_shapes(proto.SerializeToString(), True, True, False)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError("FAIL", f"Node: {error}") from error


def _take(graph: Graph, found: Mapping[str, ValueType]) -> None:
    for name, value_type in found.items():
        known = graph.types.get(name)
        graph.types[name] = value_type if known is None else _merged(known, value_type, name in graph.outputs)


def _ask_hooks(graph: Graph) -> bool:
    """Types of operators with a hook, where they are not known; whether there were new ones."""
    news = False
    for node in graph.nodes:
        if any(name and not _is_shaped(graph.types.get(name)) for name in node.outputs):
            for name, found in (type_hooks.outputs_of(node, graph.types) or {}).items():
                known = graph.types.get(name)
                merged = found if known is None else _merged(known, found, name in graph.outputs)
                news |= merged != known
                graph.types[name] = merged
    return news


def _is_shaped(known: ValueType | None) -> bool:
    return known is not None and getattr(known, "shape", ()) is not None


class InferenceFailed(ValueError):
    """onnx's inference refused the graph."""


def inferred_types(model: Model) -> dict[str, ValueType]:
    """Types that follow from the graph's inputs and operators alone: what the model declares of others is not used."""
    for node in model.graph.nodes:
        constant = _large_constant(node)
        if constant is not None:
            model.graph.types[node.outputs[0]] = _type_of(constant)
    found = json.loads(facts.known("types", outline(model), lambda: _inferred(_skeleton(model).SerializeToString())))
    return {name: from_json(known) for name, known in found.items()}


def _inferred(skeleton: bytes) -> bytes:
    """What onnx finds: types by the names of values, in JSON."""
    inference = native().shape_inference
    try:
        inferred: bytes = inference.infer_shapes(skeleton, False, False, True)
    except (inference.InferenceError, RuntimeError, ValueError) as error:
        raise InferenceFailed(str(error).splitlines()[0]) from error
    proto = protobuf().ModelProto()
    proto.ParseFromString(inferred)
    types = {}
    for info in (*proto.graph.value_info, *proto.graph.output):
        found = type_from_proto(info.type) if info.HasField("type") else None
        if found is not None and isinstance(info.name, str):  # text that is no UTF-8 is bytes
            types[info.name] = to_json(found)
    return json.dumps(types).encode()


def with_dims(value_type: ValueType, dims: Mapping[str, int]) -> ValueType:
    """A type with symbolic dimensions replaced by sizes."""
    if isinstance(value_type, TensorType) and value_type.shape is not None:
        if not any(isinstance(dim, str) and dim in dims for dim in value_type.shape):
            return value_type
        shape = tuple(dims.get(dim, dim) if isinstance(dim, str) else dim for dim in value_type.shape)
        return replace(value_type, shape=shape)
    if isinstance(value_type, SequenceType):
        return replace(value_type, item=with_dims(value_type.item, dims))
    return value_type


def _merged(declared: ValueType, found: ValueType, is_output: bool) -> ValueType:
    """What the model declares of a dimension wins over a symbol that inference made up.

    Where both are sizes and differ, the declaration is stale, and of an output nothing is sure.
    """
    if not isinstance(declared, TensorType) or not isinstance(found, TensorType) or found.shape is None:
        return declared if isinstance(found, TensorType) and found.shape is None else found
    if declared.shape is None or len(declared.shape) != len(found.shape):
        return found
    dims = zip(declared.shape, found.shape, strict=True)
    return TensorType(
        declared.element or found.element, tuple(_merged_dim(ours, theirs, is_output) for ours, theirs in dims)
    )


def _merged_dim(declared: int | str | None, found: int | str | None, is_output: bool) -> int | str | None:
    if is_output and isinstance(declared, int) and isinstance(found, int) and declared != found:
        return None
    return found if isinstance(found, int) or declared is None else declared


def _type_of(value: Any) -> ValueType:
    if isinstance(value, SparseInitializer):
        return TensorType(element_of(value.values.dtype), tuple(value.dims))
    return TensorType(element_of(value.dtype), tuple(value.shape))


class _NoWeights:
    """Stands for the large initializers of bodies: their type and shape without their values."""

    def write(self, proto: Any, values: np.ndarray[Any, Any], name: str) -> bool:
        if values.nbytes <= STEERING_NBYTES:
            return False
        proto.name = name
        proto.data_type = element_of(values.dtype)
        proto.dims.extend(values.shape)
        proto.data_location = 1  # external: inference does not look for values
        return True


_NO_WEIGHTS = _NoWeights()


def _skeleton(model: Model) -> Any:
    """The model with its large constants, whose types are known, turned into inputs: what is declared, not sent."""
    graph = model.graph
    proto = protobuf().ModelProto()
    proto.ir_version = max(model.ir_version, 8)
    opsets = dict(model.opsets)
    for node in graph.nodes:
        opsets.setdefault(node.domain, max(node.opset, 1))
    for domain, version in opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = graph.name or "graph"
    defaults = set(graph.defaults)
    declared = dict.fromkeys(graph.inputs)
    for name, value in graph.initializers.items():
        if name in defaults:
            continue
        if isinstance(value, np.ndarray) and value.nbytes <= STEERING_NBYTES:
            proto.graph.initializer.append(array_to_proto(value, name))
        else:
            declared[name] = None
    for node in graph.nodes:
        constant = _large_constant(node)
        if constant is None:
            proto.graph.node.append(node_to_proto(node, _NO_WEIGHTS))
        else:
            declared[node.outputs[0]] = None
    for name in declared:
        _declare(graph, name, proto.graph.input.add())
    for name in graph.outputs:
        proto.graph.output.add(name=name)
    for node in graph.nodes:
        if operator(node.domain, node.op_type, node.opset) is None:  # what only the model knows
            for name in node.outputs:
                if name in graph.types and name not in graph.outputs:
                    _declare(graph, name, proto.graph.value_info.add())
    return proto


def _large_constant(node: Node) -> np.ndarray[Any, Any] | None:
    value = node.attributes.get("value") if node.op_type == "Constant" else None
    return value if isinstance(value, np.ndarray) and value.nbytes > STEERING_NBYTES else None


def _declare(graph: Graph, name: str, info: Any) -> None:
    info.name = name
    known = graph.types.get(name)
    if known is not None:
        _fill(known, info)


def _fill(known: ValueType, info: Any) -> None:
    try:
        type_to_proto(known, info.type)
    except TypeError:  # an opaque type: nothing that inference could use
        info.ClearField("type")
