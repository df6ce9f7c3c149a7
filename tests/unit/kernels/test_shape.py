"""Shape, joining and constant kernels: what onnx's own cases leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def run(op_type: str, *inputs: Any, opset: int = 21, **attributes: Any) -> Any:
    kernel = find("", op_type, opset)
    assert kernel is not None
    return kernel.function(np, *(None if x is None else np.asarray(x) for x in inputs), **attributes)


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("shape", "target", "allowzero", "expected"),
    [
        ((2, 3, 4), [0, -1], 0, (2, 12)),
        ((0, 3), [-1, 0], 0, (0, 3)),
        ((0, 3), [3, -1], 0, (3, 0)),
        ((0, 3), [3, 0], 1, (3, 0)),
        ((0, 4), [-1, 4], 0, (0, 4)),
        ((1,), [], 0, ()),
    ],
)
def test_reshape(shape: tuple[int, ...], target: list[int], allowzero: int, expected: tuple[int, ...]) -> None:
    result = run("Reshape", np.zeros(shape), np.array(target, np.int64), allowzero=allowzero)
    assert result.shape == expected


def test_reshape_does_not_guess_how_many_nothings_there_are() -> None:
    with pytest.raises(InvalidInput, match="cannot be reshaped"):
        run("Reshape", np.zeros((0, 3)), [0, -1])


@pytest.mark.parametrize("target", [[5, 5], [-1, 7], [2, 3, 4, 0], [-1, -1]])
def test_reshape_refuses(target: list[int]) -> None:
    with pytest.raises(InvalidInput):
        run("Reshape", X, target)


SLICES = [
    ([0], [2], [2], [1], np.s_[:, :, 0:2]),
    ([-1], [-(2**63)], [1], [-1], np.s_[:, ::-1]),
    ([2], [0], [2], [-1], np.s_[:, :, 2:0:-1]),
    ([-100], [100], [0], [1], np.s_[:]),
    ([3], [1], [2], [1], np.s_[:, :, 3:1]),
    ([100], [-100], [-1], [-2], np.s_[:, :, ::-2]),
    ([1, 0], [2, 3], [0, 1], [1, 2], np.s_[1:2, 0:3:2]),
    ([-1], [-100], [0], [-1], np.s_[::-1]),
]


@pytest.mark.parametrize(("starts", "ends", "axes", "steps", "index"), SLICES)
def test_slice(starts: list[int], ends: list[int], axes: list[int], steps: list[int], index: Any) -> None:
    np.testing.assert_array_equal(run("Slice", X, starts, ends, axes, steps), X[index])


def test_slice_refuses_a_step_of_zero_and_axes_that_repeat() -> None:
    with pytest.raises(InvalidInput, match="step"):
        run("Slice", X, [0], [1], [0], [0])
    with pytest.raises(InvalidInput, match="repeat"):
        run("Slice", X, [0, 0], [1, 1], [0, -3], [1, 1])


def test_pad_cuts_where_it_is_negative_and_takes_axes() -> None:
    result = run("Pad", X, [-1, 2], np.float32(9), [-1])
    np.testing.assert_array_equal(result, np.pad(X[:, :, 1:], ((0, 0), (0, 0), (0, 2)), constant_values=9))
    np.testing.assert_array_equal(run("Pad", np.array([1, 2]), [1, 1], mode="reflect"), [2, 1, 2, 1])
    np.testing.assert_array_equal(run("Pad", np.array([1, 2]), [1, 1], mode="wrap"), [2, 1, 2, 1])
    with pytest.raises(InvalidInput, match="mode"):
        run("Pad", X, [0] * 6, mode="mirror")


def test_split_by_number_gives_the_last_part_less() -> None:
    parts = run("Split", np.arange(7), None, num_outputs=3, n_outputs=3)
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(InvalidInput):
        run("Split", np.arange(7), None, opset=13, n_outputs=3)
    with pytest.raises(InvalidInput):
        run("Split", np.arange(7), [3, 3], n_outputs=2)


def test_results_are_arrays_also_without_axes() -> None:
    for result in (
        run("Size", X),
        run("Squeeze", np.zeros((1, 1))),
        run("Expand", np.float32(1), np.array([], np.int64)),
        run("Tile", np.float32(1), np.array([], np.int64)),
        run("Slice", X[0, 0, 0], np.array([], np.int64), np.array([], np.int64)),
        run("Pad", np.float32(2), np.array([], np.int64)),
    ):
        assert isinstance(result, np.ndarray) and result.shape == ()


@pytest.mark.parametrize(
    ("start", "limit", "delta", "expected"),
    [(0, 5, 2, [0, 2, 4]), (5, 0, -2, [5, 3, 1]), (0, 5, -1, []), (1.0, 2.0, 0.25, [1, 1.25, 1.5, 1.75])],
)
def test_range(start: Any, limit: Any, delta: Any, expected: list[float]) -> None:
    dtype = np.float32 if isinstance(start, float) else np.int64
    result = run("Range", *(np.array(value, dtype) for value in (start, limit, delta)))
    assert result.dtype == dtype and result.tolist() == expected


def test_range_refuses_a_delta_of_zero() -> None:
    with pytest.raises(InvalidInput, match="delta"):
        run("Range", 0, 5, 0)


def test_constant_of_shape_takes_no_negative_sizes() -> None:
    assert run("ConstantOfShape", np.array([], np.int64), value=np.array([7])).tolist() == 7
    with pytest.raises(InvalidInput):
        run("ConstantOfShape", [2, -1])


def test_concat_names_the_shapes() -> None:
    with pytest.raises(InvalidInput, match=r"\[2, 3\], \[3, 2\]"):
        run("Concat", np.zeros((2, 3)), np.zeros((3, 2)), axis=0)
