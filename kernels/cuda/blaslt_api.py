"""cuBLASLt's C functions through ctypes: numbers of its enumerations, descriptors, and statuses in words.

Numbers are those of cublasLt.h, cublas_api.h and library_types.h of CUDA 12; CUDA 13 has the same.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

from distort.kernels.cuda.libraries import LibraryFailed

# cudaDataType
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "int8": 3, "int32": 10, "bfloat16": 14}
# cublasComputeType_t
COMPUTE_32F, COMPUTE_64F, COMPUTE_32I, COMPUTE_32F_FAST_TF32 = 68, 70, 72, 77
# cublasOperation_t
OP_N, OP_T = 0, 1
# cublasLtMatmulDescAttributes_t
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER, DESC_BIAS_DATA_TYPE = 3, 4, 7, 8, 26
# cublasLtMatrixLayoutAttribute_t
LAYOUT_TYPE, LAYOUT_ROWS, LAYOUT_COLS, LAYOUT_LD, LAYOUT_BATCH_COUNT, LAYOUT_BATCH_STRIDE = 0, 2, 3, 4, 5, 6
# cublasLtMatmulPreferenceAttributes_t; alignments of A, B, C, D follow each other
PREFERENCE_WORKSPACE, PREFERENCE_ALIGNMENT_A = 1, 5
# cublasLtEpilogue_t, bits
EPILOGUE_DEFAULT, EPILOGUE_RELU, EPILOGUE_BIAS, EPILOGUE_GELU = 1, 2, 4, 32

STATUSES = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}
NOT_INITIALIZED, INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED = 1, 7, 8, 15
#: what is said of a problem that the device or the library has no algorithm for
IMPOSSIBLE = (INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED)
_REMEDIES = {
    1: "look whether the driver is at least as new as this CUDA, and whether the device has memory left",
    3: "lower gpu_mem_limit, so that cuBLASLt has memory of its own",
    8: "the device is too old for this dtype: run the model in float32",
    13: "look at earlier kernels of the stream with CUDA_LAUNCH_BLOCKING=1",
    15: "this combination of dtypes, layouts and epilogue has no kernel: run the node on the CPU",
}


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t"""

    _fields_ = [("data", ctypes.c_uint64 * 8)]


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t"""

    _fields_ = [
        ("algorithm", Algorithm),
        ("workspace_nbytes", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


class Functions(Protocol):
    """What is called of a library. All return a status."""

    cublasLtCreate: Any
    cublasLtDestroy: Any
    cublasLtMatmul: Any
    cublasLtMatmulAlgoGetHeuristic: Any


_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_POINTER,),
    "cublasLtDestroy": (_POINTER,),
    "cublasLtMatmulDescCreate": (_POINTER, _INT, _INT),
    "cublasLtMatmulDescDestroy": (_POINTER,),
    "cublasLtMatmulDescSetAttribute": (_POINTER, _INT, _POINTER, _SIZE),
    "cublasLtMatmulDescGetAttribute": (_POINTER, _INT, _POINTER, _SIZE, _POINTER),
    "cublasLtMatrixLayoutCreate": (_POINTER, _INT, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64),
    "cublasLtMatrixLayoutDestroy": (_POINTER,),
    "cublasLtMatrixLayoutSetAttribute": (_POINTER, _INT, _POINTER, _SIZE),
    "cublasLtMatrixLayoutGetAttribute": (_POINTER, _INT, _POINTER, _SIZE, _POINTER),
    "cublasLtMatmulPreferenceCreate": (_POINTER,),
    "cublasLtMatmulPreferenceDestroy": (_POINTER,),
    "cublasLtMatmulPreferenceSetAttribute": (_POINTER, _INT, _POINTER, _SIZE),
    "cublasLtMatmulAlgoGetHeuristic": (*[_POINTER] * 7, _INT, _POINTER, _POINTER),
    "cublasLtMatmul": (*[_POINTER] * 14, _SIZE, _POINTER),
}


def functions_of(library: Any) -> Functions:
    """The library's functions, with the types of their arguments."""
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _INT
    functions: Functions = library
    return functions


def check(status: int, what: str) -> None:
    """Raise LibraryFailed unless the status is success. ``what`` was being done."""
    if status:
        name = STATUSES.get(status, f"status {status}")
        remedy = f" Remedy: {_REMEDIES[status]}." if status in _REMEDIES else ""
        raise LibraryFailed(f"cuBLASLt: {name} while {what}.{remedy}")


class Descriptor:
    """A descriptor of the library: made, given attributes, destroyed by :meth:`close`.

    ``kind``: MatmulDesc, MatrixLayout or MatmulPreference.
    """

    def __init__(self, functions: Functions, kind: str, what: str, *arguments: int) -> None:
        self._functions, self._kind, self._what = functions, kind, what
        handle = ctypes.c_void_p()
        check(self._function("Create")(ctypes.byref(handle), *arguments), f"describing {what}")
        self.handle = handle

    def _function(self, verb: str) -> Any:
        return getattr(self._functions, f"cublasLt{self._kind}{verb}")

    def set(self, attribute: int, value: int, ctype: Any) -> None:
        data = ctype(value)
        status = self._function("SetAttribute")(self.handle, attribute, ctypes.byref(data), ctypes.sizeof(data))
        check(status, f"setting attribute {attribute} of {self._kind} of {self._what}")

    def get(self, attribute: int, ctype: Any) -> int:
        data, written = ctype(), ctypes.c_size_t()
        size = ctypes.sizeof(data)
        function = self._function("GetAttribute")
        status = function(self.handle, attribute, ctypes.byref(data), size, ctypes.byref(written))
        check(status, f"reading attribute {attribute} of {self._kind} of {self._what}")
        value: int = data.value
        return value

    def close(self) -> None:
        if self.handle:
            self._function("Destroy")(self.handle)
            self.handle = ctypes.c_void_p()
