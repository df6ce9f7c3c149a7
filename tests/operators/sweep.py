"""Cases over all element types that an operator's version takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, defs, helper

from .case import VERSIONS, Case, case

_ELEMENT_TYPES = {
    "double": TensorProto.DOUBLE,
    **{name.lower(): number for name, number in TensorProto.DataType.items()},
}


def types_of(op_type: str, version: int, variable: str = "T", domain: str = "") -> list[np.dtype[Any]]:
    """The element types of tensors that the type variable of this version stands for; none where it has no such."""
    schema = defs.get_schema(op_type, version, domain)
    allowed = next((c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == variable), ())
    names = sorted(text[len("tensor(") : -1] for text in allowed if text.startswith("tensor("))
    # float6 has no type of NumPy's that onnx knows
    return [np.dtype(helper.tensor_dtype_to_np_dtype(_ELEMENT_TYPES[name])) for name in names if "float6e" not in name]


def is_floating(dtype: Any) -> bool:
    return np.dtype(dtype).kind == "f" or np.dtype(dtype) in (
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu,
        ml_dtypes.float4_e2m1fn,
    )


def tolerance(dtype: Any) -> float:
    """Twice the distance between 1 and the next number, relative; 0 for what is exact."""
    if np.dtype(dtype).kind in "cf" and np.dtype(dtype).isbuiltin == 1:
        return max(2 * float(np.finfo(dtype).eps), 1e-6)
    return 2 * float(ml_dtypes.finfo(dtype).eps) if is_floating(dtype) else 0.0


def samples(dtype: Any) -> np.ndarray[Any, Any]:
    """A few values, as this element type has them."""
    dtype = np.dtype(dtype)
    if dtype.kind == "O":
        return np.array(["", "a", "Ab c", "é", "-1"], object)
    if dtype.kind == "b":
        return np.array([True, False, True, True, False])
    if dtype.kind == "c":
        return np.array([0, 1 + 2j, -3.5j, -0.25, 2 - 1j], dtype)
    if is_floating(dtype):
        return np.array([-2.0, -0.0, 0.5, 1.0, 4.0], np.float32).astype(dtype)
    low, high = ml_dtypes.iinfo(dtype).min, ml_dtypes.iinfo(dtype).max
    return np.array([low, low + 1, 1, high // 2, high], object).astype(dtype)


def new_types(op_type: str, variable: str = "T", domain: str = "") -> Iterator[tuple[int, np.dtype[Any]]]:
    """(version, element type): each type where it came in, and one that was there before at each version."""
    before: list[np.dtype[Any]] = []
    for version in VERSIONS[domain, op_type]:
        types = types_of(op_type, version, variable, domain)
        fresh = [dtype for dtype in types if dtype not in before]
        if len(fresh) < len(types):
            fresh.append(np.dtype(np.float32) if np.float32 in types else types[0])
        yield from ((version, dtype) for dtype in dict.fromkeys(fresh))
        before = types


def sweep(
    op_type: str,
    make: Callable[[np.dtype[Any]], tuple[Sequence[Any], Sequence[Any]]],
    variable: str = "T",
    attributes: Mapping[str, Any] | None = None,
    only: Callable[[int, np.dtype[Any]], bool] = lambda version, dtype: True,
    **more: Any,
) -> list[Case]:
    """A case for each new type of each version; ``make`` gives inputs and expected outputs for an element type."""
    found = []
    for version, dtype in new_types(op_type, variable, more.get("domain", "")):
        if only(version, dtype):
            inputs, expected = make(dtype)
            settings = {"rtol": tolerance(dtype), **more, "label": more.get("label", "") + dtype.name}
            found.append(case(op_type, version, inputs=inputs, expected=expected, attributes=attributes, **settings))
    return found
