"""Element types and value types: ONNX's numbers, numpy's dtypes, and the strings that users read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: A dimension: a size, a symbol, or None when nothing is known.
Dim = int | str | None

# (onnx.TensorProto.DataType, onnxruntime's name, numpy dtype)
_ELEMENTS: tuple[tuple[int, str, Any], ...] = (
    (1, "float", np.float32),
    (2, "uint8", np.uint8),
    (3, "int8", np.int8),
    (4, "uint16", np.uint16),
    (5, "int16", np.int16),
    (6, "int32", np.int32),
    (7, "int64", np.int64),
    (8, "string", np.object_),
    (9, "bool", np.bool_),
    (10, "float16", np.float16),
    (11, "double", np.float64),
    (12, "uint32", np.uint32),
    (13, "uint64", np.uint64),
    (14, "complex64", np.complex64),
    (15, "complex128", np.complex128),
)
# (onnx.TensorProto.DataType, onnxruntime's name, name in ml_dtypes)
_EXTRA_ELEMENTS: tuple[tuple[int, str, str], ...] = (
    (16, "bfloat16", "bfloat16"),
    (17, "float8e4m3fn", "float8_e4m3fn"),
    (18, "float8e4m3fnuz", "float8_e4m3fnuz"),
    (19, "float8e5m2", "float8_e5m2"),
    (20, "float8e5m2fnuz", "float8_e5m2fnuz"),
    (21, "uint4", "uint4"),
    (22, "int4", "int4"),
    (23, "float4e2m1", "float4_e2m1fn"),
    (24, "float8e8m0", "float8_e8m0fnu"),
    (25, "uint2", "uint2"),
    (26, "int2", "int2"),
)

NAME_OF: dict[int, str] = {number: name for number, name, _ in (*_ELEMENTS, *_EXTRA_ELEMENTS)}
ELEMENT_OF_NAME: dict[str, int] = {name: number for number, name in NAME_OF.items()}


class _Dtypes(Mapping[int, "np.dtype[Any]"]):
    """numpy's dtypes by ONNX's numbers. Those of ml_dtypes are imported with the first that is asked for."""

    def __init__(self) -> None:
        self._known: dict[int, np.dtype[Any]] = {number: np.dtype(dtype) for number, _, dtype in _ELEMENTS}
        self.elements = {dtype: number for number, dtype in self._known.items()}

    def __getitem__(self, element: int) -> np.dtype[Any]:
        found = self._known.get(element)
        if found is None and element in NAME_OF:
            self.import_extra()
            found = self._known[element]
        if found is None:
            raise KeyError(element)
        return found

    def import_extra(self) -> None:
        import ml_dtypes

        for number, _, name in _EXTRA_ELEMENTS:
            dtype = np.dtype(getattr(ml_dtypes, name))
            self._known[number] = dtype
            self.elements[dtype] = number

    def __contains__(self, element: object) -> bool:
        return element in NAME_OF

    def __iter__(self) -> Iterator[int]:
        return iter(NAME_OF)

    def __len__(self) -> int:
        return len(NAME_OF)


DTYPE_OF = _Dtypes()

#: bits of one element, where they are fewer than a byte
SUB_BYTE_BITS: dict[int, int] = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}


def element_of(dtype: np.dtype[Any]) -> int:
    """ONNX's number of a numpy dtype; any text dtype is a string. Raises KeyError for dtypes ONNX lacks."""
    if dtype.kind in "OUST":
        return 8
    plain = dtype.newbyteorder("=")
    if plain not in DTYPE_OF.elements:
        DTYPE_OF.import_extra()
    return DTYPE_OF.elements[plain]


def limits_of(dtype: np.dtype[Any]) -> Any:
    """numpy's or ml_dtypes' ``finfo`` or ``iinfo`` of a dtype."""
    if dtype.isbuiltin != 2:  # NumPy's own; 0 where the dtype came out of a pickle
        return np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    import ml_dtypes

    named_integer = dtype.name in ("int4", "uint4", "int2", "uint2")  # numpy's kind of them is "V"
    return ml_dtypes.iinfo(dtype) if named_integer else ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # it has no types


@dataclass(frozen=True, slots=True)
class TensorType:
    element: int  # onnx.TensorProto.DataType; 0 is unknown
    shape: tuple[Dim, ...] | None = None  # None: unknown rank

    def __str__(self) -> str:
        return f"tensor({NAME_OF.get(self.element, 'undefined')})"


@dataclass(frozen=True, slots=True)
class SparseTensorType:
    element: int
    shape: tuple[Dim, ...] | None = None

    def __str__(self) -> str:
        return f"sparse_tensor({NAME_OF.get(self.element, 'undefined')})"


@dataclass(frozen=True, slots=True)
class SequenceType:
    item: ValueType

    def __str__(self) -> str:
        return f"seq({self.item})"


@dataclass(frozen=True, slots=True)
class OptionalType:
    item: ValueType

    def __str__(self) -> str:
        return f"optional({self.item})"


@dataclass(frozen=True, slots=True)
class MapType:
    key: int
    value: ValueType

    def __str__(self) -> str:
        value = self.value
        # onnxruntime writes map(int64,tensor(float)), keys without tensor()
        return f"map({NAME_OF.get(self.key, 'undefined')},{value})"


@dataclass(frozen=True, slots=True)
class OpaqueType:
    """A type that nothing here can compute with; kept so that it can be named in an error."""

    text: str

    def __str__(self) -> str:
        return self.text


ValueType = TensorType | SparseTensorType | SequenceType | OptionalType | MapType | OpaqueType


def type_from_proto(proto: Any) -> ValueType | None:
    """onnx.TypeProto to our type; None where the proto holds nothing."""
    kind = proto.WhichOneof("value")
    if kind is None:
        return None
    if kind in ("tensor_type", "sparse_tensor_type"):
        inner = getattr(proto, kind)
        shape: tuple[Dim, ...] | None = None
        if inner.HasField("shape"):
            shape = tuple(_dim_from_proto(dim) for dim in inner.shape.dim)
        return (TensorType if kind == "tensor_type" else SparseTensorType)(inner.elem_type, shape)
    if kind == "sequence_type":
        item = type_from_proto(proto.sequence_type.elem_type)
        return SequenceType(item or TensorType(0))
    if kind == "optional_type":
        item = type_from_proto(proto.optional_type.elem_type)
        return OptionalType(item or TensorType(0))
    if kind == "map_type":
        value = type_from_proto(proto.map_type.value_type)
        return MapType(proto.map_type.key_type, value or TensorType(0))
    return OpaqueType(f"opaque({kind})")


def _dim_from_proto(dim: Any) -> Dim:
    which = dim.WhichOneof("value")
    if which == "dim_value":
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    if which == "dim_param" and dim.dim_param:
        return str(dim.dim_param)
    return None


def to_json(known: ValueType) -> list[Any]:
    """A type in JSON's terms; :func:`from_json` is the inverse."""
    if isinstance(known, (TensorType, SparseTensorType)):
        return [type(known).__name__, known.element, known.shape]
    if isinstance(known, (SequenceType, OptionalType)):
        return [type(known).__name__, to_json(known.item)]
    if isinstance(known, MapType):
        return ["MapType", known.key, to_json(known.value)]
    return ["OpaqueType", known.text]


def from_json(found: list[Any]) -> ValueType:
    kind, *parts = found
    if kind in ("TensorType", "SparseTensorType"):
        element, shape = parts
        made = TensorType if kind == "TensorType" else SparseTensorType
        return made(element, None if shape is None else tuple(shape))
    if kind in ("SequenceType", "OptionalType"):
        return (SequenceType if kind == "SequenceType" else OptionalType)(from_json(parts[0]))
    if kind == "MapType":
        return MapType(parts[0], from_json(parts[1]))
    return OpaqueType(parts[0])


def type_to_proto(value_type: ValueType, proto: Any) -> None:
    """Fill an onnx.TypeProto."""
    if isinstance(value_type, (TensorType, SparseTensorType)):
        inner = proto.tensor_type if isinstance(value_type, TensorType) else proto.sparse_tensor_type
        inner.elem_type = value_type.element
        if value_type.shape is not None:
            inner.shape.SetInParent()
            for dim in value_type.shape:
                added = inner.shape.dim.add()
                if isinstance(dim, int):
                    added.dim_value = dim
                elif isinstance(dim, str):
                    added.dim_param = dim
    elif isinstance(value_type, SequenceType):
        type_to_proto(value_type.item, proto.sequence_type.elem_type)
    elif isinstance(value_type, OptionalType):
        type_to_proto(value_type.item, proto.optional_type.elem_type)
    elif isinstance(value_type, MapType):
        proto.map_type.key_type = value_type.key
        type_to_proto(value_type.value, proto.map_type.value_type)
    else:
        raise TypeError(f"{value_type} can't be written as an ONNX type")
