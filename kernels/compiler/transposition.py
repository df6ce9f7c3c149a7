"""Copies whose result's last loop is short and no loop of the operand's: see ``codegen.transposition``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.ir import Buffer, Call, Map, Place, Tensor, Word
from distort.kernels.compiler.keys import Key

#: the result's last loops are taken together until they have so many elements; a table never has more than the other
_ENOUGH, _MOST = 64, 8192
#: loops at least so long are another kernel's
_LONG = 64
#: so few elements are interleaved
_FEW = 4
_CHUNK = 1024
_ELEMENT_NS = 0.3


def transposed_copy(
    operation: Map, shape: Sequence[int], strides: Sequence[Sequence[int]], target: Target
) -> Call | None:
    """The call, or None where another way is better. Loops are merged, and in the order of the result's strides."""
    if operation.expression.body or len(strides) != 2 or len(shape) < 2:
        return None
    (x, result), (x_steps, steps) = (operation.inputs[0], operation.outputs[0]), strides
    if x.dtype != result.dtype or steps[-1] != 1 or x_steps[-1] in (0, 1) or shape[-1] >= _LONG:
        return None
    along = next((i for i in range(len(shape) - 1) if x_steps[i] == 1), None)
    if along is None:
        return None
    element, last = f"i{8 * x.dtype.itemsize}", len(shape) - 1
    first = last
    while first - 1 > along and math.prod(shape[first:]) < _ENOUGH and math.prod(shape[first - 1 :]) <= _MOST:
        if steps[first - 1] != math.prod(shape[first:]):
            break
        first -= 1
    outer = [i for i in range(first) if i != along]
    n_a, n_j = shape[along], math.prod(shape[first:])
    loops = [[values[i] for i in outer] for values in (shape, x_steps, steps)]
    work = math.prod(shape) * _ELEMENT_NS
    if first == last and n_j <= _FEW and steps[along] == n_j:
        lanes = target.lanes(element)
        chunk = -(-_CHUNK // lanes) * lanes
        n_units = math.prod(loops[0]) * -(-n_a // chunk)
        words: list[Word] = [
            n_units,
            n_a,
            chunk,
            x.address(),
            x_steps[-1],
            result.address(),
            *(n for loop in loops for n in loop),
        ]
        return Call(Key("interleaved", (element, n_j, lanes, len(outer))), words, work, most_threads=n_units)
    from distort.kernels.compiler.codegen.transposition import side_of

    side = side_of(target, element, n_a, n_j)
    if side < 4:
        return None
    table = np.zeros(1, np.int64)
    for i in range(first, last + 1):
        table = (table[:, None] + np.arange(shape[i], dtype=np.int64) * x_steps[i]).reshape(-1)
    n_units = math.prod(loops[0]) * -(-n_a // side)
    words = [n_units, n_a, n_j, x.address(), _constant(table).address(), result.address(), steps[along]]
    words += [n for loop in loops for n in loop]
    return Call(Key("squares", (element, side, len(outer))), words, work, most_threads=n_units)


def _constant(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
    buffer = Buffer(array.nbytes, Place.CONSTANT, array)
    return Tensor(array.dtype, array.shape, (1,), buffer, value=array)
