"""Memory of compiled runs with more around it that nobody may write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Room

Array = np.ndarray[Any, Any]


class _Guard:
    MARGIN = 4096
    MARK = 0xA5

    def __init__(self) -> None:
        self.given: list[tuple[Array, int]] = []

    def memory(self, nbytes: int) -> Array:
        whole = np.full(nbytes + 2 * self.MARGIN, self.MARK, np.uint8)
        self.given.append((whole, nbytes))
        return whole[self.MARGIN : self.MARGIN + nbytes]

    def room(self, name: str, shape: Sequence[int], dtype: Any) -> Array:
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self.memory(nbytes).view(dtype).reshape(shape)

    def check(self) -> None:
        for whole, nbytes in self.given:
            for margin in (whole[: self.MARGIN], whole[self.MARGIN + nbytes :]):
                assert (margin == self.MARK).all(), f"written beyond {nbytes} bytes"


@contextmanager
def guarded() -> Iterator[Room]:
    """Arenas made inside, and results made in the room that this gives, are not written beyond: else it fails."""
    guard = _Guard()
    with mock.patch.object(CompiledProgram, "memory", lambda self, nbytes: guard.memory(nbytes)):
        yield guard.room
    guard.check()
