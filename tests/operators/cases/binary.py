"""Functions of two or more numbers, at every version: broadcasting of old and new, all element types, edges."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ..case import Case, case, since
from ..sweep import is_floating, samples, sweep, types_of

Numbers = np.ndarray[Any, Any]

_NAN, _INF = math.nan, math.inf
_WIDE = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 11.5
_ROW = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
_MIDDLE = np.array([2.0, -0.5, 4.0], np.float32)
_TAIL = np.array([[2.0, -0.5, 4.0, 1.0], [1, 2, 3, 4], [-1, -2, -4, 8]], np.float32)

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}
_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"And": operator.and_, "Or": operator.or_, "Xor": operator.xor}
_OLD = [*_ARITHMETIC, "Equal", "Greater", "Less", *_LOGIC, "Pow"]


def _operands(name: str) -> tuple[Numbers, list[Numbers]]:
    if name in _LOGIC:
        return _WIDE > 0, [value > 0 for value in (_ROW, _MIDDLE, _TAIL)]
    if name == "Equal":  # no floats in its first versions
        return _WIDE.astype(np.int64), [value.astype(np.int64) for value in (_ROW, _MIDDLE, _TAIL)]
    if name == "Pow":
        return np.abs(_WIDE), [_ROW, _MIDDLE, _TAIL]
    return _WIDE, [_ROW, _MIDDLE, _TAIL]


def _function(name: str) -> Callable[[Any, Any], Any]:
    return {**_ARITHMETIC, **_COMPARISONS, **_LOGIC, "Pow": operator.pow}[name]


def _one_way(name: str) -> list[Case]:
    """Before opset 7 the second operand goes along the first where `broadcast` says so, from `axis` on."""
    function = _function(name)
    wide, (row, middle, tail) = _operands(name)
    old = since(name, 1, 6)
    consumed = {"consumed_inputs": [0, 0]} if name in _ARITHMETIC else {}
    found = [
        case(name, *old, inputs=[wide, wide], expected=[function(wide, wide)], label="same"),
        *(
            case(
                name,
                *old,
                inputs=[wide, value],
                expected=[function(wide, shaped)],
                attributes={"broadcast": 1, **({} if axis is None else {"axis": axis})},
                label=label,
            )
            for label, value, shaped, axis in (
                ("suffix", row, row, None),
                ("tail", tail, tail, 1),
                ("axis", middle, middle[:, None], 1),
                ("negative", middle, middle[:, None], -2),
                ("number", row[:1].reshape(()), row[0], None),
            )
        ),
    ]
    if consumed:
        found.append(case(name, 1, inputs=[wide, wide], expected=[function(wide, wide)], attributes=consumed))
    return found


def _both_ways(name: str) -> list[Case]:
    function = _function(name)
    wide, (row, middle, tail) = _operands(name)
    new = since(name, 7)
    column = middle[:, None]
    return [
        case(name, *new, inputs=[wide, row], expected=[function(wide, row)], label="row"),
        case(name, *new, inputs=[np.abs(row), wide], expected=[function(np.abs(row), wide)], label="left"),
        case(name, *new, inputs=[column, tail[:1]], expected=[function(column, tail[:1])], label="both")
        if name != "Pow"
        else case(name, *new, inputs=[row[:1], column], expected=[function(row[:1], column)], label="both"),
        case(name, *new, inputs=[wide[:, :0], row], expected=[function(wide[:, :0], row)], label="empty"),
        case(name, *new, inputs=[wide[1, 2, 3], row], expected=[function(wide[1, 2, 3], row)], label="0d"),
    ]


def _wrapped(values: Any, dtype: np.dtype[Any]) -> Numbers:
    """Python's integers as this type keeps them."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.array([int(value) % (1 << 8 * dtype.itemsize) for value in values], object).astype(unsigned).view(dtype)


def _arithmetic(name: str) -> list[Case]:
    function = _ARITHMETIC[name]

    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        if is_floating(dtype):
            y = np.array([4, -2, 1, 0.5, -1], np.float32).astype(dtype)
            return [x, y], [function(x.astype(np.float64), y.astype(np.float64)).astype(dtype)]
        y = np.array([3, 2, 7, 5, 1], dtype)
        pairs = zip(x.astype(object), y.astype(object), strict=True)
        if name == "Div":  # toward zero
            return [x, y], [_wrapped([abs(a) // b * (-1 if a < 0 else 1) for a, b in pairs], dtype)]
        return [x, y], [_wrapped([function(a, b) for a, b in pairs], dtype)]

    return sweep(name, make)


def _comparisons(name: str) -> list[Case]:
    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        y = np.roll(x, 1)
        y[2] = x[2]
        function = _COMPARISONS[name]
        ordered = [
            tuple(float(v) if is_floating(dtype) else v for v in pair)
            for pair in zip(x.tolist(), y.tolist(), strict=True)
        ]
        return [x, y], [np.array([function(a, b) for a, b in ordered])]

    special = np.array([_NAN, _INF, -0.0, -_INF], np.float32)
    other = np.array([_NAN, _INF, 0.0, 1.0], np.float32)
    versions = since(name, 11)
    return [
        *sweep(name, make),
        case(name, *versions, inputs=[special, other], expected=[_COMPARISONS[name](special, other)], label="special"),
    ]


_PAIR = [np.array([1, -_INF, _NAN, 4], np.float32), np.array([2, 1, 1, _NAN], np.float32)]
_TRIPLE = [_WIDE, _ROW, _MIDDLE[:, None]]


def _variadic(name: str, function: Callable[[Any, Any], Any], mean: bool = False) -> list[Case]:
    def fold(values: list[Numbers]) -> Numbers:
        total = functools.reduce(function, values)
        return total / np.float32(len(values)) if mean else total

    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        if is_floating(dtype):
            values = [x, x[::-1].copy(), np.ones(5, np.float32).astype(dtype)]
            return values, [np.asarray(fold([value.astype(np.float64) for value in values])).astype(dtype)]
        return [x, x[::-1].copy()], [function(x, x[::-1])]

    same = [_WIDE, _WIDE * 2, -_WIDE]
    return [
        case(name, inputs=same, expected=[fold(same)], label="same"),
        case(name, inputs=[_WIDE], expected=[_WIDE], label="one"),
        case(name, 1, inputs=same[:2], expected=[fold(same[:2])], attributes={"consumed_inputs": [0, 0]}),
        case(name, *since(name, 8), inputs=_TRIPLE, expected=[fold(_TRIPLE)], label="broadcast"),
        case(name, *since(name, 8), inputs=[_WIDE[:0], _ROW], expected=[fold([_WIDE[:0], _ROW])], label="empty"),
        case(name, inputs=_PAIR, expected=[fold(_PAIR)], label="special"),
        *sweep(name, make),
    ]


def _modulo() -> list[Case]:
    def make(fmod: int) -> Callable[[np.dtype[Any]], tuple[list[Numbers], list[Numbers]]]:
        def of(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
            if is_floating(dtype):
                x = np.array([5.5, -5.5, 5.5, -5.5, 2], np.float32).astype(dtype)
                y = np.array([2, 2, -2, -2, 4], np.float32).astype(dtype)
                return [x, y], [np.fmod(x.astype(np.float64), y.astype(np.float64)).astype(dtype)]
            signed = dtype.kind == "i"
            x = np.array([7, -7, 7, -7, 100] if signed else [7, 8, 9, 10, 100], dtype)
            y = np.array([3, 3, -3, -3, 7] if signed else [3, 3, 4, 7, 7], dtype)
            pairs = list(zip(x.astype(object), y.astype(object), strict=True))
            return [x, y], [np.array([int(math.fmod(a, b)) if fmod else a % b for a, b in pairs], dtype)]

        return of

    return [
        *sweep("Mod", make(0), only=lambda version, dtype: not is_floating(dtype)),
        *sweep("Mod", make(1), attributes={"fmod": 1}, label="fmod-"),
        case(
            "Mod",
            10,
            13,
            inputs=[np.array([[7], [-7]], np.int64), np.array([3, -3], np.int64)],
            expected=[np.array([[1, -2], [2, -1]], np.int64)],
            label="broadcast",
        ),
    ]


def _bf16(values: list[float]) -> Numbers:
    return np.array(values, np.float32).astype(ml_dtypes.bfloat16)


def _powers() -> list[Case]:
    def base(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = np.array([1, 2, 3, 4], np.float32).astype(dtype)
        y = np.array([3, 2, 0, 1], np.float32).astype(dtype)
        return [x, y], [np.array([1, 4, 1, 4], np.float32).astype(dtype)]

    def exponent(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        y = np.array([3, 2, 0, 1], np.float32).astype(dtype)
        return [np.array([1.5, 2, 3, 4], np.float32), y], [np.array([3.375, 4, 1, 4], np.float32)]

    special = [np.array([-8, 0, 4, -_INF, _NAN, 2], np.float32), np.array([3, 0, -0.5, 2, 0, _INF], np.float32)]
    return [
        # of version 13 bfloat16 is the base alone
        *sweep("Pow", base, only=lambda version, dtype: dtype in types_of("Pow", 12, "T")),
        case("Pow", 13, inputs=[_bf16([1.5, 2]), np.array([2, 3])], expected=[_bf16([2.25, 8])], label="bfloat16"),
        case("Pow", 15, inputs=[_bf16([1.5, 2]), _bf16([2, 3])], expected=[_bf16([2.25, 8])], label="bfloat16"),
        *(
            case("Pow", version, inputs=inputs, expected=expected, label=f"exponent-{dtype.name}")
            for version in since("Pow", 12)
            for dtype in types_of("Pow", version, "T1")
            for inputs, expected in [exponent(dtype)]
        ),
        case("Pow", inputs=special, expected=[np.array([-512, 1, 0.5, _INF, 1, _INF], np.float32)], label="special"),
    ]


def _bits(name: str, function: Callable[[Any, Any], Any]) -> list[Case]:
    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        y = np.array([1, 2, 3, 4, 5], dtype)
        pairs = zip(x.astype(object), y.astype(object), strict=True)
        return [x, y], [_wrapped([function(a, b) for a, b in pairs], dtype)]

    return sweep(name, make)


def _shifts(direction: str, function: Callable[[int, int], int]) -> list[Case]:
    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        y = np.array([0, 1, 3, 2, 4], dtype)
        pairs = zip(x.astype(object), y.astype(object), strict=True)
        return [x, y], [_wrapped([function(a, b) for a, b in pairs], dtype)]

    return sweep("BitShift", make, attributes={"direction": direction}, label=f"{direction}-")


def _slopes() -> list[Case]:
    def leak(x: Numbers, slope: Numbers) -> Numbers:
        return np.where(x < 0, x * slope, x)

    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        slope = np.array([2], np.float32).astype(dtype)
        if is_floating(dtype):
            return [x, slope], [leak(x.astype(np.float64), slope.astype(np.float64)).astype(dtype)]
        return [x, slope], [_wrapped([v * 2 if v < 0 else v for v in x.astype(object)], dtype)]

    channels = _MIDDLE  # along axis 1 before opset 7, as numpy's broadcasting has it after
    return [
        *sweep("PRelu", make),
        case("PRelu", 1, 6, inputs=[_WIDE, channels], expected=[leak(_WIDE, channels[:, None])], label="channels"),
        case("PRelu", 1, 6, inputs=[_WIDE, channels[:1]], expected=[leak(_WIDE, channels[:1])], label="shared"),
        case("PRelu", *since("PRelu", 7), inputs=[_WIDE, _ROW], expected=[leak(_WIDE, _ROW)], label="row"),
        case(
            "PRelu",
            *since("PRelu", 7),
            inputs=[_WIDE, channels[:, None]],
            expected=[leak(_WIDE, channels[:, None])],
            label="column",
        ),
    ]


def _clips() -> list[Case]:
    def make(dtype: np.dtype[Any]) -> tuple[list[Numbers], list[Numbers]]:
        x = samples(dtype)
        low, high = (np.array(value, np.float32).astype(dtype) for value in (0, 2))
        return [x, low, high], [np.clip(x.astype(np.float64), 0, 2).astype(dtype)]

    x = np.array([-5, -1, 0, 2, _INF, _NAN], np.float32)
    most = np.finfo(np.float32).max
    bounds = (("both", -1, 1), ("low", -1, None), ("high", None, 1), ("none", None, None))
    return [
        *(
            case(
                "Clip",
                *versions,
                inputs=[x],
                expected=[np.clip(x, low, high if high is not None or versions == (1,) else most)],
                attributes={name: float(bound) for name, bound in (("min", low), ("max", high)) if bound is not None},
                label=label,
            )
            for label, low, high in bounds
            for versions in ((1,), (6,))
        ),
        *(
            case(
                "Clip",
                *since("Clip", 11),
                inputs=[x, *(None if bound is None else np.float32(bound) for bound in (low, high))],
                expected=[np.clip(x, low, most if high is None else high)],
                label=label,
            )
            for label, low, high in bounds
        ),
        case(
            "Clip",
            *since("Clip", 12),
            inputs=[x, np.float32(3), np.float32(1)],
            expected=[np.minimum(np.maximum(x, 3), 1)],
            label="crossed",
        ),
        *sweep("Clip", make, only=lambda version, dtype: version >= 11),
    ]


CASES = [
    *(item for name in _OLD for item in (*_one_way(name), *_both_ways(name))),
    *(item for name in ("GreaterOrEqual", "LessOrEqual") for item in _both_ways(name)),
    *(item for name in _ARITHMETIC for item in _arithmetic(name)),
    *(item for name in _COMPARISONS for item in _comparisons(name)),
    *_variadic("Max", np.maximum),
    *_variadic("Min", np.minimum),
    *_variadic("Sum", operator.add),
    *_variadic("Mean", operator.add, mean=True),
    *_modulo(),
    *_powers(),
    *_bits("BitwiseAnd", operator.and_),
    *_bits("BitwiseOr", operator.or_),
    *_bits("BitwiseXor", operator.xor),
    *_shifts("LEFT", operator.lshift),
    *_shifts("RIGHT", operator.rshift),
    *_slopes(),
    *_clips(),
]
