"""Checks of a model as it is loaded, with onnxruntime's words; and its nodes put into topological order.

Runs on every load, so it looks at each node once: names, operator, arity, attributes, element types.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ModelError
from .ir import Graph, Model, Node, SparseInitializer
from .node_checks import BadNode, check_arity, check_attributes, check_types, describe
from .operators import latest_opsets, operator, prepare
from .types import NAME_OF, ValueType, element_of

HasKernel = Callable[[str, str, int], bool]
#: the newest format this reads
MAX_IR_VERSION = 14
_PRE = "This is an invalid model."


def check_model(model: Model, proto: Any, has_kernel: HasKernel, *, released_only: bool = True) -> None:
    """Raise ModelError for a model that can't run; sort nodes that are listed out of order, in place.

    ``released_only`` refuses opset versions that onnx has not released.
    """
    _check_versions(model, released_only)
    prepare(model.graph.nodes)
    for info in proto.graph.input:
        if info.name in model.graph.initializers:
            _check_default(model.graph, info)
        elif not info.HasField("type"):
            raise ModelError("FAIL", f"{_PRE} Model input ({info.name}) does not have type information.")
    for function in model.functions.values():
        for node in function.nodes:
            if node.domain not in function.opsets:
                text = f"No opset registered for domain {node.domain} in function {function.name}"
                raise ModelError("FAIL", text)
    _Checker(model, has_kernel).top(model.graph)


def _check_versions(model: Model, released_only: bool) -> None:
    if model.ir_version > MAX_IR_VERSION:
        raise ModelError(
            "FAIL", f"Unsupported model IR version: {model.ir_version}, max supported IR version: {MAX_IR_VERSION}"
        )
    if not model.opsets:
        raise ModelError(
            "FAIL",
            "Missing opset in the model. All ModelProtos MUST have at least one entry that specifies which version "
            "of the ONNX OperatorSet is being imported.",
        )
    if not model.ir_version:
        raise ModelError("FAIL", "Missing model IR version.")
    if not released_only or os.environ.get("ALLOW_RELEASED_ONNX_OPSET_ONLY", "1") == "0":
        return
    latest = latest_opsets()
    for domain, version in model.opsets.items():
        if version > latest.get(domain, version):
            raise ModelError(
                "FAIL",
                "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. "
                f"Opset {version} is under development and support for this is limited. The operator schemas and or "
                "other functionality may change before next ONNX release and in this case ONNX Runtime will not "
                f"guarantee backward compatibility. Current official support for domain {domain or 'ai.onnx'} is till "
                f"opset {latest[domain]}.",
            )


def _check_default(graph: Graph, info: Any) -> None:
    """An initializer that is an input's default must be what the input declares."""
    value = graph.initializers[info.name]
    if isinstance(value, SparseInitializer) or not info.type.HasField("tensor_type"):
        return
    declared = info.type.tensor_type
    element = element_of(value.dtype)
    if declared.elem_type and declared.elem_type != element:
        raise ModelError(
            "FAIL",
            f"Type Error: Data in initializer '{info.name}' has element type tensor({NAME_OF[element]}) but usage of "
            f"initializer in graph expects tensor({NAME_OF.get(declared.elem_type, 'undefined')})",
        )
    if declared.HasField("shape"):
        dims = declared.shape.dim
        if len(dims) != value.ndim or any(
            dim.HasField("dim_value") and dim.dim_value != size for dim, size in zip(dims, value.shape, strict=True)
        ):
            wanted = ",".join(str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param for dim in dims)
            actual = ",".join(str(size) for size in value.shape)
            raise ModelError(
                "FAIL", f"Type Error: Shape of initializer {info.name} does not match. {{{wanted}}} != {{{actual}}}"
            )


class _Checker:
    def __init__(self, model: Model, has_kernel: HasKernel) -> None:
        self._functions = model.functions
        self._opsets = model.opsets
        self._has_kernel = has_kernel
        self._runs: dict[tuple[str, str, int], bool] = {}

    def top(self, graph: Graph) -> None:
        self._graph(graph, (), {})

    def _graph(self, graph: Graph, outer: tuple[set[str], ...], outer_types: Mapping[str, str]) -> None:
        """``outer``: names that exist around a body, before its node; ``outer_types``: what is known of them."""
        made, known = _definitions(graph)
        _sort(graph, made, known, outer)
        for output in graph.outputs:
            if output not in made and output not in known and (outer == () or not _within(output, outer)):
                raise ModelError("FAIL", f"{_PRE} Graph output ({output}) does not exist in the graph.")
        types = _input_types(graph, outer_types)
        visible = known
        for node in graph.nodes:
            try:
                self._node(node, types, graph.types)
                for body in node.subgraphs():
                    self._body(body, (*outer, visible), types)
            except BadNode as error:
                if outer:
                    raise BadNode(
                        f"{error}\n\n==> Context: Bad node spec for node. Name: {node.name} OpType: {node.op_type}"
                    ) from None
                described = describe(node, types, graph.types)
                raise ModelError("INVALID_GRAPH", f"{_PRE} In Node, {described} , Error {error}") from None
            visible.update(node.outputs)

    def _body(self, body: Graph, outer: tuple[set[str], ...], types: Mapping[str, str]) -> None:
        for node in body.nodes:
            for output in node.outputs:
                if output and _within(output, outer):
                    raise BadNode(
                        f"Graph must be in single static assignment (SSA) form, however '{output}' has been used as "
                        "output names multiple times."
                    )
        self._graph(body, outer, types)

    def _node(self, node: Node, types: dict[str, str], declared: Mapping[str, ValueType]) -> None:
        if self._functions and (node.domain, node.op_type, node.overload) in self._functions:
            return
        schema = operator(node.domain, node.op_type, node.opset)
        if schema is None:
            self._without_schema(node)
            return
        if schema.deprecated:
            raise BadNode(f"Op registered for {node.op_type} is deprecated in domain_version of {node.opset}")
        check_arity(node, schema)
        check_attributes(node, schema)
        check_types(node, schema, types, declared)
        if node.op_type == "If" and not node.domain:
            n_then, n_else = (len(node.attributes[name].outputs) for name in ("then_branch", "else_branch"))
            if n_then != n_else:
                raise ModelError(
                    "FAIL",
                    f"Node ({node.name}) Op (If) [TypeInferenceError] then_branch and else_branch produce different "
                    f"number of outputs. {n_then} != {n_else}",
                )

    def _without_schema(self, node: Node) -> None:
        key = (node.domain, node.op_type, node.opset)
        runs = self._runs.get(key)
        if runs is None:
            runs = self._runs[key] = self._has_kernel(*key)
        if runs:
            return
        if not node.op_type:
            raise BadNode("Field 'op_type' of 'node' is required to be non-empty.")
        if node.domain not in self._opsets and node.domain not in latest_opsets():
            raise BadNode(f"No opset import for domain '{node.domain}'")
        if node.domain in latest_opsets() and node.domain != "com.microsoft":
            raise BadNode(f"No Op registered for {node.op_type} with domain_version of {node.opset}")
        raise ModelError("FAIL", f"Fatal error: {node.domain}:{node.op_type}(-1) is not a registered function/op")


def _within(name: str, scopes: tuple[set[str], ...]) -> bool:
    return any(name in scope for scope in scopes)


def _definitions(graph: Graph) -> tuple[dict[str, int], set[str]]:
    """Values that nodes make -> position of the node; names that exist before any node. Each defined once."""
    known: set[str] = set()
    for name in graph.inputs:
        if name in known:
            raise ModelError("FAIL", f"Error: Duplicate definition-site for ({name}).")
        known.add(name)
    known.update(graph.initializers)
    made: dict[str, int] = {}
    names: set[str] = set()
    for position, node in enumerate(graph.nodes):
        if node.name:
            if node.name in names:
                raise ModelError("FAIL", f"{_PRE} Error: two nodes with same node name ({node.name}).")
            names.add(node.name)
        for output in node.outputs:
            if output:
                if output in made or output in known:
                    raise ModelError("FAIL", f"{_PRE} Error: Duplicate definition of name ({output}).")
                made[output] = position
    return made, known


def _input_types(graph: Graph, outer_types: Mapping[str, str]) -> dict[str, str]:
    """Types of the graph's inputs and initializers, as text, beside those from around it."""
    types = dict(outer_types)
    for name in graph.inputs:
        known = graph.types.get(name)
        if known is not None:
            types[name] = str(known)
    for name, value in graph.initializers.items():
        element = element_of(value.values.dtype if isinstance(value, SparseInitializer) else value.dtype)
        types[name] = f"tensor({NAME_OF[element]})"
    return types


def _sort(graph: Graph, made: dict[str, int], known: set[str], outer: tuple[set[str], ...]) -> None:
    """Put the nodes in order, keeping the listed one where it will do."""
    seen: set[str] = set()
    in_order = True
    for node in graph.nodes:
        for name in node.reads():
            if name in seen or name in known:
                continue
            if name in made:
                in_order = False
            elif not _within(name, outer):
                _raise_undefined(node, name, graph.types)
        seen.update(node.outputs)
    if in_order:
        return
    after: dict[int, list[int]] = {}
    missing = [0] * len(graph.nodes)
    for position, node in enumerate(graph.nodes):
        producers = {made[name] for name in node.reads() if name in made}
        missing[position] = len(producers)
        for producer in producers:
            after.setdefault(producer, []).append(position)
    ready = [position for position, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for follower in after.get(position, ()):
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(ready, follower)
    if len(order) != len(graph.nodes):
        raise ModelError("FAIL", f"{_PRE} Error: the graph is not acyclic.")
    graph.nodes = [graph.nodes[position] for position in order]


def _raise_undefined(node: Node, name: str, declared: Mapping[str, ValueType]) -> None:
    if name in node.inputs:
        raise ModelError(
            "INVALID_ARGUMENT",
            f"Invalid model. Node input '{name}' is not a graph input, initializer, or output of a previous node.",
        )
    reader = next((found for body in node.subgraphs() if (found := _reader(body, name))), None)
    if reader is None:
        raise ModelError("FAIL", f"{_PRE} Graph output ({name}) does not exist in the graph.")
    described = describe(node, {}, declared)
    raise ModelError(
        "INVALID_GRAPH",
        f"{_PRE} In Node, {described} , Error Nodes in a graph must be topologically sorted, however input '{name}' "
        f"of node: \nname: {reader.name} OpType: {reader.op_type}\n is not output of any previous nodes.",
    )


def _reader(graph: Graph, name: str) -> Node | None:
    for node in graph.nodes:
        if name in node.inputs:
            return node
        for body in node.subgraphs():
            found = _reader(body, name)
            if found is not None:
                return found
    return None


__all__ = ["MAX_IR_VERSION", "check_model"]
