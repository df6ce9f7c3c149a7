"""Boxes that are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.cuda.operations import CudaSelected, CudaSuppress
from distort.kernels.ops.vision import non_max_suppression

from .simulating import WAYS, Array, Memory, run_all, view
from .standing_in import program_of, session_of


def boxes_and_scores(n: int, classes: int = 3, images: int = 2) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 10, (images, n, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.uniform(0.5, 5, (images, n, 2)).astype(np.float32)], axis=2)
    scores = rng.integers(0, 12, (images, classes, n)).astype(np.float32) / 12  # some are the same
    scores[0, 0, 1] = np.nan
    return boxes, scores


@pytest.mark.parametrize("n", [5, 90])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("least", [None, 0.4])
def test_boxes_that_are_left(n: int, centred: bool, least: float | None) -> None:
    boxes, scores = boxes_and_scores(n)
    n_pairs, capacity = scores.shape[0] * scores.shape[1], 7
    numbers = [np.array([9]), np.array([0.3], np.float32)]
    if least is not None:
        numbers.append(np.array([least], np.float32))
    wanted = non_max_suppression(np, boxes, scores, np.array(capacity), *numbers[1:], center_point_box=int(centred))
    reads = [view(array) for array in (boxes, scores, *numbers)]
    kept, counts = (view(np.zeros(shape, np.int32)) for shape in ((n_pairs, capacity), (n_pairs,)))
    dead = view(np.zeros((n_pairs, n), np.uint8))
    selected, number = view(np.zeros((n_pairs * capacity, 3), np.int64)), view(np.zeros(1, np.int64))
    operations = [
        CudaSuppress(reads, [kept, counts, dead], centred),
        CudaSelected([kept, counts], [selected, number], scores.shape[1]),
    ]
    for way in WAYS:
        memory = Memory()
        run_all(operations, memory, way)
        assert not memory.error.any()
        (count,) = memory.view(number)
        assert memory.view(selected)[:count].tolist() == wanted.tolist()


BOXES = """g (float[2, N, 4] b, float[2, 3, N] s) => (int64[K, 3] y) <int64 most = {4}, float overlap = {0.3}> {
    y = NonMaxSuppression(b, s, most, overlap) }"""


def test_runs_with_as_many_boxes_are_enqueued_work(fake_cuda: Any) -> None:
    boxes, scores = boxes_and_scores(20)
    session = session_of(BOXES)
    most, overlap = np.array(4), np.array(0.3, np.float32)
    for change in (1.0, 1.0, 1.0, 0.0, 1.0):  # without any size there are as many as there may be
        feeds = {"b": boxes * np.float32(change), "s": scores}
        (got,) = session.run(None, feeds)
        assert got.tolist() == non_max_suppression(np, feeds["b"], scores, most, overlap).tolist()
        if change == 0:
            break
        plans = program_of(session).plans
    assert plans[-1][1].is_capturable
