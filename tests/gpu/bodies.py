"""A graph whose nodes run the common bodies over the fake CuPy, as a GPU's stage runs them where it has no code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distort.engine import load_model
from distort.graph.inference import infer
from distort.graph.ir import Graph, Node, SparseInitializer
from distort.kernels.cuda.fallback import dtypes_of, on_host, reason, reason_of_values
from distort.kernels.program import Program, RunScope, Step
from distort.kernels.registry import Kernel, find


def graph_of(content: bytes) -> Graph:
    """A model's graph with all types that can be inferred; functions without a kernel are their nodes."""
    model = load_model(content, released_only=False)
    infer(model)
    return model.graph


class Bodies(Program):
    """``host`` inputs are NumPy's, and so is all of nodes that ``fallback`` sends to the CPU; the rest is CuPy's."""

    def __init__(self, graph: Graph, cupy: Any, captures: Sequence[str] = ()) -> None:
        self._cupy = cupy

        def make(graph: Graph, captures: Sequence[str]) -> Bodies:
            return Bodies(graph, cupy, captures)

        super().__init__(graph, device="cuda", xp=cupy, captures=captures, bodies=make)
        self._on_host = Program(graph, captures=captures)
        self.fell_back: dict[str, str] = {}  # operator -> why
        #: (domain, operator) -> most launches, synchronizations and uploads of a node, those of its bodies too
        self.costs: dict[tuple[str, str], Counter[str]] = {}

    def _weight(self, value: Any) -> Any:
        return to_device(self._cupy, value.dense() if isinstance(value, SparseInitializer) else value)

    def _lower(self, node: Node) -> Step:
        if find(node.domain, node.op_type, node.opset, "cuda") is not None:
            return super()._lower(node)
        self.device, self.xp = "cpu", np
        try:
            return super()._lower(node)
        finally:
            self.device, self.xp = "cuda", self._cupy

    def _call(self, step: Step, arguments: list[Any], scope: RunScope) -> Sequence[Any]:
        node = step.node
        entry = find(node.domain, node.op_type, node.opset, "cuda")
        why = reason(node.domain, node.op_type) or reason_of_values(node, dtypes_of(arguments))
        if why:
            self.fell_back[node.op_type] = why
            step = self._on_host.step(self._steps.index(step))
            results: Sequence[Any] = Program._call(self, step, [to_host(value) for value in arguments], scope)
        else:
            assert entry is not None, f"{node.op_type} has a kernel for the CPU alone, and the table does not say why"
            placed = [self._place(entry, i, value) for i, value in enumerate(arguments)]
            before = self._counts()
            results = Program._call(self, step, placed, scope)
            key = node.domain, node.op_type
            self.costs[key] = self.costs.get(key, Counter()) | (self._counts() - before)
        return [to_device(self.xp, value) for value in results]

    def _counts(self) -> Counter[str]:
        counts = self.xp.fake.counts()
        waits = self.xp.fake.synchronizations()
        return Counter(launch=counts["launch"], synchronization=waits, upload=counts["upload"])

    def _place(self, entry: Kernel, position: int, value: Any) -> Any:
        return to_host(value) if position in entry.host else to_device(self.xp, value)


class Kinds:
    """Element types of all values of a run, by name, round by round."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}

    def __call__(self, node: Node, start: int, end: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for name, value in zip(node.outputs, outputs, strict=False):
            if name:
                self.seen.setdefault(name, []).extend(dtypes_of([value]))


def compare(cupy: Any, content: bytes, feeds: Mapping[str, Any], random: bool = False) -> Bodies:
    """Run a model over NumPy and over CuPy: all values are of the same types, and the results are alike."""
    graph = graph_of(content)
    plain, ours = Kinds(), Kinds()
    wanted = Program(graph).run(feeds, plain)
    bodies = Bodies(graph, cupy)
    got = bodies.run({name: to_device(cupy, value) for name, value in feeds.items()}, ours)
    different = {name: (kinds, ours.seen.get(name)) for name, kinds in plain.seen.items() if kinds != ours.seen[name]}
    assert not different, f"CuPy's element types are not NumPy's: {different}"
    if not random:
        for one, other in zip(got, wanted, strict=True):
            assert_alike(one, other)
    return bodies


def assert_alike(got: Any, want: Any) -> None:
    if isinstance(want, (list, tuple)):
        assert isinstance(got, (list, tuple)) and len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_alike(one, other)
    elif want is None or isinstance(want, dict):
        assert got == want
    else:
        got, want = np.asarray(to_host(got)), np.asarray(want)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind in "OUS":
            assert got.tolist() == want.tolist()
        else:
            wide = np.complex128 if want.dtype.kind == "c" else np.longdouble if want.dtype.kind in "iu" else np.float64
            np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=1e-5, atol=1e-6)


def to_host(value: Any) -> Any:
    if isinstance(value, list):
        return [to_host(part) for part in value]
    return value.get() if hasattr(value, "get") and not isinstance(value, dict) else value


def to_device(cupy: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [to_device(cupy, part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)) and not on_host(value.dtype):
        return cupy.asarray(np.asarray(value))
    return value
