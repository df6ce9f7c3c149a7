"""Bindings with a GPU at one of the ends: what is bound goes where it is read, results where they are bound.

Each copy between the host and a GPU is counted (``Engine.copies``): where nothing should cross, nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import errors, fetches
from distort.graph.types import TensorType, ValueType
from distort.kernels.cuda import device
from distort.native import gpu_values
from distort.native.devices import OrtDevice, on_gpu
from distort.native.values import OrtValue

if TYPE_CHECKING:
    from distort.engine import Engine

_STRING = 8


class OnGpu:
    """A binding's side of a session on a GPU: its inputs are to be there, but those that only this process reads."""

    def __init__(self, engine: Engine) -> None:
        program = engine.gpu
        self._engine = engine
        self._device_id = int(program.device_id)
        self._on_host = frozenset[str](program.host_inputs)
        self._copies: dict[str, Any] = {}  # of inputs that were bound on the host, by name

    def placed(self, name: str, value: OrtValue) -> OrtValue:
        """The value, or a copy of it where the session reads it."""
        held = value._value
        if on_gpu(held):
            if name in self._on_host:
                array = value._tensor()
                self._engine.copies.count(name, "d2h", array.nbytes)
                return OrtValue._of(array, value._type)
            made = self._engine.synchronize == value._settle  # by this session, whose stream keeps the order
            if not made:
                value._wait()
            if value._device_id() == self._device_id:
                return OrtValue._of(held, value._type)
            self._engine.copies.count(name, "p2p", int(held.nbytes))
            return OrtValue._of(gpu_values.moved(held, self._device_id), value._type)
        is_tensor = isinstance(held, np.ndarray) and isinstance(value._type, TensorType)
        if not is_tensor or name in self._on_host or value.element_type() == _STRING:
            return value
        self._engine.copies.count(name, "h2d", held.nbytes)
        return OrtValue._of(self._copied(name, held), value._type)

    def _copied(self, name: str, array: np.ndarray[Any, Any]) -> Any:
        """A copy on the GPU: where the last one lay if that fits, so that graphs that were captured find it there."""
        own = self._copies.get(name)
        if own is None or not gpu_values.holds(own, array):
            own = self._copies[name] = gpu_values.place(array, self._device_id)
            return own
        self._engine.synchronize_pending()  # a run may still read it
        gpu_values.write(own, array)
        return own

    def forget(self) -> None:
        """Let go of the copies."""
        self._copies.clear()

    def synchronize(self) -> None:
        """Wait for all work on the session's GPU, of whatever stream."""
        import cupy

        with device.current(self._device_id):
            cupy.cuda.runtime.deviceSynchronize()
        self._engine.synchronize()

    def memory_of(self, buffers: Mapping[str, OrtValue | None], inputs: Iterable[OrtValue]) -> dict[str, Any]:
        """Those buffers of outputs that a run can write to itself: C-contiguous, on its GPU and nobody else's, or on
        the host, where results come when all feeds have been read.

        A buffer on the GPU that is an input too, or another output's, is written to when the run is done.
        """
        used = [_extent(value._value) for value in inputs if on_gpu(value._value)]
        found: dict[str, Any] = {}
        for name, buffer in buffers.items():
            value: Any = None if buffer is None else buffer._value
            if isinstance(value, np.ndarray) and value.flags.c_contiguous and value.flags.writeable:
                found[name] = value
                continue
            if not on_gpu(value) or not value.flags.c_contiguous or int(value.device.id) != self._device_id:
                continue
            begin, end = _extent(value)
            if not any(begin < other_end and other < end for other, other_end in used):
                found[name] = value
            used.append((begin, end))
        return found


def _extent(array: Any) -> tuple[int, int]:
    """Addresses of the first byte of a contiguous array, and of what is behind its last."""
    begin = int(array.data.ptr)
    return begin, begin + int(array.nbytes)


def put(
    engine: Engine,
    name: str,
    results: list[Any],
    index: int,
    declared: ValueType | None,
    buffer: OrtValue | None,
    place: OrtDevice | None,
) -> OrtValue:
    """The result at ``index`` as the output ``name``: in its buffer, else on the GPU ``place``, else on the host."""
    result = results[index]
    told = partial(engine.copies.count, name)  # nothing of the session: a value may outlive it
    if buffer is not None:
        _write(engine, told, buffer, OrtValue._of(result, declared))
        buffer._settle = engine.pending
        return buffer
    if on_gpu(result) and place is None:
        engine.synchronize_pending()
        made = OrtValue._of(result, declared)
        told("d2h", int(result.nbytes))
        return OrtValue._of(gpu_values.fetch(result, made.element_type()), declared)
    if place is None or not (on_gpu(result) or isinstance(result, np.ndarray)):
        del result  # another name would count as another holder
        return fetches.to_ort_value(results, index, declared)
    if isinstance(result, np.ndarray):
        if result.dtype == object:
            raise errors.make("FAIL", f"Output {name} is text, which can't be on a GPU: bind it to 'cpu'.")
        told("h2d", result.nbytes)
        result = gpu_values.place(result, place.device_id())
    elif int(result.device.id) != place.device_id():
        engine.synchronize_pending()
        result = gpu_values.moved(result, place.device_id())
    value = OrtValue._of(result, declared)
    value._told, value._settle = told, engine.pending
    return value


def _write(engine: Engine, told: Callable[[str, int], None], buffer: OrtValue, result: OrtValue) -> None:
    """Write a result into a buffer, wherever the two are. Both have the same shape and type."""
    source, target = result._value, buffer._value
    if source is target:
        return  # the run wrote it there itself
    if on_gpu(source) and on_gpu(target):
        engine.move_on_gpu(target, source)
    elif on_gpu(source):
        engine.synchronize_pending()
        told("d2h", int(source.nbytes))
        if target.flags.c_contiguous:
            gpu_values.read_into(target, source)
        else:
            np.copyto(target, gpu_values.fetch(source, result.element_type()))
    elif on_gpu(target):
        told("h2d", int(source.nbytes))
        gpu_values.write(target, source)
    else:
        np.copyto(target, source)
