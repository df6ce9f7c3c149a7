"""The libraries' C functions for tests: of memory of the host, as to what a stream does addresses are addresses."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CUDA_ON_CPU"):
    pytest.skip("CUDA of the CPU isn't in the environment (tests/cuda_on_cpu/README.md)", allow_module_level=True)

FOLDER = Path(os.environ["CUDA_ON_CPU"]) / "lib"
DRIVER, CUBLAS, CUBLASLT, CUFFT, CUSOLVER = (
    ctypes.CDLL(str(FOLDER / name))
    for name in ("libcuda.so.1", "libcublas.so.12", "libcublasLt.so.12", "libcufft.so.11", "libcusolver.so.11")
)
RNG = np.random.default_rng(0)
TYPES = {"S": np.float32, "D": np.float64, "C": np.complex64, "Z": np.complex128}
TOLERANCES = {"S": 2e-4, "D": 1e-11, "C": 2e-4, "Z": 1e-11}
# cudaDataType
R_32F, R_64F, R_16F, R_8I, C_32F, R_32I, R_16BF, E4M3, E5M2 = 0, 1, 2, 3, 4, 10, 14, 28, 29
# cublasComputeType_t
COMPUTE_16F, COMPUTE_32F, COMPUTE_64F, COMPUTE_32I, COMPUTE_32F_FAST_TF32 = 64, 68, 70, 72, 77
# cublasStatus_t
INVALID, UNSUPPORTED = 7, 15


def randoms(dtype: Any, *shape: int) -> Any:
    """By columns, as BLAS has matrices"""
    x = RNG.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * RNG.standard_normal(shape)
    return np.asfortranarray(x.astype(dtype))


def scalar(dtype: Any, value: float) -> Any:
    return np.array([value], dtype)


def transposed(x: Any, operation: int) -> Any:
    return (x, x.T, x.conj().T)[operation]


def addresses(x: Any) -> Any:
    return np.array([matrix.ctypes.data for matrix in x], np.uint64)


def call(function: Callable[..., int], *arguments: Any) -> int:
    """Arrays by address; waits for what was queued."""
    plain = [c_void_p(x.ctypes.data) if isinstance(x, np.ndarray) else x for x in arguments]
    status = function(*plain)
    assert DRIVER.cudaDeviceSynchronize() == 0
    return status


def close(got: Any, wanted: Any, tolerance: float) -> None:
    assert got.shape == wanted.shape
    largest = max(1.0, float(np.abs(wanted).max())) if wanted.size else 1.0
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * largest)
