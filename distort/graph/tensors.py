"""TensorProto <-> numpy. External data is mapped, never read, and never taken from outside the model's folder."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelError
from .ir import SparseInitializer
from .onnx_parts import protobuf
from .types import DTYPE_OF, SUB_BYTE_BITS, element_of

Array = np.ndarray[Any, Any]

_STRING, _FLOAT4 = 8, 23
_SIGNED_SUB_BYTE = frozenset({22, 26})
# element types whose values lie in int32_data when they are not raw
_IN_INT32 = frozenset({2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26})


class ExternalData:
    """The files beside a model that hold its larger tensors; each is mapped once.

    ``files`` are contents by location, in place of files; ``replaced`` names tensors whose values come from elsewhere,
    so that their files need not be there.
    """

    def __init__(
        self,
        folder: str | Path | None,
        files: Mapping[str, memoryview] | None = None,
        replaced: Collection[str] = (),
    ) -> None:
        #: None: the model came from bytes, so there is no folder that its tensors may lie in
        self.folder = None if folder is None else Path(folder)
        self._files = files or {}
        self._replaced = replaced
        self._maps: dict[Path, Array] = {}

    def array(self, tensor: Any) -> Array:
        """The bytes of a tensor, as a read-only view [nbytes] of the mapped file."""
        if tensor.name in self._replaced:
            return np.zeros(_nbytes(tensor), np.uint8)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        mapped = np.frombuffer(self._files[location], np.uint8) if location in self._files else None
        if mapped is None:
            path = self._resolve(location, tensor.name)
            mapped = self._maps.get(path)
            if mapped is None:
                mapped = self._maps[path] = _map_file(path, tensor.name)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else _nbytes(tensor)
        except ValueError:
            raise ModelError(
                "INVALID_ARGUMENT",
                f"External data of initializer {tensor.name} has an offset or length that is no number.",
            ) from None
        if offset < 0 or length < 0 or offset + length > len(mapped):
            raise ModelError(
                "FAIL",
                f"External initializer: {tensor.name} offset: {offset} size to read: {length} given file_length: "
                f"{len(mapped)} are out of bound",
            )
        return mapped[offset : offset + length]

    def _resolve(self, location: str, name: str) -> Path:
        prefix = f"External data path validation failed for initializer: {name}. Error: "
        if not location:
            raise ModelError("INVALID_ARGUMENT", prefix + "the tensor names no location.")
        if self.folder is None:
            raise ModelError(
                "FAIL",
                prefix + f"External data path for model loaded from bytes escapes working directory. "
                f'External data path does not exist: "{location}". Load the model from its path, or set '
                "session.model_external_initializers_file_folder_path.",
            )
        folder = self.folder.resolve()
        path = (folder / location).resolve()  # follows symbolic links, so a link can't lead outside either
        if Path(location).is_absolute():
            raise ModelError("FAIL", prefix + f'Absolute path not allowed for external data location: "{location}"')
        if not path.is_relative_to(folder):
            raise ModelError("FAIL", prefix + f'External data path: "{location}" escapes model directory: "{folder}"')
        if not path.is_file():
            raise ModelError("FAIL", prefix + f'External data path does not exist: "{path}"')
        return path


def _map_file(path: Path, name: str) -> Array:
    if path.stat().st_size == 0:
        return np.zeros(0, np.uint8)
    try:
        return np.frombuffer(map_file(path), np.uint8)
    except OSError as error:
        raise ModelError("FAIL", f"External data of initializer {name} can't be read: {error}") from error


class MappedFile(mmap.mmap):
    """A file mapped read-only, which knows what it is."""

    path: str
    mtime_ns: int
    inode: tuple[int, int]
    #: whether it is a model, not data beside one
    holds_model: bool = False

    def was_written_over(self) -> bool:
        """Whether the same file has other content now. One that was removed or replaced stays as it was."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        same = (status.st_dev, status.st_ino) == self.inode
        return same and (status.st_mtime_ns, status.st_size) != (self.mtime_ns, len(self))


def map_file(path: str | Path) -> MappedFile:
    """Raises OSError."""
    with open(path, "rb") as file:
        mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped.path = os.path.abspath(path)
        status = os.fstat(file.fileno())
        mapped.mtime_ns, mapped.inode = status.st_mtime_ns, (status.st_dev, status.st_ino)
    return mapped


def file_of(array: Array) -> tuple[MappedFile, int] | None:
    """The file that an array is a view of, and where it begins there [bytes]; None where it is no file's."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, MappedFile):
        return None
    start = np.frombuffer(base, np.uint8).ctypes.data
    return base, array.ctypes.data - start


def array_from_proto(tensor: Any, external: ExternalData | None = None, raw: Array | None = None) -> Array:
    """The values of an onnx.TensorProto: [dims], read-only where they are a view of the message or the file.

    ``raw`` is its raw data where that was left out of the message; the result may then not be aligned.
    """
    element = tensor.data_type
    shape = tuple(tensor.dims)
    if element not in DTYPE_OF:
        raise ModelError("FAIL", f"This is an invalid model. Tensor '{tensor.name}' does not have valid data type.")
    if any(dim < 0 for dim in shape):
        raise ModelError("INVALID_ARGUMENT", f"Initializer {tensor.name} has a negative dimension: {list(shape)}.")
    if element == _STRING:
        flat = _strings(tensor)
    elif tensor.data_location == 1:
        flat = _from_bytes((external or ExternalData(None)).array(tensor), element, shape)
    elif raw is not None:
        flat = _from_bytes(raw, element, shape, anywhere=True)
    elif tensor.HasField("raw_data"):
        flat = _from_bytes(np.frombuffer(tensor.raw_data, np.uint8), element, shape)
    else:
        flat = _from_fields(tensor, element, shape)
    count = _count(shape)
    if flat.size != count:
        raise ModelError(
            "INVALID_ARGUMENT",
            f"Initializer {tensor.name} of shape {list(shape)} needs {count} elements, the model holds {flat.size}.",
        )
    return flat.reshape(shape)


def _nbytes(tensor: Any) -> int:
    """Bytes that a tensor's elements take, packed ones in whole bytes."""
    element = tensor.data_type
    bits = SUB_BYTE_BITS.get(element) or 8 * DTYPE_OF[element].itemsize
    return (_count(tuple(tensor.dims)) * bits + 7) // 8


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for dim in shape:
        count *= dim
    return count


def _strings(tensor: Any) -> Array:
    flat = np.empty(len(tensor.string_data), object)
    flat[:] = [item.decode("utf-8", "surrogateescape") for item in tensor.string_data]
    return flat


def _from_bytes(raw: Array, element: int, shape: tuple[int, ...], anywhere: bool = False) -> Array:
    """``anywhere``: numpy's own types may lie at any byte."""
    dtype = DTYPE_OF[element]
    bits = SUB_BYTE_BITS.get(element)
    if bits:
        return unpack(raw, element, _count(shape))
    if len(raw) % dtype.itemsize:
        raise ModelError("INVALID_ARGUMENT", f"{len(raw)} bytes are no whole number of {dtype} elements.")
    if raw.ctypes.data % dtype.itemsize and not (anywhere and dtype.kind in "fiub"):
        raw = raw.copy()  # external offsets need not be aligned
    return raw.view(dtype)


def unpack(raw: Array, element: int, count: int) -> Array:
    """Sub-byte elements, low bits first in each byte: [nbytes] uint8 -> [count] of the ml_dtypes type."""
    bits = SUB_BYTE_BITS[element]
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    codes: Array = ((raw[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:count]
    dtype = DTYPE_OF[element]
    if element in _SIGNED_SUB_BYTE:
        sign = np.uint8(1 << (bits - 1))
        codes = ((codes ^ sign).astype(np.int8) - np.int8(sign)).astype(dtype)
    elif element == _FLOAT4:
        codes = codes.view(dtype)
    else:
        codes = codes.astype(dtype)
    return codes


def pack(values: Array, element: int) -> bytes:
    """The inverse of :func:`unpack`; the last byte is filled with zeros."""
    bits = SUB_BYTE_BITS[element]
    per_byte = 8 // bits
    if element == _FLOAT4:
        codes = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    else:
        codes = values.astype(np.int8).view(np.uint8).reshape(-1) & np.uint8((1 << bits) - 1)
    grouped = np.pad(codes, (0, -codes.size % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    return bytes(np.bitwise_or.reduce(grouped << shifts, axis=1).astype(np.uint8))


def _from_fields(tensor: Any, element: int, shape: tuple[int, ...]) -> Array:
    dtype = DTYPE_OF[element]
    if element in _IN_INT32:
        data = np.array(tensor.int32_data, np.int32)
        if element in SUB_BYTE_BITS:
            return unpack(data.astype(np.uint8), element, _count(shape))
        if element in (10, 16):  # the bits of a 16-bit float
            return data.astype(np.uint16).view(dtype)
        if dtype.itemsize == 1 and dtype.kind not in "iub":  # the bits of an 8-bit float
            return data.astype(np.uint8).view(dtype)
        return data.astype(dtype)
    if element in (1, 14):
        return np.array(tensor.float_data, np.float32).view(dtype)
    if element in (11, 15):
        return np.array(tensor.double_data, np.float64).view(dtype)
    if element == 7:
        return np.array(tensor.int64_data, np.int64)
    return np.array(tensor.uint64_data, np.uint64).astype(dtype)  # uint32, uint64


def sparse_from_proto(sparse: Any, external: ExternalData | None = None) -> SparseInitializer:
    """Its indices are checked: [NNZ] within the product of ``dims``, or [NNZ, rank] within each."""
    values, indices = array_from_proto(sparse.values, external), array_from_proto(sparse.indices, external)
    dims = tuple(sparse.dims)
    limits = np.array(dims if indices.ndim == 2 else [math.prod(dims)])
    shape = (values.size, len(dims)) if indices.ndim == 2 else (values.size,)
    fits = min(dims, default=0) >= 0 and indices.dtype == np.int64 and indices.shape == shape and values.ndim == 1
    if not fits or (indices < 0).any() or (indices >= limits).any():
        raise ModelError(
            "INVALID_GRAPH",
            f"Sparse tensor '{sparse.values.name}': {values.size} values, indices of shape {list(indices.shape)}, "
            f"dims {list(dims)} contradict each other",
        )
    return SparseInitializer(values, indices, dims)


def array_to_proto(values: Array, name: str = "") -> Any:
    """An onnx.TensorProto with raw data (strings: string data)."""
    tensor = protobuf().TensorProto()
    tensor.name = name
    element = element_of(values.dtype)
    tensor.data_type = element
    tensor.dims.extend(values.shape)
    if element == _STRING:
        tensor.string_data.extend(
            item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")
            for item in values.reshape(-1)
        )
    elif element in SUB_BYTE_BITS:
        tensor.raw_data = pack(values, element)
    else:
        little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
        tensor.raw_data = little.tobytes()
    return tensor
