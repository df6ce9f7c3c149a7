"""Values whose shapes earlier runs have shown, made and checked by kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.cuda.operations import CudaExpect, CudaPlaces

from .simulating import WAYS, Memory, run_all, view
from .standing_in import floats, program_of, session_of


@pytest.mark.parametrize("dtype", ["bool", "int8", "float32", "int64"])
@pytest.mark.parametrize(("shape", "chunk"), [((7,), 4), ((3, 5, 11), 64), ((2, 300), 256)])
def test_places_of_what_is_not_zero(dtype: str, shape: tuple[int, ...], chunk: int) -> None:
    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    wanted = np.array(np.nonzero(x))
    for count in (wanted.shape[1], wanted.shape[1] - 1, wanted.shape[1] + 2):
        result, counts = np.full((len(shape), count), -1), np.zeros(-(-x.size // chunk), np.int32)
        tensors = [view(array) for array in (x, result, counts)]
        for way in WAYS:
            memory = Memory()
            run_all([CudaPlaces(tensors[:1], tensors[1:], chunk)], memory, way)
            assert bool(memory.error[0]) == (count != wanted.shape[1])
            some = min(count, wanted.shape[1])
            got = memory.view(tensors[1])
            assert np.array_equal(got[:, :some], wanted[:, :some]) and not got[:, some:].any()


@pytest.mark.parametrize(
    ("numbers", "count", "fits"),
    [
        ((2, 11, 3), 3, True),
        ((2, 12, 3), 4, True),
        ((2, 12, 3), 3, False),
        ((2, 11, 3), 4, False),
        ((9, 2, -3), 3, True),
        ((5, 5, 1), 0, True),
        ((5, 1, 1), 0, True),
        ((5, 6, 1), 0, False),
        ((5, 1, 0), 2, False),
    ],
)
def test_counting(numbers: tuple[int, int, int], count: int, fits: bool) -> None:
    for dtype in (np.int32, np.int64):
        arrays = [np.array(number, dtype) for number in numbers]
        result = np.zeros(max(count, 1), dtype)
        tensors = [view(array) for array in (*arrays, result)]
        tensors[3] = tensors[3].view((count,), (1,))
        for way in WAYS:
            memory = Memory()
            run_all([CudaExpect(tensors[:3], tensors[3:], "counting")], memory, way)
            assert bool(memory.error[0]) != fits
            if fits:
                assert memory.view(tensors[3]).tolist() == list(range(*numbers))


MASK = """g (float[N] x) => (int64[1, K] places, float[M] some) {
    places = NonZero(x) known = Cast <to = 9> (x) some = Compress <axis = 0> (x, known) }"""
RANGE = """g (int64 n, float[2] x) => (int64[K] numbers, float[M] twice)
    <int64 zero = {0}, int64 one = {1}, int64[1] shape = {1}> {
    numbers = Range(zero, n, one) counts = Reshape(n, shape) twice = Tile(x, counts) }"""


def test_what_earlier_runs_showed_is_enqueued_work(fake_cuda: Any) -> None:
    session = session_of(MASK)
    for _ in range(3):
        session.run(None, {"x": floats(1, 0, 2)})
    ((_, plan),) = program_of(session).plans
    assert plan.is_capturable and "cuda_places" in {step.operation.kind for step in plan.steps}
    for x in (floats(0, 0, 3), floats(1, 0, 2), floats(5, 6, 7), floats(0, 0, 0)):
        places, some = session.run(None, {"x": x})
        assert places.tolist() == [np.flatnonzero(x).tolist()] and some.tolist() == x[x != 0].tolist()


def test_numbers_that_say_shapes_are_checked(fake_cuda: Any) -> None:
    session = session_of(RANGE)
    for n in (2, 2, 2, 3, 0, 2):
        numbers, twice = session.run(None, {"n": np.array(n, np.int64), "x": floats(1, 2)})
        assert numbers.tolist() == list(range(n)) and twice.tolist() == [1, 2] * n
