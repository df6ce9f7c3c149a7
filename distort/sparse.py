"""SparseTensor in onnxruntime's three formats, over the coordinate form that kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distort import errors
from distort.devices import OrtDevice
from distort.enums import OrtSparseFormat
from distort.graph.ir import SparseInitializer
from distort.graph.types import SparseTensorType, element_of

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


class SparseCooView:
    """Indices of a COO tensor: [NNZ] into the flattened tensor, or [NNZ, rank]."""

    def __init__(self, indices: Array) -> None:
        self._indices = indices

    def indices(self) -> Array:
        return self._indices


class SparseCsrView:
    """``inner``: the column of each value; ``outer`` [rows + 1]: where each row starts."""

    def __init__(self, inner: Array, outer: Array) -> None:
        self._inner = inner
        self._outer = outer

    def inner(self) -> Array:
        return self._inner

    def outer(self) -> Array:
        return self._outer


class SparseBlockSparseView:
    """``indices`` [2, blocks]: row and column of each block, counted in blocks."""

    def __init__(self, indices: Array) -> None:
        self._indices = indices

    def indices(self) -> Array:
        return self._indices


class SparseTensor:
    """A sparse matrix or tensor on the CPU."""

    _format: OrtSparseFormat
    _dense_shape: tuple[int, ...]
    _values: Array  # [NNZ]
    _indices: tuple[Array, ...]  # as the format has them
    _element: int

    def __init__(self, sparse_tensor: Any) -> None:
        if not isinstance(sparse_tensor, SparseTensor):
            raise ValueError(f"`Provided object` needs to be of type `{errors.MODULE}.SparseTensor`")
        self.__dict__.update(sparse_tensor.__dict__)

    @classmethod
    def _make(
        cls, form: OrtSparseFormat, dense_shape: Sequence[int], values: Array, indices: tuple[Array, ...]
    ) -> SparseTensor:
        made = cls.__new__(cls)
        made._format = form
        made._dense_shape = tuple(int(dim) for dim in dense_shape)
        made._values = _read_only(values)
        made._indices = tuple(_read_only(array) for array in indices)
        made._element = _element(values)
        return made

    @classmethod
    def sparse_coo_from_numpy(
        cls, dense_shape: Sequence[int], values: Array, coo_indices: Array, ort_device: OrtDevice
    ) -> SparseTensor:
        """``values`` [NNZ] at ``coo_indices``, [NNZ] into the flattened tensor or [NNZ, 2]."""
        indices = np.asarray(coo_indices, np.int64)
        if indices.size not in (values.size, 2 * values.size):
            raise RuntimeError(f"Index size: {indices.size} must be equal to or twice the values size: {values.size}")
        return cls._make(OrtSparseFormat.ORT_SPARSE_COO, dense_shape, np.asarray(values), (indices,))

    @classmethod
    def sparse_csr_from_numpy(
        cls,
        dense_shape: Sequence[int],
        values: Array,
        inner_indices: Array,
        outer_indices: Array,
        ort_device: OrtDevice,
    ) -> SparseTensor:
        """``values`` [NNZ] in columns ``inner_indices`` [NNZ], rows starting at ``outer_indices`` [rows + 1]."""
        inner, outer = np.asarray(inner_indices, np.int64), np.asarray(outer_indices, np.int64)
        if len(dense_shape) != 2 or inner.size != values.size or outer.size != dense_shape[0] + 1:
            raise RuntimeError(
                f"CSR needs a matrix, one inner index a value and one outer index more than rows: shape "
                f"{list(dense_shape)}, {values.size} values, {inner.size} inner and {outer.size} outer indices"
            )
        return cls._make(OrtSparseFormat.ORT_SPARSE_CSRC, dense_shape, np.asarray(values), (inner, outer))

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
        if indices.size == 2 * self._values.size and indices.ndim == 1:
            indices = indices.reshape(-1, 2)
        return SparseInitializer(self._values, indices, self._dense_shape)

    def as_coo_view(self) -> SparseCooView:
        self._require(OrtSparseFormat.ORT_SPARSE_COO, "COO")
        return SparseCooView(self._indices[0])

    def as_csrc_view(self) -> SparseCsrView:
        self._require(OrtSparseFormat.ORT_SPARSE_CSRC, "CSR(C)")
        return SparseCsrView(*self._indices)

    def as_blocksparse_view(self) -> SparseBlockSparseView:
        self._require(OrtSparseFormat.ORT_SPARSE_BLOCK_SPARSE, "BlockSparse")
        return SparseBlockSparseView(self._indices[0])

    def _require(self, form: OrtSparseFormat, name: str) -> None:
        if self._format != form:
            raise RuntimeError(f"This sparse tensor does not contain {name} format")

    def to_cuda(self, ort_device: OrtDevice) -> SparseTensor:
        raise RuntimeError("Cuda is not available in this build")

    def format(self) -> OrtSparseFormat:
        return self._format

    def dense_shape(self) -> list[int]:
        return list(self._dense_shape)

    def values(self) -> Array:
        return self._values

    def data_type(self) -> str:
        return str(SparseTensorType(self._element))

    def device_name(self) -> str:
        return "cpu"
