"""Element-wise work: what is computed for each element, from operands to results.

An expression is the body of a fused loop, or the epilogue of a matrix product or a convolution. It is a key's
parameter, so it consists of tuples, text and numbers only.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

#: numpy's name -> how a value is stored, and how it is computed with
STORED = {
    "float32": "float",
    "float64": "double",
    "float16": "half",
    "bfloat16": "bfloat",
    "bool": "i8",
    **{f"{sign}int{bits}": f"i{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
COMPUTED = STORED | {"float16": "float", "bfloat16": "float", "bool": "i1"}


class Instruction(NamedTuple):
    """``operands`` are numbers: first those of the expression's inputs, then those of its instructions, in order."""

    op: str
    operands: tuple[int, ...]
    dtype: str  # numpy's name of the result's
    attributes: tuple[Any, ...] = ()


class Expression(NamedTuple):
    inputs: tuple[str, ...]  # numpy's names of their dtypes
    body: tuple[Instruction, ...]
    results: tuple[int, ...]  # operands

    def dtype(self, operand: int) -> str:
        n_inputs = len(self.inputs)
        return self.inputs[operand] if operand < n_inputs else self.body[operand - n_inputs].dtype


@functools.cache
def identity(dtype: str) -> Expression:
    return Expression((dtype,), (), (0,))


@functools.cache
def of_sums(dtype: str) -> Expression:
    """Sums as they are stored. They are float32 where that is in half precision."""
    if COMPUTED[dtype] == STORED[dtype]:
        return identity(dtype)
    return Expression(("float32",), (Instruction("cast", (0,), dtype),), (1,))


@functools.cache  # numpy makes the text anew each time
def name_of(dtype: np.dtype[Any]) -> str:
    return str(dtype.name)
