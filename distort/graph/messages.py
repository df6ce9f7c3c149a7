"""Small models read without protobuf, whose import takes longer than making a session of one.

Messages have the names and the behaviour of the generated classes as far as readers of models use them. What is read is
the plain wire format: where a field is unknown, of another type, given twice or malformed, text is no UTF-8, or nodes
are placed on devices, there is no result, and protobuf is to look at the model, merge, skip or refuse.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import numpy as np

#: models with more bytes, bulk not counted, are left to protobuf: it is imported in the time that so many take here
MOST_NBYTES = 1 << 18
_BULK_NBYTES = 1 << 8
_MOST_DEPTH = 64  # protobuf's is 100

_TEXT, _BYTES, _MESSAGE, _PACKED, _INT64, _INT32, _UINT64, _FLOAT, _DOUBLE = range(9)
#: by a type's name: what it is, the largest number that it has
_SCALARS = {
    "string": (_TEXT, 0),
    "bytes": (_BYTES, 0),
    "int64": (_INT64, (1 << 63) - 1),
    "int32": (_INT32, (1 << 31) - 1),
    "uint64": (_UINT64, (1 << 64) - 1),
    "float": (_FLOAT, 0),
    "double": (_DOUBLE, 0),
    "AttributeType": (_INT32, 14),
    "DataLocation": (_INT32, 1),
}
_WIRE = {_TEXT: 2, _BYTES: 2, _MESSAGE: 2, _PACKED: 2, _INT64: 0, _INT32: 0, _UINT64: 0, _FLOAT: 5, _DOUBLE: 1}

#: onnx-ml.proto: number, name and type of each field; * before one that is repeated
_LAYOUT = {
    "ModelProto": "1 ir_version int64, 2 producer_name string, 3 producer_version string, 4 domain string, "
    "5 model_version int64, 6 doc_string string, 7 graph GraphProto, 8 *opset_import OperatorSetIdProto, "
    "14 *metadata_props StringStringEntryProto, 25 *functions FunctionProto",
    "GraphProto": "1 *node NodeProto, 2 name string, 5 *initializer TensorProto, 10 doc_string string, "
    "11 *input ValueInfoProto, 12 *output ValueInfoProto, 13 *value_info ValueInfoProto, "
    "14 *quantization_annotation TensorAnnotation, 15 *sparse_initializer SparseTensorProto, "
    "16 *metadata_props StringStringEntryProto",
    "NodeProto": "1 *input string, 2 *output string, 3 name string, 4 op_type string, 5 *attribute AttributeProto, "
    "6 doc_string string, 7 domain string, 8 overload string, 9 *metadata_props StringStringEntryProto",
    "AttributeProto": "1 name string, 2 f float, 3 i int64, 4 s bytes, 5 t TensorProto, 6 g GraphProto, "
    "7 *floats float, 8 *ints int64, 9 *strings bytes, 10 *tensors TensorProto, 11 *graphs GraphProto, "
    "13 doc_string string, 14 tp TypeProto, 15 *type_protos TypeProto, 20 type AttributeType, 21 ref_attr_name string, "
    "22 sparse_tensor SparseTensorProto, 23 *sparse_tensors SparseTensorProto",
    "FunctionProto": "1 name string, 4 *input string, 5 *output string, 6 *attribute string, 7 *node NodeProto, "
    "8 doc_string string, 9 *opset_import OperatorSetIdProto, 10 domain string, 11 *attribute_proto AttributeProto, "
    "12 *value_info ValueInfoProto, 13 overload string, 14 *metadata_props StringStringEntryProto",
    "TensorProto": "1 *dims int64, 2 data_type int32, 4 *float_data float, 5 *int32_data int32, 6 *string_data bytes, "
    "7 *int64_data int64, 8 name string, 9 raw_data bytes, 10 *double_data double, 11 *uint64_data uint64, "
    "12 doc_string string, 13 *external_data StringStringEntryProto, 14 data_location DataLocation, "
    "16 *metadata_props StringStringEntryProto",
    "SparseTensorProto": "1 values TensorProto, 2 indices TensorProto, 3 *dims int64",
    "ValueInfoProto": "1 name string, 2 type TypeProto, 3 doc_string string, 4 *metadata_props StringStringEntryProto",
    "TypeProto": "1 tensor_type TypeProto.Tensor, 4 sequence_type TypeProto.Sequence, 5 map_type TypeProto.Map, "
    "6 denotation string, 7 opaque_type TypeProto.Opaque, 8 sparse_tensor_type TypeProto.Tensor, "
    "9 optional_type TypeProto.Sequence",
    "TypeProto.Tensor": "1 elem_type int32, 2 shape TensorShapeProto",
    "TypeProto.Sequence": "1 elem_type TypeProto",
    "TypeProto.Map": "1 key_type int32, 2 value_type TypeProto",
    "TypeProto.Opaque": "1 domain string, 2 name string",
    "TensorShapeProto": "1 *dim TensorShapeProto.Dimension",
    "TensorShapeProto.Dimension": "1 dim_value int64, 2 dim_param string, 3 denotation string",
    "TensorAnnotation": "1 tensor_name string, 2 *quant_parameter_tensor_names StringStringEntryProto",
    "StringStringEntryProto": "1 key string, 2 value string",
    "OperatorSetIdProto": "1 domain string, 2 version int64",
}
#: of which fields one at most is there: what ``WhichOneof("value")`` tells
_ONE_OF = {
    "TypeProto": ("tensor_type", "sequence_type", "map_type", "opaque_type", "sparse_tensor_type", "optional_type"),
    "TensorShapeProto.Dimension": ("dim_value", "dim_param"),
}


class _Odd(Exception):
    """What protobuf had better look at."""


class Message:
    """Fields that are not there have the defaults that the class has."""

    #: by a field's key on the wire: its name, whether it is repeated, what it is, and the largest number or the message
    _fields: ClassVar[dict[int, tuple[str, bool, int, Any]]]
    _one_of: ClassVar[tuple[str, ...]]
    device_configurations: ClassVar[tuple[Any, ...]] = ()
    configuration: ClassVar[tuple[Any, ...]] = ()

    def HasField(self, name: str) -> bool:
        return name in self.__dict__

    def WhichOneof(self, name: str) -> str | None:
        return next((name for name in self._one_of if name in self.__dict__), None)


class Model(Message):
    _content: bytes

    def SerializeToString(self) -> bytes:
        return self._content


def _classes() -> dict[str, type[Message]]:
    made: dict[str, type[Message]] = {}
    for name in _LAYOUT:
        made[name] = type(name, (Model if name == "ModelProto" else Message,), {"_one_of": _ONE_OF.get(name, ())})
    for name, layout in _LAYOUT.items():
        fields: dict[int, tuple[str, bool, int, Any]] = {}
        for line in layout.split(", "):
            number, field, type_ = line.split()
            repeated, field = field.startswith("*"), field.removeprefix("*")
            what, most = _SCALARS.get(type_) or (_MESSAGE, made[type_])
            fields[int(number) << 3 | _WIRE[what]] = (field, repeated, what, most)
            if repeated and _WIRE[what] != 2:
                fields[int(number) << 3 | 2] = (field, True, _PACKED, (what, most, name == "TensorProto"))
            default: Any = () if repeated else _default(what, most)
            setattr(made[name], field, default)
        made[name]._fields = fields
    return made


def _default(what: int, most: Any) -> Any:
    if what == _MESSAGE:
        return most()
    return "" if what == _TEXT else b"" if what == _BYTES else 0.0 if what in (_FLOAT, _DOUBLE) else 0


def read(content: bytes) -> Model | None:
    """A ModelProto; None where protobuf is to read it."""
    try:
        model = _Reader(content).message(_CLASSES["ModelProto"], 0, len(content), 0)
    except (_Odd, IndexError, ValueError, struct.error):
        return None
    assert isinstance(model, Model)
    model._content = content
    return model


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        #: the byte up to which it is tried: further behind bulk
        self._last = MOST_NBYTES

    def message(self, cls: type[Message], at: int, end: int, depth: int) -> Message:
        if depth > _MOST_DEPTH:
            raise _Odd
        content = self._content
        made = cls()
        values = made.__dict__
        fields = cls._fields
        while at < end:
            if at > self._last:
                raise _Odd
            key = content[at]
            at += 1
            if key > 127:
                key, at = _varint(content, at - 1)
            field = fields.get(key)
            if field is None:
                raise _Odd
            name, repeated, what, most = field
            value: Any
            if what <= _PACKED:
                nbytes = content[at]
                at += 1
                if nbytes > 127:
                    nbytes, at = _varint(content, at - 1)
                stop = at + nbytes
                if stop > end:
                    raise _Odd
                if what == _TEXT:
                    value = content[at:stop].decode()
                elif what == _MESSAGE:
                    value = self.message(most, at, stop, depth + 1)
                elif what == _BYTES:
                    value = content[at:stop]
                    if nbytes > _BULK_NBYTES:
                        self._last += nbytes
                elif name in values:
                    raise _Odd
                else:
                    values[name] = _packed(content[at:stop], *most)
                    if most[0] in (_FLOAT, _DOUBLE):
                        self._last += nbytes
                    at = stop
                    continue
                at = stop
            elif what == _FLOAT:
                (value,) = struct.unpack_from("<f", content, at)
                at += 4
            elif what == _DOUBLE:
                (value,) = struct.unpack_from("<d", content, at)
                at += 8
            else:
                value = content[at]
                at += 1
                if value > 127:
                    value, at = _varint(content, at - 1)
                if value > most:
                    value = _negative(value, what, most)
            if repeated:
                known = values.get(name)
                if known is None:
                    values[name] = [value]
                else:
                    known.append(value)
            elif name in values:
                raise _Odd
            else:
                values[name] = value
        if at != end or (cls._one_of and sum(name in values for name in cls._one_of) > 1):
            raise _Odd
        return made


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise _Odd
    if number >> 64:
        raise _Odd
    return number, at


def _negative(value: int, what: int, most: int) -> int:
    """A number above the largest: the complement of a negative one."""
    signed = value - (1 << 64)
    if what == _UINT64 or most not in ((1 << 63) - 1, (1 << 31) - 1) or not -most - 1 <= signed < 0:
        raise _Odd
    return signed


def _packed(part: bytes, what: int, most: int, as_array: bool) -> Any:
    """Numbers of a repeated field, one behind the other."""
    if what in (_FLOAT, _DOUBLE):
        numbers = np.frombuffer(part, "<f4" if what == _FLOAT else "<f8")
        return numbers if as_array else numbers.tolist()
    if part.isascii():  # each in a byte
        return list(part)
    if len(part) > MOST_NBYTES:
        raise _Odd
    found, at = [], 0
    while at < len(part):
        value, at = _varint(part, at)
        found.append(value if value <= most else _negative(value, what, most))
    return found


_CLASSES = _classes()

__all__ = ["MOST_NBYTES", "Message", "Model", "read"]
