"""MatMul and Gemm against numpy in float64, with the shapes, types and layouts that onnx's suite leaves out."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find

RNG = np.random.default_rng(3)


def call(op_type: str, *inputs: Any, opset: int = 13, **attributes: Any) -> Any:
    entry = find("", op_type, opset)
    assert entry is not None
    return entry.function(np, *inputs, **attributes)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (4, 3, 6)),
        ((5, 0, 3), (3, 4)),
        ((0, 2, 3), (3, 4)),
        ((5, 2, 0), (0, 4)),
        ((5, 2, 3), (3, 0)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint64, np.float16, ml_dtypes.bfloat16])
def test_matmul_shapes_and_types(left: tuple[int, ...], right: tuple[int, ...], dtype: Any) -> None:
    a, b = (RNG.integers(0, 9, shape).astype(dtype) for shape in (left, right))
    y = call("MatMul", a, b)
    want = np.matmul(a.astype(np.float64), b.astype(np.float64))
    assert isinstance(y, np.ndarray) and y.dtype == dtype and y.shape == want.shape
    np.testing.assert_array_equal(y.astype(np.float64), want)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::2, ::2],
        lambda a: a[::-1, :],
        lambda a: a[:, ::-1],
        lambda a: a.T[::2],
        lambda a: np.broadcast_to(a[:, :1], a.shape),
    ],
)
def test_matmul_of_views(view: Any) -> None:
    a = view(RNG.normal(size=(8, 8)).astype(np.float32))
    b = RNG.normal(size=(a.shape[1], 5)).astype(np.float32)
    np.testing.assert_allclose(call("MatMul", a, b), np.array(a) @ b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(call("MatMul", b.T, a.T), b.T @ np.array(a.T), rtol=1e-5, atol=1e-6)


def test_half_precision_accumulates_in_float32() -> None:
    a = np.full((1, 4096), 1.0, np.float16)  # adding ones in float16 would stick at 2048
    assert call("MatMul", a, a.T)[0, 0] == 4096


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("top", [100, None])
def test_large_integer_products_are_exact_and_wrap(dtype: Any, top: int | None) -> None:
    info = np.iinfo(dtype)
    a, b = (RNG.integers(info.min, info.max, (40, 40), dtype, endpoint=True) for _ in range(2))
    if top is not None:
        a, b = a % top, b % top
    want = (a[:, :, None] * b[None]).sum(axis=1, dtype=dtype)
    np.testing.assert_array_equal(call("MatMul", a, b), want)


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (4, 5)), ((), (3,)), ((2, 2, 3), (3, 3, 4)), ((3,), (4,)), ((2, 3), (4,))]
)
def test_matmul_refuses_shapes(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        call("MatMul", np.zeros(left, np.float32), np.zeros(right, np.float32))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (1,), (4,), (2, 1), (1, 4), (2, 4)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (2.0, 0.0)])
def test_gemm(trans_a: int, trans_b: int, c_shape: tuple[int, ...] | None, alpha: float, beta: float) -> None:
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 4))
    c = None if c_shape is None else RNG.normal(size=c_shape)
    want = alpha * (a @ b) + (0 if c is None else beta * c)
    kept = None if c is None else c.copy()
    y = call(
        "Gemm", a.T if trans_a else a, b.T if trans_b else b, c, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b
    )
    np.testing.assert_allclose(y, want, rtol=1e-12)
    if c is not None:
        np.testing.assert_array_equal(c, kept)


def test_gemm_of_half_precision_rounds_once() -> None:
    a, b = np.float16([[2048, 1]]), np.float16([[1], [1]])
    assert call("Gemm", a, b, np.float16([-2048]))[0, 0] == 1  # 2049 isn't a float16


def test_gemm_of_integers() -> None:
    a = np.int32([[1, -2]])
    assert call("Gemm", a, a.T, np.int32([3]), alpha=2.0, beta=3.0).tolist() == [[19]]


def test_gemm_refuses_a_c_that_would_widen_the_product() -> None:
    a = np.zeros((1, 3), np.float32)
    for shape in [(2, 1), (1, 1, 1), (2,)]:
        with pytest.raises(InvalidInput, match="Invalid bias shape"):
            call("Gemm", a, a.T, np.zeros(shape, np.float32))
    with pytest.raises(InvalidInput, match="Dimension mismatch"):
        call("Gemm", a, a)


def test_old_gemm_broadcasts_only_when_told() -> None:
    a, c = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    np.testing.assert_array_equal(call("Gemm", a, a.T, c, opset=6, broadcast=1), np.full((2, 2), 4, np.float32))
    with pytest.raises(InvalidInput, match="without broadcast"):
        call("Gemm", a, a.T, c, opset=6)
