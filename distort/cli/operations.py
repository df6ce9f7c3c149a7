"""Where a run's time goes: operations as they ran, which stand for several nodes where those are fused."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distort.cli import console

if TYPE_CHECKING:
    from distort.graph.ir import Graph, Node
    from distort.loading import Loaded
    from distort.session import InferenceSession

#: operations that the table has; JSON has all
_SHOWN = 25
#: the longest that all runs take together
_MOST_S = 3.0
#: after these, shapes that nobody could tell are known, and what is small is compiled
_WARM_RUNS = 4

Shape = tuple[int, ...]
#: of an operation: its operators, and the first output of its last node
Name = tuple[str, str]


@dataclass(slots=True)
class Operation:
    """Microseconds of a run, and what is done in them."""

    node: str  # the last one's name
    operators: str  # "MatMul+Add" where they are fused
    inputs: list[Shape]
    outputs: list[Shape]
    us: float
    flops: float | None  # of products and convolutions

    @property
    def gflop_per_s(self) -> float | None:
        """By the operators' definition, whatever the kernel does instead."""
        return self.flops / self.us / 1e3 if self.flops and self.us else None


@dataclass(slots=True)
class Profile:
    run_us: float  # median of runs that nobody watched
    operations: list[Operation]  # those that take most first

    @property
    def kernels_us(self) -> float:
        return sum(operation.us for operation in self.operations)

    def by_operators(self) -> list[tuple[str, list[float]]]:
        """Microseconds of operations with the same operators, those that take most first."""
        kinds: dict[str, list[float]] = {}
        for operation in self.operations:
            kinds.setdefault(operation.operators, []).append(operation.us)
        return sorted(kinds.items(), key=lambda item: -sum(item[1]))

    def as_dict(self) -> dict[str, Any]:
        return {
            "run_us": self.run_us,
            "kernels_us": self.kernels_us,
            "operations": [
                {
                    "node": operation.node,
                    "operators": operation.operators,
                    "inputs": [list(shape) for shape in operation.inputs],
                    "outputs": [list(shape) for shape in operation.outputs],
                    "us": operation.us,
                    "share": share,
                    "cumulative": cumulative,
                    "gflop_per_s": operation.gflop_per_s,
                }
                for operation, share, cumulative in self._shares()
            ],
        }

    def blocks(self, of: str = "") -> list[console.Block]:
        """``of`` ends the headings."""
        from distort.scheduler.device import format_us

        said = f"kernels {format_us(self.kernels_us)} of {format_us(self.run_us)} that a run takes"
        if self.run_us > 0:
            said += f" ({self.kernels_us / self.run_us:.0%})"
        columns = ("operation", "last node", "shapes", "a run", "share", "sum", "GFLOP/s")
        rows = [
            (*_row(operation), f"{share:.1%}", f"{sum_:.1%}", _rate(operation))
            for operation, share, sum_ in self._shares()
        ]
        lines = [said]
        if len(rows) > _SHOWN:
            lines.append(f"the first {_SHOWN} of {len(rows)} operations (--json lists all)")
        whole = self.kernels_us or 1.0
        by_kind = [
            (name, str(len(us)), format_us(sum(us)), f"{sum(us) / whole:.1%}") for name, us in self.by_operators()
        ]
        return [
            console.Block(f"Operations that take the time{of}", lines, columns, rows[:_SHOWN], frozenset({3, 4, 5, 6})),
            console.Block(
                "By operators", (), ("operation", "times", "a run", "share"), by_kind[:_SHOWN], frozenset({1, 2, 3})
            ),
        ]

    def _shares(self) -> Iterator[tuple[Operation, float, float]]:
        """With its part of the kernels' time, and that of all up to it."""
        whole, before = self.kernels_us or 1.0, 0.0
        for operation in self.operations:
            before += operation.us
            yield operation, operation.us / whole, before / whole


def _row(operation: Operation) -> tuple[str, ...]:
    from distort.scheduler.device import format_us
    from distort.scheduler.plan import short

    shapes = f"{_shapes(operation.inputs)} → {_shapes(operation.outputs)}"
    return short(operation.operators), short(operation.node), shapes, format_us(operation.us)


def _shapes(shapes: Sequence[Shape]) -> str:
    told = ["×".join(map(str, shape)) or "1" for shape in shapes]
    return " ".join(told[:3]) + (f" +{len(told) - 3}" if len(told) > 3 else "")


def _rate(operation: Operation) -> str:
    rate = operation.gflop_per_s
    return "" if rate is None else f"{rate:.3g}"


class Collector:
    """Events of runs, summed by operation and run."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        #: by a value made in bodies: the first outputs of the nodes around it
        self._around = dict(_around(graph, ()))
        self._run: dict[Name, int] = {}
        self._whole: set[str] = set()  # nodes with bodies that told of themselves in this run
        self.runs_ns: list[dict[Name, int]] = []
        self.shapes: dict[Name, tuple[list[Shape], list[Shape]]] = {}
        self.nodes: dict[Name, Sequence[Node]] = {}

    def observe(self, node: Node, start_ns: int, end_ns: int, inputs: Any, outputs: Any) -> None:
        from distort.kernels.compiler.tracing import Compiled

        name = node.op_type, next(filter(None, node.outputs), "")
        if name not in self.shapes:
            self.shapes[name] = (_of_arrays(inputs), _of_arrays(outputs))
            self.nodes[name] = node.parts if isinstance(node, Compiled) else (node,)
        self._add(name, end_ns - start_ns, not isinstance(node, Compiled))

    def report(self, told: Any) -> None:
        """Of a stage's execution on its actor."""
        producers = self._graph.producers()
        for event in told.events:
            name = event.op_type, event.output
            if name not in self.shapes:
                ins, outs = (_of_text(event.args[f"{side}_type_shape"]) for side in ("input", "output"))
                self.shapes[name] = ins, outs
                if event.output in producers:
                    self.nodes[name] = (self._graph.nodes[producers[event.output]],)
            self._add(name, event.end_ns - event.start_ns, "+" not in event.op_type)

    def _add(self, name: Name, took_ns: int, whole: bool) -> None:
        self._run[name] = self._run.get(name, 0) + took_ns
        if whole:
            self._whole.add(name[1])

    def end_run(self) -> None:
        """What was told by nodes inside one that told of itself is part of that."""
        run, whole = self._run, self._whole
        inside = [name for name in run if not whole.isdisjoint(self._around.get(name[1], ()))]
        self.runs_ns.append({name: ns for name, ns in run.items() if name not in inside})
        self._run, self._whole = {}, set()

    def operations(self, flops: dict[str, float]) -> list[Operation]:
        """Medians over runs. ``flops`` of products, by their first output."""
        names = dict.fromkeys(name for run in self.runs_ns for name in run)
        us = {name: statistics.median(run.get(name, 0) for run in self.runs_ns) / 1e3 for name in names}
        left = dict(flops)
        made = []
        for name in sorted(us, key=lambda name: -us[name]):
            nodes = self.nodes.get(name, ())
            # a node's arithmetic is done in the longest of its operations
            done = sum(left.pop(output, 0.0) for node in nodes for output in node.outputs)
            label = nodes[-1].label() if nodes else name[1]
            made.append(Operation(label, name[0], *self.shapes[name], us[name], done or None))
        return made


def _around(graph: Graph, outside: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in graph.nodes:
        yield from ((name, outside) for name in node.outputs if name and outside)
        for body in node.subgraphs():
            yield from _around(body, (*outside, next(filter(None, node.outputs), "")))


def _of_arrays(values: Iterable[Any]) -> list[Shape]:
    return [tuple(value.shape) for value in values if hasattr(value, "shape")]


def _of_text(described: Iterable[dict[str, list[int]]]) -> list[Shape]:
    return [tuple(shape) for one in described for shape in one.values()]


def measure(session: InferenceSession, feeds: dict[str, Any], seconds: float) -> Profile:
    """Runs that are watched, in turns with ones that are not."""
    from distort.engine import RunControl
    from distort.feeds import read_feeds

    loaded = session._sess._loaded
    values = read_feeds(loaded.specs, feeds)
    collector = Collector(loaded.engine.model.graph)
    control = RunControl(observer=collector.observe, on_report=collector.report)
    for _ in range(_WARM_RUNS):
        session.run(None, feeds)
    alone_s: list[float] = []
    until = time.perf_counter() + min(seconds, _MOST_S)
    while not alone_s or time.perf_counter() < until:
        began = time.perf_counter()
        session.run(None, feeds)
        alone_s.append(time.perf_counter() - began)
        loaded.engine.run(loaded.output_names, values, control=control)
        collector.end_run()
    flops = {} if loaded.engine.parallel else _arithmetic(loaded, values)
    return Profile(statistics.median(alone_s) * 1e6, collector.operations(flops))


def _arithmetic(loaded: Loaded, feeds: dict[str, Any]) -> dict[str, float]:
    """Floating-point operations of the products in a run by NumPy kernels, where each node is one; by first output."""
    from distort.kernels.program import Program
    from distort.scheduler.flops import Operands, flops, is_product

    found: dict[str, float] = {}

    def observe(node: Node, start_ns: int, end_ns: int, inputs: Any, outputs: Any) -> None:
        if is_product(node.op_type):
            output = next(filter(None, node.outputs), "")
            ins, outs = ([getattr(value, "shape", None) for value in values] for values in (inputs, outputs))
            found[output] = found.get(output, 0.0) + flops(Operands(node, ins, outs))

    Program(loaded.engine.model.graph).run(feeds, observe)
    return found
