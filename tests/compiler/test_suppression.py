"""NonMaxSuppression in native code: its result's shape is known after the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.graph.ir import Node
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import InvalidInput

from .movement import check, compiles_for_arm, lesser_library, one_node


def _feeds(n_images: int, n_classes: int, n_boxes: int, seed: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """Boxes that overlap, are the same, and have no area; scores of which some are the same, and NaN."""
    rng = np.random.default_rng(seed)
    begin = rng.uniform(0, 20, (n_images, n_boxes, 2))
    boxes = np.concatenate([begin, begin + rng.uniform(-2, 12, (n_images, n_boxes, 2))], 2).astype(np.float32)
    boxes[:, 1::7] = boxes[:, :1]
    boxes[:, 2::9, 2:] = boxes[:, 2::9, :2]
    scores = rng.integers(-2, 12, (n_images, n_classes, n_boxes)).astype(np.float32) / 10
    scores[:, 0, 3::11] = np.nan
    scores[:, :, 5::13] = -0.0
    return {"boxes": boxes, "scores": scores}


def _numbers(most: int, overlap: float, least: float) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "most": np.array([most]),
        "overlap": np.array(overlap, np.float32),
        "least": np.array([least], np.float32),
    }


def _is_native(program: CompiledProgram) -> bool:
    ((_, plan),) = program.plans
    return [o.node.op_type for o in plan.operations if isinstance(o, Host)] == ["Slice"]


@pytest.mark.parametrize("sizes", [(1, 1, 40), (2, 3, 77), (1, 5, 1), (1, 2, 300)])
@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_boxes(sizes: tuple[int, int, int], centred: int, n_threads: int) -> None:
    feeds = _feeds(*sizes)
    for numbers in (_numbers(1000, 0.5, 0.2), _numbers(4, 0.0, -9.0), _numbers(0, 0.3, 0.1), _numbers(20, 1.0, 0.5)):
        graph = one_node("NonMaxSuppression", feeds, numbers, center_point_box=centred)
        check(graph, feeds, native=False, n_threads=n_threads)
        program = CompiledProgram(graph, n_threads=n_threads)
        program.run(feeds)
        assert _is_native(program)


@pytest.mark.parametrize("order", ["boxes scores", "boxes scores most", "boxes scores most,,least"])
def test_numbers_that_are_left_out(order: str) -> None:
    feeds = _feeds(1, 2, 50)
    names = order.replace(",,", "  ").split(" ")
    numbers = {name: value for name, value in _numbers(9, 0.0, 0.3).items() if name in names}
    check(one_node("NonMaxSuppression", feeds, numbers, order=names), feeds, native=False)


def test_numbers_of_the_run_and_other_boxes() -> None:
    feeds = {**_feeds(1, 3, 90), **_numbers(30, 0.4, 0.1)}
    graph = one_node("NonMaxSuppression", feeds)
    graph.initializers["two"] = np.array(2)
    graph.nodes.append(Node("Gather", "", ["y0", "two"], ["places"], attributes={"axis": 1}, opset=21))
    graph.outputs = ["places"]
    program = CompiledProgram(graph)
    for seed, most in ((3, 30), (4, 30), (5, 3), (3, 200)):
        feeds = {**_feeds(1, 3, 90, seed), **_numbers(most, 0.4, 0.1)}
        for _ in range(2):
            np.testing.assert_array_equal(program.run(feeds)[0], program.plain.run(feeds)[0])


@pytest.mark.parametrize("overlap", [-0.1, 1.5])
def test_overlap_that_is_none(overlap: float) -> None:
    feeds = _feeds(1, 1, 9)
    with pytest.raises(InvalidInput, match="iou_threshold"):
        CompiledProgram(one_node("NonMaxSuppression", feeds, _numbers(3, overlap, 0.1))).run(feeds)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = _feeds(1, 2, 61)
    graph = one_node("NonMaxSuppression", feeds, _numbers(40, 0.4, 0.1))
    check(graph, feeds, native=False, library=lesser_library(target))
    compiles_for_arm(graph, feeds)


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 70), st.integers(0, 99), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_any_boxes(n_images: int, n_classes: int, n_boxes: int, seed: int, most: int) -> None:
    feeds = _feeds(n_images, n_classes, n_boxes, seed)
    check(one_node("NonMaxSuppression", feeds, _numbers(most, 0.3, 0.05)), feeds, native=False)
