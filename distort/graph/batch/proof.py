"""The proof that a graph keeps samples apart: the batch axis, followed from the inputs operator by operator.

Where it holds, running the graph on parts of a batch and concatenating what they give equals running it on the whole.
An operator without a rule, or one whose rule can't show that, ends the proof.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node, SparseInitializer
from distort.graph.passes.context import Evaluate

from . import (
    attention,
    control,
    elementwise,
    indexing,
    learning,
    movement,
    numbers,
    products,
    recurrent,
    reductions,
    reshaping,
    sizes,
    windows,
)
from .rules import EVERY, MICROSOFT, ML, Site, find
from .values import Content, Dims, Refused, Sizes, Tensor, Value, of_array

#: axis of the batch by input; None where the input is the same for every part
Axes = Mapping[str, int | None]
#: shapes of feeds: a dimension of None may be any, a shape of None is that of no tensor
Shapes = Mapping[str, Sequence[int | None] | None]

#: the modules whose import fills the table of rules
RULE_MODULES = (
    attention,
    elementwise,
    indexing,
    learning,
    movement,
    products,
    recurrent,
    reductions,
    reshaping,
    sizes,
    windows,
)

_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Sampling")
)
_DOMAINS = frozenset(("", ML, MICROSOFT, "com.microsoft.nchwc"))
#: why operators that people meet in models can't have a rule
_WHY = {
    "DynamicQuantizeLinear": "it takes its scale from the smallest and the largest element of all samples",
    "DynamicQuantizeMatMul": "it takes its scale from the smallest and the largest element of all samples",
    "DynamicQuantizeLSTM": "it takes its scale from the smallest and the largest element of all samples",
    "NonMaxSuppression": "it makes one list of the boxes of all samples",
    "NonZero": "it makes one list of the elements of all samples",
    "Unique": "it makes one list of the elements of all samples",
    "MaxRoiPool": "its boxes name samples by their number",
    "MaxUnpool": "its indices number the elements of all samples",
    "EyeLike": "it makes one matrix for all samples",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A value's shape for a batch of one sample, and the axis along which samples lie (None: none are in it)."""

    shape: Dims
    axis: int | None

    def of(self, n_samples: int) -> Dims:
        """The shape for ``n_samples``."""
        return tuple(dim * n_samples if i == self.axis and dim else dim for i, dim in enumerate(self.shape))


@dataclass(frozen=True, slots=True)
class BatchProof:
    """The axis along which samples lie in each input and each output; None where it is the same for every part."""

    inputs: dict[str, int | None]
    outputs: dict[str, int | None]
    layouts: dict[str, Layout]  # of all values that the outputs depend on, those of unknown rank excepted


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a batch can't be split: the node that ends the proof (empty where none does), and what it does."""

    node: str
    op_type: str
    reason: str

    def __str__(self) -> str:
        return f"node '{self.node}' ({self.op_type}): {self.reason}" if self.op_type else self.reason


class _Stopped(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def prove(
    graph: Graph,
    axes: Axes,
    shapes: Shapes,
    fetches: Sequence[str] | None = None,
    evaluate: Evaluate | None = None,
    values: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> BatchProof | Refusal:
    """Whether samples lying along ``axes`` of the inputs stay apart on the way to ``fetches`` (None: all outputs).

    ``shapes`` are those of the feeds. An input without an axis is the same for every
    part; ``values`` has those of which the elements may be used. ``evaluate``
    computes a node of small constants; without it fewer shapes are known.
    """
    wanted = list(graph.outputs if fetches is None else fetches)
    scope: dict[str, Value | None] = {}
    try:
        for name in graph.inputs:
            scope[name] = _feed(name, axes.get(name), shapes, values or {})
        walk = _Walk(evaluate)
        results = walk.outputs(graph, scope, wanted)
    except _Stopped as stopped:
        return stopped.refusal
    found: dict[str, int | None] = {}
    for name, value in zip(wanted, results, strict=True):
        if isinstance(value, Sizes) and value.grows:
            return Refusal("", "", f"the output '{name}' holds the batch size")
        if isinstance(value, Tensor) and value.content is not Content.SAMPLES:
            return Refusal("", "", f"the output '{name}' is computed from the numbers of the samples")
        found[name] = value.axis if isinstance(value, Tensor) else None
    if all(axis is None for axis in found.values()):
        what = f"the output '{wanted[0]}' is" if len(wanted) == 1 else "the outputs are"
        return Refusal("", "", f"{what} the same for every part: there is nothing to split")
    layouts = {
        name: Layout(value.shape, value.axis)
        for name, value in scope.items()
        if isinstance(value, Tensor) and value.shape is not None
    }
    return BatchProof({name: axes.get(name) for name in graph.inputs}, found, layouts)


def _feed(
    name: str,
    axis: int | None,
    shapes: Shapes,
    values: Mapping[str, np.ndarray[Any, Any]],
) -> Value | None:
    if name not in shapes:
        return None  # its default
    shape = shapes[name]
    if shape is None:
        return Tensor()
    if axis is None:
        return of_array(values[name]) if name in values else Tensor(tuple(shape))
    if not 0 <= axis < len(shape):
        raise _Stopped(Refusal("", "", f"the input '{name}' has no axis {axis}"))
    return Tensor((*shape[:axis], 1, *shape[axis + 1 :]), axis)


class _Walk:
    """One walk through a graph and its bodies."""

    def __init__(self, evaluate: Evaluate | None) -> None:
        self.evaluate = evaluate

    def outputs(
        self, graph: Graph, scope: MutableMapping[str, Value | None], wanted: Sequence[str]
    ) -> list[Value | None]:
        for name, initializer in graph.initializers.items():
            if scope.get(name) is None:
                if isinstance(initializer, SparseInitializer):
                    scope[name] = Tensor(tuple(initializer.dims))
                else:
                    scope[name] = of_array(initializer)
        for index in graph.needed(wanted):
            node = graph.nodes[index]
            try:
                results = self._node(node, scope)
            except Refused as refused:
                raise _Stopped(Refusal(node.label(), node.op_type, str(refused))) from None
            for position, name in enumerate(node.outputs):
                if name:
                    scope[name] = results[position] if position < len(results) else None
        return [scope.get(name) for name in wanted]

    def _node(self, node: Node, scope: MutableMapping[str, Value | None]) -> Sequence[Value | None]:
        if node.op_type in _RANDOM:
            raise Refused("it is random")
        if node.op_type == "Constant" and not node.domain:
            return [self._constant(node)]
        site = Site(node, [scope.get(name) if name else None for name in node.inputs])
        for name, value in zip(node.inputs, site.inputs, strict=True):
            if name and value is None:
                raise Refused(f"nothing is known of its input '{name}'")
        captured = [scope.get(name) for name in node.captured()] if any(True for _ in node.subgraphs()) else []
        every = [value for value in (*site.inputs, *captured) if value is not None]
        grows = any(isinstance(value, Sizes) and value.grows for value in every)
        batched = any(isinstance(value, Tensor) and value.axis is not None for value in every)
        if node.domain not in _DOMAINS:
            raise Refused(f"there is no rule for operators of '{node.domain}'")
        if control.has_rule(node):
            try:
                return control.RULES[node.op_type](site, lambda body, values: self._body(body, values, scope))
            except (Refused, _Stopped):
                if grows or batched or not all(_is_repeatable(body) for body in node.subgraphs()):
                    raise
                return [Tensor() for _ in node.outputs]
        if not grows and not batched:
            return self._shared(site)
        if captured:
            raise Refused("there is no rule for its body")
        if grows:
            made = sizes.computed(site)
            if made is not None:
                return made
        return _ruled(site)

    def _body(
        self, body: Graph, values: Sequence[Value | None], scope: MutableMapping[str, Value | None]
    ) -> list[Value | None]:
        inner: MutableMapping[str, Value | None] = ChainMap({}, scope)
        for name in (*body.inputs, *body.initializers):
            inner[name] = None  # hides one of the same name outside
        inner.update(zip(body.inputs, values, strict=False))
        return self.outputs(body, inner, body.outputs)

    def _shared(self, site: Site) -> Sequence[Value | None]:
        """A node whose inputs are all the same for every part: its outputs are too. What is known of them may fail."""
        node = site.node
        arrays = [value.array if isinstance(value, Tensor) else None for value in site.inputs if value is not None]
        absent = [value is None for value in site.inputs]
        if self.evaluate is not None and arrays and all(array is not None for array in arrays):
            given = iter(arrays)
            results = self.evaluate(node, [None if missing else next(given) for missing in absent])
            if results is not None and all(isinstance(result, np.ndarray) for result in results):
                return [of_array(result) for result in results]
        entry = find(node)
        try:
            made: Sequence[Value | None] | None = sizes.computed(site)
            if made is None and entry is not None:
                made = _listed(entry.rule(site))
        except Refused:
            if node.op_type == "Dropout":  # random: not the same for every part
                raise
            made = None
        return made if made is not None else [Tensor() for _ in node.outputs]

    def _constant(self, node: Node) -> Value:
        value = node.attributes.get("value")
        if isinstance(value, np.ndarray):
            return of_array(value)
        for name, given in node.attributes.items():
            if name in ("value_int", "value_ints", "value_float", "value_floats"):
                return of_array(np.array(given, np.int64 if "int" in name else np.float32))
        return Tensor()


def _is_repeatable(graph: Graph) -> bool:
    """Whether a body gives the same for the same inputs."""
    return all(
        node.op_type not in _RANDOM
        and node.op_type != "Dropout"
        and node.domain in _DOMAINS
        and all(_is_repeatable(body) for body in node.subgraphs())
        for node in graph.nodes
    )


def _listed(made: Value | Sequence[Value | None]) -> Sequence[Value | None]:
    return [made] if isinstance(made, (Tensor, Sizes)) else list(made)


def _ruled(site: Site) -> Sequence[Value | None]:
    """The outputs by the rule of the operator. Raises Refused."""
    node = site.node
    entry = find(node)
    if entry is None:
        raise Refused(_WHY.get(node.op_type, "there is no rule for this operator"))
    for position, value in enumerate(site.inputs):
        if isinstance(value, Sizes) and value.grows and position not in entry.sizes:
            raise Refused(f"it computes with the batch size, its input '{node.inputs[position]}'")
        if not isinstance(value, Tensor) or value.axis is None:
            continue
        if entry.samples != EVERY and position not in entry.samples:
            raise Refused(f"its input '{node.inputs[position]}' differs from sample to sample")
    if numbers.any_in(site):
        own = numbers.picked(site)
        return [own] if own is not None else numbers.numbered(site, entry.rule)
    return _listed(entry.rule(site))
