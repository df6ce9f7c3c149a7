"""The element types of the standard as numpy has them, with a small value of each."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

_NARROW = (
    "bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn "
    "int4 uint4 int2 uint2"
)
ELEMENT_TYPES: list[np.dtype[Any]] = [
    *(np.dtype(code) for code in "efdbhilBHIL?"),
    *(np.dtype(getattr(ml_dtypes, name)) for name in _NARROW.split()),
    np.dtype(object),
]


def sample(kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A 2 x 2 array of small numbers, or of strings."""
    if kind.kind == "O":
        return np.array([["a", ""], ["é", "xyz"]], object)
    return np.array([[1, 2], [1, 1]] if "e8m0" in kind.name else [[1, 0], [1, 1]], np.float32).astype(kind)


def tensor_type(kind: np.dtype[Any]) -> onnx.TypeProto:
    element = TensorProto.STRING if kind.kind == "O" else helper.np_dtype_to_tensor_dtype(kind)
    return helper.make_tensor_type_proto(element, [2, 2])


def assert_same(got: Any, want: np.ndarray[Any, Any]) -> None:
    """Type, shape and every element."""
    assert isinstance(got, np.ndarray)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tolist() == want.tolist()
