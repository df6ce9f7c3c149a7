"""cuBLAS, cuFFT and cuSOLVER of the CPU, by their C functions, against numpy."""

from __future__ import annotations

import itertools
from ctypes import byref, c_int, c_longlong, c_size_t, c_void_p
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from .libraries.c_calls import (
    COMPUTE_16F,
    COMPUTE_32F,
    COMPUTE_32F_FAST_TF32,
    COMPUTE_32I,
    COMPUTE_64F,
    CUBLAS,
    CUFFT,
    CUSOLVER,
    INVALID,
    R_8I,
    R_16BF,
    R_16F,
    R_32F,
    R_32I,
    R_64F,
    RNG,
    TOLERANCES,
    TYPES,
    UNSUPPORTED,
    addresses,
    call,
    close,
    randoms,
    scalar,
    transposed,
)

all_types = pytest.mark.parametrize("letter", TYPES)


@pytest.fixture(scope="module")
def handle() -> c_void_p:
    it = c_void_p()
    assert CUBLAS.cublasCreate_v2(byref(it)) == 0
    return it


@pytest.fixture(scope="module")
def solver() -> c_void_p:
    it = c_void_p()
    assert CUSOLVER.cusolverDnCreate(byref(it)) == 0
    return it


class TestCublas:
    @all_types
    @pytest.mark.parametrize("m, n, k", [(1, 1, 1), (5, 7, 3), (33, 9, 300), (70, 65, 64), (3, 4, 0)])
    def test_gemm(self, handle: c_void_p, letter: str, m: int, n: int, k: int) -> None:
        dtype, gemm = TYPES[letter], CUBLAS[f"cublas{letter}gemm_v2"]
        for of_a, of_b in itertools.product(range(3), range(3)):
            a = randoms(dtype, *((k, m) if of_a else (m, k)))
            b = randoms(dtype, *((n, k) if of_b else (k, n)))
            c = randoms(dtype, m, n)
            wanted = 0.5 * transposed(a, of_a) @ transposed(b, of_b) - 2 * c
            alpha, beta, lda, ldb = scalar(dtype, 0.5), scalar(dtype, -2), max(1, a.shape[0]), max(1, b.shape[0])
            assert call(gemm, handle, of_a, of_b, m, n, k, alpha, a, lda, b, ldb, beta, c, m) == 0
            close(c, wanted, TOLERANCES[letter])

    @all_types
    def test_gemm_does_not_read_c_where_beta_is_0(self, handle: c_void_p, letter: str) -> None:
        dtype = TYPES[letter]
        a, b, c = randoms(dtype, 4, 5), randoms(dtype, 5, 6), np.full((4, 6), np.nan, dtype, order="F")
        one, zero = scalar(dtype, 1), scalar(dtype, 0)
        assert call(CUBLAS[f"cublas{letter}gemm_v2"], handle, 0, 0, 4, 6, 5, one, a, 4, b, 5, zero, c, 4) == 0
        close(c, a @ b, TOLERANCES[letter])

    @all_types
    def test_batches(self, handle: c_void_p, letter: str) -> None:
        dtype = TYPES[letter]
        a, b = RNG.standard_normal((3, 5, 4)).astype(dtype), RNG.standard_normal((3, 6, 5)).astype(dtype)
        c, d, one, zero = np.zeros((3, 6, 4), dtype), np.zeros((3, 6, 4), dtype), scalar(dtype, 1), scalar(dtype, 0)
        strides = c_longlong(20), c_longlong(30), c_longlong(24)
        strided, batched = CUBLAS[f"cublas{letter}gemmStridedBatched"], CUBLAS[f"cublas{letter}gemmBatched"]
        arguments = (handle, 0, 0, 4, 6, 5, one)
        assert call(strided, *arguments, a, 4, strides[0], b, 5, strides[1], zero, c, 4, strides[2], 3) == 0
        close(c, b @ a, TOLERANCES[letter])
        assert call(batched, *arguments, addresses(a), 4, addresses(b), 5, zero, addresses(d), 4, 3) == 0
        close(d, b @ a, TOLERANCES[letter])

    @pytest.mark.parametrize(
        "types, dtypes, compute, scale, tolerance",
        [
            ((R_16F, R_16F), (np.float16, np.float16), COMPUTE_32F, np.float32, 2e-3),
            ((R_16F, R_32F), (np.float16, np.float32), COMPUTE_32F, np.float32, 1e-5),
            ((R_16F, R_16F), (np.float16, np.float16), COMPUTE_16F, np.float16, 2e-3),
            ((R_16BF, R_16BF), (ml_dtypes.bfloat16, ml_dtypes.bfloat16), COMPUTE_32F, np.float32, 1e-2),
            ((R_8I, R_32I), (np.int8, np.int32), COMPUTE_32I, np.int32, 0),
            ((R_32F, R_32F), (np.float32, np.float32), COMPUTE_32F_FAST_TF32, np.float32, 1e-3),
            ((R_64F, R_64F), (np.float64, np.float64), COMPUTE_64F, np.float64, 1e-12),
        ],
    )
    def test_gemm_ex(
        self, handle: c_void_p, types: Any, dtypes: Any, compute: int, scale: Any, tolerance: float
    ) -> None:
        m, n, k = 12, 8, 20
        a, b = (randoms(np.float32, *shape) * (40 if types[0] == R_8I else 1) for shape in ((m, k), (k, n)))
        a, b, c = a.astype(dtypes[0]), b.astype(dtypes[0]), np.zeros((m, n), dtypes[1], order="F")
        left, right, into = (a, types[0], m), (b, types[0], k), (c, types[1], m)
        one, zero = scalar(scale, 1), scalar(scale, 0)
        assert call(CUBLAS.cublasGemmEx, handle, 0, 0, m, n, k, one, *left, *right, zero, *into, compute, -1) == 0
        close(c.astype(np.float64), a.astype(np.float64) @ b.astype(np.float64), tolerance)
        wrong = R_32I if types[1] != R_32I else R_16F
        into = (c, wrong, m)
        status = call(CUBLAS.cublasGemmEx, handle, 0, 0, m, n, k, one, *left, *right, zero, *into, compute, -1)
        assert status == UNSUPPORTED

    @all_types
    def test_vectors(self, handle: c_void_p, letter: str) -> None:
        dtype, tolerance = TYPES[letter], TOLERANCES[letter]
        x, y = randoms(dtype, 9), randoms(dtype, 9)
        names = {"dot": x @ y} if letter in "SD" else {"dotu": x @ y, "dotc": x.conj() @ y}
        for name, wanted in names.items():
            for on_device in (0, 1):
                assert CUBLAS.cublasSetPointerMode_v2(handle, on_device) == 0
                got = np.zeros(1, dtype)
                assert call(CUBLAS[f"cublas{letter}{name}_v2"], handle, 9, x, 1, y, 1, got) == 0
                close(got, np.array([wanted]), tolerance)
            assert CUBLAS.cublasSetPointerMode_v2(handle, 0) == 0
        wanted = y[::-1] + 2 * x
        assert call(CUBLAS[f"cublas{letter}axpy_v2"], handle, 9, scalar(dtype, 2), x, -1, y, 1) == 0
        close(y[::-1], wanted[:], tolerance)
        wanted = y * 3
        assert call(CUBLAS[f"cublas{letter}scal_v2"], handle, 9, scalar(dtype, 3), y, 1) == 0
        close(y, wanted, tolerance)
        real = np.float32 if letter in "SC" else np.float64
        name = {"S": "Snrm2", "D": "Dnrm2", "C": "Scnrm2", "Z": "Dznrm2"}[letter]
        norm = np.zeros(1, real)
        assert call(CUBLAS[f"cublas{name}_v2"], handle, 9, x, 1, norm) == 0
        close(norm, np.array([np.linalg.norm(x)]), tolerance)
        sizes, number = np.abs(x.real) + np.abs(x.imag), np.zeros(1, np.int32)
        for name, at in (("amax", sizes.argmax()), ("amin", sizes.argmin())):
            assert call(CUBLAS[f"cublasI{letter.lower()}{name}_v2"], handle, 9, x, 1, number) == 0
            assert number[0] == at + 1

    @all_types
    def test_products_with_vectors(self, handle: c_void_p, letter: str) -> None:
        dtype, tolerance = TYPES[letter], TOLERANCES[letter]
        for of_a in range(3):
            a = randoms(dtype, 5, 3)
            x, y = randoms(dtype, 5 if of_a else 3), randoms(dtype, 3 if of_a else 5)
            wanted = 2 * transposed(a, of_a) @ x + 3 * y
            two, three = scalar(dtype, 2), scalar(dtype, 3)
            assert call(CUBLAS[f"cublas{letter}gemv_v2"], handle, of_a, 5, 3, two, a, 5, x, 1, three, y, 1) == 0
            close(y, wanted, tolerance)
        x, y = randoms(dtype, 9), randoms(dtype, 4)
        plain, conjugated = np.outer(x, y), np.outer(x, y.conj())
        for name, outer in {"ger": plain}.items() if letter in "SD" else {"geru": plain, "gerc": conjugated}.items():
            a = randoms(dtype, 9, 4)
            wanted = a + 2 * outer
            assert call(CUBLAS[f"cublas{letter}{name}_v2"], handle, 9, 4, scalar(dtype, 2), x, 1, y, 1, a, 9) == 0
            close(a, wanted, tolerance)

    @all_types
    def test_sums_of_matrices(self, handle: c_void_p, letter: str) -> None:
        dtype, tolerance = TYPES[letter], TOLERANCES[letter]
        two, three = scalar(dtype, 2), scalar(dtype, 3)
        for of_a in range(3):
            a, b, c = randoms(dtype, *((6, 4) if of_a else (4, 6))), randoms(dtype, 4, 6), randoms(dtype, 4, 6)
            lda = a.shape[0]
            assert call(CUBLAS[f"cublas{letter}geam"], handle, of_a, 0, 4, 6, two, a, lda, three, b, 4, c, 4) == 0
            close(c, 2 * transposed(a, of_a) + 3 * b, tolerance)
        for side, n in ((0, 4), (1, 6)):
            x = randoms(dtype, n)
            assert call(CUBLAS[f"cublas{letter}dgmm"], handle, side, 4, 6, b, 4, x, 1, c, 4) == 0
            close(c, np.diag(x) @ b if side == 0 else b @ np.diag(x), tolerance)
        for fill, of_a in itertools.product((0, 1), (0, 1)):
            a, c = randoms(dtype, *((3, 4) if of_a else (4, 3))), randoms(dtype, 4, 4)
            whole = 2 * transposed(a, of_a) @ transposed(a, of_a).T + 3 * c
            inside = np.tri(4, dtype=bool) if fill == 0 else np.tri(4, dtype=bool).T
            wanted, lda = np.where(inside, whole, c), a.shape[0]
            assert call(CUBLAS[f"cublas{letter}syrk_v2"], handle, fill, of_a, 4, 3, two, a, lda, three, c, 4) == 0
            close(c, wanted, tolerance)

    @all_types
    def test_triangles(self, handle: c_void_p, letter: str) -> None:
        dtype, (m, n) = TYPES[letter], (4, 3)
        for side, fill, of_a, unit in itertools.product((0, 1), (0, 1), (0, 1, 2), (0, 1)):
            size = m if side == 0 else n
            a = np.asfortranarray(randoms(dtype, size, size) + 4 * np.eye(size, dtype=dtype))
            b = randoms(dtype, m, n)
            triangle = np.tril(a) if fill == 0 else np.triu(a)
            if unit:
                np.fill_diagonal(triangle, 1)
            of = transposed(triangle, of_a)
            wanted = np.linalg.solve(of, 2 * b) if side == 0 else np.linalg.solve(of.T, 2 * b.T).T
            arguments = (side, fill, of_a, unit, m, n, scalar(dtype, 2), a, size, b, m)
            assert call(CUBLAS[f"cublas{letter}trsm_v2"], handle, *arguments) == 0
            close(b, wanted, 20 * TOLERANCES[letter])

    @all_types
    @pytest.mark.parametrize("n", [1, 5, 20])
    def test_lu(self, handle: c_void_p, solver: c_void_p, letter: str, n: int) -> None:
        dtype, tolerance = TYPES[letter], 1e-2 if letter in "SC" else 1e-8
        a = np.stack([randoms(dtype, n, n).T for _ in range(3)])
        before, inverse = a.copy(), np.zeros_like(a)
        pivots, info = np.zeros((3, n), np.int32), np.ones(3, np.int32)
        assert call(CUBLAS[f"cublas{letter}getrfBatched"], handle, n, addresses(a), n, pivots, info, 3) == 0
        assert not info.any()
        into = addresses(inverse)
        assert call(CUBLAS[f"cublas{letter}getriBatched"], handle, n, addresses(a), n, pivots, into, n, info, 3) == 0
        close(inverse @ before, np.broadcast_to(np.eye(n), (3, n, n)), tolerance)
        for of_a in range(3):
            x, b, work = randoms(dtype, n, n), randoms(dtype, n, 2), np.zeros((n, n), dtype)
            wanted = np.linalg.solve(transposed(x, of_a), b)
            assert call(CUSOLVER[f"cusolverDn{letter}getrf"], solver, n, n, x, n, work, pivots, info) == 0
            assert call(CUSOLVER[f"cusolverDn{letter}getrs"], solver, of_a, n, 2, x, n, pivots, b, n, info) == 0
            close(b, wanted, tolerance)

    @all_types
    def test_cholesky(self, solver: c_void_p, letter: str) -> None:
        dtype, n, info = TYPES[letter], 7, np.ones(1, np.int32)
        for fill in (0, 1):
            x = randoms(dtype, n, n)
            a = np.asfortranarray((x @ x.conj().T + np.eye(n)).astype(dtype))
            wanted, work = np.linalg.cholesky(a), np.zeros(n, dtype)
            assert call(CUSOLVER[f"cusolverDn{letter}potrf"], solver, fill, n, a, n, work, n, info) == 0
            assert info[0] == 0
            close(np.tril(a) if fill == 0 else np.triu(a).conj().T, wanted, 10 * TOLERANCES[letter])

    def test_refusals(self, handle: c_void_p, capfd: pytest.CaptureFixture[str]) -> None:
        a, one, zero = randoms(np.float32, 4, 4), scalar(np.float32, 1), scalar(np.float32, 0)
        assert call(CUBLAS.cublasSgemm_v2, handle, 0, 0, 4, 4, 4, one, a, 3, a, 4, zero, a, 4) == INVALID
        assert "cublasSgemm_v2: lda is too small" in capfd.readouterr().err
        assert CUSOLVER.cusolverDnSgesvd() == 9
        assert "cusolverDnSgesvd: is not there" in capfd.readouterr().err


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, batch", [(1, 2), (8, 3), (12, 1), (97, 2), (360, 2)])
def test_cufft(dtype: Any, n: int, batch: int) -> None:
    double = dtype == np.float64
    complexes, tolerance = (np.complex128, 1e-11) if double else (np.complex64, 1e-4)
    names = ("Z2Z", "D2Z", "Z2D") if double else ("C2C", "R2C", "C2R")
    execute = [CUFFT[f"cufftExec{name}"] for name in names]
    plans = [c_int() for _ in names]
    for plan, kind in zip(plans, (0x29, 0x2A, 0x2C), strict=True):
        assert CUFFT.cufftCreate(byref(plan)) == 0
        assert CUFFT.cufftMakePlan1d(plan, n, kind + 0x40 * double, batch, byref(c_size_t())) == 0
    x = np.ascontiguousarray(randoms(complexes, batch, n))
    y = np.zeros_like(x)
    assert call(execute[0], plans[0], x, y, -1) == 0
    close(y, np.fft.fft(x), tolerance)
    assert call(execute[0], plans[0], x, y, 1) == 0
    close(y, np.fft.ifft(x) * n, tolerance)
    real, half = np.ascontiguousarray(randoms(dtype, batch, n)), np.zeros((batch, n // 2 + 1), complexes)
    assert call(execute[1], plans[1], real, half) == 0
    close(half, np.fft.rfft(real), tolerance)
    back = np.zeros_like(real)
    assert call(execute[2], plans[2], half, back) == 0
    close(back, real * n, tolerance)


def test_cufft_of_two_dimensions() -> None:
    plan, sizes = c_int(), (c_int * 2)(6, 10)
    CUFFT.cufftCreate(byref(plan))
    assert CUFFT.cufftMakePlanMany(plan, 2, sizes, None, 1, 60, None, 1, 60, 0x29, 2, byref(c_size_t())) == 0
    x = np.ascontiguousarray(randoms(np.complex64, 2, 6, 10))
    y = np.zeros_like(x)
    assert call(CUFFT.cufftExecC2C, plan, x, y, -1) == 0
    close(y, np.fft.fft2(x), 1e-4)
