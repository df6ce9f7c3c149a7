"""What a run hands out is the caller's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import distort
from distort import fetches


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param("a (float[N,2] x) => (float[N,2] x) { }", id="a feed"),
        pytest.param("a (float[N,2] x) => (float[N,2] y) { y = Identity(x) }", id="identity"),
        pytest.param(
            "a (float[N,2] x) => (float[M] y) { s = Constant<value_ints=[-1]>() y = Reshape(x, s) }", id="view"
        ),
        pytest.param("a (float[N,2] x) => (float[2,N] y) { y = Transpose(x) }", id="strides"),
        pytest.param("a (float[N,2] x) => (float[2] w) <float[2] w = {1, 2}> { }", id="a weight"),
        pytest.param("a (float[N,2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Identity(w) }", id="weight's view"),
        pytest.param("a (float[N,2] x) => (float[2] y) { y = Constant<value = float[2] {1, 2}>() }", id="constant"),
        pytest.param("a (float[N,2] x) => (float[N,2] y, float[N,2] z) { y = Relu(x) z = Identity(y) }", id="twins"),
    ],
)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_results_are_nobody_elses(model: Callable[[str], bytes], graph: str, level: str) -> None:
    options = distort.SessionOptions()
    options.graph_optimization_level = getattr(distort.GraphOptimizationLevel, level)
    session = distort.InferenceSession(model(graph), options)
    x = np.ones((3, 2), np.float32)
    before = [result.tolist() for result in session.run(None, {"x": x})]
    results = session.run(None, {"x": x})
    for i, result in enumerate(results):
        assert result.flags.c_contiguous and result.flags.writeable
        assert not np.shares_memory(result, x)
        assert not any(np.shares_memory(result, other) for other in results[:i])
        result[...] = 77
    assert x.tolist() == [[1, 1]] * 3
    assert [result.tolist() for result in session.run(None, {"x": x})] == before


def test_the_same_output_twice(mul: bytes, x: np.ndarray) -> None:
    one, other = distort.InferenceSession(mul).run(["Y", "Y"], {"X": x})
    assert one.tolist() == other.tolist()
    assert not np.shares_memory(one, other)


def test_results_of_ort_values_are_nobody_elses(model: Callable[[str], bytes], x: np.ndarray) -> None:
    session = distort.InferenceSession(model("a (float[N,2] x) => (float[N,2] y) { y = Identity(x) }"))
    (value,) = session.run_with_ort_values(None, {"x": distort.OrtValue.ortvalue_from_numpy(x)})
    assert value.data_type() == "tensor(float)"
    assert not np.shares_memory(value.numpy(), x)


def test_memory_that_only_the_result_holds_is_not_copied() -> None:
    made = [np.zeros((2, 3)), np.zeros(6).reshape(2, 3)]
    addresses = [array.ctypes.data for array in made]
    assert [array.ctypes.data for array in fetches.to_users(made)] == addresses


def test_memory_that_others_hold_is_copied() -> None:
    weight = np.zeros(6)
    shared = np.zeros(2)
    values = [weight, weight.reshape(2, 3), shared, shared, np.zeros((2, 3)).T]
    values.append(np.lib.stride_tricks.as_strided(weight, (2,), (8,)))
    results = fetches.to_users(values)
    assert not any(np.shares_memory(result, weight) for result in results)
    assert not np.shares_memory(results[2], results[3])
    assert all(result.flags.c_contiguous and result.flags.writeable for result in results)


def test_containers() -> None:
    item = np.zeros(2)
    values = [[item, item], [{np.int64(1): np.float32(0.5)}], None, np.float32(3)]
    sequence, maps, nothing, scalar = fetches.to_users(values)
    assert not np.shares_memory(sequence[0], item)
    assert maps == [{1: 0.5}]
    assert [type(part) for part in (*maps[0].items(),)[0]] == [int, float]
    assert nothing is None
    assert (type(scalar), scalar.shape) == (np.ndarray, ())
