"""Model files whose weights are read in place: what is packed or copied from them need not stay in memory."""

from __future__ import annotations

import mmap

import numpy as np

from distort.graph.tensors import MappedFile, file_of
from distort.kernels.compiler.ir import ALIGNMENT, Array, Buffer
from distort.kernels.errors import KernelError

#: smaller weights lie in memory of their own
_LEAST_NBYTES = 1 << 16
#: pages are given back after so many bytes were taken from them
_AT_ONCE_NBYTES = 1 << 25


class ModelFiles:
    """The files of one program's weights. Compiled steps never read a model's file: they have copies."""

    def __init__(self) -> None:
        self._files: dict[int, MappedFile] = {}
        self._taken_nbytes = 0

    def enter(self, array: Array) -> None:
        """Take note of a weight's file."""
        found = file_of(array) if array.nbytes >= _LEAST_NBYTES else None
        if found is not None:
            self._files[id(found[0])] = found[0]

    def take(self, nbytes: int) -> None:
        """After something was made of weights."""
        self._taken_nbytes += nbytes
        if self._taken_nbytes >= _AT_ONCE_NBYTES:
            self.give_back()

    def give_back(self) -> None:
        """Pages come back from the file where somebody looks at them again."""
        if self._taken_nbytes and hasattr(mmap, "MADV_DONTNEED"):
            for file in self._files.values():
                file.madvise(mmap.MADV_DONTNEED)
        self._taken_nbytes = 0

    def resident(self, buffer: Buffer) -> Array:
        """The buffer's elements where kernels may read them: not in the model's file, which may be written over."""
        array = buffer.array
        assert array is not None
        if self._files and array.nbytes >= _LEAST_NBYTES:
            found = file_of(array)
            if found is not None and found[0].holds_model:
                array = buffer.array = aligned(array)
                self.take(array.nbytes)
        return array

    def check(self) -> None:
        """Raise where a model was written over since it was opened: its weights would be others, or nothing."""
        for file in self._files.values():
            if file.holds_model and file.was_written_over():
                raise KernelError(
                    f"{file.path} was written over while a session has it open. Write a new file and rename it, "
                    "or set the session's config key distort.map_weights to 0."
                )


def aligned(array: Array) -> Array:
    """A contiguous copy at the begin of a cache line: vectors that cross lines take half as long again to load."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    begin = -memory.__array_interface__["data"][0] % ALIGNMENT
    made = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def is_aligned(array: Array) -> bool:
    return array.flags.c_contiguous and array.__array_interface__["data"][0] % ALIGNMENT == 0
