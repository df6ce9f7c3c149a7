"""onnxruntime's profile: a JSON array of complete events ("ph": "X"), times in microseconds since the profile began."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node
from distort.graph.types import NAME_OF, element_of


class Profiler:
    """Collects the events of one session and writes them once."""

    def __init__(self, prefix: str) -> None:
        self.start_ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(self.start_ns / 1e9))
        self.path = f"{prefix}_{stamp}_{self.start_ns // 1_000_000 % 1000:03d}.json"
        self._events: list[dict[str, Any]] | None = []
        self._positions: dict[str, int] = {}
        self._weights: frozenset[str] = frozenset()

    def watch(self, graph: Graph) -> None:
        """Number the nodes and know the weights of the graph that runs."""
        self._positions = {name: i for name, i in graph.producers().items()}
        self._weights = frozenset(graph.initializers)

    def add(self, category: str, name: str, start_ns: int, end_ns: int, args: dict[str, Any] | None = None) -> None:
        if self._events is not None:
            self._events.append(
                {
                    "cat": category,
                    "pid": os.getpid(),
                    "tid": threading.get_native_id(),
                    "dur": max(0, end_ns - start_ns) // 1000,
                    "ts": max(0, start_ns - self.start_ns) // 1000,
                    "ph": "X",
                    "name": name,
                    "args": args or {},
                }
            )

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A Session event over a block."""
        start_ns = time.time_ns()
        try:
            yield
        finally:
            self.add("Session", name, start_ns, time.time_ns())

    def observe(self, node: Node, start_ns: int, end_ns: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """A Node event; called after each step of a run."""
        position = next((self._positions[name] for name in node.outputs if name in self._positions), -1)
        weights = [v for n, v in zip(node.inputs, inputs, strict=False) if n in self._weights]
        activations = [v for n, v in zip(node.inputs, inputs, strict=False) if n not in self._weights]
        args: dict[str, Any] = {"op_name": node.op_type, "provider": "CPUExecutionProvider"}
        if position >= 0:
            args["node_index"] = str(position)
        if inputs or outputs:
            args |= {
                "input_type_shape": _types_and_shapes(inputs),
                "output_type_shape": _types_and_shapes(outputs),
                "activation_size": str(_nbytes(activations)),
                "parameter_size": str(_nbytes(weights)),
                "output_size": str(_nbytes(outputs)),
            }
        name = node.name or f"{node.op_type}_{position}"
        self.add("Node", f"{name}_kernel_time", start_ns, end_ns, args)

    def end(self) -> str:
        """Write the file; its path, or nothing where it was written before."""
        if self._events is None:
            return ""
        events, self._events = self._events, None
        lines = ",\n".join(json.dumps(event, separators=(",", " :")) for event in events)
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(f"[\n{lines}\n]\n")
        return self.path


def _arrays(values: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    return [value for value in values if isinstance(value, np.ndarray)]


def _types_and_shapes(values: Sequence[Any]) -> list[dict[str, list[int]]]:
    return [{NAME_OF[element_of(array.dtype)]: list(array.shape)} for array in _arrays(values)]


def _nbytes(values: Sequence[Any]) -> int:
    return sum(array.nbytes for array in _arrays(values))
