"""ScatterElements and ScatterND in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.errors import KernelError

from .movement import check, compiles_for_arm, lesser_library, one_node

_REDUCTIONS = ("none", "add", "mul", "max", "min")


def _values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(7).normal(size=shape) * 5).astype(dtype)


def _indices(shape: tuple[int, ...], size: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(8).integers(-size, size, shape).astype(dtype)


@pytest.mark.parametrize("reduction", _REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
@pytest.mark.parametrize(
    ("shape", "axis", "index_shape"),
    [
        ((7,), 0, (40,)),
        ((5, 37), 0, (9, 37)),
        ((5, 37), 0, (9, 20)),
        ((5, 37), -1, (4, 50)),
        ((3, 4, 70), 1, (3, 9, 70)),
        ((3, 4, 70), 1, (2, 3, 1)),
        ((3, 4), 0, (0, 4)),
    ],
)
def test_scatter_elements(
    shape: tuple[int, ...], axis: int, index_shape: tuple[int, ...], reduction: str, dtype: Any
) -> None:
    feeds = {
        "x": _values(shape, dtype),
        "i": _indices(index_shape, shape[axis], np.int32 if axis else np.int64),
        "u": _values(index_shape, dtype),
    }
    check(one_node("ScatterElements", feeds, axis=axis, reduction=reduction), feeds, exact=dtype != np.float32)


@pytest.mark.parametrize("reduction", _REDUCTIONS)
@pytest.mark.parametrize(("shape", "index_shape"), [((6, 50), (9, 1)), ((6, 5), (4, 3, 2)), ((3, 4, 700), (8, 2))])
def test_scatter_nd(shape: tuple[int, ...], index_shape: tuple[int, ...], reduction: str) -> None:
    depth = index_shape[-1]
    indices = np.stack([_indices(index_shape[:-1], size) for size in shape[:depth]], -1)
    feeds = {"x": _values(shape), "i": indices, "u": _values((*index_shape[:-1], *shape[depth:]))}
    for n_threads in (1, 2):
        check(one_node("ScatterND", feeds, reduction=reduction), feeds, exact=False, n_threads=n_threads)


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.float64, np.int64])
def test_of_other_types(dtype: Any) -> None:
    feeds = {"x": _values((5, 37), dtype), "i": _indices((9, 37), 5), "u": _values((9, 37), dtype)}
    check(one_node("ScatterElements", feeds), feeds)
    feeds = {"x": _values((5, 37), dtype), "i": _indices((9, 1), 5), "u": _values((9, 37), dtype)}
    check(one_node("ScatterND", feeds), feeds)


@pytest.mark.parametrize("op_type", ["ScatterElements", "ScatterND"])
def test_an_index_out_of_range(op_type: str) -> None:
    feeds = {"x": _values((5,)), "i": np.array([[4], [5]]), "u": _values((2,))}
    if op_type == "ScatterElements":
        feeds["i"] = feeds["i"][:, 0]
    with pytest.raises(KernelError, match="out of data bounds"):
        check(one_node(op_type, feeds), feeds)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = {"x": _values((5, 37)), "i": _indices((9, 1), 5), "u": _values((9, 37))}
    for reduction in ("none", "max"):
        graph = one_node("ScatterND", feeds, reduction=reduction)
        check(graph, feeds, exact=False, library=lesser_library(target))
        compiles_for_arm(graph, feeds)
    feeds["i"] = _indices((9, 37), 5)
    graph = one_node("ScatterElements", feeds)
    check(graph, feeds, exact=False, library=lesser_library(target))
    compiles_for_arm(graph, feeds)
