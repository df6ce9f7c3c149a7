"""Calls of operations that differ only in where their tensors lie: layers of a model are alike."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.ir import Address, Buffer, Call, Operation, Tensor, Word

#: what says nothing about calls
_OTHER = frozenset(["inputs", "outputs", "names", "region"])
#: a call, and where its words hold addresses: (position, number of a tensor, bytes from its begin)
_Pattern = tuple[Call, list[tuple[int, int, int]]]


#: keys that are remembered, beyond those of one plan
_MOST_KNOWN = 1024


class Repeats:
    """``repeats`` of an operation says that its calls follow from its fields and its tensors' views.

    Plans share one: of a step that decodes a token, most operations are the same for all lengths of the past.
    """

    def __init__(self, target: Target, n_threads: int) -> None:
        self._target, self._n_threads = target, n_threads
        #: with fields that are part of the key by ``id``
        self._known: dict[tuple[Any, ...], tuple[list[_Pattern] | None, list[Any]]] = {}

    def trim(self) -> None:
        """Between plans: forget what was, where it has become much."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()

    def calls(self, operation: Operation) -> list[Call]:
        if not operation.repeats:
            return operation.calls(self._target, self._n_threads)
        tensors = [*operation.inputs, *operation.outputs]
        number: dict[Buffer, int] = {}
        views: list[Any] = []
        for i, t in enumerate(tensors):
            first = number.setdefault(t.buffer, i)
            views += (first, t.offset - tensors[first].offset, t.shape, t.strides, t.dtype, t.block)
        kind: Any = type(operation)
        fields = [getattr(operation, name) for name in _fields(kind)]
        # most of the same expressions are one object, and they take long to hash
        key = (kind, *[id(value) if type(value) is Expression else value for value in fields], *views)
        known = self._known.get(key)
        if known is not None and known[0] is not None:
            return [_moved(pattern, tensors) for pattern in known[0]]
        calls = operation.calls(self._target, self._n_threads)
        if key not in self._known:
            self._known[key] = _patterns(calls, tensors, number), fields
        return calls


@functools.cache
def _fields(kind: Hashable) -> list[str]:
    assert isinstance(kind, type) and dataclasses.is_dataclass(kind)
    return [field.name for field in dataclasses.fields(kind) if field.name not in _OTHER]


def _begin(tensor: Tensor) -> int:
    return tensor.offset * tensor.dtype.itemsize


def _patterns(calls: list[Call], tensors: list[Tensor], number: dict[Buffer, int]) -> list[_Pattern] | None:
    """None where an address is of something else."""
    patterns = []
    for call in calls:
        places = []
        words: list[Word] = list(call.words)
        for position, word in enumerate(call.words):
            if isinstance(word, Address):
                words[position] = 0
                first = number.get(word.buffer)
                if first is None:
                    return None
                places.append((position, first, word.offset - _begin(tensors[first])))
        patterns.append((dataclasses.replace(call, words=words), places))
    return patterns


def _moved(pattern: _Pattern, tensors: list[Tensor]) -> Call:
    call, places = pattern
    words: list[Word] = list(call.words)
    for position, first, offset in places:
        words[position] = Address(tensors[first].buffer, _begin(tensors[first]) + offset)
    return Call(call.key, words, call.work_ns, call.scratch_nbytes, call.most_threads, call.meets)
