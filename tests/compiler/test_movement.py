"""Concat, Tile, SpaceToDepth, DepthToSpace and what is made from shapes, in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .movement import check, one_node


def _values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(7).normal(size=shape) * 50).astype(dtype)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_concat(axis: int, n_threads: int) -> None:
    sizes = [3, 1, 0, 40]
    feeds = {}
    for i, size in enumerate(sizes):
        shape = [9, 64, 33]
        shape[axis] = size
        feeds[f"x{i}"] = _values(tuple(shape))
    check(one_node("Concat", feeds, axis=axis), feeds, n_threads=n_threads)


@pytest.mark.parametrize("counts", [[2, 3], [1, 4], [3, 1], [1, 1], [0, 2]])
@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (3, 1), (1, 1)])
def test_tile(shape: tuple[int, ...], counts: list[int]) -> None:
    feeds = {"x": _values(shape)}
    check(one_node("Tile", feeds, {"counts": np.array(counts)}), feeds)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("op_type", ["SpaceToDepth", "DepthToSpace"])
def test_space_and_depth(op_type: str, mode: str) -> None:
    feeds = {"x": _values((2, 12, 6, 10))}
    check(one_node(op_type, feeds, blocksize=2, mode=mode), feeds)


def test_constant_of_shape() -> None:
    for shape in ([300, 400], [3], [], [0, 2]):
        graph = one_node("ConstantOfShape", {}, {"s": np.array(shape, np.int64)}, value=np.array([7], np.int32))
        check(graph, {})


def test_range() -> None:
    known = {"a": np.array(3), "b": np.array(100_000), "c": np.array(2)}
    check(one_node("Range", {}, known), {})


def test_eye_like() -> None:
    feeds = {"x": _values((5, 7))}
    check(one_node("EyeLike", feeds, k=-2), feeds)
    check(one_node("EyeLike", feeds, dtype=6), feeds)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, -1, 2, 100])
def test_trilu(upper: int, k: int | None) -> None:
    feeds = {"x": _values((2, 5, 7))}
    feeds["x"][0, 1, 1] = np.nan
    known = {} if k is None else {"k": np.array(k)}
    check(one_node("Trilu", feeds, known, upper=upper), feeds)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_one_hot(axis: int, dtype: Any) -> None:
    feeds = {"i": np.array([[0, 3, 9], [-1, 10, -11]], dtype), "v": np.array([2.0, 5.0], np.float32)}
    check(one_node("OneHot", feeds, {"d": np.array(10)}, order=["i", "d", "v"], axis=axis), feeds)
    known = {"d": np.array([10]), "v": feeds.pop("v")}
    check(one_node("OneHot", feeds, known, axis=axis), feeds)
