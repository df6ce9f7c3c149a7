"""What a model's types follow from, as bytes: the same bytes, the same types.

Written in the time in which Python walks over the graph, without protobuf, to find what is already known of a model.
"""

from __future__ import annotations

import marshal
from typing import Any

import numpy as np

from .ir import Graph, Model, Node, SparseInitializer
from .reader import AttributeReference
from .types import TensorType, ValueType, element_of

#: larger constants count with type and shape: shapes depend on small ones only
STEERING_NBYTES = 1024
_FORMAT = 2  # of marshal's: no references to what was written before, so that equal values are equal bytes


def outline(model: Model) -> bytes:
    """Names of nodes, metadata and documentation are not in it."""
    content = (model.ir_version, list(model.opsets.items()), _graph(model.graph))
    try:
        return marshal.dumps(content, _FORMAT)
    except ValueError:  # something that only acts as a number or text
        return repr(content).encode(errors="surrogateescape")


def _graph(graph: Graph) -> tuple[Any, ...]:
    return (
        graph.name,
        graph.inputs,
        graph.outputs,
        graph.defaults,
        [(name, _value(value)) for name, value in graph.initializers.items()],
        [(name, _type(known)) for name, known in graph.types.items()],
        [_node(node) for node in graph.nodes],
    )


def _node(node: Node) -> tuple[Any, ...]:
    attributes = [(name, _attribute(value)) for name, value in node.attributes.items()]
    return (node.op_type, node.domain, node.opset, node.overload, node.inputs, node.outputs, attributes)


def _attribute(value: Any) -> Any:
    if isinstance(value, (str, bytes)) or type(value) in (int, float, bool):
        return value
    if isinstance(value, list):
        return [_attribute(item) for item in value]
    if isinstance(value, Graph):
        return _graph(value)
    if isinstance(value, (np.ndarray, SparseInitializer)):
        return _value(value)
    if isinstance(value, AttributeReference):
        return ("reference", value.name, value.kind)
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    return _type(value)


def _value(value: Any) -> tuple[Any, ...]:
    if isinstance(value, SparseInitializer):
        return (_value(value.values), _value(value.indices), value.dims)
    about = (element_of(value.dtype), value.shape)
    if value.nbytes > STEERING_NBYTES:
        return about
    return (*about, list(map(str, value.flat)) if value.dtype == object else value.tobytes())


def _type(known: ValueType) -> Any:
    return ("tensor", known.element, known.shape) if type(known) is TensorType else repr(known)


__all__ = ["STEERING_NBYTES", "outline"]
