"""How messages and values are written: a fixed header, then values, each by its kind.

Small tensors lie in the message, large ones in a slot, and what is no tensor (strings, sequences, maps) is pickled.
Names are numbers in a table that both sides have.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.cluster.orders import Held
from distort.cluster.shm.slots import LEAST_LEASE_NBYTES, MOST_LEASES, Lease, Reading, Slot, SlotPool
from distort.graph.types import DTYPE_OF

#: tensors up to this size lie in the message
INLINE_NBYTES = 4096
#: and no message has more than this of them: what a socket takes at once is limited
MESSAGE_NBYTES = 65536

# a slot that is shared has other readers too
_TENSOR, _SLOT, _SHARED_SLOT, _PICKLE, _PICKLE_SLOT, _HELD = range(6)
_HEAD = struct.Struct("<HBBB")  # name, kind, element, rank
_SIZE = struct.Struct("<I")
_PLACE = struct.Struct("<IBQ")  # slot, position of the flag, bytes
_KEY = struct.Struct("<Q")
_DIMS = [struct.Struct(f"<{rank}q") for rank in range(33)]

_STRING = 8


@dataclass(frozen=True, slots=True)
class Staged:
    """A value ready to be sent: once to each of its readers."""

    kind: int
    element: int
    dims: tuple[int, ...]
    data: bytes  # in the message
    slot: Slot | None  # or in a slot
    nbytes: int


#: dtypes that travel as they are -> their elements
_ELEMENTS: dict[np.dtype[Any], int] = {
    dtype: number for number, dtype in DTYPE_OF.items() if number != _STRING and dtype.kind not in "OUST"
}


def in_slot(value: np.ndarray[Any, Any], slot: Slot) -> Staged:
    """A tensor that lies in a slot already."""
    kind = _SLOT if len(slot.readers) == 1 else _SHARED_SLOT
    return Staged(kind, _ELEMENTS[value.dtype], value.shape, b"", slot, value.nbytes)


def inline_limit(n_values: int) -> int:
    """The largest tensor that lies in a message of so many values."""
    return min(INLINE_NBYTES, MESSAGE_NBYTES // max(1, n_values))


def stage(value: Any, pool: SlotPool, readers: tuple[Any, ...], inline_nbytes: int = INLINE_NBYTES) -> Staged:
    """Prepare a value for its readers: copies it into the message or a slot. Raises OSError without memory."""
    element = _ELEMENTS.get(value.dtype) if isinstance(value, np.ndarray) and value.dtype.isnative else None
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
    """Parts of one message."""

    __slots__ = ("parts",)

    def __init__(self, head: bytes) -> None:
        self.parts: list[bytes] = [head]

    def add(self, name: int, staged: Staged, position: int) -> None:
        """A value; ``position`` is the receiver's among the value's readers."""
        parts = self.parts
        parts.append(_HEAD.pack(name, staged.kind, staged.element, len(staged.dims)))
        if staged.dims:
            parts.append(_DIMS[len(staged.dims)].pack(*staged.dims))
        slot = staged.slot
        if slot is None:
            parts.append(_SIZE.pack(len(staged.data)))
            parts.append(staged.data)
            return
        parts.append(_PLACE.pack(slot.number, position, staged.nbytes))

    def add_held(self, name: int, held: Held) -> None:
        self.parts.append(_HEAD.pack(name, _HELD, 0, 0))
        self.parts.append(_KEY.pack(held.key))


#: number of a slot -> its memory
FindSlot = Callable[[int], Any]


def read_values(
    data: memoryview,
    offset: int,
    count: int,
    find: FindSlot,
    readings: list[Reading],
    leases: set[int] | None = None,
) -> tuple[list[tuple[int, Any, int]], int]:
    """``count`` values from ``offset`` on, as (name, value, bytes), and where they end.

    Tensors in slots are read-only views; what is to be released after their last use is appended to ``readings``.
    With ``leases`` (those that stand) large ones that nobody else reads are given as they lie, to be written too.
    """
    found: list[tuple[int, Any, int]] = []
    for _ in range(count):
        name, kind, element, rank = _HEAD.unpack_from(data, offset)
        offset += _HEAD.size
        if kind == _HELD:
            (key,) = _KEY.unpack_from(data, offset)
            offset += _KEY.size
            found.append((name, Held(key), 0))
            continue
        dims = _DIMS[rank].unpack_from(data, offset)
        offset += 8 * rank
        if kind in (_TENSOR, _PICKLE):
            (nbytes,) = _SIZE.unpack_from(data, offset)
            offset += _SIZE.size
            raw = data[offset : offset + nbytes]
            offset += nbytes
            # the message's buffer is used again: a copy, which is aligned too
            value = (
                _tensor(np.frombuffer(raw, np.uint8), element, dims).copy() if kind == _TENSOR else pickle.loads(raw)
            )
        else:
            number, position, nbytes = _PLACE.unpack_from(data, offset)
            offset += _PLACE.size
            reading = Reading(find(number), position, nbytes)
            if kind == _PICKLE_SLOT:
                value = pickle.loads(reading.payload().data)
                reading.release()
            elif kind == _SLOT and leases is not None and nbytes >= LEAST_LEASE_NBYTES and len(leases) < MOST_LEASES:
                value = _tensor(np.asarray(Lease(reading, leases)), element, dims)
            else:
                value = _tensor(reading.payload(), element, dims)
                readings.append(reading)
        found.append((name, value, nbytes))
    return found, offset


def _tensor(payload: np.ndarray[Any, Any], element: int, dims: Sequence[int]) -> np.ndarray[Any, Any]:
    return payload.view(DTYPE_OF[element]).reshape(dims)
