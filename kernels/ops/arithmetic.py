"""Arithmetic of two or more tensors: Add, Sub, Mul, Div, Pow, Mod, Max, Min, Sum, Mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.ops.elementwise import (
    as_array,
    before_7,
    binary_ufunc,
    is_half,
    rounded,
    unbroadcastable,
    working,
)
from distort.kernels.registry import kernel

binary_ufunc("Add", "add", old=(1, 6))
binary_ufunc("Sub", "subtract", old=(1, 6))
binary_ufunc("Mul", "multiply", old=(1, 6))


def _refuse_zero(xp: Any, divisor: Any) -> None:
    if xp is np and not divisor.all():
        raise Failed("Integer division by zero")


@kernel("Div", 7)
def divide(xp: Any, a: Any, b: Any) -> Any:
    """Integers divide as in C: the quotient is cut towards zero."""
    try:
        if a.dtype.kind not in "iu":
            return as_array(xp, xp.divide(a, b))
        _refuse_zero(xp, b)
        quotient = xp.asarray(xp.floor_divide(a, b))
        if a.dtype.kind == "i":
            inexact = xp.not_equal(xp.multiply(quotient, b), a)
            quotient += xp.logical_and(xp.less(quotient, 0), inexact)
        return quotient
    except ValueError as error:
        raise unbroadcastable(error, a, b) from error


before_7("Div", divide, 1, 6)


def _integer_power(xp: Any, a: Any, b: Any) -> Any:
    """a**b for integers, cut towards zero where b is negative: 0 but for bases 1 and -1.

    Base 0 then gives the dtype's smallest value: what infinity becomes as an integer, here and in onnxruntime.
    """
    if b.dtype.kind == "u":
        b = xp.minimum(b, 2**31 - 1).astype(xp.int64)  # such a power has wrapped to 0, 1 or -1 long before
    if not b.size or bool((b >= 0).all()):
        return xp.power(a, b)
    positive = xp.power(a, xp.maximum(b, 0))
    # for bases 1 and -1 the power has the parity of |b|
    unit = xp.where(xp.logical_and(a == -1, xp.bitwise_and(b, 1) == 1), -1, 1)
    fraction = xp.where(a == 0, xp.iinfo(a.dtype).min, 0)
    return xp.where(b >= 0, positive, xp.where(xp.abs(a) == 1, unit, fraction))


@kernel("Pow", 7)
def power(xp: Any, a: Any, b: Any) -> Any:
    """The result has the base's dtype; a mixed pair is computed in the wider of both."""
    try:
        if xp is np and b.size == 1 and b.ndim <= a.ndim and a.dtype.kind == "f":
            exponent = b.item()
            if exponent == 2:
                return as_array(xp, xp.multiply(a, a))
            if exponent == 3 and not is_half(a):
                cube = xp.asarray(xp.multiply(a, a))
                return xp.multiply(cube, a, out=cube)
        if a.dtype.kind in "iu" and b.dtype.kind in "iu":
            return rounded(xp, _integer_power(xp, a, b), a)
        if a.dtype == b.dtype:
            return as_array(xp, xp.power(a, b))
        return rounded(xp, xp.power(working(xp, a), working(xp, b)), a)
    except ValueError as error:
        raise unbroadcastable(error, a, b) from error


before_7("Pow", power, 1)


@kernel("Mod", 10)
def modulo(xp: Any, a: Any, b: Any, *, fmod: int = 0, opset: int = 28) -> Any:
    """fmod 0: the sign of the divisor; 1: of the dividend. Before version 28 floats need fmod 1."""
    floating = a.dtype.kind not in "iu"
    if floating and not fmod and opset < 28:
        raise InvalidInput("fmod attribute must be 1 for floating point types")
    if not floating:
        _refuse_zero(xp, b)
    operation = xp.fmod if fmod else xp.mod
    try:
        if is_half(a):
            return rounded(xp, operation(working(xp, a), working(xp, b)), a)
        return as_array(xp, operation(a, b))
    except ValueError as error:
        raise unbroadcastable(error, a, b) from error


def _fold(xp: Any, operation: Any, inputs: tuple[Any, ...]) -> Any:
    """Inputs combined from left to right, in place once the result has a buffer of its own."""
    result = inputs[0]
    own = False
    try:
        for item in inputs[1:]:
            if own and (item.shape == result.shape or not item.ndim):
                operation(result, item, out=result)
            else:
                result = xp.asarray(operation(result, item))
                own = True
    except ValueError as error:
        raise unbroadcastable(error, *inputs) from error
    return result


@kernel("Max", 8)
def maximum(xp: Any, *inputs: Any) -> Any:
    return _fold(xp, xp.maximum, inputs)


@kernel("Min", 8)
def minimum(xp: Any, *inputs: Any) -> Any:
    return _fold(xp, xp.minimum, inputs)


@kernel("Sum", 8)
def total(xp: Any, *inputs: Any) -> Any:
    if len(inputs) > 2 and is_half(inputs[0]):
        return rounded(xp, _fold(xp, xp.add, tuple(working(xp, item) for item in inputs)), inputs[0])
    return _fold(xp, xp.add, inputs)


@kernel("Mean", 8)
def mean(xp: Any, *inputs: Any) -> Any:
    if len(inputs) == 1:
        return inputs[0]
    whole = _fold(xp, xp.add, tuple(working(xp, item) for item in inputs))
    xp.divide(whole, len(inputs), out=whole)
    return rounded(xp, whole, inputs[0])


def _before_8(op_type: str, body: Any) -> None:
    """Before version 8 the inputs have one shape."""

    def old(xp: Any, *inputs: Any, consumed_inputs: Any = None) -> Any:
        shapes = [list(item.shape) for item in inputs]
        if any(shape != shapes[0] for shape in shapes):
            raise InvalidInput(f"inputs of one shape expected, got {shapes}")
        return body(xp, *inputs)

    kernel(op_type, (1, 6))(old)


for _op_type, _body in (("Max", maximum), ("Min", minimum), ("Sum", total), ("Mean", mean)):
    _before_8(_op_type, _body)
