"""Functions replaced by their bodies: model-local ones, and operators whose schema has a body and that lack a kernel.

After :func:`expand` every node is one that a kernel runs, or one that nothing can run.
"""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .annotations import inherited, renamed
from .errors import ModelError
from .inference import infer
from .ir import AttributeValue, Function, Graph, Model, Node
from .onnx_parts import protobuf, schema
from .reader import AttributeReference, read_attribute, read_function
from .types import ValueType, type_to_proto
from .writer import node_to_proto

#: (domain, op_type, opset) -> whether a kernel runs it
HasKernel = Callable[[str, str, int], bool]


def expand(model: Model, has_kernel: HasKernel) -> None:
    """Inline every call of a function in place, bodies of control flow included. Raises ModelError on recursion."""
    inliner = _Inliner(model, has_kernel)
    inliner.graph(model.graph, (), model.graph.types)
    model.functions = {}
    while inliner.n_untyped:
        # some bodies follow from the types of inputs that nothing declares
        infer(model)
        inliner.n_untyped = inliner.n_inlined = 0
        inliner.graph(model.graph, (), model.graph.types)
        if not inliner.n_inlined:
            break


class _Inliner:
    def __init__(self, model: Model, has_kernel: HasKernel) -> None:
        self._functions = model.functions
        self._has_kernel = has_kernel
        self._known: dict[tuple[str, str, int], bool] = {}  # operator -> runs as it is
        self._numbers = itertools.count()
        self._taken: set[str] | None = None
        self._model = model
        self.n_inlined = 0
        #: calls left alone because their body depends on types that are not known yet
        self.n_untyped = 0

    def graph(self, graph: Graph, stack: tuple[str, ...], types: Mapping[str, ValueType]) -> None:
        """``types``: what is known of the values that the graph's nodes may read."""
        changed = False
        nodes: list[Node] = []
        for node in graph.nodes:
            function = self._function(node, types)
            if function is None:
                for body in node.subgraphs():
                    self.graph(body, stack, ChainMap(body.types, types))  # type: ignore[arg-type]  # it only reads
                nodes.append(node)
            else:
                changed = True
                self.n_inlined += 1
                nodes.extend(self._call(node, function, types, stack))
        if changed:
            graph.nodes = nodes

    def _function(self, node: Node, types: Mapping[str, ValueType]) -> Function | None:
        if self._functions:
            local = self._functions.get((node.domain, node.op_type, node.overload))
            if local is not None:
                return local
        key = (node.domain, node.op_type, node.opset)
        runs = self._known.get(key)
        if runs is None:
            runs = self._known[key] = self._has_kernel(*key)
        if runs:
            return None
        found = schema_function(node, types)
        if found is None and depends_on_types(node) and any(name and name not in types for name in node.inputs):
            self.n_untyped += 1
        return found

    def _call(
        self, node: Node, function: Function, types: Mapping[str, ValueType], stack: tuple[str, ...]
    ) -> Iterator[Node]:
        label = f"{function.domain or 'ai.onnx'}:{function.name}"
        if label in stack:
            cycle = " -> ".join((*stack[stack.index(label) :], label))
            raise ModelError(
                "INVALID_GRAPH", f"Model local function definitions must not be recursive. Cycle detected: {cycle}"
            )
        if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
            raise ModelError(
                "INVALID_GRAPH",
                f"Node '{node.label()}' gives {len(node.inputs)} inputs and {len(node.outputs)} outputs to function "
                f"{label}, which has {len(function.inputs)} and {len(function.outputs)}",
            )
        prefix = f"{node.name or node.op_type}/{next(self._numbers)}/"
        renaming = _Renaming(prefix, self._names_taken(), node, function, self._model.opsets)
        inner = Graph(nodes=[renaming.node(item) for item in function.nodes])
        self.graph(inner, (*stack, label), types)
        yield from inner.nodes
        yield from renaming.passed_through()

    def _names_taken(self) -> set[str]:
        """Every value name of the model, those of inlined bodies included."""
        if self._taken is None:
            self._taken = set(_names(self._model.graph))
        return self._taken


class _Renaming:
    """A function's names -> names at one call."""

    def __init__(self, prefix: str, taken: set[str], call: Node, function: Function, opsets: Mapping[str, int]) -> None:
        #: some bodies in onnx's schemas name no opset: the model's holds
        self._opsets = {**opsets, **function.opsets}
        self._prefix = prefix
        self._taken = taken
        self._attributes = {**function.attribute_defaults, **call.attributes}
        self._call = call
        self._names: dict[str, str] = {"": ""}
        given = itertools.chain(call.inputs, itertools.repeat(""))
        self._names.update(zip(function.inputs, given, strict=False))
        self._node_names: dict[str, int] = {}
        self._passed: list[tuple[str, str]] = []
        for formal, actual in zip(function.outputs, call.outputs, strict=False):
            if not actual:
                continue
            if formal in self._names:  # an input, or an output listed twice, handed through
                self._passed.append((self._names[formal], actual))
            else:
                self._names[formal] = actual

    def name(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            known = self._prefix + name
            while known in self._taken:
                known += "_"
            self._taken.add(known)
            self._names[name] = known
        return known

    def node(self, node: Node) -> Node:
        attributes: dict[str, AttributeValue] = {}
        for key, value in node.attributes.items():
            if isinstance(value, AttributeReference):
                if value.name in self._attributes:
                    attributes[key] = self._attributes[value.name]
            elif isinstance(value, Graph):
                attributes[key] = self.graph(value)
            elif isinstance(value, list) and any(isinstance(item, Graph) for item in value):
                attributes[key] = [self.graph(item) for item in value]
            else:
                attributes[key] = value
        result = replace(
            node,
            inputs=[self.name(name) for name in node.inputs],
            outputs=[self.name(name) for name in node.outputs],
            attributes=attributes,
            opset=node.opset or self._opsets.get(node.domain, 0),
            name=self._node_name(node.name or node.op_type),
            device_configurations=renamed(node.device_configurations, self.name),
        )
        result.device_configurations = inherited(self._call, result)
        return result

    def _node_name(self, name: str) -> str:
        n_before = self._node_names.get(name, 0)
        self._node_names[name] = n_before + 1
        return f"{self._prefix}{name}_{n_before}" if n_before else self._prefix + name

    def graph(self, graph: Graph) -> Graph:
        return Graph(
            name=graph.name,
            inputs=[self.name(name) for name in graph.inputs],
            outputs=[self.name(name) for name in graph.outputs],
            nodes=[self.node(node) for node in graph.nodes],
            initializers={self.name(name): value for name, value in graph.initializers.items()},
            types={self.name(name): value for name, value in graph.types.items()},
            defaults=[self.name(name) for name in graph.defaults],
        )

    def passed_through(self) -> Iterator[Node]:
        for source, target in self._passed:
            if not source:
                raise ModelError("INVALID_GRAPH", f"'{target}' is an absent input handed through by a function")
            handed = Node(
                "Identity", "", [source], [target], name=self._node_name("Identity"), opset=self._opsets.get("", 1)
            )
            handed.device_configurations = inherited(self._call, handed)
            yield handed


def inlined(
    node: Node, types: Mapping[str, ValueType], opsets: Mapping[str, int], prefix: str, taken: set[str]
) -> list[Node] | None:
    """The body of a node's operator in the node's place, its inner names under ``prefix``; None where it has none."""
    function = schema_function(node, types)
    if function is None:
        return None
    renaming = _Renaming(prefix, taken, node, function, opsets)
    return [*(renaming.node(item) for item in function.nodes), *renaming.passed_through()]


def schema_function(node: Node, types: Mapping[str, ValueType]) -> Function | None:
    """The body that an operator's schema gives for this node, or None."""
    found = schema(node.op_type, node.domain, node.opset)
    if found is None:
        return None
    if found.has_function:
        version = _body_version(found.function_opset_versions, node.opset)
        content = found.get_function_with_opset_version(version) if version else found._function_body
    elif found.has_context_dependent_function:
        version = _body_version(found.context_dependent_function_opset_versions, node.opset) or node.opset
        given = [_type_bytes(types.get(name)) for name in node.inputs]
        # None or empty where the body can't be built from what is known
        content = found.get_context_dependent_function_with_opset_version(
            version, node_to_proto(node).SerializeToString(), given
        )
    else:
        return None
    if not content:
        return None
    proto = protobuf().FunctionProto()
    proto.ParseFromString(content)
    function = read_function(proto)
    function.attribute_defaults = {**_schema_defaults(found), **function.attribute_defaults}
    return function


def depends_on_types(node: Node) -> bool:
    """Whether the body of the node's operator follows from the types of its inputs."""
    found = schema(node.op_type, node.domain, node.opset)
    return found is not None and not found.has_function and bool(found.has_context_dependent_function)


def _body_version(versions: list[int], opset: int) -> int:
    """The version of a body to take: nodes carry their own opset, so a later body serves an earlier model too."""
    return max((v for v in versions if v <= opset), default=min(versions, default=0))


def _schema_defaults(found: Any) -> dict[str, AttributeValue]:
    defaults = {}
    for name, attribute in found.attributes.items():
        if attribute._default_value:
            proto = protobuf().AttributeProto()
            proto.ParseFromString(attribute._default_value)
            if proto.type:
                defaults[name] = read_attribute(proto)
    return defaults


def _type_bytes(value_type: ValueType | None) -> bytes:
    proto = protobuf().TypeProto()
    if value_type is not None:
        type_to_proto(value_type, proto)
    return bytes(proto.SerializeToString())


def _names(graph: Graph) -> Iterator[str]:
    yield from graph.inputs
    yield from graph.initializers
    for node in graph.nodes:
        yield from node.outputs
        for body in node.subgraphs():
            yield from _names(body)
