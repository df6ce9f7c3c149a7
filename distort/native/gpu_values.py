"""Tensors of OrtValues that lie on a GPU: made, read, written, handed to others. Imported where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distort import errors
from distort.graph.types import DTYPE_OF, SUB_BYTE_BITS
from distort.kernels.cuda import copies, device, memory
from distort.kernels.cuda.context import stream_of
from distort.native import dlpack

Array = np.ndarray[Any, Any]

#: CUDA's legacy default stream, as DLPack numbers it; CuPy and CUDA call it 0 too
_LEGACY = 1


def dtype_of(element: int) -> np.dtype[Any]:
    """NumPy's dtype of an ONNX element type that a GPU may hold. Raises RuntimeError for text."""
    dtype = DTYPE_OF[element]
    if dtype.kind == "O":
        raise RuntimeError(
            "Text has no place in a GPU's memory: leave string tensors in this process's, where the nodes that read "
            "them run too."
        )
    return dtype


def place(array: Array, device_id: int) -> Any:
    """A copy on a GPU."""
    with errors.translated():
        return copies.to_device(array, device_id)


def holds(value: Any, array: Array) -> bool:
    """Whether a GPU's tensor can have an array's elements."""
    return bool(value.shape == array.shape and value.dtype == memory.device_dtype(array.dtype))


def zeros(shape: Sequence[int], element: int, device_id: int) -> Any:
    """A tensor of zeros on a GPU."""
    dtype = dtype_of(element)
    with errors.translated():
        return memory.zeros(shape, dtype, device_id)


def pinned_zeros(shape: Sequence[int], element: int, device_id: int) -> Array:
    """A tensor of zeros in this process's memory, which GPUs copy from and to by themselves."""
    with device.current(device_id):
        made = copies.pinned(shape, dtype_of(element))
    made[...] = np.zeros((), made.dtype)
    return made


def over(pointer: int, shape: Sequence[int], element: int, device_id: int, owner: object = None) -> Any:
    """A tensor over a GPU's memory, which is not copied. Raises RuntimeError for what is no address of that GPU's."""
    try:
        return memory.array_of(pointer, shape, dtype_of(element), device_id, owner)
    except ValueError as error:
        raise RuntimeError(f"{error}.") from None


def fetch(value: Any, element: int) -> Array:
    """A copy in this process's memory, the caller's own."""
    (found,) = copies.to_host([value], [DTYPE_OF[element]])
    return found


def moved(value: Any, device_id: int) -> Any:
    """A copy of a GPU's tensor on a GPU, be it the same or another."""
    with errors.translated():
        return copies.moved(value, device_id)


def write(target: Any, source: Any) -> None:
    """Write an array's elements, on the host or a GPU, into a tensor on a GPU."""
    if isinstance(source, np.ndarray):
        copies.write(target, source)
    else:
        copies.move(target, source)


def read_into(target: Array, source: Any) -> None:
    """Write a GPU's tensor into a C-contiguous array of this process."""
    copies.read_into(target, source)


def export(value: Any, element: int, stream: Any) -> Any:
    """A DLPack capsule over the tensor's memory, ready to be read in the taker's ``stream``.

    What runs handed out is there already; ``stream`` waits for what this thread's current stream still does. -1: it
    doesn't. Raises RuntimeError, ValueError for a stream that DLPack doesn't allow.
    """
    import cupy

    if stream == 0:
        raise ValueError("DLPack's stream is 1 for CUDA's legacy default stream, 2 for a thread's; 0 is ambiguous.")
    with device.current(value.device.id):
        current = cupy.cuda.get_current_stream()
        taker = _LEGACY if stream is None else int(stream)
        if taker not in (-1, current.ptr or _LEGACY):
            stream_of(taker).wait_event(current.record(cupy.cuda.Event(disable_timing=True)))
    element_bits = SUB_BYTE_BITS.get(element)
    if element_bits:
        raise RuntimeError(f"DLPack has no packed type for {DTYPE_OF[element]}.")
    return dlpack.export_memory(
        value.data.ptr if value.size else 0, value.shape, element, (dlpack.CUDA, value.device.id), owner=value
    )


def taken(data: Any, device_id: int) -> tuple[Any, int]:
    """The tensor and element type of an object with DLPack's methods, not copied, ready to be read in any stream."""
    import cupy

    with device.current(device_id):
        legacy = cupy.cuda.Stream.null
        capsule = data.__dlpack__(stream=_LEGACY)  # this stream now waits for what makes the tensor
        legacy.synchronize()  # and runs, whose streams don't wait for that one, find it made
    return taken_capsule(capsule)


def taken_capsule(capsule: Any) -> tuple[Any, int]:
    """As :func:`taken`, of a capsule, whose maker must have waited for its stream, or use the default one."""
    import cupy

    given = dlpack.take_memory(capsule)
    if given.device[0] != dlpack.CUDA:
        raise RuntimeError(f"The tensor lies on a device of DLPack's type {given.device[0]}, which is not here.")
    with device.current(given.device[1]):
        cupy.cuda.Stream.null.synchronize()
    return over(given.pointer, given.shape, given.element, given.device[1], given.owner), given.element
