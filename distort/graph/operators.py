"""What onnx's schemas say of an operator version, as plain data that is quick to look at."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from .ir import Node
from .onnx_parts import schema


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type_text: str  # a type variable, or a type such as "tensor(float)"
    variadic: bool
    homogeneous: bool
    single: bool  # neither optional nor variadic


@dataclass(frozen=True, slots=True)
class Operator:
    domain: str
    op_type: str
    since: int
    n_inputs: tuple[int, int]  # least, most
    n_outputs: tuple[int, int]
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: dict[str, tuple[str, bool]]  # name -> (type, required)
    required: tuple[str, ...]  # attributes without which a node is invalid
    types: dict[str, frozenset[str]]  # type variable -> allowed types
    deprecated: bool

    def input_at(self, position: int) -> Parameter:
        return self.inputs[min(position, len(self.inputs) - 1)]

    def output_at(self, position: int) -> Parameter:
        return self.outputs[min(position, len(self.outputs) - 1)]


@functools.lru_cache(maxsize=4096)
def operator(domain: str, op_type: str, opset: int) -> Operator | None:
    """The operator at an opset version of its domain; None where onnx has no schema of it."""
    found = schema(op_type, domain, opset)
    if found is None:
        return None
    return Operator(
        domain=domain,
        op_type=op_type,
        since=int(found.since_version),
        n_inputs=(int(found.min_input), int(found.max_input)),
        n_outputs=(int(found.min_output), int(found.max_output)),
        inputs=tuple(_parameter(item) for item in found.inputs),
        outputs=tuple(_parameter(item) for item in found.outputs),
        attributes={
            name: (str(item.type).rsplit(".", 1)[-1], bool(item.required)) for name, item in found.attributes.items()
        },
        required=tuple(name for name, item in found.attributes.items() if item.required),
        types={
            item.type_param_str: frozenset(_MAP.sub(r"map(\1,tensor(\2))", text) for text in item.allowed_type_strs)
            for item in found.type_constraints
        },
        deprecated=bool(found.deprecated),
    )


_MAP = re.compile(r"map\((\w+), (\w+)\)")  # schemas name the values' element type, models the tensor type


def _parameter(formal: Any) -> Parameter:
    option = str(formal.option).rsplit(".", 1)[-1]
    return Parameter(
        formal.name, formal.type_str, option == "Variadic", bool(formal.is_homogeneous), option == "Single"
    )


def since_version(node: Node) -> int:
    """The version of a node's operator, as errors name it; its opset where onnx has no schema of it."""
    found = operator(node.domain, node.op_type, node.opset)
    return node.opset if found is None else found.since
