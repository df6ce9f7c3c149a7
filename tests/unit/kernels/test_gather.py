"""Kernels that read and write by index: ranges, ties, batches, empty tensors."""

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


X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("op_type", "indices", "attributes"),
    [
        ("Gather", [3], {"axis": 0}),
        ("Gather", 3, {"axis": 0}),
        ("Gather", [-4], {"axis": 0}),
        ("GatherElements", [[4]], {"axis": 1}),
        ("GatherND", [[2, 4]], {}),
        ("GatherND", [[-4]], {}),
    ],
)
def test_an_index_out_of_range_is_an_error_and_no_wrap(op_type: str, indices: Any, attributes: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="out of data bounds"):
        run(op_type, X, indices, **attributes)


def test_gather_by_a_scalar_drops_the_axis() -> None:
    result = run("Gather", X, -1, axis=1)
    np.testing.assert_array_equal(result, X[:, -1])
    single = run("Gather", X[0], 2)
    assert isinstance(single, np.ndarray) and single.shape == () and single == 2


def test_gather_of_nothing() -> None:
    assert run("Gather", X, np.zeros((2, 0), np.int64), axis=1).shape == (3, 2, 0)


def test_gather_nd_with_batches() -> None:
    data = np.arange(8).reshape(2, 2, 2)
    np.testing.assert_array_equal(run("GatherND", data, [[1], [0]], batch_dims=1), [[2, 3], [4, 5]])


def test_scatter_leaves_its_input_alone_and_adds_up_repeats() -> None:
    data = np.zeros(3, np.float32)
    result = run("ScatterElements", data, [1, 1, -1], np.ones(3, np.float32), reduction="add")
    assert result.tolist() == [0, 2, 1] and not data.any()
    nd = run("ScatterND", data, [[1], [1]], np.array([2, 5], np.float32), reduction="max")
    assert nd.tolist() == [0, 5, 0]
    with pytest.raises(InvalidInput, match="updates"):
        run("ScatterND", data, [[1]], np.zeros((2,), np.float32))


def test_top_k_orders_equal_values_by_index() -> None:
    values, indices = run("TopK", np.array([1, 3, 3, 2, 3]), [3])
    assert values.tolist() == [3, 3, 3] and indices.tolist() == [1, 2, 4]
    values, indices = run("TopK", np.array([2, 1, 1]), [2], largest=0)
    assert values.tolist() == [1, 1] and indices.tolist() == [1, 2]
    with pytest.raises(InvalidInput, match="k argument"):
        run("TopK", X, [5], axis=1)
    assert run("TopK", X, [0], axis=1)[0].shape == (3, 0)


def test_one_hot_turns_out_of_range_off() -> None:
    result = run("OneHot", [-1, 3, 1], [3], [0, 9])
    assert result.tolist() == [[0, 0, 9], [0, 0, 0], [0, 9, 0]]
    with pytest.raises(InvalidInput, match="Depth"):
        run("OneHot", [0], [0], [0, 1])


def test_nonzero_of_scalars_and_text() -> None:
    assert run("NonZero", np.float32(3)).shape == (0, 1)
    assert run("NonZero", np.float32(0)).shape == (0, 0)
    assert run("NonZero", np.array(["", "a"], object)).tolist() == [[1]]


def test_unique_in_order_of_appearance() -> None:
    values, first, inverse, counts = run("Unique", np.array([5, 2, 5, 1]), sorted=0)
    assert values.tolist() == [5, 2, 1] and first.tolist() == [0, 1, 3]
    assert inverse.tolist() == [0, 1, 0, 2] and counts.tolist() == [2, 1, 1]
