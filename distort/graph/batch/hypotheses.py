"""Which axis of each input may be the batch: guesses from sizes and names, the likeliest first, put to the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.graph.passes.context import Evaluate
from distort.graph.types import Dim, TensorType

from .proof import Axes, BatchProof, Refusal, Shapes, prove

#: guesses that are tried; each costs a walk through the graph
_TRIED = 6


def find_batch(
    graph: Graph,
    shapes: Shapes,
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


def guesses(graph: Graph, shapes: Shapes) -> list[Axes]:
    """Different assignments of a batch axis to inputs.

    A batch is what lies along the first axis of some input, one whose size the model leaves open if there is such; or,
    as recurrent nets have it, along the second of three.
    """
    known = {
        name: tuple(-1 if dim is None else dim for dim in shape)  # no size that a batch could have
        for name in graph.inputs
        if (shape := shapes.get(name)) is not None
    }
    declared = {name: _declared(graph, name, len(shape)) for name, shape in known.items()}
    leading = [name for name, shape in known.items() if shape]
    is_open = any(not isinstance(declared[name][0], int) for name in leading)
    counts: dict[int, int] = {}
    symbols: dict[Dim, int] = {}
    for name in leading:
        first = declared[name][0]
        if known[name][0] > 1 and not (is_open and isinstance(first, int)):
            counts[known[name][0]] = counts.get(known[name][0], 0) + 1
            symbols[first] = symbols.get(first, 0) + 1
    symbol = max(symbols, key=lambda dim: symbols[dim], default=None)
    found: list[Axes] = []
    for size in sorted(counts, key=lambda size: -counts[size]):
        places = {
            name: [
                i for i, dim in enumerate(shape) if dim == size and not (is_open and isinstance(declared[name][i], int))
            ]
            for name, shape in known.items()
        }
        found.append({name: _likeliest(declared[name], axes, symbol) for name, axes in places.items()})
        found.append({name: 0 if 0 in axes else None for name, axes in places.items()})
        found.append({name: axes[-1] if axes else None for name, axes in places.items()})
    found += [*_by_steps(known, counts), *_by_symbol(known, declared)]
    different: list[Axes] = []
    for axes in found:
        if any(axis is not None for axis in axes.values()) and axes not in different:
            different.append(axes)
    return different[:_TRIED]


def _likeliest(declared: tuple[Dim, ...], axes: Sequence[int], symbol: Dim) -> int | None:
    """Of the axes that have the batch's size: the one with its symbol, else the first."""
    named = [axis for axis in axes if isinstance(symbol, str) and declared[axis] == symbol]
    return next(iter(named or axes), None)


def _declared(graph: Graph, name: str, rank: int) -> tuple[Dim, ...]:
    known = graph.types.get(name)
    shape = known.shape if isinstance(known, TensorType) else None
    return shape if shape is not None and len(shape) == rank else (None,) * rank


def _by_steps(shapes: Mapping[str, tuple[int, ...]], counts: Mapping[int, int]) -> Iterator[Axes]:
    """[steps, samples, features], where no input has that many samples in front."""
    seconds = {shape[1] for shape in shapes.values() if len(shape) == 3 and shape[1] > 1} - set(counts)
    for size in sorted(seconds):
        yield {name: 1 if len(shape) == 3 and shape[1] == size else None for name, shape in shapes.items()}


def _by_symbol(shapes: Mapping[str, tuple[int, ...]], declared: Mapping[str, tuple[Dim, ...]]) -> Iterator[Axes]:
    """Inputs that declare the same symbol, in front of at least one of them."""
    places: dict[str, dict[str, int | None]] = {}
    for name, shape in shapes.items():
        for axis, dim in enumerate(declared[name]):
            if isinstance(dim, str) and shape[axis] > 1:
                axes = places.setdefault(dim, dict.fromkeys(shapes, None))
                if axes[name] is None:
                    axes[name] = axis
    yield from (axes for axes in places.values() if 0 in axes.values())
