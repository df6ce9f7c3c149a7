"""Which axis of each input may be the batch: guesses from sizes and names, the likeliest first, put to the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.graph.passes.context import Evaluate
from distort.graph.types import TensorType

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
    """Different assignments of a batch axis to inputs."""
    known = {name: tuple(shape) for name in graph.inputs if (shape := shapes.get(name)) is not None}
    found: list[Axes] = []
    for axes in (*_by_size(known), *_by_symbol(graph, known)):
        if any(axis is not None for axis in axes.values()) and axes not in found:
            found.append(axes)
    return found[:_TRIED]


def _by_size(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Axes]:
    """Inputs whose first dimension has the same size; then those too that have the size elsewhere, such as states."""
    counts: dict[int, int] = {}
    for shape in shapes.values():
        if shape and shape[0] > 1:
            counts[shape[0]] = counts.get(shape[0], 0) + 1
    for size in sorted(counts, key=lambda size: -counts[size]):
        leading: Axes = {name: 0 if shape and shape[0] == size else None for name, shape in shapes.items()}
        everywhere = {n: shape.index(size) if size in shape else None for n, shape in shapes.items()}
        yield everywhere
        yield leading
    sizes = {size for shape in shapes.values() for size in shape[1:2] if size > 1} - set(counts)
    for size in sorted(sizes):  # recurrent nets: [steps, samples, features]
        yield {name: 1 if len(shape) > 1 and shape[1] == size else None for name, shape in shapes.items()}


def _by_symbol(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Axes]:
    """Inputs that declare the same symbol, those first that have it in front."""
    places: dict[str, Axes] = {}
    for name, shape in shapes.items():
        declared = graph.types.get(name)
        if not isinstance(declared, TensorType) or declared.shape is None or len(declared.shape) != len(shape):
            continue
        for axis, dim in enumerate(declared.shape):
            if isinstance(dim, str) and shape[axis] > 1:
                places.setdefault(dim, dict.fromkeys(shapes)).setdefault(name, None)
                if places[dim][name] is None:
                    places[dim][name] = axis
    yield from sorted(places.values(), key=lambda axes: sum(axis or 0 for axis in axes.values()))
