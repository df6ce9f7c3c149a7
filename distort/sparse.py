"""SparseTensor as users make and hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import errors
from distort.native import sparse
from distort.native.base import public

if TYPE_CHECKING:
    from distort.devices import OrtDevice
    from distort.enums import OrtSparseFormat

Array = np.ndarray[Any, Any]


@public
class SparseTensor:
    """A sparse matrix or tensor on the CPU, in onnxruntime's formats."""

    def __init__(self, sparse_tensor: sparse.SparseTensor) -> None:
        if not isinstance(sparse_tensor, sparse.SparseTensor):
            raise ValueError(f"`Provided object` needs to be of type `{errors.MODULE}.SparseTensor`")
        self._tensor = sparse_tensor

    def _get_c_tensor(self) -> sparse.SparseTensor:
        return self._tensor

    @classmethod
    def sparse_coo_from_numpy(
        cls, dense_shape: Sequence[int], values: Array, coo_indices: Array, ort_device: OrtDevice
    ) -> SparseTensor:
        """``values`` [NNZ] at ``coo_indices``, [NNZ] into the flattened tensor or [NNZ, 2]."""
        device = ort_device._get_c_device()
        return cls(sparse.SparseTensor.sparse_coo_from_numpy(dense_shape, values, coo_indices, device))

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
        device = ort_device._get_c_device()
        return cls(sparse.SparseTensor.sparse_csr_from_numpy(dense_shape, values, inner_indices, outer_indices, device))

    def values(self) -> Array:
        """The values that are stored; read-only."""
        return self._tensor.values()

    def as_coo_view(self) -> sparse.SparseCooView:
        return self._tensor.get_coo_data()

    def as_csrc_view(self) -> sparse.SparseCsrView:
        return self._tensor.get_csrc_data()

    def as_blocksparse_view(self) -> sparse.SparseBlockSparseView:
        return self._tensor.get_blocksparse_data()

    def to_cuda(self, ort_device: OrtDevice) -> SparseTensor:
        return SparseTensor(self._tensor.to_cuda(ort_device._get_c_device()))

    def format(self) -> OrtSparseFormat:
        return self._tensor.format

    def dense_shape(self) -> list[int]:
        return self._tensor.dense_shape()

    def data_type(self) -> str:
        return self._tensor.data_type()

    def device_name(self) -> str:
        return self._tensor.device_name()
