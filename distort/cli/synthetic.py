"""Feeds made of what a model declares, for a measurement that needs no particular values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.cli.errors import UsageError

if TYPE_CHECKING:
    from distort.graph.ir import Graph
    from distort.metadata import NodeArg

#: operators that hand indices on
_CARRIERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def make_feeds(inputs: Sequence[NodeArg], graph: Graph, dims: Mapping[str, int]) -> dict[str, Any]:
    """Arrays for inputs: floats at random, indices within their table, other integers 1.

    Symbolic dimensions have the size that ``dims`` says, sums of them (``past + 1``) theirs, the rest 1; ``x:2`` in
    ``dims`` is the third dimension of the input x, whatever it is called. Raises UsageError for an input that no array
    is, and for a dimension in ``dims`` that no input has.
    """
    _check(inputs, dims)
    rows = _table_rows(graph)
    random = np.random.default_rng(0)
    feeds = {}
    for argument in inputs:
        name = argument.name
        shape = [dims.get(f"{name}:{axis}", size(dim, dims)) for axis, dim in enumerate(argument.shape or ())]
        feeds[name] = _array(argument, shape, rows.get(name), random)
    return feeds


def _check(inputs: Sequence[NodeArg], dims: Mapping[str, int]) -> None:
    known: dict[str, None] = {}  # those that have no size of their own, in order
    every = set()
    for argument in inputs:
        for axis, dim in enumerate(argument.shape or ()):
            place = f"{argument.name}:{axis}"
            every.add(place)
            if isinstance(dim, str):
                known.update(dict.fromkeys((dim, *(term for term in _terms(dim) if not term.isdecimal()))))
            elif dim is None:
                known[place] = None
    for name in dims:
        if name not in known and name not in every:
            raise UsageError(f"--dim {name}: no input has such a dimension. They have: {', '.join(known) or 'none'}")


def size(dim: int | str | None, dims: Mapping[str, int]) -> int:
    """The size of a declared dimension; what nothing is known of is 1."""
    if dim is None or isinstance(dim, int):
        return 1 if dim is None or dim < 0 else dim
    if dim in dims:
        return dims[dim]
    terms = _terms(dim)
    if len(terms) < 2:
        return 1
    return sum(int(term) if term.isdecimal() else dims.get(term, 1) for term in terms)


def _terms(dim: str) -> list[str]:
    return [term.strip() for term in dim.split("+")]


def _table_rows(graph: Graph) -> dict[str, int]:
    """Inputs that are indices into constants: how many rows those have, the fewest."""
    origin = {name: name for name in graph.inputs}
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in _CARRIERS and node.inputs[0] in origin:
            origin[node.outputs[0]] = origin[node.inputs[0]]
        elif node.op_type == "Gather" and node.inputs[1] in origin:
            table = graph.initializers.get(node.inputs[0])
            if isinstance(table, np.ndarray) and table.ndim:
                name, n_rows = origin[node.inputs[1]], table.shape[_axis(node)]
                found[name] = min(n_rows, found.get(name, n_rows))
    return found


def _axis(node: Any) -> int:
    return int(node.attributes.get("axis", 0))


def _array(argument: NodeArg, shape: Sequence[int], n_rows: int | None, random: np.random.Generator) -> Any:
    from distort.graph.types import DTYPE_OF, ELEMENT_OF_NAME

    element = ELEMENT_OF_NAME.get(argument.type.removeprefix("tensor(").removesuffix(")"))
    if element is None:
        raise UsageError(f"no feed can be made for {argument.name!r}, a {argument.type}: benchmarks feed tensors only")
    dtype = DTYPE_OF[element]
    if dtype.kind == "O":
        return np.full(shape, "a", object)
    if dtype.kind in "iu" and n_rows is not None:
        return random.integers(0, max(1, n_rows), shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:  # an image, or what was quantized
        return random.integers(0, 128, shape).astype(dtype)
    if dtype.kind in "iub":
        return np.ones(shape, dtype)
    return random.standard_normal(shape, np.float32).astype(dtype)
