"""TopK, running sums and packed weights as CUDA C against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.cuda.codegen import launches
from distort.kernels.cuda.operations import CudaUnpack

from .graphs import check
from .simulating import WAYS, Array, Memory, run_all, view

RANDOM = np.random.default_rng(17)
_NAMES = {"float32": "float", "float64": "double"}


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return (RANDOM.standard_normal(shape) * 9).astype(dtype)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int8", "uint8", "int16"])
@pytest.mark.parametrize(
    ("shape", "axis", "k"), [((4, 50), -1, 5), ((3, 20, 4), 1, 20), ((2, 3000), 1, 7), ((9,), 0, 1)]
)
def test_top_k(shape: tuple[int, ...], axis: int, k: int, dtype: str, largest: int) -> None:
    name = _NAMES.get(dtype, dtype)
    text = f"({name} v, int64 i) <int64[1] k = {{{k}}}> {{ v, i = TopK <axis = {axis}, largest = {largest}> (x, k) }}"
    check(text, {"x": array(*shape, dtype=dtype)}, ways=WAYS[1:])


def test_top_k_of_many_equal_and_special_numbers() -> None:
    x = RANDOM.integers(0, 3, (3, 2500)).astype(np.float32)
    x[0, 7], x[1, 3], x[1, 9], x[2] = np.inf, -np.inf, np.inf, 0.0
    x[2, ::2] = -0.0
    for largest in (0, 1):
        text = f"(float v, int64 i) <int64[1] k = {{600}}> {{ v, i = TopK <largest = {largest}> (x, k) }}"
        check(text, {"x": x}, ways=WAYS[1:2])


def test_top_k_of_rows_longer_than_what_is_sorted_at_once() -> None:
    text = "(float v, int64 i) <int64[1] k = {3}> { v, i = TopK (x, k) }"
    rising = np.arange(10_000, dtype=np.float32).reshape(2, 5000)
    for x in (array(2, 5000), rising, -rising):
        (operation,) = check(text, {"x": x}, ways=WAYS)
        (launch,) = launches(operation) or []
        assert launch.shared_nbytes == 8 * 512
    check("(float v, int64 i) <int64[1] k = {3000}> { v, i = TopK (x, k) }", {"x": array(1, 9000)}, ways=WAYS[1:2])


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "float64"])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize(("shape", "axis"), [((3, 700), 1), ((3, 70), 0), ((2, 9, 5), 1), ((33,), 0), ((4, 1), 1)])
def test_running_sums(shape: tuple[int, ...], axis: int, exclusive: int, reverse: int, dtype: str) -> None:
    name = _NAMES.get(dtype, dtype)
    attributes = f"exclusive = {exclusive}, reverse = {reverse}"
    text = f"({name} y) <int64 a = {{{axis}}}> {{ y = CumSum <{attributes}> (x, a) }}"
    check(text, {"x": array(*shape, dtype=dtype)}, atol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("zeros", ["none", "packed", "real"])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_packed_weights(n_rows: int, zeros: str, dtype: str, bits: int) -> None:
    depth, columns, block = 96, 37, 32
    n_blocks = depth // block
    feeds = {
        "a": RANDOM.standard_normal((n_rows, depth)).astype(dtype),
        "w": RANDOM.integers(0, 256, (columns, n_blocks, block * bits // 8)).astype(np.uint8),
        "s": RANDOM.uniform(0.01, 0.1, columns * n_blocks).astype(dtype),
    }
    if zeros == "packed":
        feeds["z"] = RANDOM.integers(0, 256, columns * -(-n_blocks * bits // 8)).astype(np.uint8)
    elif zeros == "real":
        feeds["z"] = RANDOM.uniform(0, 1 << bits, columns * n_blocks).astype(dtype)
    bias = n_rows == 3
    if bias:
        feeds["b"] = RANDOM.standard_normal(columns).astype(dtype)
    name = _NAMES.get(dtype, dtype)
    names = ", ".join(
        ["a", "w", "s", "z" if "z" in feeds else "", "", "b"] if bias else ["a", "w", "s", *("z" in feeds) * ["z"]]
    )
    attributes = f"K = {depth}, N = {columns}, bits = {bits}, block_size = {block}"
    text = f"({name} y) {{ y = com.microsoft.MatMulNBits <{attributes}> ({names}) }}"
    large = 200 if bits == 8 else 10
    tolerance = large * (1e-3 if dtype == "float16" else 1e-5)
    check(text, feeds, kinds=["cuda_n_bits"], rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("zeros", ["", "uint8", "real"])
def test_packed_weights_are_unpacked(zeros: str, dtype: str, bits: int) -> None:
    depth, columns, block = 96, 37, 32
    n_blocks = depth // block
    numbers = RANDOM.integers(0, 1 << bits, (columns, n_blocks, block)).astype(np.uint8)
    codes = numbers[..., ::2] | numbers[..., 1::2] << 4 if bits == 4 else numbers
    scales = RANDOM.uniform(0.01, 0.1, (columns, n_blocks)).astype(dtype)
    inputs, points = [codes, scales], np.full((columns, n_blocks), 1 << (bits - 1), np.float32)
    if zeros == "uint8":
        wide = np.zeros((columns, n_blocks + n_blocks % 2), np.uint8)
        wide[:, :n_blocks] = RANDOM.integers(0, 1 << bits, (columns, n_blocks))
        points = wide[:, :n_blocks].astype(np.float32)
        inputs.append(wide[:, ::2] | wide[:, 1::2] << 4 if bits == 4 else np.ascontiguousarray(wide[:, :n_blocks]))
    elif zeros:
        points = RANDOM.uniform(0, 1 << bits, (columns, n_blocks)).astype(dtype)
        inputs.append(points)
    made = view(np.zeros((columns, depth), dtype))
    operation = CudaUnpack([view(np.ascontiguousarray(x)) for x in inputs], [made], bits, block, bool(zeros))
    want = (numbers - points[..., None].astype(np.float32)) * scales[..., None].astype(np.float32)
    for way in WAYS:
        memory = Memory()
        run_all([operation], memory, way)
        np.testing.assert_allclose(
            memory.view(made), want.reshape(columns, depth), rtol=2e-3 if dtype == "float16" else 1e-6
        )
