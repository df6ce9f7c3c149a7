"""What nodes take on this machine: a model run a few times here, each node on the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from distort import __version__, cost_cache
from distort.cost_cache import Measurement
from distort.graph.ir import Graph, Node
from distort.graph.types import DTYPE_OF, OptionalType, TensorType
from distort.kernels.errors import KernelError
from distort.kernels.program import Program

MODES = ("auto", "measured", "estimated")
#: runs of which the median is taken, after one to warm up; fewer where they take longer than this together
MOST_RUNS = 5
MOST_S = 10.0
#: bytes that made-up feeds may have together
MOST_FEED_NBYTES = 2**31
#: what whole numbers of a made-up feed are, in the order that they are tried: an index, a length, a mask
_INTEGERS = (1, 0)

Shapes = dict[str, tuple[str, tuple[int, ...]]]


class NotMeasured(Exception):
    """A model can't be measured: what it is that nobody can make up, or what failed."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a plan takes from measurements."""

    node_us: dict[int, dict[int, float]]  # by threads, then node
    dims: dict[str, int]  # sizes that symbolic dimensions had
    notes: tuple[str, ...]


def costs(
    graph: Graph,
    threads: Sequence[int],
    use_threads: Callable[[int], None],
    *,
    mode: str = "auto",
    dims: Mapping[str, int] | None = None,
    feeds: Mapping[str, Any] | None = None,
) -> Costs:
    """The costs of a graph's nodes with each of the numbers of ``threads``.

    ``mode``: "auto" takes what is in the cache, "measured" runs the model where nothing is, "estimated" takes nothing.
    ``use_threads`` sets the threads of this process (0: what it had). ``feeds`` are run; without them, ones made up
    from the declared types, with symbolic dimensions of ``dims``, else 1.
    """
    if mode == "estimated" or not graph.nodes:
        return Costs({}, {}, ("costs of nodes are estimated, as asked for",) if mode == "estimated" else ())
    key = cost_cache.key_of(graph, __version__)
    notes: list[str] = []
    found: dict[int, Measurement] = {}
    for count in sorted(set(threads)):
        measurement = _known(graph, key, count, dims or {}, feeds)
        if measurement is None and mode == "measured":
            try:
                measurement = measure(graph, count, use_threads, dims=dims, feeds=feeds)
            except NotMeasured as error:
                notes.append(f"costs of nodes could not be measured: {error}")
                break
            try:
                cost_cache.store(key, measurement)
            except OSError as error:
                notes.append(f"measured costs could not be kept in {cost_cache.folder()}: {error}")
        if measurement is not None:
            found[count] = measurement
    if not found:
        if mode == "auto":
            notes.append(
                "costs of nodes were never measured here: `distort plan --measure`, or distort.costs=measured, does it"
            )
        return Costs({}, {}, tuple(notes))
    first = next(iter(found.values()))
    sizes = {**_sizes(graph, first.shapes), **dict(dims or {})}
    if sizes != dict(dims or {}):
        guessed = ", ".join(f"{name}={size}" for name, size in sizes.items() if name not in (dims or {}))
        notes.append(f"costs were measured with {guessed}")
    node_us = {
        count: {node: us for node, us in enumerate(measurement.node_us) if us is not None}
        for count, measurement in found.items()
    }
    return Costs(node_us, sizes, tuple(notes))


def _known(
    graph: Graph, key: str, threads: int, dims: Mapping[str, int], feeds: Mapping[str, Any] | None
) -> Measurement | None:
    """What the cache has: with the same feeds' shapes, else with any, where those that are declared leave it open."""
    n_nodes = len(graph.nodes)
    if feeds is not None:
        return cost_cache.load(key, threads, shapes_of(feeds), n_nodes)
    try:
        exact = cost_cache.load(key, threads, _declared(graph, dims), n_nodes)
    except NotMeasured:
        exact = None
    if exact is not None:
        return exact
    other = cost_cache.latest(key, threads, n_nodes)
    if other is None:
        return None
    sizes = _sizes(graph, other.shapes)
    return other if all(sizes.get(name, size) == size for name, size in dims.items()) else None


def measure(
    graph: Graph,
    threads: int,
    use_threads: Callable[[int], None],
    *,
    dims: Mapping[str, int] | None = None,
    feeds: Mapping[str, Any] | None = None,
) -> Measurement:
    """Run the graph: once to warm up, then a few times. Raises NotMeasured."""
    program = Program(graph)
    use_threads(threads)
    try:
        if feeds is not None:
            return _measure(graph, program, threads, feeds)
        failure: NotMeasured | None = None
        for integer in _INTEGERS:
            try:
                return _measure(graph, program, threads, made_up(graph, dims or {}, integer))
            except NotMeasured as error:
                failure = failure or error
        assert failure is not None
        raise failure
    finally:
        use_threads(0)


def _measure(graph: Graph, program: Program, threads: int, feeds: Mapping[str, Any]) -> Measurement:
    # a node of a body has other outputs than any node of the graph itself
    number = {tuple(node.outputs): index for index, node in enumerate(graph.nodes)}
    samples: list[list[float]] = [[] for _ in graph.nodes]

    def observe(node: Node, start_ns: int, end_ns: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        index = number.get(tuple(node.outputs))
        if index is not None:
            samples[index].append((end_ns - start_ns) / 1e3)

    try:
        began = time.perf_counter()
        program.run(feeds, observe)
        warm_s = time.perf_counter() - began
        n_runs = max(1, min(MOST_RUNS, int(MOST_S / max(warm_s, 1e-6)) - 1))
        first = [times.copy() for times in samples]
        for times in samples:
            times.clear()
        for _ in range(n_runs if warm_s < MOST_S else 0):
            program.run(feeds, observe)
    except KernelError as error:
        raise NotMeasured(f"a run with feeds of {_text(shapes_of(feeds))} failed: {error.text}") from error
    except MemoryError as error:
        raise NotMeasured(f"a run with feeds of {_text(shapes_of(feeds))} wants more memory than there is") from error
    node_us = [
        statistics.median(times or warm) if times or warm else None for times, warm in zip(samples, first, strict=True)
    ]
    return Measurement(threads, tuple(node_us), shapes_of(feeds), n_runs if warm_s < MOST_S else 1)


def made_up(graph: Graph, dims: Mapping[str, int], integer: int = 1) -> dict[str, Any]:
    """Feeds of the declared types and shapes: small floats, the same each time; every integer is ``integer``.

    Raises NotMeasured for an input that is no tensor, or has no rank, or that is too large.
    """
    generator = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    nbytes = 0
    for name, (_, sizes) in _declared(graph, dims).items():
        known = graph.types[name]
        assert isinstance(known, TensorType)
        dtype = DTYPE_OF[known.element]
        nbytes += prod(sizes) * dtype.itemsize
        if nbytes > MOST_FEED_NBYTES:
            raise NotMeasured(f"feeds of {_text(_declared(graph, dims))} are too large to make up")
        if known.element == 8:
            feeds[name] = np.full(sizes, "text", dtype=object)
        elif dtype.kind in "iub":
            feeds[name] = np.full(sizes, integer, dtype=dtype)
        else:
            feeds[name] = generator.uniform(-0.5, 0.5, sizes).astype(dtype)
    return feeds


def _declared(graph: Graph, dims: Mapping[str, int]) -> Shapes:
    shapes: Shapes = {}
    for name in graph.inputs:
        if name in graph.initializers:
            continue
        known = graph.types.get(name)
        if isinstance(known, OptionalType):
            continue  # absent
        if not isinstance(known, TensorType) or known.shape is None or known.element not in DTYPE_OF:
            raise NotMeasured(f"input {name!r} is {known or 'of no type'}, for which no feed can be made up")
        sizes = tuple(dim if isinstance(dim, int) else dims.get(str(dim), 1) for dim in known.shape)
        shapes[name] = (DTYPE_OF[known.element].name, sizes)
    return shapes


def shapes_of(feeds: Mapping[str, Any]) -> Shapes:
    """Element types and sizes of feeds; those that are no arrays count by their type alone."""
    return {
        name: (value.dtype.name, tuple(value.shape)) if isinstance(value, np.ndarray) else (type(value).__name__, ())
        for name, value in feeds.items()
    }


def _sizes(graph: Graph, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, int]:
    """What symbolic dimensions of the inputs were in a measurement."""
    sizes: dict[str, int] = {}
    for name, (_, given) in shapes.items():
        known = graph.types.get(name)
        if isinstance(known, TensorType) and known.shape is not None and len(known.shape) == len(given):
            sizes.update({dim: size for dim, size in zip(known.shape, given, strict=True) if isinstance(dim, str)})
    return sizes


def _text(shapes: Shapes) -> str:
    parts = [f"{name} {kind}[{', '.join(map(str, sizes))}]" for name, (kind, sizes) in list(shapes.items())[:8]]
    return ", ".join(parts) + (f" and {len(shapes) - 8} more" if len(shapes) > 8 else "")
