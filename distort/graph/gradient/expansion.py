"""Gradient nodes, replaced by what computes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from distort.graph.errors import ModelError
from distort.graph.functions import inlined
from distort.graph.gradient import elementwise, matrices, movement, reductions  # noqa: F401  # they register their rules
from distort.graph.gradient.backward import RULES, Backward
from distort.graph.inference import infer
from distort.graph.ir import Graph, Model, Node
from distort.graph.types import ValueType

#: operators through which nothing flows back: their results are integers or truths, or constant almost everywhere
_FLAT = frozenset(
    [
        "And",
        "ArgMax",
        "ArgMin",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "Constant",
        "ConstantOfShape",
        "Equal",
        "EyeLike",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Multinomial",
        "NonMaxSuppression",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "QuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Range",
        "Round",
        "Shape",
        "Sign",
        "Size",
        "Bernoulli",
        "Xor",
    ]
)


def expand_gradients(model: Model) -> bool:
    """Replace every Gradient node, bodies of control flow included; whether there was one.

    Raises ModelError for a path through an operator that has no derivative here.
    """
    infer(model)
    taken = set(_all_names(model.graph))
    return _expand(model.graph, taken, model.opsets)


def _all_names(graph: Graph) -> Iterator[str]:
    yield from graph.inputs
    yield from graph.initializers
    for node in graph.nodes:
        yield from node.outputs
        for body in node.subgraphs():
            yield from _all_names(body)


def _is_gradient(node: Node) -> bool:
    return node.op_type == "Gradient" and node.domain == "ai.onnx.preview.training"


def _expand(graph: Graph, taken: set[str], opsets: Mapping[str, int]) -> bool:
    found = False
    nodes: list[Node] = []
    for node in graph.nodes:
        for body in node.subgraphs():
            found |= _expand(body, taken, opsets)
        if _is_gradient(node):
            found = True
            nodes.extend(_Expansion(graph, nodes, node, taken, opsets).nodes())
        else:
            nodes.append(node)
    graph.nodes = nodes
    return found


class _Expansion:
    """One Gradient node. ``before``: the nodes that come before it, in order."""

    def __init__(
        self, graph: Graph, before: list[Node], node: Node, taken: set[str], opsets: Mapping[str, int]
    ) -> None:
        self._graph, self._before, self._node, self._taken, self._opsets = graph, before, node, taken, opsets
        self._types: dict[str, ValueType] = dict(graph.types)
        self._numbers = itertools.count()

    def _names(self, prefix: str) -> Iterator[str]:
        while True:
            name = f"{prefix}{next(self._numbers)}"
            if name not in self._taken:
                self._taken.add(name)
                yield name

    def nodes(self) -> Iterator[Node]:
        node = self._node
        xs = list(node.attributes.get("xs", ()))
        zs = list(node.attributes.get("zs", ()))
        y = node.attributes.get("y", "")
        if len(node.inputs) != len(xs) + len(zs):
            raise self._wrong(f"it has {len(node.inputs)} inputs for {len(xs)} xs and {len(zs)} zs")
        if len(node.outputs) > len(xs):
            raise self._wrong(f"it has {len(node.outputs)} outputs for {len(xs)} xs")
        forward = self._path(y, {*xs, *zs})
        given = dict(zip((*xs, *zs), node.inputs, strict=True))
        names = self._names(f"{node.name or 'Gradient'}/")
        copied: list[Node] = []
        if any(name != value for name, value in given.items()):
            forward, renamed = self._renamed(forward, given, names)
            copied = forward
            y = renamed.get(y, y)
            xs = [renamed[x] for x in xs]
        added, steps = self._differentiable(forward, set(xs), names)
        backward = Backward(names, self._types)
        gradients: dict[str, str] = {y: backward.filled_like(y, 1.0)}
        for step, influenced in reversed(steps):
            self._step(backward, step, influenced, gradients)
        for x, output in zip(xs, node.outputs, strict=False):
            if output:
                source = gradients.get(x) or backward.zeros_like(x)
                backward.nodes.append(Node("Identity", "", [source], [output], name=f"{output}/gradient", opset=21))
        written = [*copied, *added, *backward.nodes]
        yield from _needed(written, {name for name in node.outputs if name})

    def _wrong(self, text: str) -> ModelError:
        return ModelError("INVALID_GRAPH", f"Gradient node '{self._node.label()}': {text}")

    def _path(self, y: str, independent: set[str]) -> list[Node]:
        """The nodes that compute y from the independent values, in order."""
        needed, path = {y}, []
        for node in reversed(self._before):
            if needed.intersection(node.outputs) and not independent.intersection(node.outputs):
                path.append(node)
                needed.update(node.reads())
            elif independent.intersection(node.outputs) and needed.intersection(node.outputs) - independent:
                raise self._wrong(f"node '{node.label()}' makes an independent value and another one that y needs")
        known = {*self._graph.inputs, *self._graph.initializers, *independent}
        if not path and y not in known:
            raise self._wrong(f"y, '{y}', is computed by no node before it")
        return path[::-1]

    def _renamed(
        self, forward: list[Node], given: dict[str, str], names: Iterator[str]
    ) -> tuple[list[Node], dict[str, str]]:
        """The path once more, on the values given."""
        renamed = dict(given)
        for node in forward:
            for output in node.outputs:
                if output:
                    renamed[output] = next(names)
                    if output in self._types:
                        self._types[renamed[output]] = self._types[output]
            if set(node.captured()).intersection(renamed):
                raise self._wrong(f"a body of node '{node.label()}' reads values that are given anew")
        copies = [
            replace(
                node,
                inputs=[renamed.get(name, name) for name in node.inputs],
                outputs=[renamed.get(name, name) for name in node.outputs],
                name=next(names),
            )
            for node in forward
        ]
        return copies, renamed

    def _differentiable(
        self, forward: list[Node], xs: set[str], names: Iterator[str]
    ) -> tuple[list[Node], list[tuple[Node, list[bool]]]]:
        """Nodes through which a gradient flows, with the inputs that it flows to; before them, nodes to add for them.

        A node without a rule is computed once more by the body of its operator, which has rules: the body is added.
        """
        influenced = set(xs)
        added: list[Node] = []
        steps: list[tuple[Node, list[bool]]] = []
        waiting = [(node, False) for node in reversed(forward)]  # and whether it is to be added
        while waiting:
            node, new = waiting.pop()
            flags = [name in influenced for name in node.inputs]
            captured = influenced.intersection(node.captured())
            flows = (any(flags) or captured) and not (node.op_type in _FLAT and node.domain == "")
            if flows and (node.domain != "" or node.op_type not in RULES or captured):
                outputs = [next(names) if name else "" for name in node.outputs]
                call = replace(node, outputs=outputs)
                body = None if captured else inlined(call, self._types, self._opsets, f"{next(names)}/", self._taken)
                if body is None:
                    raise ModelError(
                        "NOT_IMPLEMENTED",
                        f"Gradient node '{self._node.label()}': no derivative of {node.op_type}({node.opset}), "
                        f"node '{node.label()}'",
                    )
                # what comes out of the body is what came out of the node
                same = [Node("Identity", "", [o], [name]) for o, name in zip(outputs, node.outputs, strict=True) if o]
                waiting.extend((item, new) for item in reversed(same))
                waiting.extend((item, True) for item in reversed(body))
                continue
            if new:
                added.append(node)
            if flows:
                steps.append((node, flags))
                influenced.update(name for name in node.outputs if name)
        return added, steps

    def _step(self, backward: Backward, node: Node, influenced: list[bool], gradients: dict[str, str]) -> None:
        incoming = [gradients.get(name) if name else None for name in node.outputs]
        if not any(incoming):
            return
        backward.wanted = influenced
        outgoing = RULES[node.op_type](backward, node, incoming)
        for name, wanted, gradient in zip(node.inputs, influenced, outgoing, strict=False):
            if wanted and gradient is not None:
                known = gradients.get(name)
                gradients[name] = gradient if known is None else backward.add(known, gradient)


def _needed(nodes: list[Node], wanted: set[str]) -> list[Node]:
    """The nodes without those that nothing reads."""
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.reads())
    return kept[::-1]
