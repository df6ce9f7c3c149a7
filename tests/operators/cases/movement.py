"""Operators that move elements or make shapes, at every version and for every element type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from ..case import Case, case, since
from ..sweep import samples, sweep, types_of

Array = np.ndarray[Any, Any]

_X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _grid(dtype: np.dtype[Any]) -> Array:
    """[2, 3] of this type."""
    return np.resize(samples(dtype), (2, 3))


def _swept(name: str, variable: str, make: Callable[[Array], tuple[list[Any], list[Any]]], **more: Any) -> list[Case]:
    return sweep(name, lambda dtype: make(_grid(dtype)), variable, **more)


def _attribute_then_input(
    name: str, first: int, x: Array, values: list[int], expected: list[Array], label: str, attribute: str = "axes"
) -> list[Case]:
    """What was an attribute is an input from version ``first`` on."""
    late = [since(name, 11, first - 1)] if min(values) < 0 else [since(name, 1, first - 1)]
    return [
        *(case(name, *v, inputs=[x], expected=expected, attributes={attribute: values}, label=label) for v in late),
        case(name, *since(name, first), inputs=[x, ints(*values)], expected=expected, label=label),
    ]


def _reshapes() -> list[Case]:
    forms = [
        ("plain", [4, 6], (4, 6)),
        ("rest", [3, -1], (3, 8)),
        ("zero", [0, 2, -1], (2, 2, 6)),
        ("flat", [-1], (24,)),
    ]
    return [
        *(
            case("Reshape", 1, inputs=[_X], expected=[_X.reshape(to)], attributes={"shape": shape}, label=label)
            for label, shape, to in forms
        ),
        *(
            case("Reshape", *since("Reshape", 5), inputs=[_X, ints(*shape)], expected=[_X.reshape(to)], label=label)
            for label, shape, to in forms
        ),
        case("Reshape", *since("Reshape", 5), inputs=[_X[:1, 0, 0], ints()], expected=[_X[0, 0, 0]], label="0d"),
        case(
            "Reshape",
            *since("Reshape", 14),
            inputs=[_X[:0], ints(3, 0, 2)],
            expected=[np.zeros((3, 0, 2), np.float32)],
            attributes={"allowzero": 1},
            label="allowzero",
        ),
        *_swept(
            "Reshape",
            "T",
            lambda x: ([x, ints(3, 2)], [x.reshape(3, 2)]),
            only=lambda version, dtype: version >= 5,
        ),
    ]


def _shape_of() -> list[Case]:
    ends = [(1, None), (None, -1), (-2, None), (0, 0), (-9, 9), (2, 1)]
    return [
        case("Shape", inputs=[_X], expected=[ints(2, 3, 4)]),
        case("Shape", inputs=[_X[0, 0, 0]], expected=[ints()], label="0d"),
        case("Size", inputs=[_X], expected=[np.array(24)]),
        case("Size", inputs=[_X[:0]], expected=[np.array(0)], label="empty"),
        *(
            case(
                "Shape",
                *since("Shape", 15),
                inputs=[_X],
                expected=[ints(*[2, 3, 4][slice(start, end)])],
                attributes={key: value for key, value in (("start", start), ("end", end)) if value is not None},
                label=f"{start}:{end}",
            )
            for start, end in ends
        ),
        *_swept("Shape", "T", lambda x: ([x], [ints(2, 3)])),
        *_swept("Size", "T", lambda x: ([x], [np.array(6)])),
    ]


def _flat() -> list[Case]:
    def make(x: Array) -> tuple[list[Any], list[Any]]:
        return [x], [x]

    return [
        case("Flatten", inputs=[_X], expected=[_X.reshape(2, 12)]),
        case("Flatten", inputs=[_X], expected=[_X.reshape(1, 24)], attributes={"axis": 0}, label="0"),
        case("Flatten", inputs=[_X], expected=[_X.reshape(24, 1)], attributes={"axis": 3}, label="last"),
        case(
            "Flatten",
            *since("Flatten", 11),
            inputs=[_X],
            expected=[_X.reshape(6, 4)],
            attributes={"axis": -1},
            label="negative",
        ),
        case("Flatten", inputs=[_X[:0]], expected=[np.zeros((0, 12), np.float32)], label="empty"),
        *_swept("Flatten", "T", make),
    ]


def _squeezes() -> list[Case]:
    x = _X.reshape(1, 2, 1, 12)
    return [
        case("Squeeze", inputs=[x], expected=[x.reshape(2, 12)], label="all"),
        *_attribute_then_input("Squeeze", 13, x, [0, 2], [x.reshape(2, 12)], "two"),
        *_attribute_then_input("Squeeze", 13, x, [-2], [x[:, :, 0]], "negative"),
        *_swept("Squeeze", "T", lambda v: ([v[None]], [v])),
        *_attribute_then_input("Unsqueeze", 13, _X, [0, 4], [_X[None, :, :, :, None]], "two"),
        *_attribute_then_input("Unsqueeze", 13, _X, [4, 0], [_X[None, :, :, :, None]], "unsorted"),
        *_attribute_then_input("Unsqueeze", 13, _X, [-1], [_X[..., None]], "negative"),
        *_attribute_then_input("Unsqueeze", 13, _X[0, 0, 0], [0], [_X[0, 0, :1]], "0d"),
        *_swept(
            "Unsqueeze",
            "T",
            lambda v: ([v, ints(1)], [v[:, None]]),
            only=lambda version, dtype: version >= 13,
        ),
    ]


def _transposes() -> list[Case]:
    return [
        case("Transpose", inputs=[_X], expected=[_X.T]),
        case("Transpose", inputs=[_X], expected=[_X.transpose(1, 2, 0)], attributes={"perm": [1, 2, 0]}, label="perm"),
        case("Transpose", inputs=[_X[0, 0, 0]], expected=[_X[0, 0, 0]], label="0d"),
        case("Transpose", inputs=[_X[:, :0]], expected=[_X[:, :0].T], label="empty"),
        *_swept("Transpose", "T", lambda x: ([x], [x.T.copy()])),
    ]


def _joins() -> list[Case]:
    pair = [_X, _X[:, :1] * -1]
    return [
        # the axis is 1 where version 1 leaves it out, and must be there after
        case("Concat", 1, inputs=pair, expected=[np.concatenate(pair, 1)], label="default"),
        case("Concat", inputs=pair, expected=[np.concatenate(pair, 1)], attributes={"axis": 1}),
        case(
            "Concat",
            *since("Concat", 11),
            inputs=[_X, _X[..., :0], _X[..., 1:2]],
            expected=[np.concatenate([_X, _X[..., 1:2]], 2)],
            attributes={"axis": -1},
            label="negative",
        ),
        case("Concat", inputs=[_X], expected=[_X], attributes={"axis": 0}, label="one"),
        *_swept("Concat", "T", lambda x: ([x, x[:1]], [np.concatenate([x, x[:1]])]), attributes={"axis": 0}),
    ]


def _splits() -> list[Case]:
    thirds = [_X[:, i : i + 1] for i in range(3)]
    parts = [_X[..., :1], _X[..., 1:]]
    early = since("Split", 1, 11)
    found = [
        case("Split", *since("Split", 1, 13), inputs=[_X], expected=thirds, attributes={"axis": 1}, label="even"),
        case(
            "Split",
            *since("Split", 18),
            inputs=[_X],
            expected=thirds,
            attributes={"axis": 1, "num_outputs": 3},
            label="even",
        ),
        case(
            "Split",
            *since("Split", 18),
            inputs=[_X],
            expected=[_X[..., :2], _X[..., 2:4], _X[..., 4:]][:2],
            attributes={"axis": -1, "num_outputs": 2},
            label="halves",
        ),
        case(
            "Split",
            *since("Split", 18),
            inputs=[_X[:, :, :3]],
            expected=[_X[..., :2], _X[..., 2:3]],
            attributes={"axis": 2, "num_outputs": 2},
            label="uneven",
        ),
        case("Split", *early, inputs=[_X], expected=parts, attributes={"axis": 2, "split": [1, 3]}, label="sizes"),
        case(
            "Split", 1, inputs=[_X, np.array([1, 3], np.float32)], expected=parts, attributes={"axis": 2}, label="input"
        ),
        case(
            "Split",
            *since("Split", 13),
            inputs=[_X, ints(1, 3)],
            expected=parts,
            attributes={"axis": -1},
            label="sizes",
        ),
        case(
            "Split",
            *since("Split", 13),
            inputs=[_X, ints(0, 2)],
            expected=[_X[:0], _X],
            label="empty",
        ),
        *_swept("Split", "T", lambda x: ([x], [x[:1], x[1:]]), only=lambda version, dtype: version < 18),
        *_swept(
            "Split",
            "T",
            lambda x: ([x], [x[:1], x[1:]]),
            only=lambda version, dtype: version >= 18,
            attributes={"num_outputs": 2},
        ),
    ]
    return found


def _slices() -> list[Case]:
    found = [
        case("Slice", 1, inputs=[_X], expected=[_X[0:1, 1:3]], attributes={"starts": [0, 1], "ends": [1, 3]}),
        case(
            "Slice",
            1,
            inputs=[_X],
            expected=[_X[:, 1:, :-1]],
            attributes={"starts": [1, 0], "ends": [1000, -1], "axes": [1, 2]},
            label="axes",
        ),
    ]
    big = 2**62
    forms: list[tuple[str, list[int], list[int], list[int] | None, list[int] | None, Array]] = [
        ("plain", [0, 1], [1, 3], None, None, _X[0:1, 1:3]),
        ("axes", [1, 0], [big, -1], [1, 2], None, _X[:, 1:, :-1]),
        ("negative", [-2], [-1], [-1], [1], _X[..., -2:-1]),
        ("steps", [0, 3], [2, -big], [0, 2], [2, -2], _X[::2, :, ::-2]),
        ("reversed", [-1], [-big], [1], [-1], _X[:, ::-1]),
        ("nothing", [2], [1], [1], None, _X[:, 2:1]),
    ]
    for label, starts, ends, axes, steps, want in forms:
        for dtype in (np.int32, np.int64):
            if dtype == np.int32 and big in map(abs, [*starts, *ends]):
                continue
            inputs = [_X, *(None if value is None else np.array(value, dtype) for value in (starts, ends, axes, steps))]
            while inputs[-1] is None:
                inputs.pop()
            name = f"{label}-{np.dtype(dtype).name}"
            found.append(case("Slice", *since("Slice", 10), inputs=inputs, expected=[want], label=name))
    return [
        *found,
        *_swept(
            "Slice",
            "T",
            lambda x: ([x, ints(1), ints(3), ints(1)], [x[:, 1:]]),
            only=lambda version, dtype: version >= 10,
        ),
    ]


def _tiles() -> list[Case]:
    return [
        *(
            case(
                "Tile",
                1,
                inputs=[_X, np.array(2.0, np.float32), np.array(axis, np.float32)],
                expected=[np.concatenate([_X, _X], axis)],
                label=str(axis),
            )
            for axis in (0, 2)
        ),
        case("Tile", *since("Tile", 6), inputs=[_X, ints(1, 2, 3)], expected=[np.tile(_X, (1, 2, 3))]),
        case("Tile", *since("Tile", 6), inputs=[_X, ints(1, 0, 1)], expected=[_X[:, :0]], label="zero"),
        *_swept(
            "Tile",
            "T",
            lambda x: ([x, ints(2, 1)], [np.concatenate([x, x])]),
            only=lambda version, dtype: version >= 6,
        ),
        case("Expand", inputs=[_X[:, :1], ints(3, 1)], expected=[np.repeat(_X[:, :1], 3, 1)]),
        case("Expand", inputs=[_X[0, 0, 0], ints(2, 0)], expected=[_X[:, 0, :0]], label="empty"),
        *_swept("Expand", "T", lambda x: ([x, ints(2, 1, 1)], [np.stack([x, x])])),
    ]


def _identity() -> list[Case]:
    return [
        *(
            case("Identity", version, inputs=[_grid(dtype)], expected=[_grid(dtype)], label=dtype.name)
            for version in since("Identity", 1)
            for dtype in types_of("Identity", version, "T" if version < 14 else "V")
        ),
        case("Identity", *since("Identity", 14), inputs=[[_X, _X[0]]], expected=[[_X, _X[0]]], label="sequence"),
    ]


def _blocks() -> list[Case]:
    """[1, 8, 2, 3] to [1, 2, 4, 6] and back."""
    x = np.arange(48, dtype=np.float32).reshape(1, 8, 2, 3)
    dcr = x.reshape(1, 2, 2, 2, 2, 3).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 4, 6)
    crd = x.reshape(1, 2, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 4, 6)

    def make(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        value = np.resize(samples(dtype), (1, 4, 1, 1))
        return [value], [value.reshape(1, 1, 2, 2)]

    def back(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        value = np.resize(samples(dtype), (1, 1, 2, 2))
        return [value], [value.reshape(1, 4, 1, 1)]

    two = {"blocksize": 2}
    return [
        case("DepthToSpace", inputs=[x], expected=[dcr], attributes=two),
        case(
            "DepthToSpace",
            *since("DepthToSpace", 11),
            inputs=[x],
            expected=[crd],
            attributes={**two, "mode": "CRD"},
            label="CRD",
        ),
        case("SpaceToDepth", inputs=[dcr], expected=[x], attributes=two),
        *sweep("DepthToSpace", make, attributes=two),
        *sweep("SpaceToDepth", back, attributes=two),
    ]


def _constants() -> list[Case]:
    literals: list[tuple[int, str, Any, Array]] = [
        (12, "value_int", 7, np.array(7)),
        (12, "value_ints", [1, -2], ints(1, -2)),
        (12, "value_float", 0.5, np.array(0.5, np.float32)),
        (12, "value_floats", [0.5, -1.0], np.array([0.5, -1], np.float32)),
        (12, "value_string", "é", np.array("é", object)),
        (12, "value_strings", ["a", ""], np.array(["a", ""], object)),
    ]

    def tensor(value: Array) -> Any:
        number = helper.np_dtype_to_tensor_dtype(value.dtype)
        return helper.make_tensor("value", number, value.shape, value.reshape(-1).tolist())

    found = [
        case("Constant", version, expected=[want], attributes={name: value}, label=name)
        for first, name, value, want in literals
        for version in since("Constant", first)
    ]
    found += [
        case("Constant", version, expected=[_grid(dtype)], attributes={"value": tensor(_grid(dtype))}, label=dtype.name)
        for version in since("Constant", 1)
        for dtype in types_of("Constant", version, "T")
    ]
    found += [
        case(
            "ConstantOfShape",
            version,
            inputs=[ints(2, 3)],
            expected=[np.resize(samples(dtype)[1:2], (2, 3))],
            attributes={"value": tensor(samples(dtype)[1:2])},
            label=dtype.name,
        )
        for version in since("ConstantOfShape", 9)
        for dtype in types_of("ConstantOfShape", version, "T2")
    ]
    zeros = np.zeros((2, 3), np.float32)
    found += [
        case("ConstantOfShape", inputs=[ints(2, 3)], expected=[zeros]),
        case("ConstantOfShape", inputs=[ints()], expected=[zeros[0, 0]], label="0d"),
        case("ConstantOfShape", inputs=[ints(2, 0)], expected=[zeros[:, :0]], label="empty"),
        case("EyeLike", inputs=[zeros], expected=[np.eye(2, 3, dtype=np.float32)]),
        case(
            "EyeLike",
            inputs=[zeros.astype(np.int32)],
            expected=[np.eye(2, 3, -1, dtype=np.float64)],
            attributes={"k": -1, "dtype": 11},
            label="k",
        ),
    ]
    return [*found, *sweep("EyeLike", lambda t: ([np.zeros((3, 2), t)], [np.eye(3, 2).astype(t)]), "T1")]


CASES = [
    *_reshapes(),
    *_shape_of(),
    *_flat(),
    *_squeezes(),
    *_transposes(),
    *_joins(),
    *_splits(),
    *_slices(),
    *_tiles(),
    *_identity(),
    *_blocks(),
    *_constants(),
]
