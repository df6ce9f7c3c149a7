"""What rules write with: nodes of one fixed opset, appended to a list, on names that nothing else has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.graph.types import TensorType, ValueType

#: the opset of every node that rules write, whatever the model's
OPSET = 21

#: (pass, node, gradients of its outputs) -> gradients of its inputs; None: not needed, or zero
Rule = Callable[["Backward", Node, Sequence["str | None"]], Sequence["str | None"]]
RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES[op_type] = function
        return function

    return register


class Backward:
    """One backward pass. ``wanted`` says which inputs of the node at hand need a gradient."""

    def __init__(self, names: Iterator[str], types: Mapping[str, ValueType]) -> None:
        self.nodes: list[Node] = []
        self.wanted: Sequence[bool] = ()
        self._names = names
        self._types = types

    # -- nodes

    def emit(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; returns its name."""
        return self.emit_many(op_type, 1, *inputs, **attributes)[0]

    def emit_many(self, op_type: str, n_outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        outputs = [next(self._names) for _ in range(n_outputs)]
        self.nodes.append(Node(op_type, "", list(inputs), outputs, attributes, name=outputs[0], opset=OPSET))
        return outputs

    def constant(self, value: Any) -> str:
        return self.emit("Constant", value=np.asarray(value))

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, value: float, like: str) -> str:
        """A number in the element type of ``like``."""
        return self.emit("CastLike", self.constant(np.array(value, dtype=np.float64)), like)

    # -- arithmetic

    def mul(self, a: str, b: str) -> str:
        return self.emit("Mul", a, b)

    def add(self, a: str, b: str) -> str:
        return self.emit("Add", a, b)

    def sub(self, a: str, b: str) -> str:
        return self.emit("Sub", a, b)

    def div(self, a: str, b: str) -> str:
        return self.emit("Div", a, b)

    def neg(self, a: str) -> str:
        return self.emit("Neg", a)

    def scaled(self, a: str, factor: float) -> str:
        return a if factor == 1.0 else self.mul(a, self.scalar(factor, a))

    def where(self, condition: str, a: str, b: str) -> str:
        return self.emit("Where", condition, a, b)

    def zeros_like(self, a: str) -> str:
        return self.filled_like(a, 0.0)

    def filled_like(self, a: str, value: float) -> str:
        return self.emit("Expand", self.scalar(value, a), self.shape(a))

    # -- shapes

    def shape(self, a: str) -> str:
        return self.emit("Shape", a)

    def reshape_like(self, a: str, like: str) -> str:
        """``allowzero``: a dimension of 0 is 0."""
        return self.emit("Reshape", a, self.shape(like), allowzero=1)

    def rank(self, name: str) -> int | None:
        known = self._types.get(name)
        return len(known.shape) if isinstance(known, TensorType) and known.shape is not None else None

    def unbroadcast(self, gradient: str, like: str, to: str) -> str:
        """The gradient, of ``like``'s shape, summed over the dimensions along which ``to`` was broadcast to it."""
        one, other = self._types.get(like), self._types.get(to)
        if (
            isinstance(one, TensorType)
            and isinstance(other, TensorType)
            and one.shape is not None
            and one.shape == other.shape
            and all(isinstance(dim, int) for dim in one.shape)
        ):
            return gradient
        whole, part = self.shape(gradient), self.shape(to)
        missing = self.sub(self.emit("Shape", whole), self.emit("Shape", part))
        ones = self.emit("ConstantOfShape", missing, value=np.ones(1, dtype=np.int64))
        padded = self.emit("Concat", ones, part, axis=0)
        differs = self.emit("Not", self.emit("Equal", whole, padded))
        axes = self.emit("Squeeze", self.emit("NonZero", differs), self.ints(0))
        summed = self.emit("ReduceSum", gradient, axes, noop_with_empty_axes=1, keepdims=1)
        return self.emit("Reshape", summed, part, allowzero=1)

    def scatter_back(self, gradient: str, source: str, indices: str) -> str:
        """Zeros of ``source``'s shape, with the gradient added at flat ``indices`` (of the gradient's shape)."""
        flat = self.ints(-1)
        n_elements = self.emit("Reshape", self.emit("Size", source), self.ints(1))
        zeros = self.emit("Expand", self.scalar(0.0, gradient), n_elements)
        summed = self.emit(
            "ScatterElements",
            zeros,
            self.emit("Reshape", indices, flat),
            self.emit("Reshape", gradient, flat),
            axis=0,
            reduction="add",
        )
        return self.reshape_like(summed, source)

    def positions(self, source: str) -> str:
        """The number of each element of ``source``, in its shape: int64."""
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        return self.reshape_like(self.emit("Range", zero, self.emit("Size", source), one), source)
