"""Reductions, arg-reductions, sums along an axis, softmax and its like, top k, at every version."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, case, since
from ..sweep import is_floating, samples, sweep

Numbers = np.ndarray[Any, Any]

_NAN, _INF = math.nan, math.inf
_X = (np.arange(24, dtype=np.float32).reshape(2, 3, 4) * 7 % 11) - 4.5
_FIRST_INPUT_AXES = {"ReduceSum": 13}  # the others: 18


def _log_sum_exp(x: Numbers, axis: Any, keepdims: bool) -> Numbers:
    most = np.max(x, axis=axis, keepdims=True, initial=-_INF)
    most = np.where(np.isfinite(most), most, 0)
    total = np.log(np.sum(np.exp(x - most), axis=axis, keepdims=True)) + most
    return total if keepdims else np.squeeze(total, axis=axis)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": lambda x, axis, keepdims: np.sum(x, axis=axis, keepdims=keepdims),
    "ReduceMean": lambda x, axis, keepdims: np.mean(x, axis=axis, keepdims=keepdims),
    "ReduceMax": lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims),
    "ReduceMin": lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims),
    "ReduceProd": lambda x, axis, keepdims: np.prod(x, axis=axis, keepdims=keepdims),
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(np.square(x), axis=axis, keepdims=keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
}
_EMPTY = {"ReduceSum": 0.0, "ReduceProd": 1.0, "ReduceL1": 0.0, "ReduceL2": 0.0, "ReduceSumSquare": 0.0}


def _reductions(name: str) -> list[Case]:
    function = _REDUCTIONS[name]
    first = _FIRST_INPUT_AXES.get(name, 18)
    old, new = since(name, 1, first - 1), since(name, first)
    x = np.abs(_X) if name == "ReduceLogSum" else _X

    def want(axis: Any, keepdims: bool = True) -> list[Numbers]:
        return [np.asarray(function(x.astype(np.float64), axis, keepdims)).astype(np.float32)]

    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        if dtype.kind == "b":
            value = np.array([[True, False], [False, False]])
            return [value], [function(value, None, True)]
        value = np.array([[1, 2, 3], [4, 1, 2]], np.float32).astype(dtype)
        result = function(value.astype(np.float64), None, True)
        return [value], [np.asarray(result).astype(dtype)]

    found = [
        case(name, inputs=[x], expected=want(None), label="all"),
        case(name, inputs=[x], expected=want(None, False), attributes={"keepdims": 0}, label="all-0d"),
        *sweep(name, make),
    ]
    forms: list[tuple[str, list[int], tuple[int, ...]]] = [("one", [1], (1,)), ("two", [0, 2], (0, 2))]
    for label, axes, axis in forms:
        for keepdims in (0, 1):
            known = {"expected": want(axis, bool(keepdims)), "label": f"{label}-{keepdims}"}
            found.append(case(name, *old, inputs=[x], attributes={"axes": axes, "keepdims": keepdims}, **known))
            given = np.array(axes, np.int64)
            found.append(case(name, *new, inputs=[x, given], attributes={"keepdims": keepdims}, **known))
    late = since(name, 11, first - 1)  # negative axes came with version 11
    found.append(case(name, *late, inputs=[x], expected=want((2,)), attributes={"axes": [-1]}, label="negative"))
    found.append(case(name, *new, inputs=[x, np.array([-1, 0])], expected=want((0, 2)), label="negative"))
    nothing = {"inputs": [x, np.array([], np.int64)], "attributes": {"noop_with_empty_axes": 1}, "label": "noop"}
    if name in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
        found.append(case(name, *new, expected=[x], **nothing))
    found.append(case(name, *new, inputs=[x, np.array([], np.int64)], expected=want(None), label="empty-axes"))
    if name in _EMPTY:
        rows = np.full((2, 1), _EMPTY[name], np.float32)
        for versions, inputs, attributes in (
            (old, [np.ones((2, 0), np.float32)], {"axes": [1]}),
            (new, [np.ones((2, 0), np.float32), np.array([1])], {}),
        ):
            found.append(case(name, *versions, inputs=inputs, expected=[rows], attributes=attributes, label="empty"))
    special = np.array([[1, _NAN], [_INF, 2], [-_INF, 1]], np.float32)
    known: dict[str, Any] = {"expected": [np.asarray(function(special, (1,), False))], "label": "special"}
    if name in ("ReduceMax", "ReduceMin"):
        known["onnxruntime_differs"] = "NaN is lost or not by its place"
    found.append(case(name, *old, inputs=[special], attributes={"axes": [1], "keepdims": 0}, **known))
    found.append(case(name, *new, inputs=[special, np.array([1])], attributes={"keepdims": 0}, **known))
    return found


_TIES = np.array([[3, 1, 3], [0, 0, -1]], np.float32)


def _arg(name: str, function: Callable[..., Any]) -> list[Case]:
    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        value = samples(dtype)
        wide = value.astype(np.float64) if is_floating(dtype) else value.astype(object)
        return [value], [np.array([list(wide).index(max(wide) if name == "ArgMax" else min(wide))])]

    last = 2 - function(_TIES[:, ::-1], axis=1)
    return [
        *sweep(name, make),
        case(name, inputs=[_X], expected=[function(_X, axis=0)[None]], label="default"),
        case(
            name,
            inputs=[_X],
            expected=[function(_X, axis=1)],
            attributes={"axis": 1, "keepdims": 0},
            label="1",
        ),
        case(
            name,
            *since(name, 11),
            inputs=[_X],
            expected=[function(_X, axis=2)[..., None]],
            attributes={"axis": -1},
            label="negative",
        ),
        case(name, inputs=[_TIES], expected=[function(_TIES, axis=1)[:, None]], attributes={"axis": 1}, label="ties"),
        case(
            name,
            *since(name, 12),
            inputs=[_TIES],
            expected=[last[:, None]],
            attributes={"axis": 1, "select_last_index": 1},
            label="last",
        ),
    ]


def _cumulative(name: str, identity: int, function: Callable[..., Any]) -> list[Case]:
    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        value = np.array([1, 2, 3, 1, 2], np.float32).astype(dtype)
        return [value, np.array(0, np.int64)], [function(value.astype(np.float64)).astype(dtype)]

    x = np.array([[1, 2, 3], [4, 5, 6]], np.float64)
    forms = []
    for exclusive in (0, 1):
        for reverse in (0, 1):
            y = x[:, ::-1] if reverse else x
            y = function(y, axis=1)
            if exclusive:
                y = np.concatenate([np.full((2, 1), identity), y[:, :-1]], axis=1)
            y = y[:, ::-1] if reverse else y
            for axis in (np.array(1, np.int32), np.array(-1, np.int64)):
                forms.append(
                    case(
                        name,
                        inputs=[x, axis],
                        expected=[y],
                        attributes={"exclusive": exclusive, "reverse": reverse},
                        label=f"{exclusive}{reverse}-{axis}",
                    )
                )
    return [*sweep(name, make), *forms, *sweep(name, lambda t: ([x, np.array(0, t)], [function(x, axis=0)]), "T2")]


def _softmax(x: Numbers, axis: int | tuple[int, ...]) -> Numbers:
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return shifted / np.sum(shifted, axis=axis, keepdims=True)


def _hardmax(x: Numbers, axis: int | tuple[int, ...]) -> Numbers:
    flat = x.reshape(-1, math.prod(x.shape[a] for a in axis)) if isinstance(axis, tuple) else np.moveaxis(x, axis, -1)
    result = (np.arange(flat.shape[-1]) == np.argmax(flat, axis=-1)[..., None]).astype(x.dtype)
    return result.reshape(x.shape) if isinstance(axis, tuple) else np.moveaxis(result, -1, axis)


def _softmaxes(name: str, function: Callable[..., Any]) -> list[Case]:
    """Before version 13 all dimensions from the axis on are one, and the axis is 1 unless told."""

    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        value = np.array([[1, 2, 3], [4, 1, 2]], np.float32).astype(dtype)
        return [value], [function(value.astype(np.float64), 1).astype(dtype)]

    def want(axis: int | tuple[int, ...]) -> list[Numbers]:
        return [function(_X.astype(np.float64), axis).astype(np.float32)]

    old, new = since(name, 1, 12), since(name, 13)
    return [
        *sweep(name, make, atol=1e-3),  # 16-bit floats are rounded after each step
        case(name, *old, inputs=[_X], expected=want((1, 2)), label="default"),
        case(name, *old, inputs=[_X], expected=want((0, 1, 2)), attributes={"axis": 0}, label="0"),
        case(name, 11, inputs=[_X], expected=want((1, 2)), attributes={"axis": -2}, label="negative"),
        case(name, *new, inputs=[_X], expected=want(-1), label="default"),
        case(name, *new, inputs=[_X], expected=want(0), attributes={"axis": 0}, label="0"),
        case(name, *new, inputs=[_X], expected=want(1), attributes={"axis": -2}, label="negative"),
        case(name, inputs=[_X[:0, 0]], expected=[_X[:0, 0]], label="empty"),
    ]


def _in_any_order(want: Numbers) -> Callable[[Numbers], None]:
    return lambda got: np.testing.assert_array_equal(np.sort(got, axis=1), np.sort(want, axis=1))


def _tops() -> list[Case]:
    x = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], np.float32)
    order = np.argsort(-x, axis=1, kind="stable")[:, :3]
    least = np.argsort(x, axis=1, kind="stable")[:, :2]
    k = np.array([3], np.int64)

    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        value = samples(dtype)
        wide = value.astype(np.float64 if is_floating(dtype) else object)
        best = sorted(range(5), key=lambda i: -wide[i])[:3]
        return [value, k], [value[best], np.array(best)]

    taken = [np.take_along_axis(x, order, 1), order]
    flipped = [np.ascontiguousarray(value.T) for value in taken]
    return [
        case("TopK", 1, inputs=[x], expected=taken, attributes={"k": 3}, label="k"),
        case("TopK", 1, inputs=[x.T.copy()], expected=flipped, attributes={"k": 3, "axis": 0}, label="axis"),
        *sweep("TopK", make, only=lambda version, dtype: version >= 10),
        case("TopK", *since("TopK", 10), inputs=[x, k], expected=taken, label="k"),
        case(
            "TopK", *since("TopK", 10), inputs=[x.T.copy(), k], expected=flipped, attributes={"axis": 0}, label="axis"
        ),
        case(
            "TopK",
            *since("TopK", 11),
            inputs=[x, np.array([2])],
            expected=[np.take_along_axis(x, least, 1), least],
            attributes={"largest": 0, "axis": -1},
            label="least",
        ),
        case(
            "TopK",
            *since("TopK", 11),
            inputs=[x, k],
            expected=[_in_any_order(value) for value in taken],
            attributes={"sorted": 0},
            label="unsorted",
        ),
        case(
            "TopK",
            *since("TopK", 10),
            inputs=[x, np.array([0])],
            expected=[x[:, :0], order[:, :0]],
            label="zero",
        ),
    ]


CASES = [
    *(item for name in _REDUCTIONS for item in _reductions(name)),
    *_arg("ArgMax", np.argmax),
    *_arg("ArgMin", np.argmin),
    *_cumulative("CumSum", 0, lambda x, axis=0: np.cumsum(x, axis=axis)),
    *_cumulative("CumProd", 1, lambda x, axis=0: np.cumprod(x, axis=axis)),
    *_softmaxes("Softmax", _softmax),
    *_softmaxes("LogSoftmax", lambda x, axis: np.log(_softmax(x, axis))),
    *_softmaxes("Hardmax", _hardmax),
    *_tops(),
]
