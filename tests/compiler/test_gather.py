"""Gather, GatherElements and GatherND in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.errors import KernelError

from .movement import check, compiles_for_arm, lesser_library, one_node


def _values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(7).normal(size=shape) * 50).astype(dtype)


def _indices(shape: tuple[int, ...], size: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(8).integers(-size, size, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, np.bool_, np.int64])
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("shape", "axis", "index_shape"),
    [
        ((7,), 0, (40,)),
        ((5, 3), 0, (2, 9)),
        ((5, 37), 0, (3,)),
        ((5, 37), -1, (19,)),
        ((4, 5, 1), 1, (33,)),
        ((2, 5, 130), 1, (3, 2)),
        ((2, 3, 4, 5), 2, ()),
        ((9, 2), 0, (0,)),
    ],
)
def test_gather(dtype: Any, index_dtype: Any, shape: tuple[int, ...], axis: int, index_shape: tuple[int, ...]) -> None:
    feeds = {"x": _values(shape, dtype), "i": _indices(index_shape, shape[axis], index_dtype)}
    check(one_node("Gather", feeds, axis=axis), feeds)


@pytest.mark.parametrize("indices", [2, [1], [3, 2, 1], [0, 2, 4], [0, 3, 1], [[0, 1], [1, 0]], [-1, -2]])
def test_gather_with_known_indices(indices: object) -> None:
    feeds = {"x": _values((3, 5, 4))}
    check(one_node("Gather", feeds, {"i": np.array(indices)}, axis=1), feeds)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements(axis: int) -> None:
    shape = (3, 4, 70)
    for size in (shape[axis], 1, 9):
        index_shape = list(shape)
        index_shape[axis] = size
        feeds = {"x": _values(shape), "i": _indices(tuple(index_shape), shape[axis])}
        check(one_node("GatherElements", feeds, axis=axis), feeds)


def test_gather_elements_of_repeated_indices() -> None:
    graph = one_node("GatherElements", {"x": 0, "wide": 0}, axis=0)
    graph.inputs = ["x", "i"]
    expand = one_node("Expand", {"i": 0}, {"shape": np.array([4, 300])})
    expand.nodes[0].outputs = ["wide"]
    graph.nodes = [*expand.nodes, *graph.nodes]
    graph.initializers |= expand.initializers
    check(graph, {"x": _values((6, 300)), "i": _indices((4, 1), 6)})


@pytest.mark.parametrize(
    ("shape", "index_shape", "batch_dims"),
    [
        ((5, 6, 7), (4, 2), 0),
        ((5, 6, 7), (4, 3), 0),
        ((5, 6, 35), (2, 4, 1), 0),
        ((5, 6, 7), (5, 3, 1), 1),
        ((2, 3, 6, 7), (2, 3, 4, 2), 2),
        ((2, 3, 6), (2, 3, 1), 2),
    ],
)
def test_gather_nd(shape: tuple[int, ...], index_shape: tuple[int, ...], batch_dims: int) -> None:
    sizes = shape[batch_dims : batch_dims + index_shape[-1]]
    columns = [_indices(index_shape[:-1], size) for size in sizes]
    feeds = {"x": _values(shape), "i": np.stack(columns, -1)}
    check(one_node("GatherND", feeds, batch_dims=batch_dims), feeds)


@pytest.mark.parametrize(
    ("op_type", "shape", "indices"),
    [
        ("Gather", (4, 8), [0, 4]),
        ("Gather", (4, 8), [-5]),
        ("Gather", (4,), [1] * 40 + [4]),
        ("Gather", (4,), [1] * 15 + [-(1 << 62)] + [1] * 20),
        ("Gather", (4,), [1 << 32]),
        ("GatherElements", (4, 2), [[0, 4]]),
        ("GatherND", (4, 2), [[0, 1], [1, 2]]),
    ],
)
def test_an_index_out_of_range_raises_what_the_plain_kernel_raises(
    op_type: str, shape: tuple[int, ...], indices: list[int]
) -> None:
    feeds = {"x": _values(shape), "i": np.array(indices)}
    graph = one_node(op_type, feeds)
    good = feeds | {"i": np.zeros_like(feeds["i"])}
    check(graph, good)
    with pytest.raises(KernelError, match="indices element out of data bounds"):
        check(graph, feeds)


def test_after_an_error_the_program_runs_on() -> None:
    from distort.kernels.compiler.program import CompiledProgram

    feeds = {"x": _values((4, 8)), "i": np.array([9])}
    program = CompiledProgram(one_node("Gather", feeds))
    with pytest.raises(KernelError):
        program.run(feeds)
    (found,) = program.run(feeds | {"i": np.array([3])})
    np.testing.assert_array_equal(found, feeds["x"][3:])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    feeds = {"x": _values((300, 700)), "i": _indices((900,), 300)}
    check(one_node("Gather", feeds), feeds, n_threads=2)
    feeds = {"x": _values((300, 700)), "i": _indices((300, 900), 700)}
    check(one_node("GatherElements", feeds, axis=1), feeds, n_threads=2)


@pytest.mark.parametrize("batch_axis", [0, 1])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 33), (4, 5, 2, 3)])
def test_reverse_sequence(shape: tuple[int, ...], batch_axis: int) -> None:
    lengths = np.array([0, 3, 1, 4, 2][: shape[batch_axis]])
    feeds = {"x": _values(shape), "n": lengths}
    graph = one_node("ReverseSequence", feeds, batch_axis=batch_axis, time_axis=1 - batch_axis)
    check(graph, feeds)
    with pytest.raises(KernelError, match="sequence_lens"):
        check(graph, feeds | {"n": lengths + 4})


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    library = lesser_library(target)
    for dtype in (np.float32, np.int64, np.uint8):
        feeds = {"x": _values((5, 37), dtype), "i": _indices((3, 37), 5)}
        check(one_node("Gather", feeds), feeds, library=library)
        check(one_node("GatherElements", feeds), feeds, library=library)


def test_for_arm() -> None:
    feeds = {"x": _values((5, 37)), "i": _indices((3, 37), 5)}
    compiles_for_arm(one_node("Gather", feeds), feeds)
    compiles_for_arm(one_node("GatherElements", feeds), feeds)
