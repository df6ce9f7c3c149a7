"""cuBLASLt of the CPU, by its C functions, against numpy; and what it refuses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from .libraries.c_calls import (
    C_32F,
    COMPUTE_32F,
    COMPUTE_32F_FAST_TF32,
    COMPUTE_32I,
    COMPUTE_64F,
    CUBLASLT,
    E4M3,
    E5M2,
    INVALID,
    R_8I,
    R_16BF,
    R_16F,
    R_32F,
    R_32I,
    R_64F,
    RNG,
    UNSUPPORTED,
    call,
    close,
    scalar,
    transposed,
)

#: cudaDataType and numpy's, by letters
LETTERS: dict[str, tuple[int, Any]] = {
    "f": (R_32F, np.float32),
    "d": (R_64F, np.float64),
    "h": (R_16F, np.float16),
    "b": (R_16BF, ml_dtypes.bfloat16),
    "4": (E4M3, ml_dtypes.float8_e4m3fn),
    "5": (E5M2, ml_dtypes.float8_e5m2),
    "i": (R_8I, np.int8),
    "I": (R_32I, np.int32),
    "F": (C_32F, np.complex64),
}
DTYPES = dict(LETTERS.values())


class Lt:
    """A problem of cuBLASLt, with matrices for it: letters name types of A, B, C and D."""

    handle = c_void_p()

    def __init__(
        self,
        types: str = "ffff",
        m: int = 16,
        n: int = 8,
        k: int = 32,
        operations: tuple[int, int] = (0, 0),
        compute: int = COMPUTE_32F,
        scale: int = R_32F,
        lds: Sequence[int] = (0, 0, 0, 0),
        orders: Sequence[int] = (0, 0, 0, 0),
        strides: Sequence[int] = (),
        batch: int = 1,
        epilogue: int = 1,
        attributes: Sequence[tuple[int, Any]] = (),
        alignment: int = 256,
        offset: int = 0,
        alpha: float = 1,
        beta: float = 0,
    ) -> None:
        if not Lt.handle:
            assert CUBLASLT.cublasLtCreate(byref(Lt.handle)) == 0
        shapes = [(k, m) if operations[0] else (m, k), (n, k) if operations[1] else (k, n), (m, n), (m, n)]
        self.descriptor, preference = c_void_p(), c_void_p()
        assert CUBLASLT.cublasLtMatmulDescCreate(byref(self.descriptor), compute, scale) == 0
        given = [(3, c_int32(operations[0])), (4, c_int32(operations[1])), (7, c_uint32(epilogue)), *attributes]
        for number, value in given:
            assert self.set("MatmulDesc", self.descriptor, number, value) == 0
        self.layouts, self.matrices, self.data = [], [], []
        for i, (letter, shape) in enumerate(zip(types, shapes, strict=True)):
            number, dtype = LETTERS[letter]
            ld = lds[i] or (shape[1] if orders[i] else shape[0])
            layout = c_void_p()
            sizes = c_uint64(shape[0]), c_uint64(shape[1]), c_int64(ld)
            assert CUBLASLT.cublasLtMatrixLayoutCreate(byref(layout), number, *sizes) == 0
            self.set("MatrixLayout", layout, 1, c_int32(orders[i]))
            if batch > 1:
                self.set("MatrixLayout", layout, 5, c_int32(batch))
                self.set("MatrixLayout", layout, 6, c_int64(strides[i]))
            data, matrix = self.matrix(dtype, shape, ld, bool(orders[i]), batch, offset)
            self.layouts.append(layout)
            self.matrices.append(matrix)
            self.data.append(data)
        assert CUBLASLT.cublasLtMatmulPreferenceCreate(byref(preference)) == 0
        assert self.set("MatmulPreference", preference, 1, c_uint64(1 << 20)) == 0
        for number in range(5, 9):
            assert self.set("MatmulPreference", preference, number, c_uint32(alignment)) == 0
        self.results, found = (ctypes.c_uint8 * (96 * 8))(), c_int()
        heuristic = CUBLASLT.cublasLtMatmulAlgoGetHeuristic
        arguments = (self.handle, self.descriptor, *self.layouts, preference, 8, self.results, byref(found))
        self.status, self.n_found = heuristic(*arguments), found.value
        self.workspace_nbytes = c_size_t.from_buffer(self.results, 64).value
        self.workspace = self.aligned(max(256, self.workspace_nbytes))
        self.scalars = [scalar(DTYPES[scale], value) for value in (alpha, beta)]

    @staticmethod
    def set(kind: str, it: c_void_p, number: int, value: Any) -> int:
        function = CUBLASLT[f"cublasLt{kind}SetAttribute"]
        return int(function(it, number, byref(value), c_size_t(ctypes.sizeof(value))))

    @staticmethod
    def aligned(nbytes: int) -> Any:
        """To 256 bytes, as memory of a GPU is"""
        raw = np.zeros(nbytes + 256, np.uint8)
        start = -raw.ctypes.data % 256
        return raw[start : start + nbytes]

    def matrix(self, dtype: Any, shape: tuple[int, int], ld: int, by_rows: bool, batch: int, offset: int) -> Any:
        n_lines, length = shape if by_rows else shape[::-1]
        data = self.aligned(ld * n_lines * batch * np.dtype(dtype).itemsize + offset)[offset:].view(dtype)
        lines = data.reshape(batch * n_lines, ld)[:n_lines, :length]
        integers = np.dtype(dtype).kind == "i"
        lines[...] = RNG.integers(-128, 127, lines.shape) if integers else RNG.standard_normal(lines.shape).astype("f")
        return data, lines if by_rows else lines.T

    def run(
        self, addresses: dict[int, int] | None = None, workspace_nbytes: int | None = None, other: Any = None
    ) -> int:
        a, b, c, d = (c_void_p((addresses or {}).get(i, data.ctypes.data)) for i, data in enumerate(self.data))
        nbytes = c_size_t(self.workspace_nbytes if workspace_nbytes is None else workspace_nbytes)
        alpha, beta = self.scalars
        pairs = [x for pair in zip((b, c, d), self.layouts[1:], strict=True) for x in pair]
        operands = (alpha, a, self.layouts[0], *pairs[:2], beta, *pairs[2:])
        algorithm = (other or self).results
        function = CUBLASLT.cublasLtMatmul
        return call(function, self.handle, self.descriptor, *operands, algorithm, self.workspace, nbytes, None)


def wide(x: Any) -> Any:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def check_lt(tolerance: float, finish: Callable[[Any], Any] = lambda x: x, **options: Any) -> None:
    problem = Lt(**options)
    assert (problem.status, problem.n_found) == (0, 3)
    a, b, c, _ = (wide(x) for x in problem.matrices)
    of_a, of_b = options.get("operations", (0, 0))
    product = transposed(a, of_a) @ transposed(b, of_b)
    wanted = finish(options.get("alpha", 1) * product + options.get("beta", 0) * c)
    assert problem.run() == 0
    close(wide(problem.matrices[3]), wanted, tolerance)


INT8: dict[str, Any] = {"types": "iiII", "operations": (1, 0), "compute": COMPUTE_32I, "scale": R_32I}
FLOAT8: dict[str, Any] = {"types": "44bb", "operations": (1, 0), "m": 32, "n": 16, "k": 64}
BIAS = Lt.aligned(64).view(np.float32)
BIAS[:] = RNG.standard_normal(16)
WITH_BIAS = [(8, c_void_p(BIAS.ctypes.data))]


class TestCublasLt:
    @pytest.mark.parametrize("letter, tolerance", [("f", 1e-5), ("d", 1e-12), ("h", 2e-3), ("b", 1e-2), ("F", 1e-5)])
    @pytest.mark.parametrize("operations", [(0, 0), (0, 1), (1, 0), (1, 1)])
    def test_products(self, letter: str, tolerance: float, operations: tuple[int, int]) -> None:
        compute, scale = COMPUTE_64F if letter == "d" else COMPUTE_32F, {"d": R_64F, "F": C_32F}.get(letter, R_32F)
        sizes: dict[str, Any] = {"m": 17, "n": 9, "k": 300, "lds": (320, 330, 20, 24)}
        check_lt(
            tolerance,
            types=letter * 4,
            operations=operations,
            compute=compute,
            scale=scale,
            alpha=0.5,
            beta=-1,
            **sizes,
        )

    def test_others(self) -> None:
        for orders in ((1, 1, 1, 1), (1, 0, 0, 1), (0, 1, 1, 0)):
            check_lt(1e-5, orders=orders, beta=2)
        check_lt(2e-3, compute=COMPUTE_32F_FAST_TF32)
        check_lt(0, **INT8, k=36, m=12, n=7)
        check_lt(1e-6, types="iiff", operations=(1, 0), k=36, m=12, n=7)

    @pytest.mark.parametrize("types, tolerance", [("44bb", 1e-2), ("45hh", 1e-2), ("54ff", 1e-5), ("44h4", 7e-2)])
    def test_float8(self, types: str, tolerance: float) -> None:
        scales = [Lt.aligned(4).view(np.float32) for _ in range(2)]
        scales[0][:], scales[1][:] = 2, 0.25
        attributes = [(17 + i, c_void_p(scale.ctypes.data)) for i, scale in enumerate(scales)]
        check_lt(tolerance, lambda x: 0.5 * x, **(FLOAT8 | {"types": types, "attributes": attributes}))

    def test_epilogues(self) -> None:
        def gelu(x: Any) -> Any:
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

        bias = BIAS[:, None]
        check_lt(1e-5, lambda x: np.maximum(x, 0), epilogue=2)
        check_lt(1e-5, lambda x: x + bias, epilogue=4, attributes=WITH_BIAS)
        check_lt(1e-5, lambda x: np.maximum(x + bias, 0), epilogue=6, attributes=WITH_BIAS)
        check_lt(1e-5, gelu, epilogue=32)
        check_lt(1e-5, lambda x: gelu(x + bias), epilogue=36, attributes=WITH_BIAS)
        kept = Lt.aligned(4 * 16 * 8).view(np.float32)
        aux = [(11, c_void_p(kept.ctypes.data)), (12, c_int64(16))]
        problem = Lt(epilogue=36 | 128, attributes=[*WITH_BIAS, *aux])
        assert problem.run() == 0
        close(kept.reshape(8, 16).T, wide(problem.matrices[0]) @ wide(problem.matrices[1]) + bias, 1e-5)

    def test_a_batch(self) -> None:
        problem = Lt(batch=3, m=4, n=5, k=6, strides=(24, 0, 20, 20))
        a, b, _, d = problem.data
        a[:] = RNG.standard_normal(a.shape)
        assert problem.run() == 0
        close(d.reshape(3, 5, 4), b[:30].reshape(5, 6) @ a.reshape(3, 6, 4), 1e-5)

    @pytest.mark.parametrize(
        "status, options",
        [
            (UNSUPPORTED, {"types": "hhbb"}),
            (UNSUPPORTED, {"types": "ffhh"}),
            (UNSUPPORTED, {"scale": R_64F}),
            (UNSUPPORTED, {"types": "dddd"}),
            (UNSUPPORTED, INT8 | {"operations": (0, 0)}),
            (UNSUPPORTED, INT8 | {"k": 34}),
            (UNSUPPORTED, INT8 | {"m": 6, "lds": (0, 0, 8, 8)}),
            (UNSUPPORTED, INT8 | {"lds": (0, 34, 0, 0)}),
            (UNSUPPORTED, INT8 | {"epilogue": 2}),
            (UNSUPPORTED, INT8 | {"alignment": 2}),
            (UNSUPPORTED, FLOAT8 | {"operations": (0, 0)}),
            (UNSUPPORTED, FLOAT8 | {"n": 8}),
            (UNSUPPORTED, FLOAT8 | {"types": "55bb"}),
            (UNSUPPORTED, {"epilogue": 4, "attributes": [*WITH_BIAS, (26, c_int32(R_16F))]}),
            (INVALID, {"epilogue": 4}),
            (INVALID, {"epilogue": 4, "attributes": [(8, c_void_p(BIAS.ctypes.data + 2))]}),
            (INVALID, {"epilogue": 3}),
            (UNSUPPORTED, {"epilogue": 256}),
            (UNSUPPORTED, {"epilogue": 4, "attributes": WITH_BIAS, "orders": (0, 0, 1, 1)}),
            (UNSUPPORTED, {"alignment": 2}),
            (INVALID, {"alignment": 3}),
            (INVALID, {"batch": 3, "m": 4, "n": 5, "k": 6, "strides": (24, 0, 10, 10)}),
            (INVALID, {"attributes": [(17, c_void_p(256))]}),
            (UNSUPPORTED, {"orders": (2, 0, 0, 0)}),
        ],
    )
    def test_no_algorithm(self, status: int, options: dict[str, Any]) -> None:
        problem = Lt(**options)
        assert (problem.status, problem.n_found) == (status, 0)

    def test_refused_products(self, capfd: pytest.CaptureFixture[str]) -> None:
        problem = Lt()
        big = Lt.aligned(1 << 16).ctypes.data
        for options, said in (
            ({"workspace_nbytes": 16}, "wants a workspace"),
            ({"other": Lt(m=20)}, "for another problem"),
            ({"addresses": {0: 0}}, "a matrix is null"),
            ({"addresses": {0: big, 3: big + 256}}, "overlap"),
            ({"addresses": {1: problem.workspace.ctypes.data}}, "the workspace"),
        ):
            capfd.readouterr()
            assert problem.run(**options) == INVALID
            assert said in capfd.readouterr().err
        assert Lt(offset=16).run() == INVALID
        assert "less aligned" in capfd.readouterr().err
        assert Lt(alignment=16, offset=16).run() == 0
        assert Lt(beta=1).run(addresses={2: big, 3: big + 256}) == INVALID

    def test_descriptors(self) -> None:
        it = c_void_p()
        assert CUBLASLT.cublasLtMatmulDescCreate(byref(it), COMPUTE_32F, R_32F) == 0
        assert Lt.set("MatmulDesc", it, 3, c_int64(1)) == INVALID
        assert Lt.set("MatmulDesc", it, 9, c_int64(1)) == INVALID
        assert Lt.set("MatrixLayout", it, 3, c_int64(1)) == INVALID
        assert CUBLASLT.cublasLtMatmulDescDestroy(it) == 0
        assert CUBLASLT.cublasLtMatmulDescDestroy(it) == INVALID
