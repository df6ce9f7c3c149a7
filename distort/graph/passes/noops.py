"""Which nodes hand their first input on unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distort.graph.ir import Initializer, Node
from distort.graph.types import TensorType, ValueType

Types = Mapping[str, ValueType]
Constants = Mapping[str, Initializer]


def hands_on(node: Node, types: Types, constants: Constants) -> bool:
    """Whether the node's output is its first input, bit by bit, in any run."""
    rule = _RULES.get(node.op_type)
    return (
        rule is not None and not node.domain and bool(node.inputs and node.inputs[0]) and rule(node, types, constants)
    )


def _always(node: Node, types: Types, constants: Constants) -> bool:
    return True


def _dropout(node: Node, types: Types, constants: Constants) -> bool:
    if node.opset < 7:
        return bool(node.attributes.get("is_test", 0))
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    training = constants.get(node.inputs[2])
    return isinstance(training, np.ndarray) and not training.any()


def _cast(node: Node, types: Types, constants: Constants) -> bool:
    known = types.get(node.inputs[0])
    return isinstance(known, TensorType) and known.element != 0 and known.element == node.attributes.get("to")


def _transpose(node: Node, types: Types, constants: Constants) -> bool:
    order = node.attributes.get("perm")
    return order is not None and order == sorted(order)


def _one_input(node: Node, types: Types, constants: Constants) -> bool:
    return len(node.inputs) == 1


def _reshape(node: Node, types: Types, constants: Constants) -> bool:
    """The shape asked for is the one that the input has; at most one size may be open."""
    known = types.get(node.inputs[0])
    wanted = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if not isinstance(known, TensorType) or known.shape is None or not isinstance(wanted, np.ndarray):
        return False
    if wanted.ndim != 1 or len(wanted) != len(known.shape):
        return False
    copies = not node.attributes.get("allowzero", 0)
    n_open = 0
    for size, dim in zip(wanted.tolist(), known.shape, strict=True):
        if size == 0 and copies:
            continue
        if size == -1:
            n_open += 1
        elif size != dim or size == 0:
            return False
    return n_open <= 1


def _expand(node: Node, types: Types, constants: Constants) -> bool:
    known = types.get(node.inputs[0])
    wanted = constants.get(node.inputs[1])
    if not isinstance(known, TensorType) or known.shape is None or not isinstance(wanted, np.ndarray):
        return False
    if wanted.ndim != 1 or len(wanted) > len(known.shape):
        return False
    behind = known.shape[len(known.shape) - len(wanted) :]
    return all(size in (1, dim) for size, dim in zip(wanted.tolist(), behind, strict=True))


def _pad(node: Node, types: Types, constants: Constants) -> bool:
    if node.opset < 11:
        pads = node.attributes.get("pads")
        return pads is not None and not any(pads)
    given = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    return isinstance(given, np.ndarray) and not given.any()


def _flatten(node: Node, types: Types, constants: Constants) -> bool:
    known = types.get(node.inputs[0])
    return (
        isinstance(known, TensorType)
        and known.shape is not None
        and len(known.shape) == 2
        and (node.attributes.get("axis", 1) in (1, -1))
    )


def _neutral(value: int) -> Callable[[Node, Types, Constants], bool]:
    """A second operand that leaves each element as it is, and does not broadcast the first."""

    def rule(node: Node, types: Types, constants: Constants) -> bool:
        known, other = types.get(node.inputs[0]), constants.get(node.inputs[1])
        if not isinstance(known, TensorType) or known.shape is None or not isinstance(other, np.ndarray):
            return False
        if other.size != 1 or other.ndim > len(known.shape) or other.dtype.kind not in "iuf":
            return False
        item: Any = other.reshape(-1)[0]
        if value or other.dtype.kind in "iu":
            return bool(item == value)
        # adding 0.0 turns -0.0 into 0.0; adding -0.0 or taking 0.0 away changes nothing
        return bool(item == 0) and bool(np.signbit(item)) == (node.op_type == "Add")

    return rule


_RULES: dict[str, Callable[[Node, Types, Constants], bool]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Concat": _one_input,
    "Sum": _one_input,
    "Max": _one_input,
    "Min": _one_input,
    "Mean": _one_input,
    "Reshape": _reshape,
    "Expand": _expand,
    "Pad": _pad,
    "Flatten": _flatten,
    "Mul": _neutral(1),
    "Div": _neutral(1),
    "Add": _neutral(0),
    "Sub": _neutral(0),
}
