"""Which axis of each input may be the batch: guesses from sizes and names, the likeliest first, put to the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.graph.passes.context import Evaluate
from distort.graph.types import Dim, TensorType

from .proof import BatchProof, Refusal, prove

#: guesses that are tried; each costs a walk through the graph
_TRIED = 6

Axes = dict[str, int | None]


def find_batch(
    graph: Graph,
    shapes: Mapping[str, Sequence[int] | None],
    fetches: Sequence[str] | None = None,
    evaluate: Evaluate | None = None,
    values: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> BatchProof | Refusal:
    """The first guess that is proved; else why the likeliest is refused. Arguments as of ``prove``."""
    first: Refusal | None = None
    for axes in guesses(graph, shapes):
        found = prove(graph, axes, shapes, fetches, evaluate, values)
        if isinstance(found, BatchProof):
            return found
        first = first or found
    return first or Refusal("", "", "no input has more than one sample")


def guesses(graph: Graph, shapes: Mapping[str, Sequence[int] | None]) -> list[Axes]:
    """Different assignments of a batch axis to inputs.

    A batch is what lies along the first axis of some input, one whose size the model leaves open if there is such; or,
    as recurrent nets have it, along the second of three.
    """
    known = {name: tuple(shape) for name in graph.inputs if (shape := shapes.get(name)) is not None}
    declared = {name: _declared(graph, name, len(shape)) for name, shape in known.items()}
    leading = [name for name, shape in known.items() if shape]
    is_open = any(not isinstance(declared[name][0], int) for name in leading)
    counts: dict[int, int] = {}
    for name in leading:
        if known[name][0] > 1 and not (is_open and isinstance(declared[name][0], int)):
            counts[known[name][0]] = counts.get(known[name][0], 0) + 1
    found: list[Axes] = []
    for axes in (*_by_size(known, counts), *_by_symbol(known, declared)):
        if any(axis is not None for axis in axes.values()) and axes not in found:
            found.append(axes)
    return found[:_TRIED]


def _declared(graph: Graph, name: str, rank: int) -> tuple[Dim, ...]:
    known = graph.types.get(name)
    shape = known.shape if isinstance(known, TensorType) else None
    return shape if shape is not None and len(shape) == rank else (None,) * rank


def _by_size(shapes: Mapping[str, tuple[int, ...]], counts: Mapping[int, int]) -> Iterator[Axes]:
    """Inputs that have one of these sizes anywhere, as states do; then those that have it in front."""
    for size in sorted(counts, key=lambda size: -counts[size]):
        yield {name: shape.index(size) if size in shape else None for name, shape in shapes.items()}
        yield {name: 0 if shape and shape[0] == size else None for name, shape in shapes.items()}
    seconds = {shape[1] for shape in shapes.values() if len(shape) == 3 and shape[1] > 1} - set(counts)
    for size in sorted(seconds):  # [steps, samples, features]
        yield {name: 1 if len(shape) == 3 and shape[1] == size else None for name, shape in shapes.items()}


def _by_symbol(shapes: Mapping[str, tuple[int, ...]], declared: Mapping[str, tuple[Dim, ...]]) -> Iterator[Axes]:
    """Inputs that declare the same symbol, in front of at least one of them."""
    places: dict[str, Axes] = {}
    for name, shape in shapes.items():
        for axis, dim in enumerate(declared[name]):
            if isinstance(dim, str) and shape[axis] > 1:
                axes = places.setdefault(dim, dict.fromkeys(shapes))
                if axes[name] is None:
                    axes[name] = axis
    yield from (axes for axes in places.values() if 0 in axes.values())
