"""How messages and values are written: a fixed header, the layout of the values, then their bytes.

Small tensors lie in the message, large ones in a slot, and what is no tensor (strings, sequences, maps) is pickled.
Names are numbers in a table that both sides have. Values of the same names, dtypes and shapes have the same layout,
byte for byte, so it is packed and parsed once.
"""

from __future__ import annotations

import functools
import math
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distort.cluster.orders import Held
from distort.cluster.shm.slots import LEAST_LEASE_NBYTES, MOST_LEASES, Lease, Reading, Slot, SlotPool
from distort.graph.types import DTYPE_OF

#: tensors up to this size lie in the message
INLINE_NBYTES = 4096
#: and no message has more than this of them: what a socket takes at once is limited
MESSAGE_NBYTES = 65536
_FEW_VALUES = MESSAGE_NBYTES // INLINE_NBYTES

# a slot that is shared has other readers too; what lies in a GPU's memory is found by a page (cluster/gpu)
_TENSOR, _SLOT, _SHARED_SLOT, _PICKLE, _PICKLE_SLOT, _HELD, DEVICE = range(7)
_HEAD = struct.Struct("<HBBB")  # name, kind, element, rank
_SIZE = struct.Struct("<I")
_PLACE = struct.Struct("<IBQ")  # slot, position of the flag, bytes
_KEY = struct.Struct("<Q")
_DIMS = [struct.Struct(f"<{rank}q") for rank in range(33)]

_STRING = 8
_BYTES = np.dtype(np.uint8)


@dataclass(slots=True, eq=False)
class Staged:
    """A value ready to be sent: once to each of its readers."""

    kind: int
    element: int
    dims: tuple[int, ...]
    data: bytes  # in the message
    slot: Any  # or in a slot, of shared memory or of a GPU's (cluster/gpu/ledger.py)
    nbytes: int


#: dtypes that travel as they are -> their elements
_ELEMENTS: dict[np.dtype[Any], int] = {
    dtype: number for number, dtype in DTYPE_OF.items() if number != _STRING and dtype.kind not in "OUST"
}


def element_that_travels(dtype: np.dtype[Any]) -> int | None:
    """The element of tensors that lie in slots as they are; None for others."""
    return _ELEMENTS.get(dtype) if dtype.isnative else None


def in_slot(value: np.ndarray[Any, Any], slot: Slot) -> Staged:
    """A tensor that lies in a slot already."""
    kind = _SLOT if len(slot.readers) == 1 else _SHARED_SLOT
    return Staged(kind, _ELEMENTS[value.dtype], value.shape, b"", slot, value.nbytes)


def inline_limit(n_values: int) -> int:
    """The largest tensor that lies in a message of so many values."""
    return INLINE_NBYTES if n_values <= _FEW_VALUES else MESSAGE_NBYTES // n_values


def stage(value: Any, pool: SlotPool, readers: tuple[Any, ...], inline_nbytes: int = INLINE_NBYTES) -> Staged:
    """Prepare a value for its readers: copies it into the message or a slot. Raises OSError without memory."""
    is_array = type(value) is np.ndarray or isinstance(value, np.ndarray)
    element = _ELEMENTS.get(value.dtype) if is_array and value.dtype.isnative else None
    if element is not None:
        dims, nbytes = value.shape, value.nbytes
        if nbytes <= inline_nbytes:
            return Staged(_TENSOR, element, dims, value.tobytes(), None, nbytes)
        slot = pool.take(nbytes, readers)
        np.copyto(slot.payload(nbytes).view(value.dtype).reshape(dims), value)
        return in_slot(value, slot)
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    if len(data) <= inline_nbytes:
        return Staged(_PICKLE, 0, (), data, None, len(data))
    slot = pool.take(len(data), readers)
    slot.payload(len(data))[:] = np.frombuffer(data, np.uint8)
    return Staged(_PICKLE_SLOT, 0, (), b"", slot, len(data))


class Message:
    """``head`` with ``fields`` and, as its last field, how long the layout of the values that are added is."""

    __slots__ = ("_data", "_fields", "_head", "_layout")

    def __init__(self, head: struct.Struct, *fields: int) -> None:
        self._head, self._fields = head, fields
        self._layout: list[bytes] = []
        self._data: list[bytes] = []

    def add(self, name: int, staged: Staged, position: int, slot: Any = None) -> None:
        """A value; ``position`` is the receiver's among the value's readers, ``slot`` its page of a GPU's slot."""
        slot = slot or staged.slot
        if slot is None:
            self._layout.append(_entry(name, staged.kind, staged.element, staged.dims, staged.nbytes))
            self._data.append(staged.data)
        else:
            entry = _entry(name, staged.kind, staged.element, staged.dims, None)
            self._layout.append(entry + _PLACE.pack(slot.number, position, staged.nbytes))

    def add_held(self, name: int, held: Held) -> None:
        self._layout.append(_HEAD.pack(name, _HELD, 0, 0) + _KEY.pack(held.key))

    def append(self, data: bytes) -> None:
        """Bytes that follow the values: those of the header's own."""
        self._data.append(data)

    def packed(self) -> bytes:
        layout = b"".join(self._layout)
        return b"".join((self._head.pack(*self._fields, len(layout)), layout, *self._data))


@functools.lru_cache(4096)
def _entry(name: int, kind: int, element: int, dims: tuple[int, ...], nbytes: int | None) -> bytes:
    """Of a layout, up to what follows for a value in a slot."""
    size = b"" if nbytes is None else _SIZE.pack(nbytes)
    return _HEAD.pack(name, kind, element, len(dims)) + _DIMS[len(dims)].pack(*dims) + size


def small_message(
    head: struct.Struct, fields: tuple[int, ...], names: Sequence[int], values: Sequence[Any], most_nbytes: int
) -> bytes | None:
    """A whole message whose values are all tensors of up to ``most_nbytes``; None where they aren't."""
    kinds: list[Any] = []
    data: list[bytes] = []
    for value in values:
        if type(value) is not np.ndarray or value.nbytes > most_nbytes:
            return None
        kinds += (value.dtype, value.shape)
        data.append(value.tobytes())
    layout = _small_layout(names, *kinds)
    return None if layout is None else b"".join((head.pack(*fields, len(layout)), layout, *data))


@functools.lru_cache(4096)
def _small_layout(names: Sequence[int], *kinds: Any) -> bytes | None:
    """Of tensors in a message: their dtypes and shapes, one after another. None where one doesn't travel so."""
    layout = []
    for name, dtype, dims in zip(names, kinds[::2], kinds[1::2], strict=True):
        element = element_that_travels(dtype)
        if element is None:
            return None
        layout.append(_entry(name, _TENSOR, element, dims, math.prod(dims) * dtype.itemsize))
    return b"".join(layout)


#: number of a slot -> its memory
FindSlot = Callable[[int], Any]


class _Entry(NamedTuple):
    name: int
    kind: int
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    nbytes: int
    slot: int
    position: int  # of the reader's flag; of a held value, its key


#: layouts that were parsed, at most so many
_PARSED: dict[bytes, list[_Entry]] = {}
_MOST_PARSED = 1024


def _parse(layout: bytes) -> list[_Entry]:
    entries: list[_Entry] = []
    offset = 0
    while offset < len(layout):
        name, kind, element, rank = _HEAD.unpack_from(layout, offset)
        offset += _HEAD.size
        dims = _DIMS[rank].unpack_from(layout, offset)
        offset += 8 * rank
        number = position = nbytes = 0
        if kind == _HELD:
            (position,) = _KEY.unpack_from(layout, offset)
            offset += _KEY.size
        elif kind in (_TENSOR, _PICKLE):
            (nbytes,) = _SIZE.unpack_from(layout, offset)
            offset += _SIZE.size
        else:
            number, position, nbytes = _PLACE.unpack_from(layout, offset)
            offset += _PLACE.size
        entries.append(_Entry(name, kind, DTYPE_OF.get(element, _BYTES), dims, nbytes, number, position))
    if all(entry.kind != _HELD for entry in entries):  # keys are new in each run
        if len(_PARSED) >= _MOST_PARSED:
            _PARSED.clear()
        _PARSED[layout] = entries
    return entries


def read_values(
    data: memoryview,
    offset: int,
    layout_nbytes: int,
    find: FindSlot,
    readings: list[Any],
    leases: set[int] | None = None,
) -> tuple[list[tuple[int, Any, int]], int]:
    """The values whose layout begins at ``offset``, as (name, value, bytes), and where their bytes end.

    Tensors in slots are read-only views; what is to be released after their last use is appended to ``readings``.
    With ``leases`` (those that stand) large ones that nobody else reads are given as they lie, to be written too.
    """
    layout = data[offset : offset + layout_nbytes].tobytes()
    offset += layout_nbytes
    found: list[tuple[int, Any, int]] = []
    for name, kind, dtype, dims, nbytes, number, position in _PARSED.get(layout) or _parse(layout):
        if kind == _TENSOR:
            # the message's buffer is used again: a copy, which is aligned too
            value: Any = np.ndarray(dims, dtype, data, offset).copy()
            offset += nbytes
        elif kind == _HELD:
            value = Held(position)
        elif kind == _PICKLE:
            value = pickle.loads(data[offset : offset + nbytes])
            offset += nbytes
        elif kind == DEVICE:
            page = find(number)
            value = page.value(dtype, dims, nbytes)
            readings.append(page.page)
        else:
            reading = Reading(find(number), position, nbytes)
            if kind == _PICKLE_SLOT:
                value = pickle.loads(reading.payload().data)
                reading.release()
            elif kind == _SLOT and leases is not None and nbytes >= LEAST_LEASE_NBYTES and len(leases) < MOST_LEASES:
                value = np.asarray(Lease(reading, leases)).view(dtype).reshape(dims)
            else:
                value = reading.payload().view(dtype).reshape(dims)
                readings.append(reading)
        found.append((name, value, nbytes))
    return found, offset
