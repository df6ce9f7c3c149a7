"""What a session tells of its model: NodeArg and ModelMetadata."""

from __future__ import annotations

from typing import Any

from distort import errors
from distort.graph.ir import Model
from distort.graph.types import OptionalType, SparseTensorType, TensorType, ValueType
from distort.native.base import native

#: what onnxruntime says where a model has no version
_NO_VERSION = 2**63 - 1


def declared_shape(value_type: ValueType | None) -> tuple[Any, ...] | None:
    """The shape of a tensor, a sparse tensor or an optional one; None where there is none, or none is known."""
    while isinstance(value_type, OptionalType):
        value_type = value_type.item
    return value_type.shape if isinstance(value_type, (TensorType, SparseTensorType)) else None


@native
class NodeArg:
    """Name, type and shape of an input, an output or an overridable initializer.

    ``shape`` holds an int, a symbol or None by dimension; a scalar's and an unknown rank's are both empty.
    """

    __slots__ = ("_name", "_type", "_value_type")
    _name: str
    _type: str
    _value_type: ValueType | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{errors.MODULE}.NodeArg: No constructor defined!")

    @classmethod
    def _of(cls, name: str, value_type: ValueType | None) -> NodeArg:
        made = cls.__new__(cls)
        made._name = name
        made._value_type = value_type
        made._type = "" if value_type is None else str(value_type)
        return made

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> str:
        return self._type

    @property
    def shape(self) -> list[int | str | None]:
        return list(declared_shape(self._value_type) or ())

    def __str__(self) -> str:
        return f"NodeArg(name='{self.name}', type='{self.type}', shape={self.shape})"

    __repr__ = __str__


@native
class ModelMetadata:
    """The model's own description of itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{errors.MODULE}.ModelMetadata: No constructor defined!")

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    _custom: dict[str, str]

    @property
    def custom_metadata_map(self) -> dict[str, str]:
        """The model's ``metadata_props``: a copy, as onnxruntime hands one out."""
        return dict(self._custom)

    @custom_metadata_map.setter
    def custom_metadata_map(self, value: dict[str, str]) -> None:
        self._custom = dict(value)

    @classmethod
    def _of(cls, model: Model) -> ModelMetadata:
        made = cls.__new__(cls)
        made.producer_name = model.producer_name
        made.graph_name = model.graph.name
        made.domain = model.domain
        made.description = model.doc
        made.graph_description = model.graph.doc
        made.version = model.version or _NO_VERSION
        made.custom_metadata_map = model.metadata
        return made
