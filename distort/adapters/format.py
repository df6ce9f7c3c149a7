"""Adapter files (``.onnx_adapter``): parameters by name, and three version numbers, in a flatbuffer.

The schema is onnxruntime's ``adapter_schema.fbs``::

    Adapter: format_version, adapter_version, model_version, parameters
    Parameter: name, dims, data_type, raw_data

Both ways are as strict as onnxruntime is when it reads: a parameter has at least one dimension, and elements of a type
in :data:`ELEMENTS`. What it could not read back is not written either. Two things that it lets pass are refused: a name
that is there twice, and parameters whose pieces overlap.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distort import errors
from distort.adapters.flatbuffer import FlatbufferError, Reader, Table, Writer
from distort.graph.atomic import writing
from distort.graph.types import DTYPE_OF, element_of

Array = np.ndarray[Any, Any]

IDENTIFIER = b"TORT"
#: the version of the format, the only one there is
FORMAT_VERSION = 1
#: ONNX's numbers of the element types that a parameter may have: integers and floats of 8 to 64 bits
ELEMENTS = frozenset({*range(1, 8), *range(10, 14), *range(16, 21)})

_FORMAT_VERSION, _ADAPTER_VERSION, _MODEL_VERSION, _PARAMETERS = range(4)
_NAME, _DIMS, _DATA_TYPE, _RAW_DATA = range(4)

_MAX_RANK = 64  # numpy's
_MAX_SIZE = 2**56  # numpy multiplies even the dims of what has no elements
_INT32 = range(-(2**31), 2**31)

_NO_ADAPTER = "The buffer does not appear to be a valid lora parameter format"
_BROKEN = "The buffer fails lora adapter format verification"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of an adapter."""

    element: int
    """ONNX's number of the element type, one of :data:`ELEMENTS`."""
    dims: tuple[int, ...]
    data: memoryview
    """The elements as they lie in the file: little-endian, in C order."""

    def __post_init__(self) -> None:
        if self.element not in ELEMENTS:
            raise ValueError(f"data_type '{self.element}' is not a supported LoRA parameter type")
        if not self.dims:
            raise ValueError("dims is missing or empty")
        if len(self.dims) > _MAX_RANK:
            raise ValueError(f"it has {len(self.dims)} dims, and {_MAX_RANK} are the most")
        if min(self.dims) < 0:
            raise ValueError(f"dims {list(self.dims)} are negative")
        expected = math.prod(self.dims) * DTYPE_OF[self.element].itemsize
        if self.data.nbytes != expected:
            raise ValueError(
                f"raw_data size ({self.data.nbytes}) does not match expected size ({expected}) calculated from dims "
                f"{list(self.dims)} and data_type {self.element}"
            )
        if math.prod(max(dim, 1) for dim in self.dims) > _MAX_SIZE:
            raise ValueError(f"dims {list(self.dims)} are too large")

    @classmethod
    def of(cls, values: Array) -> Parameter:
        """The parameter of an array. Raises ValueError where its dtype or its shape is none that files may have."""
        try:
            element = element_of(values.dtype)
        except KeyError:
            element = 0
        if element not in ELEMENTS:
            raise ValueError(f"data_type '{element or values.dtype}' is not a supported LoRA parameter type")
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        return cls(element, values.shape, little.reshape(-1).view(np.uint8).data)

    @property
    def values(self) -> Array:
        """The elements: [dims]. A view of ``data`` where that is aligned for them, otherwise a copy."""
        dtype = DTYPE_OF[self.element]
        raw = np.frombuffer(self.data, np.uint8)
        if raw.ctypes.data % dtype.alignment:
            raw = raw.copy()
        return raw.view(dtype).reshape(self.dims)


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """What an adapter file holds."""

    format_version: int = FORMAT_VERSION
    adapter_version: int = 0
    """Which adapter this is; chosen by who made it."""
    model_version: int = 0
    """Which model it is for; chosen by who made it."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        if self.adapter_version not in _INT32 or self.model_version not in _INT32:
            raise ValueError("adapter_version and model_version are 32-bit numbers")


def _check_version(format_version: int) -> None:
    if format_version != FORMAT_VERSION:
        raise ValueError(f"Unsupported lora format version: {format_version}, known is {FORMAT_VERSION}")


def read(path: str | os.PathLike[str], *, mapped: bool = False) -> AdapterFile:
    """Read an adapter file.

    ``mapped``: the parameters' data are read-only views of the file, which must not be shortened as long as they are
    used; a file that is replaced, as :func:`write` does, stays as it was for those who have it mapped. Otherwise they
    are views of memory of their own. Raises RuntimeError where the file can't be read or is no adapter file.
    """
    content = _content(path, mapped)
    try:
        return parse(content)
    except ValueError as error:
        raise RuntimeError(f"{error}: {os.fspath(path)}") from error


def parse(content: memoryview) -> AdapterFile:
    """An adapter file in memory; its data stay where they are. Raises ValueError where it is none."""
    reader = Reader(content)
    if not reader.has_identifier(IDENTIFIER):
        raise ValueError(_NO_ADAPTER)
    try:
        root = reader.root()
        format_version = root.int32(_FORMAT_VERSION)
        _check_version(format_version)  # before what another version may hold differently
        return AdapterFile(
            format_version,
            root.int32(_ADAPTER_VERSION),
            root.int32(_MODEL_VERSION),
            _parameters(root, len(content)),
        )
    except FlatbufferError as error:
        raise ValueError(f"{_BROKEN}: {error}") from error


def _parameters(root: Table, nbytes: int) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    left = nbytes
    for table in root.tables(_PARAMETERS):
        encoded, data = table.string(_NAME), table.vector(_RAW_DATA, 1)
        dims = table.vector(_DIMS, 8)
        # pieces that overlap could make a small file take any amount of time and memory
        left -= sum(len(piece) for piece in (encoded, data, dims) if piece is not None)
        if left < 0:
            raise FlatbufferError("parameters overlap each other")
        if encoded is None:
            raise ValueError("Lora Parameter: name is missing")
        try:
            name = str(encoded, "utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"Lora Parameter: name {bytes(encoded)!r} is no UTF-8") from None
        if name in parameters:
            raise ValueError(f"Lora Param '{name}' is there twice")
        if data is None:
            raise ValueError(f"Lora Param '{name}': raw_data is missing")
        sizes = () if dims is None else struct.unpack(f"<{len(dims) // 8}q", dims)
        try:
            parameters[name] = Parameter(table.int32(_DATA_TYPE), sizes, data)
        except ValueError as error:
            raise ValueError(f"Lora Param '{name}': {error}") from None
    return parameters


def _content(path: str | os.PathLike[str], mapped: bool) -> memoryview:
    try:
        # opening a pipe would wait for who writes to it
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise RuntimeError(f"The adapter is no regular file: {os.fspath(path)}")
        with Path(path).open("rb") as file:
            if mapped and found.st_size:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return np.fromfile(file, np.uint8).data
    except FileNotFoundError:
        text = f"Adapter file doesn't exist: {os.fspath(path)}"
        raise RuntimeError(errors.prefix("INVALID_ARGUMENT") + text) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero in it, a file emptied just now
        text = f"Adapter file {os.fspath(path)!r} can't be read: {error}"
        raise RuntimeError(errors.prefix("INVALID_ARGUMENT") + text) from error


def write(path: str | os.PathLike[str], file: AdapterFile) -> None:
    """Write an adapter file, whole or not at all. Each parameter's data are aligned to a cache line in it.

    Raises RuntimeError where the file can't be written or would be larger than 2 GiB.
    """
    try:
        pieces = serialize(file)
        with writing(path) as stream:
            stream.writelines(pieces)
    except OSError as error:
        raise RuntimeError(f'Failed to open file:"{os.fspath(path)}" for writing: {error}') from error
    except ValueError as error:
        raise RuntimeError(f"{os.fspath(path)!r} can't be written: {error}") from error


def serialize(file: AdapterFile) -> list[bytes | memoryview]:
    """The pieces of an adapter file, in order; data are not copied. Raises ValueError."""
    writer = Writer(IDENTIFIER)
    root = writer.root((file.format_version, file.adapter_version, file.model_version, 0))
    offsets = writer.offsets(root + 4 * _PARAMETERS, len(file.parameters))
    for index, (name, parameter) in enumerate(file.parameters.items()):
        fields = writer.table(offsets + 4 * index, (0, 0, parameter.element, 0))
        writer.string(fields + 4 * _NAME, name.encode())
        writer.int64s(fields + 4 * _DIMS, parameter.dims)
        writer.blob(fields + 4 * _RAW_DATA, parameter.data)
    return writer.finish()
