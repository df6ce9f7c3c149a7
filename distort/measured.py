"""What nodes take on this machine: a model run a few times here, each operation on the clock.

Compiled stages do several nodes at once: what an operation takes is shared among its nodes, as estimates of these are.
A node that no operation stands for takes nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import __version__, cost_cache
from distort.cost_cache import Measurement
from distort.graph.ir import Graph, Node
from distort.kernels.compiler.choice import make_program, mode_of
from distort.kernels.compiler.tracing import Compiled
from distort.kernels.errors import KernelError
from distort.kernels.program import Program
from distort.sample_feeds import GUESSES, NoSample, sample, shapes_of, sizes_of, text

if TYPE_CHECKING:
    from distort.kernels.compiler.program import CompiledProgram

MODES = ("auto", "measured", "estimated")
#: runs of which the median is taken, after one to warm up; fewer where they take longer than this together
MOST_RUNS = 5
MOST_S = 10.0
#: runs before that: the first one compiles, and shapes that it finds out may have it compile once more
_WARM_RUNS = 2


class NotMeasured(Exception):
    """A model can't be measured: what it is that nobody can make up, or what failed."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a plan takes from measurements."""

    node_us: dict[int, dict[int, float]]  # by threads, then node
    value_nbytes: dict[str, int]
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
    compiled: str = "1",
) -> Costs:
    """The costs of a graph's nodes with each of the numbers of ``threads``.

    ``mode``: "auto" takes what is in the cache, "measured" runs the model where nothing is, "estimated" takes nothing.
    ``use_threads`` sets the threads of this process (0: what it had). ``feeds`` are run; without them, ones made up
    from the declared types, with symbolic dimensions of ``dims``, else 1. ``compiled`` is ``distort.compile``.
    """
    compiled = mode_of(compiled)
    if mode == "estimated" or not graph.nodes:
        return Costs({}, {}, {}, ("costs of nodes are estimated, as asked for",) if mode == "estimated" else ())
    counts = sorted(set(threads))
    key = cost_cache.key_of(graph, f"{__version__}, compile {compiled}")
    notes: list[str] = []
    found = _cached(graph, key, counts, dims or {}, feeds)
    if mode == "measured" and len(found) < len(counts):
        try:
            found = {
                count: measure(graph, count, use_threads, dims=dims, feeds=feeds, compiled=compiled) for count in counts
            }
        except NotMeasured as error:
            notes.append(f"costs of nodes could not be measured: {error}")
        else:
            try:
                for measurement in found.values():
                    cost_cache.store(key, measurement)
            except OSError as error:
                notes.append(f"measured costs could not be kept in {cost_cache.folder()}: {error}")
    if not found:
        if mode == "auto":
            notes.append(
                "costs of nodes were never measured here: `distort plan --measure`, or distort.costs=measured, does it"
            )
        return Costs({}, {}, {}, tuple(notes))
    first = next(iter(found.values()))
    sizes = {**sizes_of(graph, first.shapes), **dict(dims or {})}
    if sizes != dict(dims or {}):
        guessed = ", ".join(f"{name}={size}" for name, size in sizes.items() if name not in (dims or {}))
        notes.append(f"costs were measured with {guessed}")
    node_us = {
        count: {node: us for node, us in enumerate(measurement.node_us) if us is not None}
        for count, measurement in found.items()
    }
    return Costs(node_us, dict(first.value_nbytes), sizes, tuple(notes))


def _cached(
    graph: Graph, key: str, counts: Sequence[int], dims: Mapping[str, int], feeds: Mapping[str, Any] | None
) -> dict[int, Measurement]:
    """By threads, all with the same feeds: those given, else the newest that ``dims`` allow. Some may be missing."""
    n_nodes = len(graph.nodes)

    def others(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[int, Measurement]:
        loaded = {count: cost_cache.load(key, count, shapes, n_nodes) for count in counts}
        return {count: measurement for count, measurement in loaded.items() if measurement is not None}

    if feeds is not None:
        return others(shapes_of(feeds))
    most: dict[int, Measurement] = {}
    for count in counts:
        for measurement in cost_cache.newest(key, count, n_nodes):
            sizes = sizes_of(graph, measurement.shapes)
            if all(sizes.get(name, size) == size for name, size in dims.items()):
                found = others(measurement.shapes)
                most = max(most, found, key=len)
            if len(most) == len(counts):
                return most
    return most


def measure(
    graph: Graph,
    threads: int,
    use_threads: Callable[[int], None],
    *,
    dims: Mapping[str, int] | None = None,
    feeds: Mapping[str, Any] | None = None,
    compiled: str = "1",
) -> Measurement:
    """Run the graph: to warm up, then a few times. Raises NotMeasured."""
    try:
        program = make_program(graph, n_threads=threads, mode=compiled)
    except KernelError as error:
        raise NotMeasured(error.text) from error
    use_threads(threads)
    try:
        if feeds is not None:
            return _measure(graph, program, threads, feeds)
        failure: NotMeasured | None = None
        for guess in GUESSES:
            try:
                return _measure(graph, program, threads, sample(graph, dims or {}, guess))
            except NoSample as error:
                raise NotMeasured(str(error)) from error
            except NotMeasured as error:
                failure = failure or error
        assert failure is not None
        raise failure
    finally:
        use_threads(0)


def _measure(graph: Graph, program: Program | CompiledProgram, threads: int, feeds: Mapping[str, Any]) -> Measurement:
    try:
        value_nbytes = _value_nbytes(graph, program, feeds)
        shares = _Shares(graph, feeds)
        began = time.perf_counter()
        for _ in range(_WARM_RUNS):
            first = _timed(graph, program, shares, feeds)
        warm_s = (time.perf_counter() - began) / _WARM_RUNS
        n_runs = max(1, min(MOST_RUNS, int(MOST_S / max(warm_s, 1e-6)) - 1))
        samples = [_timed(graph, program, shares, feeds) for _ in range(n_runs)] if warm_s < MOST_S else [first]
    except KernelError as error:
        raise NotMeasured(f"a run with feeds of {text(shapes_of(feeds))} failed: {error.text}") from error
    except MemoryError as error:
        raise NotMeasured(f"a run with feeds of {text(shapes_of(feeds))} wants more memory than there is") from error
    node_us = [_median(times) for times in zip(*samples, strict=True)]
    return Measurement(threads, tuple(node_us), shapes_of(feeds), len(samples), value_nbytes)


def _median(times: Sequence[float | None]) -> float | None:
    known = [us for us in times if us is not None]
    return statistics.median(known) if known else None


def _value_nbytes(graph: Graph, program: Program | CompiledProgram, feeds: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of feeds and of what nodes make: fused ones make nothing, so that plain kernels tell."""
    found = {name: _nbytes(value) for name, value in feeds.items()}
    own = {tuple(node.outputs) for node in graph.nodes}

    def observe(node: Node, start_ns: int, end_ns: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        if tuple(node.outputs) in own:
            found.update((name, _nbytes(value)) for name, value in zip(node.outputs, outputs, strict=False))

    plain = program if isinstance(program, Program) else program.plain
    plain.run(feeds, observe)
    return found


def _timed(
    graph: Graph, program: Program | CompiledProgram, shares: _Shares, feeds: Mapping[str, Any]
) -> list[float | None]:
    """µs of each node in one run. None: a node that plain kernels did not get to."""
    whole: dict[int, float] = {}
    parts = {} if isinstance(program, Program) else dict.fromkeys(range(len(graph.nodes)), 0.0)

    def observe(node: Node, start_ns: int, end_ns: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        time_us = (end_ns - start_ns) / 1e3
        # a node of a body has other outputs than any node of the graph itself
        index = shares.by_outputs.get(tuple(node.outputs)) if not isinstance(node, Compiled) else None
        if index is not None:
            whole[index] = time_us
        elif isinstance(node, Compiled):
            for index, share in shares.of(node):
                parts[index] += share * time_us

    program.run(feeds, observe)
    # of a node that is told as a whole, bodies are part of that
    return [whole.get(index, parts.get(index)) for index in range(len(graph.nodes))]


class _Shares:
    """Which nodes of a graph an operation stands for, those with bodies for these too, and whose its time is."""

    def __init__(self, graph: Graph, feeds: Mapping[str, Any]) -> None:
        from distort.scheduler.cost import CostModel
        from distort.scheduler.device import cpu

        self.by_outputs = {tuple(node.outputs): index for index, node in enumerate(graph.nodes)}
        self._number = {id(inner): index for index, node in enumerate(graph.nodes) for inner in _within(node)}
        self._estimated_us = CostModel(graph, sizes_of(graph, shapes_of(feeds))).node_costs_us(cpu())
        self._known: dict[tuple[int, ...], list[tuple[int, float]]] = {}

    def of(self, operation: Compiled) -> list[tuple[int, float]]:
        numbers = tuple(sorted({self._number[id(part)] for part in operation.parts if id(part) in self._number}))
        if numbers not in self._known:
            total = sum(self._estimated_us[n] for n in numbers)
            self._known[numbers] = [(n, self._estimated_us[n] / total) for n in numbers]
        return self._known[numbers]


def _within(node: Node) -> Iterator[Node]:
    """A node and those of its bodies."""
    yield node
    for body in node.subgraphs():
        for inner in body.nodes:
            yield from _within(inner)


def _nbytes(value: Any) -> int:
    """Bytes of a value; of a sequence, its elements'; of text, about what it takes."""
    if isinstance(value, np.ndarray):
        return sum(len(str(item).encode()) for item in value.reshape(-1)) if value.dtype == object else value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(map(_nbytes, value))
    return 0 if value is None else 8
