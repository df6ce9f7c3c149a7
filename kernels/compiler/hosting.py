"""NumPy kernels between native steps, for whatever values a run has: see host_calls.py for runs gone before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler import arrays
from distort.kernels.compiler.host_calls import FRESH
from distort.kernels.compiler.ir import Tensor
from distort.kernels.program import Program, RunScope, Step

if TYPE_CHECKING:
    from distort.kernels.compiler.executable import Instance, Segment


class Surprise(Exception):
    """A value has another shape than was expected of it."""

    def __init__(self, name: str) -> None:
        self.name = name


class HostKernels:
    """The NumPy kernels of a graph. ``plain``: its nodes' program; ``body`` makes one of a graph inside a node."""

    def __init__(self, graph: Graph, plain: Program, body: Callable[..., Any]) -> None:
        self._graph, self._plain, self._body = graph, plain, body
        self._number_of = {id(n): i for i, n in enumerate(graph.nodes) if not any(True for _ in n.subgraphs())}
        self._alone: dict[int, Program] = {}

    def run(
        self,
        segment: Segment,
        instance: Instance,
        given: Sequence[Any],
        results: Sequence[Any],
        named: dict[str, Any],
        scope: RunScope,
    ) -> None:
        """Do a segment's step. ``named``: values of this run that have no place in the plan."""
        host = segment.host
        assert host is not None
        views, targets = instance.hosted[segment.number]
        arguments: list[Any] = []
        for argument, view in zip(host.arguments, views, strict=True):
            if argument is None:
                arguments.append(None)
            elif isinstance(argument, str):
                arguments.append(self.named(argument, given, named))
            else:
                arguments.append(view if view is not None else arrays.outside(argument, given, results))
        program, number = self._program_of(host.origin)
        fresh = host.node.op_type in FRESH
        with nullcontext() if fresh else np.errstate(all="ignore"):
            made = program.call(number, arguments, scope)
        for result, view, value in zip(host.results, targets, made, strict=False):
            if isinstance(result, Tensor):
                place = view if view is not None else arrays.outside(result, given, results)
                if not isinstance(value, (np.ndarray, np.generic)) or (value.shape, value.dtype) != (
                    place.shape,
                    place.dtype,
                ):
                    raise Surprise(host.node.outputs[list(host.results).index(result)])
                place[...] = value
            elif result:
                named[result] = value if fresh else arrays.apart(value, instance.memory)

    def named(self, name: str, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """A value of a run by its name: one that was made, was fed, or that the model has."""
        if name in named:
            return named[name]
        inputs = self._plain.inputs
        if name in inputs and given[inputs.index(name)] is not None:
            return given[inputs.index(name)]
        return self.weight(name)

    def weight(self, name: str) -> Any:
        """A value that the model has; None where it has none of this name."""
        return self._graph.initializers.get(name)

    def step_of(self, node: Node) -> Step:
        """The kernel of a node."""
        program, number = self._program_of(node)
        return program.step(number)

    def _program_of(self, node: Node) -> tuple[Program, int]:
        """Who calls a node's kernel, and the node's number there.

        Nodes of branches that became part of the plan, and those whose bodies did not, are programs of their own.
        """
        number = self._number_of.get(id(node))
        if number is not None:
            return self._plain, number
        program = self._alone.get(id(node))
        if program is None:
            inputs = list(dict.fromkeys(name for name in (*node.inputs, *node.captured()) if name))
            graph = Graph(inputs=inputs, outputs=[name for name in node.outputs if name], nodes=[node])
            program = self._alone[id(node)] = Program(graph, bodies=self._body)
        return program, 0


__all__ = ["HostKernels", "Surprise"]
