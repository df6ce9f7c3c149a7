"""Host memory in the place of a device's: at wanted alignments, with guards around what is written."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_GUARD_NBYTES = 256


class Block:
    """Memory at an address that is ``offset`` bytes after a multiple of 256. Bytes around it must stay as they are."""

    def __init__(self, nbytes: int, offset: int = 0) -> None:
        self._whole = np.full(nbytes + offset + 3 * _GUARD_NBYTES, 0xCD, np.uint8)
        begin = self._whole.ctypes.data
        self._start = -(-begin // 256) * 256 - begin + _GUARD_NBYTES + offset
        self.nbytes = nbytes
        self.address = begin + self._start

    def view(self, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Array:
        """Its elements; ``strides`` in elements."""
        dtype = np.dtype(dtype)
        bytes_ = self._whole[self._start : self._start + self.nbytes]
        flat = bytes_[: self.nbytes // dtype.itemsize * dtype.itemsize].view(dtype)
        if strides is None:
            return flat[: int(np.prod(shape))].reshape(shape)
        return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in strides])

    def check(self) -> None:
        before, after = self._whole[: self._start], self._whole[self._start + self.nbytes :]
        assert (before == 0xCD).all() and (after == 0xCD).all(), "something was written next to the block"


def placed(array: Array, offset: int = 0) -> tuple[int, Block]:
    """A copy of an array, contiguous: its address, and what keeps it."""
    block = Block(max(array.nbytes, 1), offset)
    if array.size:
        block.view(array.dtype, array.shape)[...] = array
    return block.address, block
