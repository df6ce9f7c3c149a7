"""One node, compiled for several targets and threads, against its NumPy kernel."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.codegen.target import Target, host, of_features
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import Library, compile_text, module_text
from distort.kernels.compiler.program import CompiledProgram


@functools.cache
def lesser_library(name: str) -> Library:
    """Kernels for this machine as if it had no more than "avx2" or "sse4.2"; for the machine itself where it's arm."""
    machine = host()
    if not machine.triple.startswith("x86_64"):
        return Library(machine)
    features = {"avx2": {"avx2": True, "fma": True}, "sse4.2": {}}[name]
    cpu = {"avx2": "x86-64-v3", "sse4.2": "x86-64-v2"}[name]
    return Library(of_features(machine.triple, cpu, features))


def compiles_for_arm(graph: Graph, feeds: Mapping[str, Any]) -> None:
    """Compile the graph's kernels for a processor that is not this one."""
    target = of_features("aarch64-unknown-linux-gnu", "generic", {"neon": True})
    plan = CompiledProgram(graph, library=_Printer(target)).prepare([(v.dtype, v.shape) for v in feeds.values()])
    assert any(step.call is not None for step in plan.steps)


class _Printer(Library):
    """Compiles and loads nothing."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)

    def get(self, keys: Iterable[Key]) -> dict[Key, int]:
        wanted = list(dict.fromkeys(keys))
        compile_text(module_text(wanted, self.target), self.target)
        return dict.fromkeys(wanted, 0)


def one_node(
    op_type: str,
    feeds: Mapping[str, Any],
    known: Mapping[str, Any] | None = None,
    *,
    order: Sequence[str] | None = None,
    n_outputs: int = 1,
    opset: int = 21,
    **attributes: Any,
) -> Graph:
    """A graph of one node. ``known``: inputs that are initializers; ``order``: of all inputs, "" for an absent one."""
    known = known or {}
    names = list(order) if order is not None else [*feeds, *known]
    outputs = [f"y{i}" for i in range(n_outputs)]
    graph = Graph(inputs=list(feeds), outputs=outputs, initializers={k: np.asarray(v) for k, v in known.items()})
    graph.nodes = [Node(op_type, "", names, outputs, attributes=attributes, opset=opset)]
    return graph


def between_convolutions(graph: Graph, channels: int) -> Graph:
    """The graph's one node on ``x`` [N, C, H, W] with convolutions (1×1) before and after it."""
    weights = np.random.default_rng(3).normal(size=(channels, channels, 1, 1)).astype(np.float32) / 4
    (node,) = graph.nodes
    node.inputs[0], node.outputs[0] = "before", "after"
    first = Node("Conv", "", ["x", "weights"], ["before"], opset=node.opset)
    last = Node("Conv", "", ["after", "weights"], ["y0"], opset=node.opset)
    graph.nodes = [first, node, last]
    graph.initializers["weights"] = weights
    return graph


def check(
    graph: Graph,
    feeds: Mapping[str, Any],
    *,
    exact: bool = True,
    native: bool = True,
    n_threads: int = 1,
    library: Library | None = None,
) -> list[Any]:
    """Run both ways and compare; ``native``: no NumPy kernel may be left. Returns the compiled program's results."""
    program = CompiledProgram(graph, n_threads=n_threads, library=library)
    found = program.run(feeds)
    plan = program.prepare([(feeds[n].dtype, feeds[n].shape) for n in program.inputs])
    if native:
        assert not [o.node.op_type for o in plan.operations if isinstance(o, Host)]
    for mine, wanted in zip(found, program.plain.run(feeds), strict=True):
        assert mine.dtype == wanted.dtype and mine.shape == wanted.shape
        if exact:
            np.testing.assert_array_equal(mine, wanted)
        else:
            np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-5)
    return found
