"""Normalizations, Gelus, fused products and the quantized LSTM of com.microsoft, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import against_onnxruntime

_random = np.random.default_rng(8)
_HALF = [np.float32, np.float16]


def _f(*shape: int, dtype: Any = np.float32) -> Any:
    return _random.normal(size=shape).astype(dtype)


def _loose(dtype: Any) -> dict[str, float]:
    return {"rtol": 1e-2, "atol": 1e-2} if dtype == np.float16 else {}


@pytest.mark.parametrize("dtype", _HALF)
@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize(("beta", "bias"), [(True, True), (True, False), (False, False)])
def test_skip_layer_normalization(dtype: Any, n_outputs: int, beta: bool, bias: bool) -> None:
    x, skip, gamma = _f(2, 3, 8, dtype=dtype), _f(2, 3, 8, dtype=dtype), _f(8, dtype=dtype)
    inputs = [x, skip, gamma, _f(8, dtype=dtype) if beta else None, _f(8, dtype=dtype) if bias else None]
    wanted = [True, False, False, True][:n_outputs]  # its CPU kernel leaves the statistics out
    against_onnxruntime(
        "SkipLayerNormalization", inputs, {"epsilon": 1e-5}, n_outputs=n_outputs, wanted=wanted, **_loose(dtype)
    )


@pytest.mark.parametrize("dtype", _HALF)
@pytest.mark.parametrize("shape", [(2, 3, 8), (3, 8), (1, 3, 8)])
def test_skip_simplified_layer_normalization(dtype: Any, shape: tuple[int, ...]) -> None:
    inputs = [_f(2, 3, 8, dtype=dtype), _f(*shape, dtype=dtype), _f(8, dtype=dtype), _f(8, dtype=dtype)]
    wanted = [True, False, False, True]
    against_onnxruntime(
        "SkipSimplifiedLayerNormalization", inputs, {"epsilon": 1e-5}, n_outputs=4, wanted=wanted, **_loose(dtype)
    )


def test_simplified_layer_normalization() -> None:
    inputs = [_f(2, 3, 8), _f(8)]
    against_onnxruntime("SimplifiedLayerNormalization", inputs, {"epsilon": 1e-5}, domain="", default_opset=17)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Gelu", [_f(2, 5)], {}),
        ("BiasGelu", [_f(2, 5), _f(5)], {}),
        ("FastGelu", [_f(2, 5), _f(5)], {}),
        ("FastGelu", [_f(2, 5)], {}),
        ("QuickGelu", [_f(2, 5)], {}),
        ("QuickGelu", [_f(2, 5)], {"alpha": 0.5}),
        ("FusedGemm", [_f(3, 4), _f(4, 5), _f(5)], {"activation": "Relu", "alpha": 0.5}),
        ("FusedGemm", [_f(4, 3), _f(5, 4)], {"activation": "LeakyRelu", "activation_alpha": 0.2, "transA": 1, "transB": 1}),  # noqa: E501
        ("FusedGemm", [_f(3, 4), _f(4, 5), _f(3, 1)], {"activation": "Tanh", "beta": 2.0}),
        ("FusedMatMul", [_f(2, 3, 4), _f(2, 4, 5)], {"alpha": 0.5}),
        ("FusedMatMul", [_f(2, 4, 3), _f(2, 5, 4)], {"transA": 1, "transB": 1}),
        ("FusedMatMul", [_f(4, 2, 3), _f(2, 3, 5)], {"transBatchA": 1, "transA": 0}),
        ("FusedMatMul", [_f(3, 4), _f(2, 5, 4)], {"transB": 1}),
        ("TransposeMatMul", [_f(4, 3), _f(4, 5)], {"transA": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_fused(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    against_onnxruntime(op_type, inputs, attributes)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("columns", [False, True])
def test_dynamic_quantize_lstm(direction: str, kind: Any, columns: bool) -> None:
    steps, batch, size, hidden = 3, 2, 6, 4
    n = 2 if direction == "bidirectional" else 1
    limits = (-60, 60) if kind == np.int8 else (60, 180)
    w, r = (_random.integers(*limits, (n, rows, 4 * hidden)).astype(kind) for rows in (size, hidden))
    shape = (n, 4 * hidden) if columns else (n,)
    scales = [_random.uniform(0.005, 0.01, shape).astype(np.float32) for _ in range(2)]
    zeros = [np.full(shape, 0 if kind == np.int8 else 120, kind) for _ in range(2)]
    states = [_f(n, batch, hidden) for _ in range(2)]
    inputs = [
        _f(steps, batch, size), w, r, _f(n, 8 * hidden), None, *states, None,
        scales[0], zeros[0], scales[1], zeros[1],
    ]  # fmt: skip
    attributes = {"hidden_size": hidden, "direction": direction}
    constant = (1, 2, 8, 9, 10, 11)
    # states are rounded to 8 bits at each step, where a last bit of the step before decides
    against_onnxruntime("DynamicQuantizeLSTM", inputs, attributes, n_outputs=3, constant=constant, rtol=1e-2, atol=3e-3)
