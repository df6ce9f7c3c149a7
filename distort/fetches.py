"""Fetches: values of a run become what users get, which shares no memory with feeds, weights or each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.graph.ir import SparseInitializer
from distort.graph.types import ValueType
from distort.native.devices import on_gpu
from distort.native.sparse import SparseTensor
from distort.native.values import OrtValue

Array = np.ndarray[Any, Any]


def _holders(values: Sequence[Any], index: int) -> int:
    """References to a value that a list holds."""
    return sys.getrefcount(values[index])


def _base_holders(array: Array) -> int:
    """References to the array that ``array`` is a view of."""
    return sys.getrefcount(array.base)


def _alone() -> tuple[int, int]:
    """What the two functions above count where nobody else holds the value; it depends on the interpreter."""
    owner = [np.zeros(2)]
    view = [np.zeros(2)[:1]]
    return _holders(owner, 0), _base_holders(view[0])


_ALONE, _BASE_ALONE = _alone()


def fresh(values: list[Any], index: int) -> Array:
    """The array at ``index`` as the caller's own: writeable, C-contiguous, nobody else's memory.

    A kernel may hand out its input, a weight, or a view of one, and most hand out memory that they just made. Only
    the former are copied; the reference count of the memory's owner tells them apart.
    """
    array = values[index]
    if type(array) is not np.ndarray:
        return np.array(array)  # a 0-d result as numpy's scalar
    # one holder more than alone: the name here
    if array.flags.carray and _holders(values, index) == _ALONE + 1 and _owns(array):
        return array
    return array.copy(order="C")


def _owns(array: Array) -> bool:
    """Whether the memory is the array's, or is of an array that only this view of it keeps alive.

    Memory that is no array's says of itself whether it is (``exclusive``): a slot that an actor wrote for us.
    """
    if array.base is None:
        return array.flags.owndata
    if _base_holders(array) != _BASE_ALONE:
        return False
    if type(array.base) is not np.ndarray:
        return getattr(array.base, "exclusive", False)
    return array.base.flags.owndata or (array.base.base is not None and _owns(array.base))


def to_users(values: list[Any]) -> list[Any]:
    """Values of a run as ``run`` returns them. ``values`` must hold the only references that the caller has."""
    return [to_user(values, i) for i in range(len(values))]


def to_user(values: list[Any], index: int) -> Any:
    """The value at ``index`` as :func:`to_users` has it."""
    return fresh(values, index) if isinstance(values[index], np.ndarray) else own(values[index])


#: keys and values of maps that are Python's own
_PLAIN = frozenset([str, int, float])


def own(value: Any) -> Any:
    """A copy of any value, as users get it: containers, sparse tensors, scalars and nothing too."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return value.copy(order="C")
    if isinstance(value, np.generic):
        return np.array(value)
    if isinstance(value, (list, tuple)):
        return [own(item) for item in value]
    if isinstance(value, dict):
        if _PLAIN.issuperset(map(type, value)) and _PLAIN.issuperset(map(type, value.values())):
            return value.copy()
        return {_scalar(key): _scalar(item) for key, item in value.items()}
    if isinstance(value, SparseInitializer):
        return SparseTensor._of(SparseInitializer(value.values.copy(), value.indices.copy(), value.dims))
    return np.array(value)


def _scalar(value: Any) -> Any:
    """A key or a value of a map as Python's own number or text."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def contained(value: Any) -> Any:
    """A value for an OrtValue: as a run returns it, sparse tensors in the form that runs take."""
    copied = own(value)
    return copied._coordinates() if isinstance(copied, SparseTensor) else copied


def to_ort_value(values: list[Any], index: int, declared: ValueType | None) -> OrtValue:
    """A handle of the value at ``index``, which stays on its actor if that is where it is."""
    value = values[index]
    if hasattr(value, "fetch") or on_gpu(value):
        return OrtValue._of(value, declared)
    if isinstance(value, np.ndarray):
        del value  # another name would count as another holder
        return OrtValue._of(fresh(values, index), declared)
    return OrtValue._of(contained(value), declared)
