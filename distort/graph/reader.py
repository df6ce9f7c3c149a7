"""ONNX protobufs -> our graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from . import messages, wire
from .errors import ModelError
from .ir import AttributeValue, Function, Graph, Model, Node
from .onnx_parts import protobuf
from .operators import latest_opsets
from .tensors import Array, ExternalData, MappedFile, array_from_proto, map_file, sparse_from_proto
from .types import TensorType, type_from_proto

_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _SPARSE, _TYPE = 1, 2, 3, 4, 5, 11, 13
_FLOATS, _INTS, _STRINGS, _TENSORS, _GRAPHS, _SPARSES, _TYPES = 6, 7, 8, 9, 10, 12, 14


class AttributeReference:
    """An attribute of a function's node whose value is the calling node's attribute ``name``."""

    __slots__ = ("kind", "name")

    def __init__(self, name: str, kind: int) -> None:
        self.name = name
        self.kind = kind


_ORT_FORMAT = b"ORTM"  # where a flatbuffer has its identifier
_NOT_ORT_FORMAT = "The model is in onnxruntime's own format. Use the ONNX model that it was made from."


@dataclass(slots=True)
class Parsed:
    """A ModelProto and the path it came from. ``raw``: the raw data of initializers, by number, that are not in it."""

    proto: Any
    path: str | None
    raw: dict[int, Array] = field(default_factory=dict)


def parse(path_or_bytes: str | os.PathLike[str] | bytes) -> tuple[Any, str | None]:
    """The ModelProto and the path it came from. Raises ModelError with onnxruntime's words."""
    if isinstance(path_or_bytes, bytes):
        return _message(path_or_bytes, path_or_bytes, "", " because protobuf parsing failed."), None
    path = os.fspath(path_or_bytes)
    content = _content(path)
    return _message(content, content, *_says(path)), path


def parse_apart(path_or_bytes: str | os.PathLike[str] | bytes, mapped: bool = False) -> Parsed:
    """What :func:`read_model` reads, without large initializers: these are copies, or (``mapped``) views of the file.

    The message is protobuf's, or for small models one of ``messages``.
    """
    path: str | None = None
    if isinstance(path_or_bytes, bytes):
        content: bytes | MappedFile = path_or_bytes
        says = "", " because protobuf parsing failed."
    else:
        path = os.fspath(path_or_bytes)
        content, says = _content(path, mapped), _says(path)
    found = wire.split(memoryview(content))
    message = bytes(content) if found is None else found.message
    _refuse_ort_format(content, says[0])
    proto: Any = messages.read(message)
    if proto is None or not proto.HasField("graph"):
        proto = _message(content, message, *says)
    raw = {}
    if found is not None:
        whole = np.frombuffer(content, np.uint8)
        for number, (begin, end) in found.raw.items():
            part = whole[begin:end]
            if not mapped:
                part = part.copy()
                part.flags.writeable = False
            raw[number] = part
    return Parsed(proto, path, raw)


def _says(path: str) -> tuple[str, str]:
    """How errors about the file begin, and what they say of bytes that are no model."""
    return f"Load model from {path} failed:", "Protobuf parsing failed."


def _content(path: str, mapped: bool = False) -> bytes | MappedFile:
    start, _ = _says(path)
    try:
        if mapped and os.path.getsize(path) >= wire.LEAST_NBYTES:
            file = map_file(path)
            file.holds_model = True
            return file
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ModelError("NO_SUCHFILE", f"{start}Load model {path} failed. File doesn't exist") from None
    except (IsADirectoryError, NotADirectoryError):
        raise ModelError("INVALID_PROTOBUF", f"{start}Protobuf parsing failed.") from None
    except OSError as error:
        raise ModelError("FAIL", f"{start}system error number {error.errno}") from error


def _message(content: bytes | MappedFile, message: bytes | MappedFile, start: str, failed: str) -> Any:
    """The ModelProto of a message, which is ``content`` or a part of it."""
    _refuse_ort_format(content, start)
    proto = protobuf().ModelProto()
    try:
        proto.ParseFromString(bytes(message) if not isinstance(message, bytes) else message)
    except Exception as error:  # protobuf's DecodeError class differs by implementation
        start = start or "Failed to load model"
        raise ModelError("INVALID_PROTOBUF", f"{start}{failed}") from error
    if not proto.HasField("graph"):
        raise ModelError("INVALID_ARGUMENT", f"{start}No graph was found in the protobuf.")
    return proto


def _refuse_ort_format(content: bytes | MappedFile, start: str) -> None:
    if content[4:8] == _ORT_FORMAT:
        raise ModelError("NOT_IMPLEMENTED", f"{start}{_NOT_ORT_FORMAT}")


def read_model(
    proto: Any,
    path: str | None = None,
    external_folder: str | None = None,
    external: ExternalData | None = None,
    raw: Mapping[int, Array] | None = None,
) -> Model:
    """A ModelProto as a :class:`Model`. ``raw``: see :class:`Parsed`.

    External data lies beside ``path``, or in ``external_folder``, or where ``external`` says.
    """
    folder = external_folder or (str(Path(path).resolve().parent) if path is not None else None)
    reader = _Reader(external or ExternalData(folder))
    opsets = {_domain(entry.domain): int(entry.version) for entry in proto.opset_import}
    functions = {}
    for function in proto.functions:
        read = reader.function(function)
        functions[(read.domain, read.name, read.overload)] = read
    # a known domain that is not imported is taken at its newest version
    graph = reader.graph(proto.graph, {**latest_opsets(), **opsets}, raw or {})
    if proto.ir_version < 4:
        # initializers had to be listed as inputs, and nobody could feed others
        graph.inputs = [name for name in graph.inputs if name not in graph.initializers]
        graph.defaults = []
        for tensor in proto.graph.initializer:
            graph.types[tensor.name] = TensorType(tensor.data_type, tuple(tensor.dims))
    return Model(
        graph=graph,
        opsets=opsets,
        ir_version=proto.ir_version,
        producer_name=proto.producer_name,
        producer_version=proto.producer_version,
        domain=proto.domain,
        version=proto.model_version,
        doc=proto.doc_string,
        metadata={entry.key: entry.value for entry in proto.metadata_props},
        functions=functions,
        configurations=tuple(item.SerializeToString() for item in getattr(proto, "configuration", ())),
        path=path,
    )


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


class _Reader:
    def __init__(self, external: ExternalData) -> None:
        self._external = external

    def graph(self, proto: Any, opsets: dict[str, int], raw: Mapping[int, Array] = MappingProxyType({})) -> Graph:
        graph = Graph(name=proto.name, doc=proto.doc_string)
        for number, tensor in enumerate(proto.initializer):
            graph.initializers[tensor.name] = array_from_proto(tensor, self._external, raw.get(number))
            graph.types[tensor.name] = TensorType(tensor.data_type, tuple(tensor.dims))
        for sparse in proto.sparse_initializer:
            graph.initializers[sparse.values.name] = sparse_from_proto(sparse, self._external)
        for info in (*proto.value_info, *proto.output):
            read = type_from_proto(info.type) if info.HasField("type") else None
            if read is not None and not (info.name in graph.initializers and info.name in graph.types):
                graph.types[info.name] = read
        for info in proto.input:  # of one with a default too: what is fed instead may have other sizes
            read = type_from_proto(info.type) if info.HasField("type") else None
            if read is not None:
                graph.types[info.name] = read
        graph.outputs = [info.name for info in proto.output]
        graph.inputs = [info.name for info in proto.input]
        graph.defaults = [name for name in graph.inputs if name in graph.initializers]
        graph.nodes = [self.node(node, opsets) for node in proto.node]
        return graph

    def node(self, proto: Any, opsets: dict[str, int]) -> Node:
        domain = _domain(proto.domain)
        attributes = {attribute.name: self.attribute(attribute, opsets) for attribute in proto.attribute}
        node = Node(
            op_type=proto.op_type,
            domain=domain,
            inputs=list(proto.input),
            outputs=list(proto.output),
            attributes=attributes,
            name=proto.name,
            opset=opsets.get(domain, 0),
            overload=proto.overload,
        )
        if proto.metadata_props:
            node.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        if proto.device_configurations:
            node.device_configurations = tuple(item.SerializeToString() for item in proto.device_configurations)
        return node

    def attribute(self, proto: Any, opsets: dict[str, int]) -> AttributeValue:
        kind = proto.type
        if proto.ref_attr_name:
            return AttributeReference(proto.ref_attr_name, kind)
        if kind == _INT:
            return int(proto.i)
        if kind == _INTS:
            return list(proto.ints)
        if kind == _FLOAT:
            return float(proto.f)
        if kind == _FLOATS:
            return list(proto.floats)
        if kind == _STRING:
            return proto.s.decode("utf-8", "surrogateescape")
        if kind == _STRINGS:
            return [item.decode("utf-8", "surrogateescape") for item in proto.strings]
        if kind == _TENSOR:
            return array_from_proto(proto.t, self._external)
        if kind == _TENSORS:
            return [array_from_proto(item, self._external) for item in proto.tensors]
        if kind == _GRAPH:
            return self.graph(proto.g, opsets)
        if kind == _GRAPHS:
            return [self.graph(item, opsets) for item in proto.graphs]
        if kind == _SPARSE:
            return sparse_from_proto(proto.sparse_tensor, self._external)
        if kind == _SPARSES:
            return [sparse_from_proto(item, self._external) for item in proto.sparse_tensors]
        if kind == _TYPE:
            return type_from_proto(proto.tp)
        if kind == _TYPES:
            return [type_from_proto(item) for item in proto.type_protos]
        raise ModelError("INVALID_GRAPH", f"Attribute {proto.name} has no type.")

    def function(self, proto: Any) -> Function:
        opsets = {_domain(entry.domain): int(entry.version) for entry in proto.opset_import}
        return Function(
            name=proto.name,
            domain=_domain(proto.domain),
            inputs=list(proto.input),
            outputs=list(proto.output),
            attributes=list(proto.attribute),
            attribute_defaults={item.name: self.attribute(item, opsets) for item in proto.attribute_proto},
            nodes=[self.node(node, opsets) for node in proto.node],
            opsets=opsets,
            overload=proto.overload,
        )


def load(path_or_bytes: str | os.PathLike[str] | bytes, external_folder: str | None = None) -> Model:
    """Read a model from a path or from bytes. Nothing is checked beyond what reading needs."""
    parsed = parse_apart(path_or_bytes)
    return read_model(parsed.proto, parsed.path, external_folder, raw=parsed.raw)


def read_function(proto: Any) -> Function:
    """A FunctionProto (a schema's body) as a :class:`Function`."""
    return _Reader(ExternalData(None)).function(proto)


def read_attribute(proto: Any) -> AttributeValue:
    """An AttributeProto outside any graph, such as a schema's default."""
    return _Reader(ExternalData(None)).attribute(proto, {})
