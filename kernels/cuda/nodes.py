"""The nodes of a graph on a GPU, one at a time: bodies over CuPy, or over NumPy where CuPy can't run them.

What moves between host and GPU for that is counted by the node's name, so that nothing is copied unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node, SparseInitializer
from distort.kernels.compiler.ir import Host
from distort.kernels.cuda import copies, fallback, memory
from distort.kernels.cuda.builder import why_on_cpu
from distort.kernels.cuda.copies import TO_DEVICE, TO_HOST, Copies
from distort.kernels.cuda.weights import Weights, is_held
from distort.kernels.program import MakesBodies, Program
from distort.kernels.registry import Kernel, find


class DeviceNodes(Program):
    """As :class:`Program`. Values are CuPy arrays, or NumPy arrays where a node made them on the CPU."""

    def __init__(
        self,
        graph: Graph,
        pool: memory.Pool,
        weights: Weights,
        counted: Copies,
        *,
        outputs: Sequence[str] | None = None,
        captures: Sequence[str] = (),
        bodies: MakesBodies | None = None,
    ) -> None:
        import cupy

        self._pool, self._weights, self._counted = pool, weights, counted
        self._known: dict[int, Any] = {}
        self.know(*graph.initializers.values())
        #: nodes on the CPU, each with the reason
        self.on_cpu: list[tuple[Node, str]] = []
        super().__init__(graph, device="cuda", xp=cupy, outputs=outputs, captures=captures, bodies=bodies)

    def know(self, *values: Any) -> None:
        """These are the same in all runs: they go to the GPU once."""
        self._known |= {id(value): value for value in values}

    def _weight(self, value: Any) -> Any:
        # it goes to the GPU when the first node there reads it: what is part of a plan has it elsewhere
        return value.dense() if isinstance(value, SparseInitializer) else value

    def _find(self, node: Node) -> Kernel | None:
        return super()._find(node) or find(node.domain, node.op_type, node.opset, "cpu")

    def _why_on_cpu(self, node: Node, entry: Kernel) -> str | None:
        if entry.device == "cpu":
            return fallback.reason_anywhere(node.domain, node.op_type) or fallback.CPU_ALONE
        return fallback.reason(node.domain, node.op_type) if entry.device == "any" else None

    def _call_of(self, node: Node, entry: Kernel) -> Callable[..., Any]:
        why = self._why_on_cpu(node, entry)
        if why is not None:
            self.on_cpu.append((node, why))
            return self._cpu_call(node)
        on_gpu = partial(entry.function, self.xp, **self._keywords(node, entry))
        return partial(self._run, node, on_gpu, frozenset(entry.host))

    def _cpu_call(self, node: Node) -> Callable[..., Any]:
        entry = find(node.domain, node.op_type, node.opset, "cpu")
        assert entry is not None, "a body for any device is the CPU's too"
        return partial(self._run_on_cpu, node, partial(entry.function, np, **self._keywords(node, entry)))

    def _control_flow(self, node: Node, entry: Kernel, captured: list[str]) -> Callable[..., Any]:
        why = self._why_on_cpu(node, entry)
        if why is None:
            inner, moved = super()._control_flow(node, entry, captured), self._on_device
        else:  # and so are its bodies
            self.on_cpu.append((node, why))
            inner, moved = Program(Graph())._control_flow(node, entry, captured), self.on_host

        def call(scope: Any, *values: Any) -> Any:
            return inner(scope, *[moved(node, value) for value in values])

        call.needs_scope = True  # type: ignore[attr-defined]  # a flag on our own closure
        return call

    # -- one node

    def _run(self, node: Node, call: Callable[..., Any], host: frozenset[int], *values: Any) -> Any:
        if fallback.reason_of_values(node, fallback.dtypes_of(values)) is not None:
            return self._cpu_call(node)(*values)
        arguments = [
            self.on_host(node, value) if position in host else self._on_device(node, value)
            for position, value in enumerate(values)
        ]
        return call(*arguments)

    def _run_on_cpu(self, node: Node, call: Callable[..., Any], *values: Any) -> Any:
        with np.errstate(all="ignore"):
            return call(*[self.on_host(node, value) for value in values])

    def _on_device(self, node: Node, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if id(value) in self._known:
                return self._weights.of(value)
            if not is_held(value.dtype):
                return value
            self._counted.count(node.label(), TO_DEVICE, value.nbytes)
            return copies.to_device(value, self._pool.device_id)
        if isinstance(value, (list, tuple)):
            return type(value)(self._on_device(node, item) for item in value)
        return value

    def on_host(self, node: Node, value: Any) -> Any:
        """A value as NumPy has it; what lies on the GPU is waited for."""
        if isinstance(value, self.xp.ndarray):
            self._counted.count(node.label(), TO_HOST, value.nbytes)
            return copies.to_host([value], [value.dtype])[0]
        if isinstance(value, (list, tuple)):
            return type(value)(self.on_host(node, item) for item in value)
        if isinstance(value, Mapping):
            return {key: self.on_host(node, item) for key, item in value.items()}
        return value


def read_on_host(graph: Graph) -> frozenset[str]:
    """Inputs of a graph that its nodes read on the host: shapes, axes, and what nodes on the CPU take."""
    host: set[str] = set()
    device = set(graph.outputs)
    for node in graph.nodes:
        entry = find(node.domain, node.op_type, node.opset, "cuda")
        on_cpu = why_on_cpu(node) is not None
        for position, name in enumerate(node.inputs):
            on_host = on_cpu or (entry is not None and position in entry.host)
            (host if on_host else device).add(name)
        device.update(node.captured())
    return frozenset(name for name in graph.inputs if name in host and name not in device)


class Bodies:
    """Who runs the body of a plan's host step. ``make`` makes nodes of a graph."""

    def __init__(self, graph: Graph, nodes: DeviceNodes, make: Callable[[Graph], DeviceNodes]) -> None:
        self._nodes, self._make = nodes, make
        self._alone: dict[int, DeviceNodes] = {}
        self._number_of = {id(n): i for i, n in enumerate(graph.nodes) if not any(True for _ in n.subgraphs())}

    def of(self, host: Host) -> tuple[DeviceNodes, int]:
        """The nodes, and the number of the step's node among them.

        Nodes with bodies of their own, and those of branches that became part of the plan, are made by themselves.
        """
        node = host.origin
        number = self._number_of.get(id(node))
        if number is not None:
            return self._nodes, number
        nodes = self._alone.get(id(node))
        if nodes is None:
            inputs = list(dict.fromkeys(name for name in (*node.inputs, *node.captured()) if name))
            graph = Graph(inputs=inputs, outputs=[name for name in node.outputs if name], nodes=[node])
            nodes = self._alone[id(node)] = self._make(graph)
        return nodes, 0


__all__ = ["Bodies", "DeviceNodes", "read_on_host"]
