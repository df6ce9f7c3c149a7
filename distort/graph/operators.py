"""What onnx's schemas say of an operator version, as plain data that is quick to look at."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .facts import known
from .ir import Node
from .onnx_parts import native, schema

#: (domain, operator, opset)
Name = tuple[str, str, int]
#: what ``prepare`` found: fields of an :class:`Operator`, as JSON has them
_PREPARED: dict[Name, list[Any] | None] = {}


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
    name = (domain, op_type, opset)
    fields = _PREPARED[name] if name in _PREPARED else _asked(name)
    if fields is None:
        return None
    since, n_inputs, n_outputs, inputs, outputs, attributes, types, deprecated = fields
    return Operator(
        domain=domain,
        op_type=op_type,
        since=since,
        n_inputs=tuple(n_inputs),
        n_outputs=tuple(n_outputs),
        inputs=tuple(Parameter(*item) for item in inputs),
        outputs=tuple(Parameter(*item) for item in outputs),
        attributes={name: (kind, required) for name, kind, required in attributes},
        required=tuple(name for name, _, required in attributes if required),
        types={variable: frozenset(allowed) for variable, allowed in types},
        deprecated=deprecated,
    )


def prepare(nodes: Iterable[Node]) -> None:
    """Find what onnx says of all operators of a graph at once: on the disk, where a process has asked before."""
    names = sorted(name for name in _names(nodes) if name not in _PREPARED and _is_plain(name))
    if names:
        found = known("operators", json.dumps(names).encode(), lambda: json.dumps([_asked(n) for n in names]).encode())
        _PREPARED.update(zip(names, json.loads(found), strict=True))


def _names(nodes: Iterable[Node]) -> set[Name]:
    names: set[Name] = set()
    for node in nodes:
        names.add((node.domain, node.op_type, node.opset))
        for body in node.subgraphs():
            names |= _names(body.nodes)
    return names


def _is_plain(name: Name) -> bool:
    return all(isinstance(text, str) and text.isascii() for text in name[:2])  # text that is no UTF-8 is bytes


def _asked(name: Name) -> list[Any] | None:
    """The fields of an operator, as JSON would have them, from onnx."""
    domain, op_type, opset = name
    found = schema(op_type, domain, opset)
    if found is None:
        return None
    return [
        int(found.since_version),
        [int(found.min_input), int(found.max_input)],
        [int(found.min_output), int(found.max_output)],
        [_parameter(item) for item in found.inputs],
        [_parameter(item) for item in found.outputs],
        [(key, str(item.type).rsplit(".", 1)[-1], bool(item.required)) for key, item in found.attributes.items()],
        [
            (item.type_param_str, [_MAP.sub(r"map(\1,tensor(\2))", text) for text in item.allowed_type_strs])
            for item in found.type_constraints
        ],
        bool(found.deprecated),
    ]


@functools.cache
def latest_opsets() -> dict[str, int]:
    """Domain -> its newest version: the installed onnx's, and onnxruntime's own domain."""

    def ask() -> bytes:
        versions = native().defs.schema_version_map()
        return json.dumps({domain: int(newest) for domain, (_, newest) in versions.items()}).encode()

    return {**json.loads(known("opsets", b"", ask)), "com.microsoft": 1}


_MAP = re.compile(r"map\((\w+), (\w+)\)")  # schemas name the values' element type, models the tensor type


def _parameter(formal: Any) -> tuple[str, str, bool, bool, bool]:
    """The fields of a :class:`Parameter`."""
    option = str(formal.option).rsplit(".", 1)[-1]
    return formal.name, formal.type_str, option == "Variadic", bool(formal.is_homogeneous), option == "Single"


def since_version(node: Node) -> int:
    """The version of a node's operator, as errors name it; its opset where onnx has no schema of it."""
    found = operator(node.domain, node.op_type, node.opset)
    return node.opset if found is None else found.since
