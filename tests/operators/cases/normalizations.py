"""Normalizations, matrix products, losses, Dropout, at every version."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Case, case, since
from ..sweep import is_floating, sweep

Array = np.ndarray[Any, Any]

_random = np.random.default_rng(11)
_X = _random.normal(size=(2, 3, 4, 2)).astype(np.float32)
_S, _B, _M = (_random.normal(size=3).astype(np.float32) for _ in range(3))
_V = np.array([0.5, 1.5, 2.5], np.float32)


def _along(values: Array, x: Array = _X, axis: int = 1) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def _standard(x: Array, axes: tuple[int, ...], epsilon: float = 1e-5) -> Array:
    x = x.astype(np.float64)
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def _f(x: Array) -> Array:
    return np.asarray(x).astype(np.float32)


def _batch() -> list[Case]:
    want = _f((_X - _along(_M)) / np.sqrt(_along(_V) + 1e-5) * _along(_S) + _along(_B))
    inputs = [_X, _S, _B, _M, _V]
    mean, variance = _X.mean((0, 2, 3)), _X.var((0, 2, 3))
    trained = _f(_standard(_X, (0, 2, 3)) * _along(_S) + _along(_B))
    running = [_f(_M * 0.9 + mean * 0.1), _f(_V * 0.9 + variance * 0.1)]
    flat = [_X[:, :, 0, 0], _S, _B, _M, _V]
    found = [
        case("BatchNormalization", *versions, inputs=inputs, expected=[want], attributes=attributes)
        for versions, attributes in (
            ((1,), {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]}),
            ((6,), {"is_test": 1}),
            (since("BatchNormalization", 7), {}),
        )
    ]
    # with spatial 0 each place has statistics of its own
    place = [np.broadcast_to(_along(v, _X[0], 0), (3, 4, 2)).copy() for v in (_S, _B, _M, _V)]
    place[0][0, 0, 0] = 7
    spatial = _f((_X - place[2]) / np.sqrt(place[3] + 1e-5) * place[0] + place[1])
    found += [
        case(
            "BatchNormalization",
            version,
            inputs=[_X, *place],
            expected=[spatial],
            attributes={"spatial": 0, **({"is_test": 1} if version < 7 else {})},
            label="places",
        )
        for version in (6, 7)
    ]
    found += [
        case(
            "BatchNormalization",
            *since("BatchNormalization", 9),
            inputs=flat,
            expected=[_f(want[:, :, 0, 0])],
            label="2d",
        ),
        case(
            "BatchNormalization",
            *since("BatchNormalization", 14),
            inputs=inputs,
            expected=[trained, *running],
            attributes={"training_mode": 1},
            label="training",
            rtol=1e-4,
        ),
        case(
            "BatchNormalization",
            *since("BatchNormalization", 9),
            inputs=inputs,
            expected=[_f((_X - _along(_M)) / np.sqrt(_along(_V) + 0.5) * _along(_S) + _along(_B))],
            attributes={"epsilon": 0.5},
            label="epsilon",
        ),
    ]
    return found


def _others() -> list[Case]:
    rows = _f(_standard(_X, (2, 3)) * _along(_S) + _along(_B))
    grouped = np.concatenate([_X, _X * 2 + 1], 1)[:, :6]
    groups = _standard(grouped.reshape(2, 3, 2, 4, 2), (2, 3, 4)).reshape(grouped.shape)
    six, shift = np.arange(1, 7, dtype=np.float32), np.arange(6, dtype=np.float32)
    squares = np.square(_X.astype(np.float64))

    def local(size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
        total = np.zeros_like(squares)
        for c in range(3):
            low, high = max(0, c - (size - 1) // 2), min(2, c + size // 2)
            total[:, c] = squares[:, low : high + 1].sum(1)
        return _f(_X / (bias + alpha / size * total) ** beta)

    mean = _X.mean(-1, keepdims=True, dtype=np.float64)
    deviation = 1 / np.sqrt(((_X - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    scale = np.array([2, -1], np.float32)
    axes = _f((_X - _X.mean((0, 2, 3), keepdims=True)) / (_X.std((0, 2, 3), keepdims=True) + 1e-9))
    return [
        case("InstanceNormalization", inputs=[_X, _S, _B], expected=[rows], rtol=1e-4, atol=1e-5),
        case(
            "GroupNormalization",
            *since("GroupNormalization", 21),
            inputs=[grouped, six, shift],
            expected=[_f(groups * _along(six) + _along(shift))],
            attributes={"num_groups": 3},
            rtol=1e-4,
            atol=1e-5,
        ),
        case("LRN", inputs=[_X], expected=[local(3)], attributes={"size": 3}),
        case(
            "LRN",
            inputs=[_X],
            expected=[local(2, 0.5, 0.5, 2.0)],
            attributes={"size": 2, "alpha": 0.5, "beta": 0.5, "bias": 2.0},
            label="even",
        ),
        case(
            "LpNormalization",
            inputs=[_X],
            expected=[_f(_X / np.sqrt(squares.sum(-1, keepdims=True)))],
        ),
        case(
            "LpNormalization",
            inputs=[_X],
            expected=[_f(_X / np.abs(_X).sum(1, keepdims=True))],
            attributes={"p": 1, "axis": 1},
            label="1",
        ),
        case("MeanVarianceNormalization", inputs=[_X], expected=[axes], rtol=1e-4, atol=1e-5),
        case(
            "MeanVarianceNormalization",
            inputs=[_X],
            expected=[_f((_X - mean) / (_X.std(-1, keepdims=True) + 1e-9))],
            attributes={"axes": [-1]},
            label="axes",
            rtol=1e-4,
            atol=1e-5,
        ),
        case(
            "LayerNormalization",
            inputs=[_X, scale, scale],
            expected=[_f((_X - mean) * deviation * scale + scale), _f(mean), _f(deviation)],
            rtol=1e-4,
            atol=1e-5,
        ),
        case(
            "RMSNormalization",
            inputs=[_X, scale],
            expected=[_f(_X / np.sqrt(squares.mean(-1, keepdims=True) + 1e-5) * scale)],
            rtol=1e-4,
        ),
    ]


def _products() -> list[Case]:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3) - 2, np.arange(12, dtype=np.float32).reshape(3, 4) - 5
    c, row = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([1, 2, 3, 4], np.float32)
    attributes = {"alpha": 0.5, "beta": 2.0, "transA": 1, "transB": 1}
    crossed = {"inputs": [a.T.copy(), b.T.copy(), c], "expected": [a @ b / 2 + c * 2], "label": "transposed"}
    stack = np.arange(24, dtype=np.float32).reshape(2, 4, 3)

    def product(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        x, y = (np.array(v, np.float32).astype(dtype) for v in ([[1, 2], [3, 4]], [[5, 6], [7, 1]]))
        return [x, y], [np.array([[19, 8], [43, 22]], np.float32).astype(dtype)]

    def general(dtype: np.dtype[Any]) -> tuple[list[Any], list[Any]]:
        inputs, (want,) = product(dtype)
        return [*inputs, np.ones((2, 2), np.float32).astype(dtype)], [(want.astype(np.float64) + 1).astype(dtype)]

    return [
        *(case("Gemm", version, inputs=[a, b, c], expected=[a @ b + c]) for version in since("Gemm", 1)),
        case("Gemm", attributes=attributes, **crossed),
        *(
            case("Gemm", version, inputs=[a, b, row], expected=[a @ b + row], attributes=broadcast, label="row")
            for version in since("Gemm", 1)
            for broadcast in [{"broadcast": 1} if version < 7 else {}]
        ),
        case("Gemm", *since("Gemm", 7), inputs=[a, b, c[:, :1]], expected=[a @ b + c[:, :1]], label="column"),
        case("Gemm", *since("Gemm", 11), inputs=[a, b], expected=[a @ b], label="two"),
        case("Gemm", *since("Gemm", 11), inputs=[a[:, :0], b[:0], c], expected=[c], label="empty"),
        *sweep("Gemm", general),
        case("MatMul", inputs=[a, b], expected=[a @ b]),
        case("MatMul", inputs=[stack, b], expected=[stack @ b], label="stack"),
        case(
            "MatMul",
            inputs=[stack[:, None], stack.transpose(0, 2, 1)],
            expected=[stack[:, None] @ stack.transpose(0, 2, 1)],
            label="broadcast",
        ),
        case("MatMul", inputs=[a[0], b], expected=[a[0] @ b], label="vector"),
        case("MatMul", inputs=[a[0], b[:, 0].copy()], expected=[np.asarray(a[0] @ b[:, 0])], label="dot"),
        case("MatMul", inputs=[a[:, :0], b[:0]], expected=[np.zeros((2, 4), np.float32)], label="empty"),
        *sweep("MatMul", product),
        case("Einsum", inputs=[a, b], expected=[a @ b], attributes={"equation": "ij,jk->ik"}),
        case("Einsum", inputs=[stack], expected=[stack.sum((0, 2))], attributes={"equation": "hij->i"}, label="sum"),
        case(
            "Einsum",
            inputs=[stack, stack],
            expected=[stack @ stack.transpose(0, 2, 1)],
            attributes={"equation": "...ij, ...kj -> ...ik"},
            label="ellipsis",
        ),
        *sweep("Einsum", product, attributes={"equation": "ij,jk"}),
        case("Det", inputs=[np.array([[[2, 1], [1, 3]], [[1, 2], [2, 4]]], "f")], expected=[np.array([5, 0], "f")]),
        case("Det", inputs=[np.array([[3]], np.float32)], expected=[np.array(3, np.float32)], label="0d"),
    ]


def _losses() -> list[Case]:
    scores = _random.normal(size=(3, 4, 2)).astype(np.float32)
    labels = np.array([[0, 3], [1, 2], [3, 3]], np.int64)
    weights = np.array([1, 2, 0.5, 3], np.float32)
    log = np.log(np.exp(scores) / np.exp(scores).sum(1, keepdims=True))
    found = []
    for name, source in (("NegativeLogLikelihoodLoss", log), ("SoftmaxCrossEntropyLoss", scores)):
        for weighted in (False, True):
            for ignored in (None, 3):
                place = np.where(labels == ignored, 0.0, 1.0) * (weights[labels] if weighted else 1)
                each = -np.take_along_axis(log, labels[:, None], 1)[:, 0] * place
                answers = {"none": each, "sum": each.sum(), "mean": each.sum() / place.sum()}
                for reduction, want in answers.items():
                    extra = [] if ignored is None else [("ignore_index", ignored)]
                    found.append(
                        case(
                            name,
                            inputs=[source, labels, *([weights] if weighted else [])],
                            expected=[_f(want)],
                            attributes=dict([("reduction", reduction), *extra]),
                            label=f"{reduction}{'-weights' * weighted}{'-ignored' * bool(ignored)}",
                            rtol=1e-4,
                        )
                    )
    found.append(
        case(
            "SoftmaxCrossEntropyLoss",
            inputs=[scores, labels.astype(np.int32)],
            expected=[_f(-np.take_along_axis(log, labels[:, None], 1).mean()), _f(log)],
            label="log",
            rtol=1e-4,
        )
    )
    return found


def _dropouts() -> list[Case]:
    x = np.arange(1, 65, dtype=np.float32).reshape(8, 8)

    def dropped(ratio: float) -> Any:
        def judge(got: Array) -> None:
            kept = got != 0
            np.testing.assert_allclose(got[kept], (x / (1 - ratio))[kept], rtol=1e-5)
            assert 0 < (~kept).sum() < 64

        return judge

    def two_values(got: Array) -> None:
        assert got.dtype == bool
        assert 0 < got.sum() < 64

    return [
        case("Dropout", 1, 6, inputs=[x], expected=[x], attributes={"is_test": 1}),
        case("Dropout", *since("Dropout", 7), inputs=[x], expected=[x]),
        case("Dropout", 7, inputs=[x], expected=[x], attributes={"ratio": 0.25}, label="ratio"),
        case(
            "Dropout",
            10,
            inputs=[x],
            expected=[x, np.ones((8, 8), bool)],
            label="mask",
            onnxruntime_differs="says at version 10 that all was dropped, and from 12 on that nothing was",
        ),
        case(
            "Dropout",
            *since("Dropout", 12),
            inputs=[x, np.float32(0.5), np.array(False)],
            expected=[x, np.ones((8, 8), bool)],
            label="mask",
        ),
        case(
            "Dropout",
            *since("Dropout", 12),
            inputs=[x, np.float32(0.25), np.array(True)],
            expected=[dropped(0.25), two_values],
            label="training",
        ),
        case("Dropout", *since("Dropout", 12), inputs=[x, np.float32(0), np.array(True)], expected=[x], label="zero"),
        *sweep("Dropout", lambda t: ([x.astype(t)], [x.astype(t)]), only=lambda v, t: v >= 7 and is_floating(t)),
        *sweep(
            "Dropout",
            lambda t: ([x.astype(t)], [x.astype(t)]),
            attributes={"is_test": 1},
            only=lambda version, dtype: version < 7,
        ),
    ]


CASES = [*_batch(), *_others(), *_products(), *_losses(), *_dropouts()]
