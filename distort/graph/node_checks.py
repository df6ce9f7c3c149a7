"""Checks of one node against its operator's schema: arity, attributes, element types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ModelError
from .ir import Graph, Node, SparseInitializer
from .operators import Operator, Parameter
from .reader import AttributeReference
from .types import NAME_OF, ValueType


class BadNode(Exception):
    """A node that contradicts its schema; the graph around it says where it is."""


def check_arity(node: Node, schema: Operator) -> None:
    for what, names, (least, most), formals in (
        ("input", node.inputs, schema.n_inputs, schema.inputs),
        ("output", node.outputs, schema.n_outputs, schema.outputs),
    ):
        if not least <= len(names) <= most:
            named = f"Node({node.name})" if node.name else "Node"
            raise BadNode(
                f"{named} with schema({schema.domain}::{schema.op_type}:{schema.since}) has {what} size "
                f"{len(names)} not in range [min={least}, max={most}]."
            )
        if "" in names and formals:
            for position, name in enumerate(names):
                formal = formals[min(position, len(formals) - 1)]
                if not name and (formal.single or (formal.variadic and what == "input")):
                    raise BadNode(
                        f"Node ({node.name})'s {what} {position} is marked single but has an empty string in the graph"
                    )


def check_attributes(node: Node, schema: Operator) -> None:
    for name, value in node.attributes.items():
        declared = schema.attributes.get(name)
        if declared is None:
            raise BadNode(f"Unrecognized attribute: {name} for operator {node.op_type}")
        actual = _attribute_type(value)
        empty_list = isinstance(value, list) and not value
        if (actual and actual != declared[0]) or (empty_list and not declared[0].endswith("S")):
            raise BadNode(
                f"Mismatched attribute type in '{node.name} : {name}'. Expected: '{declared[0]}', actual: '{actual}'"
            )
    for name in schema.required:
        if name not in node.attributes:
            raise BadNode(f"Required attribute '{name}' is missing.")


def _attribute_type(value: Any) -> str:
    """The attribute's type as schemas name it; "" where the value alone doesn't say (empty lists, references)."""
    if isinstance(value, AttributeReference):
        return ""
    if isinstance(value, list):
        return f"{_attribute_type(value[0])}S" if value and not isinstance(value[0], ValueType) else ""
    for kind, name in ((int, "INT"), (float, "FLOAT"), (str, "STRING"), (np.ndarray, "TENSOR"), (Graph, "GRAPH")):
        if isinstance(value, kind):
            return name
    return "SPARSE_TENSOR" if isinstance(value, SparseInitializer) else ""


def check_types(node: Node, schema: Operator, types: dict[str, str], declared: Mapping[str, ValueType]) -> None:
    """Bind the type variables of the node's inputs, and note the types of its outputs where they follow.

    ``types`` holds what is proved so far; ``declared`` what the model says of its values.
    """
    bound: dict[str, str] = {}
    for position, name in enumerate(node.inputs):
        known = types.get(name) if name else None
        if known is None or known == "tensor(undefined)":
            continue
        formal = schema.input_at(position)
        allowed = schema.types.get(formal.type_text)
        if (allowed is not None and known not in allowed) or (allowed is None and known != formal.type_text):
            raise ModelError(
                "INVALID_GRAPH",
                f"This is an invalid model. Type Error: Type '{known}' of input parameter ({name}) of operator "
                f"({node.op_type}) in node ({node.name}) is invalid.",
            )
        if allowed is None or (formal.variadic and not formal.homogeneous):
            continue
        before = bound.setdefault(formal.type_text, known)
        if before != known:
            raise ModelError(
                "FAIL",
                f"Type Error: Type parameter ({formal.type_text}) of Optype ({node.op_type}) bound to different types "
                f"({before} and {known} in node ({node.name}).",
            )
    for position, name in enumerate(node.outputs):
        if name and schema.outputs:
            found = _output_type(node, schema.output_at(position), bound, schema)
            if found:
                types[name] = found
                said = declared.get(name)
                if said is not None and str(said) != found and str(said) != "tensor(undefined)":
                    raise ModelError(
                        "FAIL",
                        f"Type Error: Type ({said}) of output arg ({name}) of node ({node.name}) does not match "
                        f"expected type ({found}).",
                    )


def _output_type(node: Node, formal: Parameter, bound: dict[str, str], schema: Operator) -> str:
    if formal.variadic and not formal.homogeneous:
        return ""
    if formal.type_text not in schema.types:
        return formal.type_text
    if formal.type_text in bound:
        return bound[formal.type_text]
    to = node.attributes.get("to") if node.op_type == "Cast" else None
    return f"tensor({NAME_OF[to]})" if to in NAME_OF else ""


def describe(node: Node, types: Mapping[str, str], declared: Mapping[str, ValueType]) -> str:
    """A node as onnxruntime's errors show it: name, operator, domain, version, then its arguments with types."""

    def listed(names: list[str]) -> str:
        texts = []
        for name in names:
            known = types.get(name) or (str(declared[name]) if name in declared else "")
            texts.append(f'"{name}": {known},' if known else f'"{name}",')
        return "".join(texts)

    return f'("{node.name}", {node.op_type}, "{node.domain}", -1) : ({listed(node.inputs)}) -> ({listed(node.outputs)})'
