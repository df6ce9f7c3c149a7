"""A program's weights on its GPU: each is there once, for all plans and for bodies over CuPy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from distort.kernels.compiler.ir import Array, Buffer
from distort.kernels.cuda import copies, memory
from distort.kernels.cuda.codegen.narrow import NARROW
from distort.kernels.cuda.fallback import on_host
from distort.kernels.errors import OutOfMemory

#: what begins in memory that others lie in too begins at a multiple of this, as CUDA's own allocations do
ALIGNMENT_NBYTES = 256
#: smaller ones lie together, in memory of so much at most
_ALONE_NBYTES, _TOGETHER_NBYTES = 1 << 20, 1 << 26


class _Memory:
    """What one weight or several lie in."""

    __slots__ = ("__weakref__", "pointer")

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer


class Weight:
    """An array of the host and the same on the GPU, as long as this lives."""

    __slots__ = ("__weakref__", "array", "memory", "there")

    def __init__(self, array: Array, memory_: _Memory, offset: int) -> None:
        import cupy

        self.array, self.memory = array, memory_
        self.there = cupy.ndarray(array.shape, memory.device_dtype(array.dtype), memory_.pointer + offset)


class Weights:
    """Thread-safe. They are known by the ``id`` of the host's array, which stays as long as they do."""

    def __init__(self, pool: memory.Pool) -> None:
        self._pool = pool
        self._lock = threading.RLock()
        self._known: WeakValueDictionary[int, Weight] = WeakValueDictionary()
        #: those that stay whoever has them
        self._kept: dict[int, Weight] = {}
        #: by ``id`` of the GPU's memory
        self._memory: WeakValueDictionary[int, _Memory] = WeakValueDictionary()

    @property
    def nbytes(self) -> int:
        """Of all that are there."""
        with self._lock:
            return sum(weight.array.nbytes for weight in self._known.values())

    def of(self, array: Array) -> Any:
        """A CuPy array of the same elements, which stays. Raises OutOfMemory; TypeError for text."""
        known = self._kept.get(id(array))
        if known is None:
            self.send([array], lambda array: True)
            known = self._kept[id(array)]
        return known.there

    def send(self, arrays: Iterable[Array], stays: Callable[[Array], bool]) -> list[Weight]:
        """Have these on the GPU, in their order: what is missing is sent at once, by the current stream.

        Those that don't stay live as long as what is returned. Raises OutOfMemory; TypeError for text.
        """
        with self._lock:
            wanted = {id(array): array for array in arrays}
            found = {key: known for key in wanted if (known := self._known.get(key)) is not None}
            missing = [array for key, array in wanted.items() if key not in found]
            if missing:
                made = self._made(missing, stays)
                found |= {id(weight.array): weight for weight in made}
                self._known.update((id(weight.array), weight) for weight in made)
            self._kept.update((key, weight) for key, weight in found.items() if stays(weight.array))
            return [found[key] for key in wanted]

    def _made(self, arrays: Sequence[Array], stays: Callable[[Array], bool]) -> list[Weight]:
        groups = [group for own in (True, False) for group in _groups([a for a in arrays if bool(stays(a)) is own])]
        total, made = sum(array.nbytes for array in arrays), []
        with self._pool.used():
            try:
                for group in groups:
                    made += self._placed(group)
            except OutOfMemory as error:
                there = sum(weight.array.nbytes for weight in made)
                text = f"{error.text} It was for weights, {total} bytes of them, of which {there} had their place."
                raise OutOfMemory(text) from error
            copies.upload([(weight.there, weight.array) for weight in made])
        return made

    def _placed(self, group: Sequence[Array]) -> list[Weight]:
        """Weights in memory of their own, not sent yet."""
        offsets = np.cumsum([0, *(_aligned(array.nbytes) for array in group)]).tolist()
        where = _Memory(self._pool.malloc(offsets[-1]))
        self._memory[id(where.pointer.mem)] = where
        return [Weight(array, where, offset) for array, offset in zip(group, offsets, strict=False)]

    def clear(self) -> None:
        """Let go of those that stay."""
        with self._lock:
            self._kept.clear()

    def has(self, array: Any) -> bool:
        """Whether a CuPy array lies in the memory of one of them."""
        return id(array.data.mem) in self._memory

    def address(self, buffer: Buffer) -> int:
        """Of a plan's constant, which has been sent."""
        assert buffer.array is not None, "a constant has its elements"
        return int(self._known[id(buffer.array)].there.data.ptr)


def _groups(arrays: Sequence[Array]) -> list[list[Array]]:
    """Arrays that are to lie together: large ones by themselves."""
    groups, small, nbytes = [], list[Array](), 0
    for array in arrays:
        memory.device_dtype(array.dtype)  # or there is no place for it
        if array.nbytes >= _ALONE_NBYTES:
            groups.append([array])
            continue
        if nbytes + array.nbytes > _TOGETHER_NBYTES:
            groups.append(small)
            small, nbytes = [], 0
        small.append(array)
        nbytes += _aligned(array.nbytes)
    return [*groups, small] if small else groups


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_NBYTES) * ALIGNMENT_NBYTES


def is_held(dtype: np.dtype[Any]) -> bool:
    """Whether CuPy computes with a dtype; what it only stores (8-bit floats, int4, text) is the CPU's."""
    return not on_host(dtype)


def is_planned(dtype: np.dtype[Any]) -> bool:
    """Whether kernels of plans read a dtype: as :func:`is_held`, and codes of 8 bits and fewer."""
    return not on_host(dtype) or dtype.name in NARROW


__all__ = ["Weight", "Weights", "is_held", "is_planned"]
