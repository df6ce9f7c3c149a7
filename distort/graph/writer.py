"""Our graph -> ONNX protobufs and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .annotations import fitted
from .atomic import writing
from .ir import AttributeValue, Function, Graph, Initializer, Model, Node, SparseInitializer
from .onnx_parts import protobuf, schema
from .opsets import opset_imports
from .reader import AttributeReference
from .tensors import array_to_proto, pack
from .types import (
    SUB_BYTE_BITS,
    MapType,
    OpaqueType,
    OptionalType,
    SequenceType,
    SparseTensorType,
    TensorType,
    ValueType,
    element_of,
    type_to_proto,
)

_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _SPARSE, _TYPE = 1, 2, 3, 4, 5, 11, 13
_FLOATS, _INTS, _STRINGS, _TENSORS, _GRAPHS, _SPARSES, _TYPES = 6, 7, 8, 9, 10, 12, 14
_VALUE_TYPES = (TensorType, SparseTensorType, SequenceType, OptionalType, MapType, OpaqueType)
#: protobuf can't hold more than this in one message
MAX_MESSAGE_NBYTES = 2**31 - 1
#: tensors from this size on go to the external file, where there is one
EXTERNAL_FROM_NBYTES = 1024
_ALIGNMENT = 4096


class WeightSink(Protocol):
    """Where large initializers go instead of into the message."""

    def write(self, proto: Any, values: np.ndarray[Any, Any], name: str) -> bool:
        """Fill a TensorProto that refers to the values; False where they belong inside the message."""


class ExternalFile:
    """The file beside the model that holds its large weights: those of at least ``least_nbytes``."""

    def __init__(self, file: Any, location: str, least_nbytes: int = EXTERNAL_FROM_NBYTES) -> None:
        self._file = file
        self._location = location
        self._least_nbytes = least_nbytes

    def write(self, proto: Any, values: np.ndarray[Any, Any], name: str) -> bool:
        if values.nbytes < self._least_nbytes or values.dtype == object:
            return False
        offset, nbytes = append_weight(self._file, values)
        refer(proto, values, name, self._location, offset, nbytes)
        return True


def append_weight(file: Any, values: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Append an array's bytes, aligned so that the file can be mapped. Offset and size in bytes."""
    element = element_of(values.dtype)
    if element in SUB_BYTE_BITS:
        content = np.frombuffer(pack(values, element), np.uint8)
    else:
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        content = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    position = file.tell()
    padding = -position % _ALIGNMENT
    file.write(bytes(padding))
    file.write(content)
    return position + padding, content.nbytes


def refer(proto: Any, values: np.ndarray[Any, Any], name: str, location: str, offset: int, nbytes: int) -> None:
    """Fill a TensorProto that refers to bytes in a file."""
    proto.name = name
    proto.data_type = element_of(values.dtype)
    proto.dims.extend(values.shape)
    proto.data_location = 1
    for key, value in (("location", location), ("offset", offset), ("length", nbytes)):
        proto.external_data.add(key=key, value=str(value))


def node_to_proto(node: Node, external: WeightSink | None = None) -> Any:
    """A NodeProto."""
    proto = protobuf().NodeProto()
    _write_node(node, proto, external)
    return proto


def graph_to_proto(graph: Graph, external: WeightSink | None = None) -> Any:
    """A GraphProto."""
    proto = protobuf().GraphProto()
    _write_graph(graph, proto, external)
    return proto


def to_proto(model: Model, external: WeightSink | None = None) -> Any:
    """A ModelProto.

    Raises ModelError where inlined bodies need versions of one domain that no single opset import can state.
    """
    proto = protobuf().ModelProto()
    graph = model.graph
    proto.ir_version = model.ir_version or 8
    if any(name not in graph.defaults for name in graph.initializers):
        proto.ir_version = max(proto.ir_version, 4)  # before, each initializer had to be an input
    proto.producer_name = model.producer_name
    proto.producer_version = model.producer_version
    proto.domain = model.domain
    proto.model_version = model.version
    proto.doc_string = model.doc
    for domain, version in opset_imports(model).items():
        proto.opset_import.add(domain=domain, version=version)
    for key, value in model.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    for content in model.configurations:
        proto.configuration.add().ParseFromString(content)
    for function in model.functions.values():
        _write_function(function, proto.functions.add())
    _write_graph(graph, proto.graph, external)
    return proto


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    external: bool | str = False,
    least_nbytes: int | None = None,
) -> None:
    """Write a model file whole or not at all; with weights beside it where they don't fit a message (or on request).

    ``external`` may name the file of the weights; those of at least ``least_nbytes`` go there.
    """
    target = Path(path)
    large = sum(value.nbytes for value in model.graph.initializers.values() if isinstance(value, np.ndarray))
    if not external and large <= MAX_MESSAGE_NBYTES - 2**24:
        content = to_proto(model).SerializeToString()
        with writing(target) as file:
            file.write(content)
        return
    weights = target.with_name(external if isinstance(external, str) else target.name + ".data")
    least = EXTERNAL_FROM_NBYTES if least_nbytes is None else least_nbytes
    with writing(target) as file, writing(weights) as beside:
        file.write(to_proto(model, ExternalFile(beside, weights.name, least)).SerializeToString())


def _write_function(function: Function, proto: Any) -> None:
    proto.name = function.name
    proto.domain = function.domain
    if function.overload:
        proto.overload = function.overload
    proto.input.extend(function.inputs)
    proto.output.extend(function.outputs)
    proto.attribute.extend(function.attributes)
    for name, value in function.attribute_defaults.items():
        _write_attribute(name, value, proto.attribute_proto.add())
    for domain, version in function.opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    for node in function.nodes:
        _write_node(node, proto.node.add(), None)


def _write_graph(graph: Graph, proto: Any, external: WeightSink | None) -> None:
    proto.name = graph.name or "graph"
    proto.doc_string = graph.doc
    for name in graph.inputs:
        _write_info(name, graph.types.get(name), proto.input.add())
    for name in graph.outputs:
        _write_info(name, graph.types.get(name), proto.output.add())
    listed = {*graph.inputs, *graph.outputs, *graph.initializers}
    for node in graph.nodes:
        _write_node(node, proto.node.add(), external)
        for name in node.outputs:
            known = graph.types.get(name)
            if known is not None and name not in listed and not isinstance(known, OpaqueType):
                _write_info(name, known, proto.value_info.add())
    for name, value in graph.initializers.items():
        _write_initializer(name, value, proto, external)


def _write_info(name: str, value_type: ValueType | None, proto: Any) -> None:
    proto.name = name
    if value_type is not None and not isinstance(value_type, OpaqueType):
        type_to_proto(value_type, proto.type)


def _write_initializer(name: str, value: Initializer, proto: Any, external: WeightSink | None) -> None:
    if isinstance(value, SparseInitializer):
        _write_sparse(value, proto.sparse_initializer.add(), name)
        return
    tensor = proto.initializer.add()
    if external is None or not external.write(tensor, value, name):
        tensor.CopyFrom(array_to_proto(value, name))


def _write_sparse(value: SparseInitializer, proto: Any, name: str = "") -> None:
    proto.values.CopyFrom(array_to_proto(value.values, name))
    proto.indices.CopyFrom(array_to_proto(value.indices))
    proto.dims.extend(value.dims)


def _write_node(node: Node, proto: Any, external: WeightSink | None) -> None:
    proto.op_type = node.op_type
    proto.domain = node.domain
    proto.name = node.name
    if node.overload:
        proto.overload = node.overload
    proto.input.extend(node.inputs)
    proto.output.extend(node.outputs)
    for key, value in node.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    for content in fitted(node) if node.device_configurations else ():
        proto.device_configurations.add().ParseFromString(content)
    for name, value in node.attributes.items():
        attribute = proto.attribute.add()
        _write_attribute(name, value, attribute, external)
        if isinstance(value, list) and not value:
            attribute.type = _empty_list_type(node, name)


def _empty_list_type(node: Node, name: str) -> int:
    found = schema(node.op_type, node.domain, node.opset)
    declared = None if found is None else found.attributes.get(name)
    return _INTS if declared is None else int(declared.type.value)


def _write_attribute(name: str, value: AttributeValue, proto: Any, external: WeightSink | None = None) -> None:
    proto.name = name
    if isinstance(value, AttributeReference):
        proto.ref_attr_name, proto.type = value.name, value.kind
    elif isinstance(value, (bool, int, np.integer)):
        proto.i, proto.type = int(value), _INT
    elif isinstance(value, (float, np.floating)):
        proto.f, proto.type = float(value), _FLOAT
    elif isinstance(value, str):
        proto.s, proto.type = value.encode("utf-8", "surrogateescape"), _STRING
    elif isinstance(value, np.ndarray):
        proto.t.CopyFrom(array_to_proto(value))
        proto.type = _TENSOR
    elif isinstance(value, Graph):
        _write_graph(value, proto.g, external)
        proto.type = _GRAPH
    elif isinstance(value, SparseInitializer):
        _write_sparse(value, proto.sparse_tensor)
        proto.type = _SPARSE
    elif isinstance(value, _VALUE_TYPES):
        type_to_proto(value, proto.tp)
        proto.type = _TYPE
    else:
        _write_list(name, value, proto, external)


def _write_list(name: str, values: list[Any], proto: Any, external: WeightSink | None) -> None:
    first = values[0] if values else 0
    if isinstance(first, (int, np.integer)):
        proto.ints.extend(int(item) for item in values)
        proto.type = _INTS
    elif isinstance(first, (float, np.floating)):
        proto.floats.extend(float(item) for item in values)
        proto.type = _FLOATS
    elif isinstance(first, str):
        proto.strings.extend(item.encode("utf-8", "surrogateescape") for item in values)
        proto.type = _STRINGS
    elif isinstance(first, np.ndarray):
        for item in values:
            proto.tensors.add().CopyFrom(array_to_proto(item))
        proto.type = _TENSORS
    elif isinstance(first, Graph):
        for item in values:
            _write_graph(item, proto.graphs.add(), external)
        proto.type = _GRAPHS
    elif isinstance(first, SparseInitializer):
        for item in values:
            _write_sparse(item, proto.sparse_tensors.add())
        proto.type = _SPARSES
    elif isinstance(first, _VALUE_TYPES):
        for item in values:
            type_to_proto(item, proto.type_protos.add())
        proto.type = _TYPES
    else:
        raise TypeError(f"attribute {name} of type {type(first)} can't be written")


__all__ = ["WeightSink", "graph_to_proto", "node_to_proto", "save", "to_proto"]
