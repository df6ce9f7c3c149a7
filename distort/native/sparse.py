"""SparseTensor in onnxruntime's three formats, over the coordinate form that kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.enums import OrtSparseFormat
from distort.graph.ir import SparseInitializer
from distort.graph.types import SparseTensorType, element_of
from distort.native.base import Made, native
from distort.native.devices import OrtDevice

Array = np.ndarray[Any, Any]


def _element(values: Array) -> int:
    try:
        element = element_of(values.dtype)
    except KeyError:
        element = 14
    if element in (14, 15):
        raise RuntimeError(f"Numpy_type {values.dtype.num} can't be converted to MLDataType.")
    return element


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


@native
class SparseCooView(Made):
    """Indices of a COO tensor: [NNZ] into the flattened tensor, or [NNZ, rank]."""

    _indices: Array

    def indices(self) -> Array:
        return self._indices


@native
class SparseCsrView(Made):
    """``inner``: the column of each value; ``outer`` [rows + 1]: where each row starts."""

    _inner: Array
    _outer: Array

    def inner(self) -> Array:
        return self._inner

    def outer(self) -> Array:
        return self._outer


@native
class SparseBlockSparseView(Made):
    """``indices`` [2, blocks]: row and column of each block, counted in blocks."""

    _indices: Array

    def indices(self) -> Array:
        return self._indices


def _view(cls: type[Any], **arrays: Array) -> Any:
    made = object.__new__(cls)
    vars(made).update(arrays)
    return made


@native
class SparseTensor(Made):
    """A sparse matrix or tensor on the CPU."""

    _format: OrtSparseFormat
    _dense_shape: tuple[int, ...]
    _values: Array  # [NNZ]
    _indices: tuple[Array, ...]  # as the format has them
    _element: int

    @classmethod
    def _make(
        cls, form: OrtSparseFormat, dense_shape: Sequence[int], values: Array, indices: tuple[Array, ...]
    ) -> SparseTensor:
        made = cls.__new__(cls)
        made._format = form
        made._dense_shape = tuple(int(dim) for dim in dense_shape)
        made._values = _read_only(values.astype(object) if values.dtype.kind in "UST" else values)
        made._indices = tuple(_read_only(array) for array in indices)
        made._element = _element(values)
        return made

    @staticmethod
    def sparse_coo_from_numpy(arg0: Sequence[int], arg1: Array, arg2: Array, arg3: OrtDevice, /) -> SparseTensor:
        """Dense shape; values [NNZ]; their places, [NNZ] into the flattened tensor or [NNZ, 2]; device."""
        indices = np.asarray(arg2, np.int64)
        if indices.size not in (arg1.size, 2 * arg1.size):
            raise RuntimeError(f"Index size: {indices.size} must be equal to or twice the values size: {arg1.size}")
        return SparseTensor._make(OrtSparseFormat.ORT_SPARSE_COO, arg0, np.asarray(arg1), (indices,))

    @staticmethod
    def sparse_csr_from_numpy(
        arg0: Sequence[int], arg1: Array, arg2: Array, arg3: Array, arg4: OrtDevice, /
    ) -> SparseTensor:
        """Dense shape; values [NNZ]; the column of each [NNZ]; where each row starts [rows + 1]; device."""
        inner, outer = np.asarray(arg2, np.int64), np.asarray(arg3, np.int64)
        if len(arg0) != 2 or inner.size != arg1.size or outer.size != arg0[0] + 1:
            raise RuntimeError(
                f"CSR needs a matrix, one inner index a value and one outer index more than rows: shape "
                f"{list(arg0)}, {arg1.size} values, {inner.size} inner and {outer.size} outer indices"
            )
        return SparseTensor._make(OrtSparseFormat.ORT_SPARSE_CSRC, arg0, np.asarray(arg1), (inner, outer))

    @staticmethod
    def blocksparse_from_numpy(arg0: Sequence[int], arg1: Array, arg2: Array, arg3: OrtDevice, /) -> SparseTensor:
        """Dense shape; blocks [blocks, rows, columns]; row and column of each, in blocks [2, blocks]; device."""
        indices = np.asarray(arg2, np.int32)
        if len(arg0) != 2 or arg1.ndim != 3 or indices.shape != (2, len(arg1)):
            raise RuntimeError(
                f"Blocks need a matrix, values [blocks, rows, columns] and indices [2, blocks]: shape {list(arg0)}, "
                f"values {list(arg1.shape)}, indices {list(indices.shape)}"
            )
        return SparseTensor._make(OrtSparseFormat.ORT_SPARSE_BLOCK_SPARSE, arg0, np.asarray(arg1), (indices,))

    @classmethod
    def _of(cls, sparse: SparseInitializer) -> SparseTensor:
        return cls._make(OrtSparseFormat.ORT_SPARSE_COO, sparse.dims, sparse.values, (sparse.indices,))

    def _coordinates(self) -> SparseInitializer:
        """The same tensor with flat coordinates, as kernels take it."""
        if self._format == OrtSparseFormat.ORT_SPARSE_CSRC:
            inner, outer = self._indices
            rows = np.repeat(np.arange(outer.size - 1, dtype=np.int64), np.diff(outer))
            return SparseInitializer(self._values, rows * self._dense_shape[1] + inner, self._dense_shape)
        (indices,) = self._indices
        if self._format == OrtSparseFormat.ORT_SPARSE_BLOCK_SPARSE:
            _, height, width = self._values.shape
            rows = indices[0][:, None, None] * height + np.arange(height)[:, None]
            places = rows * self._dense_shape[1] + indices[1][:, None, None] * width + np.arange(width)
            return SparseInitializer(self._values.reshape(-1), places.reshape(-1).astype(np.int64), self._dense_shape)
        if indices.size == 2 * self._values.size and indices.ndim == 1:
            indices = indices.reshape(-1, 2)
        return SparseInitializer(self._values, indices, self._dense_shape)

    def get_coo_data(self) -> SparseCooView:
        self._require(OrtSparseFormat.ORT_SPARSE_COO, "COO")
        view: SparseCooView = _view(SparseCooView, _indices=self._indices[0])
        return view

    def get_csrc_data(self) -> SparseCsrView:
        self._require(OrtSparseFormat.ORT_SPARSE_CSRC, "CSR(C)")
        view: SparseCsrView = _view(SparseCsrView, _inner=self._indices[0], _outer=self._indices[1])
        return view

    def get_blocksparse_data(self) -> SparseBlockSparseView:
        self._require(OrtSparseFormat.ORT_SPARSE_BLOCK_SPARSE, "BlockSparse")
        view: SparseBlockSparseView = _view(SparseBlockSparseView, _indices=self._indices[0])
        return view

    def _require(self, form: OrtSparseFormat, name: str) -> None:
        if self._format != form:
            raise RuntimeError(f"This sparse tensor does not contain {name} format")

    def to_cuda(self, arg0: OrtDevice, /) -> SparseTensor:
        """Sparse tensors stay in this process's memory, where the nodes that read them run too. Raises RuntimeError."""
        raise RuntimeError("Cuda is not available in this build")

    @property
    def format(self) -> OrtSparseFormat:
        return self._format

    @format.setter
    def format(self, value: Any) -> None:
        raise AttributeError("The format of a sparse tensor is that of its indices.")

    def dense_shape(self) -> list[int]:
        return list(self._dense_shape)

    def values(self) -> Array:
        return self._values

    def data_type(self) -> str:
        return str(SparseTensorType(self._element))

    def device_name(self) -> str:
        return "cpu"
