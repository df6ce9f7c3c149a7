"""Gathering, scattering, selecting, padding, at every version and for every element type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, case, since
from ..sweep import is_floating, samples, sweep

Array = np.ndarray[Any, Any]

_X = np.arange(12, dtype=np.float32).reshape(3, 4)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _swept(name: str, make: Callable[[Array], tuple[list[Any], list[Any]]], **more: Any) -> list[Case]:
    return sweep(name, lambda dtype: make(np.resize(samples(dtype), (3, 2))), more.pop("variable", "T"), **more)


def _gathers() -> list[Case]:
    index = np.array([[0, 2], [1, 1]], np.int64)
    back = np.array([[-1, 0], [-3, 2]], np.int32)
    along = np.array([[0, 1, 0, 2], [2, 0, 1, 1]], np.int64)
    nd = np.array([[0, 1], [2, 3]], np.int64)
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    batched = np.array([[[1], [0]], [[2], [2]]], np.int64)
    return [
        case("Gather", inputs=[_X, index], expected=[_X[index]]),
        case("Gather", inputs=[_X, index], expected=[_X[:, index]], attributes={"axis": 1}, label="axis"),
        case("Gather", inputs=[_X, np.array(1, np.int32)], expected=[_X[1]], label="0d"),
        case("Gather", inputs=[_X, index[:0]], expected=[_X[index[:0]]], label="empty"),
        case("Gather", *since("Gather", 11), inputs=[_X, back], expected=[_X[back]], label="negative"),
        case("Gather", inputs=[_X, index], expected=[_X[:, index]], attributes={"axis": -1}, label="negative-axis"),
        *_swept("Gather", lambda x: ([x, ints(2, 0)], [x[[2, 0]]]), only=lambda version, dtype: dtype.kind != "O"),
        case(
            "Gather",
            inputs=[np.array(["", "a", "é"], object), ints(2, 1)],
            expected=[np.array(["é", "a"], object)],
            label="strings",
        ),
        case("GatherElements", inputs=[_X, along], expected=[np.take_along_axis(_X, along, 0)]),
        case(
            "GatherElements",
            inputs=[_X, along.T.astype(np.int32)[:3] - 1],
            expected=[np.take_along_axis(_X, along.T[:3] - 1, 1)],
            attributes={"axis": -1},
            label="negative",
        ),
        *_swept(
            "GatherElements",
            lambda x: ([x, np.array([[2, 0]])], [np.array([[x[2, 0], x[0, 1]]], x.dtype)]),
        ),
        case("GatherND", inputs=[_X, nd], expected=[_X[[0, 2], [1, 3]]]),
        case("GatherND", inputs=[_X, nd[:, :1]], expected=[_X[[0, 2]]], label="rows"),
        case("GatherND", inputs=[_X, nd - 3], expected=[_X[[-3, -1], [-2, 0]]], label="negative"),
        case(
            "GatherND",
            *since("GatherND", 12),
            inputs=[cube, batched],
            expected=[np.stack([cube[0][[1, 0]], cube[1][[2, 2]]])],
            attributes={"batch_dims": 1},
            label="batch",
        ),
        *_swept("GatherND", lambda x: ([x, np.array([[2, 0], [0, 1]])], [np.array([x[2, 0], x[0, 1]], x.dtype)])),
    ]


_REDUCE: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": max,
    "min": min,
}


def _scattered(x: Array, index: Array, updates: Array, axis: int, reduction: str) -> Array:
    y = x.copy()
    for place in np.ndindex(index.shape):
        to = list(place)
        to[axis] = int(index[place])
        y[tuple(to)] = _REDUCE[reduction](y[tuple(to)], updates[place])
    return y


def _scattered_nd(x: Array, index: Array, updates: Array, reduction: str) -> Array:
    y = x.copy()
    for place in np.ndindex(index.shape[:-1]):
        to = tuple(index[place])
        old, new = y[to], updates[place]
        y[to] = np.vectorize(_REDUCE[reduction])(old, new) if np.ndim(old) else _REDUCE[reduction](old, new)
    return y


_ring = np.zeros((2, 1, 4, 2), np.float32)
_ring[[0, 0, 1, 1], 0, [1, 2, 3, 0]] = 1


def _scatters() -> list[Case]:
    index = np.array([[0, 1, 2, 0], [2, 0, 0, 1]], np.int64)
    updates = np.array([[10, 11, 12, 13], [-14, -15, -16, -17]], np.float32)
    found = []
    for name, versions in (("Scatter", (9,)), ("ScatterElements", since("ScatterElements", 11))):
        found += [
            case(name, *versions, inputs=[_X, index, updates], expected=[_scattered(_X, index, updates, 0, "none")]),
            case(
                name,
                *versions,
                inputs=[_X, index[:, :3].T.astype(np.int32), updates[:, :3].T.copy()],
                expected=[_scattered(_X, index[:, :3].T, updates[:, :3].T, 1, "none")],
                attributes={"axis": 1},
                label="axis",
            ),
            *_swept(
                name,
                lambda x: (
                    [x, np.array([[2, 0]]), x[1:2]],
                    [_scattered(x, np.array([[2, 0]]), x[1:2], 0, "none")],
                ),
                only=lambda version, dtype, allowed=versions: version in allowed,
            ),
        ]
    found += [
        case(
            "ScatterElements",
            inputs=[_X, index - 3, updates],
            expected=[_scattered(_X, index - 3, updates, 0, "none")],
            label="negative",
        ),
        case("ScatterElements", inputs=[_X, index[:0], updates[:0]], expected=[_X], label="empty"),
    ]
    repeated = np.array([[0, 0, 0, 0], [0, 0, 1, 1]], np.int64)
    nd = np.array([[0, 1], [2, 3], [0, 1]], np.int64)
    rows = np.array([[0], [2], [0]], np.int64)
    for reduction in _REDUCE:
        first = {"none": 11, "add": 16, "mul": 16, "max": 18, "min": 18}[reduction]
        attributes = {"reduction": reduction} if first > 11 else {}
        if reduction != "none":  # which of several updates stays is nobody's promise
            found.append(
                case(
                    "ScatterElements",
                    *since("ScatterElements", first),
                    inputs=[_X, repeated, updates],
                    expected=[_scattered(_X, repeated, updates, 0, reduction)],
                    attributes=attributes,
                    label=reduction,
                )
            )
        some = slice(0, 2) if reduction == "none" else slice(0, 3)
        found += [
            case(
                "ScatterND",
                *since("ScatterND", first),
                inputs=[_X, nd[some], updates[0, some]],
                expected=[_scattered_nd(_X, nd[some], updates[0, some], reduction)],
                attributes=attributes,
                label=reduction,
            ),
            case(
                "ScatterND",
                *since("ScatterND", first),
                inputs=[_X, rows[some], np.resize(updates, (3, 4))[some]],
                expected=[_scattered_nd(_X, rows[some], np.resize(updates, (3, 4))[some], reduction)],
                attributes=attributes,
                label=f"{reduction}-rows",
            ),
        ]
    return [
        *found,
        *_swept("ScatterND", lambda x: ([x, ints(2)[None], x[:1]], [np.concatenate([x[:2], x[:1]])])),
        case(
            "TensorScatter",
            inputs=[np.zeros((2, 1, 4, 2), np.float32), np.ones((2, 1, 2, 2), np.float32), ints(1, 3)],
            expected=[_ring],
            attributes={"mode": "circular"},
        ),
    ]


def _selections() -> list[Case]:
    mask = np.array([True, False, True])
    sparse = np.array([[0, 1, 0], [2, 0, -0.0]], np.float32)
    words = np.array([3, 1, 1, 2, 3], np.float32)
    table = np.array([[1, 0], [0, 1], [1, 0]], np.float32)

    def non_zero(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        x = samples(dtype)
        zero = "" if dtype.kind == "O" else 0
        return [x], [np.array([[i for i, value in enumerate(x.tolist()) if value != zero]])]

    def unique(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        x = np.roll(samples(dtype), 2)
        x = np.concatenate([x, x[:2]])
        keys = list(x) if not is_floating(dtype) else [float(value) for value in x]
        ordered = sorted(set(keys))
        first = [keys.index(key) for key in ordered]
        inverse = [ordered.index(key) for key in keys]
        counts = [keys.count(key) for key in ordered]
        return [x], [x[first], *(np.array(value) for value in (first, inverse, counts))]

    return [
        case("Compress", inputs=[_X, mask], expected=[_X[mask]], attributes={"axis": 0}),
        case("Compress", inputs=[_X, mask], expected=[_X[:, [0, 2]]], attributes={"axis": 1}, label="short"),
        case("Compress", inputs=[_X, mask], expected=[np.array([0, 2], np.float32)], label="flat"),
        case(
            "Compress",
            *since("Compress", 11),
            inputs=[_X, mask],
            expected=[_X[:, [0, 2]]],
            attributes={"axis": -1},
            label="negative",
        ),
        *_swept("Compress", lambda x: ([x, mask], [x[mask]]), attributes={"axis": 0}),
        case("NonZero", inputs=[sparse], expected=[np.array([[0, 1], [1, 0]])]),
        case("NonZero", inputs=[sparse[:0]], expected=[np.zeros((2, 0), np.int64)], label="empty"),
        *sweep("NonZero", non_zero),
        case("Where", inputs=[mask[:, None], _X, _X[0]], expected=[np.where(mask[:, None], _X, _X[0])]),
        *_swept("Where", lambda x: ([mask[:, None], x, x[::-1].copy()], [np.where(mask[:, None], x, x[::-1])])),
        *sweep("Unique", unique),
        case(
            "Unique",
            inputs=[words],
            expected=[np.array([3, 1, 2], np.float32), ints(0, 1, 3), ints(0, 1, 1, 2, 0), ints(2, 2, 1)],
            attributes={"sorted": 0},
            label="unsorted",
        ),
        case(
            "Unique",
            inputs=[table],
            expected=[table[[1, 0]], ints(1, 0), ints(1, 0, 1), ints(1, 2)],
            attributes={"axis": 0},
            label="rows",
        ),
        case(
            "Unique",
            inputs=[table.T.copy()],
            expected=[table[:2].T.copy(), ints(0, 1), ints(0, 1, 0), ints(2, 1)],
            attributes={"axis": -1, "sorted": 0},
            label="columns",
        ),
    ]


def _one_hots() -> list[Case]:
    index = np.array([[0, 2], [1, 5]], np.int64)
    values = np.array([-1, 2], np.float32)
    rows = np.where(index[..., None] == np.arange(3), 2, -1).astype(np.float32)
    back = np.where((index - 3)[..., None] % 3 == np.arange(3), 2, -1).astype(np.float32)
    back[1, 1] = -1  # 2 is in range, -3 + 5: its place
    back[1, 1, 2] = 2

    def values_of(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        pair = samples(dtype)[:2]
        return [ints(1), np.array(2), pair], [np.array([[pair[0], pair[1]]], dtype)]

    def indices_of(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        return [np.array([1, 0], np.float32).astype(dtype), np.array([2]), values], [values[[[0, 1], [1, 0]]]]

    def depths_of(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        return [ints(1, 0), np.array(2, np.float32).astype(dtype), values], [values[[[0, 1], [1, 0]]]]

    return [
        case("OneHot", inputs=[index, np.array(3), values], expected=[rows]),
        case(
            "OneHot",
            inputs=[index, ints(3), values],
            expected=[np.moveaxis(rows, -1, 0)],
            attributes={"axis": 0},
            label="axis",
        ),
        case(
            "OneHot", *since("OneHot", 11), inputs=[index - 3, np.array(3), values], expected=[back], label="negative"
        ),
        *sweep("OneHot", values_of, "T3", label="values-"),
        *sweep("OneHot", indices_of, "T1", label="indices-"),
        *sweep("OneHot", depths_of, "T2", label="depth-"),
    ]


def _reversals() -> list[Case]:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)  # time, batch
    lengths = ints(4, 1, 2)
    want = x.copy()
    for column, length in enumerate(lengths):
        want[:length, column] = x[:length, column][::-1]
    return [
        case("ReverseSequence", inputs=[x, lengths], expected=[want]),
        case(
            "ReverseSequence",
            inputs=[x.T.copy(), lengths],
            expected=[want.T.copy()],
            attributes={"batch_axis": 0, "time_axis": 1},
            label="batch-first",
        ),
        *_swept("ReverseSequence", lambda v: ([v, ints(2, 3)], [np.stack([v[[1, 0, 2], 0], v[[2, 1, 0], 1]], 1)])),
    ]


def _pads() -> list[Case]:
    found = []
    flat = [0, 1, 1, 2]  # begins, then ends
    widths = [(0, 1), (1, 2)]
    modes = {"constant": {"constant_values": 0}, "reflect": {}, "edge": {}, "wrap": {}}
    for mode, keywords in modes.items():
        first = {"wrap": 19}.get(mode, 1)
        want = np.pad(_X, widths, mode=mode, **keywords)  # type: ignore[call-overload]
        for version in since("Pad", first):
            name = "paddings" if version == 1 else "pads"
            attributes: dict[str, Any] = {"mode": mode}
            inputs = [_X]
            if version < 11:
                attributes[name] = flat
            else:
                inputs.append(ints(*flat))
            found.append(case("Pad", version, inputs=inputs, expected=[want], attributes=attributes, label=mode))
    seven = np.pad(_X, widths, constant_values=7)
    cut = np.pad(_X[1:, :-1], [(0, 0), (2, 0)])
    late = since("Pad", 11)
    found += [
        case("Pad", 1, inputs=[_X], expected=[seven], attributes={"paddings": flat, "value": 7.0}, label="value"),
        case("Pad", 2, inputs=[_X], expected=[seven], attributes={"pads": flat, "value": 7.0}, label="value"),
        case("Pad", 2, inputs=[_X], expected=[cut], attributes={"pads": [-1, 2, 0, -1]}, label="negative"),
        case("Pad", *late, inputs=[_X, ints(*flat), np.float32(7)], expected=[seven], label="value"),
        case("Pad", *late, inputs=[_X, ints(-1, 2, 0, -1)], expected=[cut], label="negative"),
        case(
            "Pad",
            *since("Pad", 18),
            inputs=[_X, ints(1, 2), None, ints(-1)],
            expected=[np.pad(_X, [(0, 0), (1, 2)])],
            label="axes",
        ),
    ]
    return [
        *found,
        *_swept(
            "Pad",
            lambda x: ([x, ints(0, 1, 0, 0), x[0, 0]], [np.concatenate([np.full((3, 1), x[0, 0], x.dtype), x], 1)]),
            only=lambda version, dtype: version >= 11,
        ),
    ]


CASES = [
    *_gathers(),
    *_scatters(),
    *_selections(),
    *_one_hots(),
    *_reversals(),
    *_pads(),
]
