"""Random operators: shapes, element types, moments, and that a seed repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, case
from ..sweep import sweep

Array = np.ndarray[Any, Any]

_SHAPE = (40, 50)


def _normal(
    mean: float, scale: float, dtype: Any = np.float32, shape: tuple[int, ...] = _SHAPE
) -> Callable[[Array], None]:
    def judge(got: Array) -> None:
        assert (got.dtype, got.shape) == (np.dtype(dtype), shape)
        wide = got.astype(np.float64)
        assert abs(wide.mean() - mean) < scale / 5
        assert 0.85 * scale < wide.std() < 1.15 * scale
        assert (np.abs(wide - mean) > 2 * scale).any()  # has tails

    return judge


def _uniform(low: float, high: float, dtype: Any = np.float32) -> Callable[[Array], None]:
    def judge(got: Array) -> None:
        assert (got.dtype, got.shape) == (np.dtype(dtype), _SHAPE)
        wide = got.astype(np.float64)
        assert low <= wide.min() < low + (high - low) / 20
        assert high >= wide.max() > high - (high - low) / 20
        assert abs(wide.mean() - (low + high) / 2) < (high - low) / 20

    return judge


def _share(p: float, dtype: Any) -> Callable[[Array], None]:
    def judge(got: Array) -> None:
        assert (got.dtype, got.shape) == (np.dtype(dtype), _SHAPE)
        wide = got.astype(np.float64)
        assert set(np.unique(wide)) <= {0.0, 1.0}
        assert abs(wide.mean() - p) < 0.05

    return judge


def _classes(dtype: Any) -> Callable[[Array], None]:
    def judge(got: Array) -> None:
        assert (got.dtype, got.shape) == (np.dtype(dtype), (2, 2000))
        assert abs((got[0] == 1).mean() - 0.75) < 0.05
        assert (got[1] == 2).all()

    return judge


_BODY = "runs the function body in onnx's schema, which draws ones with probability 1 - p"
_LIKE = np.zeros(_SHAPE, np.float32)
_SHAPED = {"shape": list(_SHAPE), "seed": 3.0}
_LOG = np.log(np.array([[0.25, 0.75, 1e-30], [1e-30, 1e-30, 1]], np.float32))


def _all() -> list[Case]:
    set_normal, set_uniform = {"mean": 5.0, "scale": 0.5, "seed": 1.0}, {"low": -2.0, "high": 6.0, "seed": 1.0}
    return [
        case("RandomNormal", expected=[_normal(0, 1)], attributes=_SHAPED),
        case("RandomNormal", expected=[_normal(5, 0.5)], attributes={**_SHAPED, **set_normal}, label="set"),
        case("RandomNormal", expected=[_normal(0, 1, np.float64)], attributes={**_SHAPED, "dtype": 11}, label="double"),
        case("RandomUniform", expected=[_uniform(0, 1)], attributes=_SHAPED),
        case("RandomUniform", expected=[_uniform(-2, 6)], attributes={**_SHAPED, **set_uniform}, label="set"),
        case("RandomUniform", expected=[_uniform(0, 1, np.float16)], attributes={**_SHAPED, "dtype": 10}, label="half"),
        case("RandomNormalLike", inputs=[_LIKE], expected=[_normal(5, 0.5)], attributes=set_normal),
        case(
            "RandomNormalLike",
            inputs=[_LIKE.astype(np.int32)],
            expected=[_normal(0, 1, np.float64)],
            attributes={"dtype": 11, "seed": 1.0},
            label="double",
        ),
        case("RandomUniformLike", inputs=[_LIKE], expected=[_uniform(-2, 6)], attributes=set_uniform),
        *sweep(
            "RandomUniformLike",
            lambda t: ([_LIKE.astype(t)], [_uniform(0, 1)]),
            "T1",
            {"dtype": 1, "seed": 1.0},
            only=lambda version, dtype: dtype.kind != "O",
        ),
        *sweep(
            "Bernoulli",
            lambda t: ([np.full(_SHAPE, 0.25, t)], [_share(0.25, t)]),
            "T1",
            {"seed": 1.0},
            onnxruntime_differs=_BODY,
        ),
        *(
            case(
                "Bernoulli",
                inputs=[np.full(_SHAPE, 0.75, np.float32)],
                expected=[_share(0.75, dtype)],
                attributes={"dtype": number, "seed": 2.0},
                label=f"to-{np.dtype(dtype).name}",
                onnxruntime_differs=_BODY,
            )
            for number, dtype in ((9, bool), (7, np.int64), (11, np.float64))
        ),
        case(
            "Multinomial", inputs=[_LOG], expected=[_classes(np.int32)], attributes={"sample_size": 2000, "seed": 1.0}
        ),
        case(
            "Multinomial",
            inputs=[_LOG],
            expected=[_classes(np.int64)],
            attributes={"sample_size": 2000, "dtype": 7, "seed": 1.0},
            label="int64",
        ),
    ]


CASES = _all()
