"""Copies in another order of dimensions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from .movement import check, compiles_for_arm, lesser_library, one_node


def _values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("shape", [(37, 5), (5, 70), (3, 20, 33), (2, 17, 4, 19), (1, 40, 2, 3), (2, 3, 2, 5, 18)])
def test_every_order(shape: tuple[int, ...]) -> None:
    feeds = {"x": _values(shape)}
    for order in itertools.permutations(range(len(shape))):
        check(one_node("Transpose", feeds, perm=list(order)), feeds)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float16])
def test_every_order_of_other_types(dtype: Any) -> None:
    feeds = {"x": _values((2, 17, 4, 19), dtype)}
    for order in itertools.permutations(range(4)):
        check(one_node("Transpose", feeds, perm=list(order)), feeds)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 12])
def test_few_planes_become_pixels(count: int, n_threads: int) -> None:
    feeds = {"x": _values((2, count, 61, 83))}
    check(one_node("Transpose", feeds, perm=[0, 2, 3, 1]), feeds, n_threads=n_threads)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    for dtype in (np.float32, np.int8):
        feeds = {"x": _values((3, 17, 4, 19), dtype)}
        for order in ([0, 2, 3, 1], [3, 2, 1, 0], [1, 2, 3, 0]):
            graph = one_node("Transpose", feeds, perm=order)
            check(graph, feeds, library=lesser_library(target))
            compiles_for_arm(graph, feeds)
