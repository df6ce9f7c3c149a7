"""DLPack capsules of this process's memory and of GPUs', for all of ONNX's element types: numpy knows only its own.

The structures are those of https://github.com/dmlc/dlpack (version 0, unversioned capsules).
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any, NamedTuple

import numpy as np

from distort.graph.types import DTYPE_OF, SUB_BYTE_BITS, element_of

Array = np.ndarray[Any, Any]

#: kDLCPU, kDLCUDA, and host memory that CUDA pinned
CPU, CUDA, CUDA_HOST = 1, 2, 3
_INT, _UINT, _FLOAT, _BFLOAT, _BOOL = 0, 1, 2, 4, 6
#: ONNX's element -> (code, bits)
_TYPES = {
    1: (_FLOAT, 32),
    2: (_UINT, 8),
    3: (_INT, 8),
    4: (_UINT, 16),
    5: (_INT, 16),
    6: (_INT, 32),
    7: (_INT, 64),
    9: (_BOOL, 8),
    10: (_FLOAT, 16),
    11: (_FLOAT, 64),
    12: (_UINT, 32),
    13: (_UINT, 64),
    16: (_BFLOAT, 16),
    17: (10, 8),  # kDLFloat8_e4m3fn
    18: (11, 8),  # kDLFloat8_e4m3fnuz
    19: (12, 8),  # kDLFloat8_e5m2
    20: (13, 8),  # kDLFloat8_e5m2fnuz
    24: (14, 8),  # kDLFloat8_e8m0fnu
}
_ELEMENTS = {value: key for key, value in _TYPES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))  # it names itself
_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

#: what is exported and not yet given back: number -> what must live as long
_exported: dict[int, tuple[Any, ...]] = {}
_numbers = itertools.count(1)


def _give_back(managed: Any) -> None:
    _exported.pop(managed.contents.context, None)


def _destroy(capsule: int) -> None:
    """A capsule that nobody took gives its memory back itself."""
    if _is_valid(capsule, b"dltensor"):
        managed = ctypes.cast(_pointer_of(capsule, b"dltensor"), ctypes.POINTER(_Managed))
        managed.contents.deleter(managed)


_deleter = _DELETER(_give_back)
_destructor = _DESTRUCTOR(_destroy)
_api = ctypes.pythonapi
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)(
    ("PyCapsule_New", _api)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_USED = b"used_dltensor"


def export(array: Array) -> Any:
    """A capsule over an array's memory, which lives until its taker gives it back. Raises RuntimeError, BufferError."""
    element = element_of(array.dtype)
    if element not in _TYPES:
        packed = " packed" if element in SUB_BYTE_BITS else ""
        raise RuntimeError(f"DLPack has no{packed} type for {array.dtype}.")
    if array.dtype.isbuiltin != 2 and not array.flags.writeable:
        array.__dlpack__()  # raises numpy's BufferError
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return export_memory(array.ctypes.data, array.shape, element, (CPU, 0), owner=array, strides=strides)


def export_memory(
    pointer: int,
    shape: tuple[int, ...],
    element: int,
    device: tuple[int, int],
    *,
    owner: object,
    strides: tuple[int, ...] | None = None,
) -> Any:
    """A capsule over memory that ``owner`` keeps alive. ``strides`` are in elements; None: it is C-contiguous."""
    code, bits = _TYPES[element]
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))
    steps = (ctypes.c_int64 * len(shape))(*strides)
    tensor = _Tensor(pointer, *device, len(shape), code, bits, 1, sizes, steps, 0)
    number = next(_numbers)
    managed = _Managed(tensor, number, _deleter)
    _exported[number] = (managed, owner, sizes, steps)
    return _new_capsule(ctypes.addressof(managed), b"dltensor", _destructor)


class _Owner:
    """Memory that came in a capsule; given back when no array uses it."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(self._managed)


class Given(NamedTuple):
    """A tensor that came in a capsule. Its memory is there as long as ``owner``."""

    pointer: int
    shape: tuple[int, ...]
    element: int
    device: tuple[int, int]  # DLPack's type of it, and its number
    owner: object


def take_memory(capsule: Any) -> Given:
    """The memory of a capsule, which nobody else can take then. Raises TypeError for what is no capsule.

    RuntimeError for elements that ONNX lacks, and for what is not C-contiguous.
    """
    if type(capsule).__name__ != "PyCapsule" or not _is_valid(id(capsule), b"dltensor"):
        raise TypeError("from_dlpack expected a valid DLPack capsule named 'dltensor'")
    managed = ctypes.cast(_pointer_of(id(capsule), b"dltensor"), ctypes.POINTER(_Managed))
    tensor = managed.contents.tensor
    element = _ELEMENTS.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if element is None:
        raise RuntimeError(f"No ONNX type for DLPack's code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes.")
    if tensor.device_type not in (CPU, CUDA, CUDA_HOST):
        raise RuntimeError(f"The tensor lies on a device of DLPack's type {tensor.device_type}, which is not here.")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides and not _is_contiguous(shape, tuple(tensor.strides[i] for i in range(tensor.ndim))):
        raise RuntimeError("ORT only supports contiguous tensor for now.")
    device = (tensor.device_type, tensor.device_id)
    pointer = (tensor.data or 0) + tensor.byte_offset
    _set_name(id(capsule), _USED)
    return Given(pointer, shape, element, device, _Owner(managed))


def device_of(capsule: Any) -> tuple[int, int]:
    """The device of a capsule that nobody has taken: DLPack's type of it, and its number; the CPU for what is none."""
    if type(capsule).__name__ != "PyCapsule" or not _is_valid(id(capsule), b"dltensor"):
        return CPU, 0
    managed = ctypes.cast(_pointer_of(id(capsule), b"dltensor"), ctypes.POINTER(_Managed))
    return managed.contents.tensor.device_type, managed.contents.tensor.device_id


def take(capsule: Any) -> Array:
    """An array over a capsule's memory, in this process. Raises as :func:`take_memory`."""
    given = take_memory(capsule)
    if given.device[0] == CUDA:
        raise RuntimeError(f"The tensor lies on a device of DLPack's type {CUDA}, which is not here.")
    dtype = DTYPE_OF[given.element]
    count = int(np.prod(given.shape, dtype=np.int64))
    if count == 0:
        return np.zeros(given.shape, dtype)
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(given.pointer)
    memory._owner = given.owner  # type: ignore[attr-defined]  # the array holds the memory, and it the owner
    return np.frombuffer(memoryview(memory), np.uint8).view(dtype).reshape(given.shape)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
