"""The rules by operator: what a rule is given, how it says no, and which inputs it may see samples in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

from distort.graph.ir import Node

from .values import Element, Refused, Sizes, Tensor, Value, elements_of

MICROSOFT = "com.microsoft"
ML = "ai.onnx.ml"

#: positions of inputs; ``EVERY`` stands for all of them
EVERY: tuple[int, ...] = (-1,)


@dataclass(slots=True)
class Site:
    """A node and what is known of its inputs."""

    node: Node
    inputs: list[Value | None]

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def optional(self, position: int) -> Tensor | None:
        """An input as a tensor; None where it is absent."""
        if not self.has(position):
            return None
        value = self.inputs[position]
        return value.tensor() if isinstance(value, Sizes) else value

    def tensor(self, position: int = 0) -> Tensor:
        found = self.optional(position)
        if found is None:
            self.refuse(f"its input {position} is missing")
        return found

    def tensors(self) -> list[Tensor]:
        return [self.tensor(i) for i in range(len(self.inputs)) if self.has(i)]

    def elements(self, position: int) -> tuple[Element, ...] | None:
        return elements_of(self.inputs[position]) if self.has(position) else None

    def integers(self, position: int, attribute: str | None = None) -> list[int] | None:
        """Integers by attribute, as old versions have them, or by input; None where none are known."""
        if attribute is not None and attribute in self.node.attributes:
            given = self.node.attributes[attribute]
            return [int(item) for item in given] if isinstance(given, (list, tuple, np.ndarray)) else [int(given)]
        found = self.elements(position)
        known = [item for item in found or () if isinstance(item, int)]
        return known if found is not None and len(known) == len(found) else None

    def wants(self, position: int) -> bool:
        """Whether somebody reads an output."""
        return position < len(self.node.outputs) and bool(self.node.outputs[position])

    def refuse(self, reason: str) -> NoReturn:
        raise Refused(reason)


Rule = Callable[[Site], "Value | Sequence[Value | None]"]
_Rule = TypeVar("_Rule", bound=Rule)


@dataclass(frozen=True, slots=True)
class Entry:
    rule: Rule
    samples: tuple[int, ...]  # inputs that may be made of samples
    sizes: tuple[int, ...]  # inputs that may hold the batch size


_RULES: dict[tuple[str, str], Entry] = {}


def rule(
    *op_types: str, domain: str = "", samples: tuple[int, ...] = (0,), sizes: tuple[int, ...] = ()
) -> Callable[[_Rule], _Rule]:
    """Register a rule. It sees samples in the inputs ``samples`` alone: elsewhere the proof has refused before."""

    def register(function: _Rule) -> _Rule:
        for op_type in op_types:
            if (domain, op_type) in _RULES:
                raise ValueError(f"two rules for {domain or 'ai.onnx'}:{op_type}")
            _RULES[domain, op_type] = Entry(function, samples, sizes)
        return function

    return register


def find(node: Node) -> Entry | None:
    """The rule of a node's operator; an operator that onnxruntime's domain repeats has the standard's."""
    found = _RULES.get((node.domain, node.op_type))
    if found is None and node.domain == MICROSOFT and node.op_type in _REPEATED:
        found = _RULES.get(("", node.op_type))
    return found


#: operators of com.microsoft with the inputs, attributes and meaning of ai.onnx's of the same name
_REPEATED = frozenset(("Gelu", "Trilu", "GatherND", "DequantizeLinear", "QuantizeLinear", "MatMulInteger16"))


def known_operators() -> frozenset[tuple[str, str]]:
    return frozenset(_RULES)
