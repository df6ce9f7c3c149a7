"""Any product of any views: transposed, broadcast, sliced; with what comes after it, in any order of dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distort.kernels.cuda.device_libraries import Libraries
from distort.kernels.cuda.options import CudaOptions

from .lowered import run
from .test_library_operations import node, real


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any]]:
    n_batch = draw(st.integers(0, 3))
    batch = [draw(st.integers(1, 3)) for _ in range(n_batch)]
    rows, depth, columns = (draw(st.integers(1, 6)) for _ in range(3))
    feeds: dict[str, Any] = {}
    nodes: list[Any] = []

    def operand(name: str, shape: list[int]) -> str:
        """Of this shape in the graph, however it lies: permuted from another, or cut out of a larger one."""
        permutation = draw(st.permutations(range(len(shape))))
        feeds[name] = real(*(shape[a] for a in permutation), seed=len(feeds))
        inverse = [permutation.index(a) for a in range(len(shape))]
        nodes.append(node("Transpose", name, f"{name}_turned", perm=inverse))
        if draw(st.booleans()):
            feeds[name] = np.concatenate([feeds[name], feeds[name]], 0)
            axis = permutation[0]
            nodes.append(node("Split", f"{name}_turned", f"{name}_first {name}_second", axis=axis, num_outputs=2))
            return f"{name}_second"
        return f"{name}_turned"

    def of_batch() -> list[int]:
        return [n if draw(st.booleans()) else 1 for n in batch]

    left = operand("a", [*of_batch(), rows, depth])
    right = operand("b", [*of_batch()[draw(st.integers(0, n_batch)) :], depth, columns])
    nodes.append(node("MatMul", f"{left} {right}", "m"))
    last = "m"
    if draw(st.booleans()):
        feeds["s"] = real(*([columns] if draw(st.booleans()) else [rows, columns]), seed=9)
        nodes.append(node("Add", f"{last} s", "added"))
        last = "added"
    if draw(st.booleans()):
        nodes.append(node("Relu", last, "active"))
        last = "active"
    rank = max(feeds["a"].ndim, feeds["b"].ndim)
    nodes.append(node("Transpose", last, perm=list(draw(st.permutations(range(rank))))))
    return nodes, feeds


# what a test has of the GPU is the same for all graphs
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs())
def test_any_product(fake_cuda: Any, graph: tuple[list[Any], dict[str, Any]]) -> None:
    libraries = Libraries(90, CudaOptions(use_tf32=False))
    nodes, feeds = graph
    ran = run(nodes, feeds, {}, libraries, fake_cuda.cuda.Stream(non_blocking=True))
    assert "cuda product" in ran.kinds
    ran.close(1e-4, 1e-4)
    libraries.close()


@pytest.mark.parametrize("heads", [1, 3])
def test_projections_of_heads(fake_cuda: Any, heads: int) -> None:
    """[B, S, H · D] cut into heads, multiplied, put together again, and projected with a residual."""
    libraries = Libraries(90, CudaOptions(use_tf32=False))
    nodes = [
        node("MatMul", "x w", "p"),
        node("Add", "p b", "q"),
        node("Reshape", "q s", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3]),
        node("Transpose", "r", "u", perm=[0, 2, 3, 1]),
        node("MatMul", "t u", "v"),
        node("MatMul", "v t", "z"),
        node("Transpose", "z", "c", perm=[0, 2, 1, 3]),
        node("Reshape", "c f", "d"),
        node("MatMul", "d o", "e"),
        node("Add", "e x"),
    ]
    weights = {"w": real(12, 12), "b": real(12), "o": real(12, 12)}
    weights |= {"s": np.array([2, 5, heads, 12 // heads]), "f": np.array([2, 5, 12])}
    ran = run(nodes, {"x": real(2, 5, 12)}, weights, libraries, fake_cuda.cuda.Stream(non_blocking=True))
    assert ran.kinds == ["cuda product"] * 4
    ran.close(1e-3, 1e-3)
    libraries.close()
