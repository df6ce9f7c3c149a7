"""Feeds: Python objects become values, and are held against what the model declares, as onnxruntime does it.

The order of checks: every feed is converted, then all names are checked, then all types, then ranks and sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort import errors
from distort.graph.ir import SparseInitializer
from distort.graph.types import (
    DTYPE_OF,
    NAME_OF,
    MapType,
    OptionalType,
    SequenceType,
    SparseTensorType,
    TensorType,
    ValueType,
    element_of,
)
from distort.metadata import declared_shape
from distort.native import values as native
from distort.ortvalue import OrtValue

_DOUBLE = 11  # TensorProto.DOUBLE
_STRING = 8
_INT64 = 7
_COMPLEX = frozenset({14, 15})

#: names that onnxruntime's run time has for element types; where it has none of its own, the model's
_RUNTIME_NAMES = {
    17: "Float8E4M3FN",
    18: "Float8E4M3FNUZ",
    19: "Float8E5M2",
    20: "Float8E5M2FNUZ",
    21: "UInt4x2",
    22: "Int4x2",
    23: "Float4E2M1x2",
    24: "Float8E8M0",
    25: "UInt2x4",
    26: "Int2x4",
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the model declares of an input, in the form that checks need."""

    name: str
    type: ValueType | None
    dtype: np.dtype[Any] | None  # None: never the fast way (strings, containers, unknown)
    rank: int | None  # None: any; a declared rank of 0 is not checked either, as in onnxruntime
    sizes: tuple[tuple[int, int], ...]  # (axis, size) where the size is known

    @classmethod
    def of(cls, name: str, value_type: ValueType | None) -> InputSpec:
        shape = declared_shape(value_type)
        item = _without_optional(value_type)
        dtype = None
        if isinstance(item, TensorType) and item.element != _STRING:
            dtype = DTYPE_OF.get(item.element)
        sizes = tuple((axis, dim) for axis, dim in enumerate(shape or ()) if isinstance(dim, int))
        return cls(name, item, dtype, len(shape) if shape else None, sizes)


def read_feeds(specs: Mapping[str, InputSpec], feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name; a feed of None is left out. Raises onnxruntime's errors in its order."""
    values: dict[str, Any] = {}
    for name, given in feeds.items():
        spec = specs.get(name)
        if spec is None or type(given) is not np.ndarray or given.dtype != spec.dtype or not _fits(spec, given.shape):
            return _read_slowly(specs, feeds)
        values[name] = given
    return values


def _fits(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    if spec.rank is None:
        return True
    return len(shape) == spec.rank and all(shape[axis] == size for axis, size in spec.sizes)


def _read_slowly(specs: Mapping[str, InputSpec], feeds: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, tuple[Any, ValueType | None]] = {}
    for name, given in feeds.items():
        if given is not None:
            values[name] = convert(given, name, specs.get(name))
    check(specs, values)
    return {name: value for name, (value, _) in values.items() if value is not None}


def check(specs: Mapping[str, InputSpec], values: Mapping[str, tuple[Any, ValueType | None]]) -> None:
    """Hold converted feeds, given with their types, against the model."""
    for name in values:
        if name not in specs:
            raise errors.make("INVALID_ARGUMENT", f"Invalid input name: {name}")
    for name, (value, actual) in values.items():
        if value is not None:
            _check_type(specs[name], actual)
    for name, (value, _) in values.items():
        shape = _shape_of(value)
        if shape is not None:
            check_shape(specs[name], shape)


def check_shape(spec: InputSpec, shape: tuple[int, ...], what: str = "input") -> None:
    """Rank, then sizes. Raises InvalidArgument."""
    if spec.rank is None:
        return
    if len(shape) != spec.rank:
        raise errors.make(
            "INVALID_ARGUMENT",
            f"Invalid rank for {what}: {spec.name} Got: {len(shape)} Expected: {spec.rank} "
            "Please fix either the inputs/outputs or the model.",
        )
    wrong = [(axis, shape[axis], size) for axis, size in spec.sizes if shape[axis] != size]
    if wrong:
        lines = "".join(f"\n index: {axis} Got: {got} Expected: {size}" for axis, got, size in wrong)
        raise errors.make(
            "INVALID_ARGUMENT",
            f"Got invalid dimensions for {what}: {spec.name} for the following indices{lines}\n "
            "Please fix either the inputs/outputs or the model.",
        )


def _shape_of(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, SparseInitializer):
        return value.dims
    return getattr(value, "shape", None)


def _without_optional(value_type: ValueType | None) -> ValueType | None:
    return value_type.item if isinstance(value_type, OptionalType) else value_type


def runtime_text(value_type: ValueType | None) -> str:
    """A type as onnxruntime's run time names it."""
    if isinstance(value_type, TensorType):
        element = value_type.element
        return f"tensor({_RUNTIME_NAMES.get(element, NAME_OF.get(element, 'undefined'))})"
    return str(value_type)


#: how onnxruntime numbers the kinds of types
_KINDS: dict[type, int] = {MapType: 1, TensorType: 2, SequenceType: 3, SparseTensorType: 4, OptionalType: 5}


def _check_type(spec: InputSpec, actual: ValueType | None) -> None:
    expected = spec.type
    if expected is None or actual is None:
        return
    if isinstance(actual, TensorType):
        if not isinstance(expected, TensorType):
            kind = _KINDS.get(type(expected), 1)
            raise errors.make(
                "INVALID_ARGUMENT",
                f"input with name: '{spec.name}' expected to be of type: {kind} but received a tensor",
            )
        if expected.element not in (0, actual.element):
            raise unexpected_type(actual, expected)
    elif type(expected) is not type(actual) or str(expected) != str(actual):
        raise errors.make(
            "INVALID_ARGUMENT",
            f"Unexpected input data type. Actual: (({runtime_text(actual)})) , expected: (({runtime_text(expected)}))",
        )


def unexpected_type(actual: ValueType, expected: ValueType, what: str = "input") -> Exception:
    return errors.make(
        "INVALID_ARGUMENT",
        f"Unexpected {what} data type. Actual: ({runtime_text(actual)}) , expected: ({runtime_text(expected)})",
    )


def convert(given: Any, name: str, spec: InputSpec | None) -> tuple[Any, ValueType | None]:
    """A feed as a value with its type. Raises RuntimeError for what can't become one."""
    if isinstance(given, np.ndarray):
        return tensor(given, spec)
    if isinstance(given, (OrtValue, native.OrtValue)):
        held = given._get_c_value() if isinstance(given, OrtValue) else given
        held._wait()
        return held._value, held._type
    if isinstance(given, list):
        if spec is None:
            raise RuntimeError(f"Failed to find input with name: {name} in the model input def list")
        return _from_list(given, spec)
    if isinstance(given, dict):
        return _from_dict(given, name, spec)
    try:
        iterator = iter(given)
    except TypeError as error:
        raise RuntimeError(f"Unable to handle object of type {type(given)}") from error
    return _from_iterator(iterator, name, spec)


def tensor(array: np.ndarray[Any, Any], spec: InputSpec | None = None) -> tuple[np.ndarray[Any, Any], TensorType]:
    """A base-class array in native byte order, strings as objects. Raises RuntimeError for dtypes ONNX lacks."""
    if array.dtype.kind in "OUSV" and array.dtype.num <= np.dtype(np.void).num:
        return _strings(array), TensorType(_STRING)
    plain = np.asarray(array)
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    try:
        element = element_of(plain.dtype) if plain.dtype.kind != "T" else 0
    except KeyError:
        element = 0
    complex_wanted = spec is not None and isinstance(spec.type, TensorType) and spec.type.element in _COMPLEX
    if element == 0 or (element in _COMPLEX and not complex_wanted):
        raise RuntimeError(f"Numpy_type {plain.dtype.num} can't be converted to MLDataType.")
    return plain, TensorType(element)


def _strings(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An object array whose elements are all str."""
    plain = np.asarray(array)
    if plain.dtype.kind == "V":
        plain = np.ascontiguousarray(plain).view(f"S{plain.dtype.itemsize}") if plain.dtype.itemsize else plain
    if plain.dtype.kind == "S":
        plain = np.char.decode(plain, "utf-8", "surrogateescape")
    objects = plain.astype(object)
    flat = objects.reshape(-1)
    if not all(type(item) is str for item in flat):
        flat[:] = [str(item) for item in flat]
    return objects


def _from_list(given: list[Any], spec: InputSpec) -> tuple[Any, ValueType]:
    wanted = spec.type
    if isinstance(wanted, SequenceType):
        return [_item(item, wanted) for item in given], wanted
    if not isinstance(wanted, TensorType):
        raise RuntimeError("The graph is missing type information needed to construct the ORT tensor")
    dtype = DTYPE_OF.get(wanted.element)
    try:
        array = np.array(given, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise RuntimeError("Could not create tensor from given input list") from error
    return tensor(array, spec)


def _item(item: Any, wanted: SequenceType) -> np.ndarray[Any, Any]:
    if not isinstance(item, np.ndarray):
        raise RuntimeError("CreateSequenceOfTensors: Input is not a tensor")
    value, actual = tensor(item)
    if isinstance(wanted.item, TensorType) and actual.element != wanted.item.element:
        raise RuntimeError("TensorSeq: tensor to be added has a different data type.")
    return value


def _from_iterator(iterator: Iterable[Any], name: str, spec: InputSpec | None) -> tuple[Any, ValueType]:
    items = list(iterator)
    if not items:
        raise RuntimeError(f"Input '{name}' must not be empty.")
    if isinstance(items[0], np.ndarray):
        raise RuntimeError(f"Iterable of {type(items[0])} should be given as array for input '{name}'.")
    if not all(isinstance(item, dict) for item in items):
        raise RuntimeError(f"Input must be a list of dictionaries or a single numpy array for input '{name}'.")
    maps = [_from_dict(item, name, spec) for item in items]
    return [value for value, _ in maps], SequenceType(maps[0][1])


def _from_dict(given: dict[Any, Any], name: str, spec: InputSpec | None) -> tuple[dict[Any, Any], MapType]:
    """Keys are all int or all str, as the first one is; values are numbers, or str where the model wants str."""
    if not given:
        raise RuntimeError("Size of dictionary is empty, unable to run the prediction.")
    wanted = spec.type if spec is not None else None
    if isinstance(wanted, SequenceType):
        wanted = wanted.item
    element = wanted.value.element if isinstance(wanted, MapType) and isinstance(wanted.value, TensorType) else 1
    first = next(iter(given))
    keys = _STRING if isinstance(first, str) else _INT64
    return {_key(k, keys, name): _number(v, element, name) for k, v in given.items()}, MapType(
        keys, TensorType(element)
    )


def _key(key: Any, wanted: int, name: str) -> Any:
    if wanted == _STRING:
        return str(key)
    if isinstance(key, bytes):
        raise RuntimeError(f"Key type must be int or string (not {type(key)}) for input '{name}'.")
    try:
        return operator.index(key)
    except TypeError as error:
        raise RuntimeError(
            f"Unexpected key type  {type(key)}, it cannot be linked to C type int64_t for input '{name}'."
        ) from error


def _number(value: Any, wanted: int, name: str) -> Any:
    if wanted == _STRING and isinstance(value, str):
        return value
    if isinstance(value, (int, float, np.number)) and wanted != _STRING:
        # a plain float stands for 32 bits
        return int(value) if wanted == _INT64 else np.float64(value) if wanted == _DOUBLE else float(value)
    raise RuntimeError(
        f"Unexpected value type  {type(value)}, it cannot be linked to C type string for input '{name}'."
    )
