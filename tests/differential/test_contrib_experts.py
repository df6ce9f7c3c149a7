"""Mixtures of experts and embedding layers, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import against_onnxruntime, answers

_random = np.random.default_rng(4)
_N, _E, _H, _I = 6, 4, 32, 64


def _f(*shape: int) -> Any:
    return (_random.normal(size=shape) * 0.3).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize(("k", "normalize"), [(1, 0), (2, 0), (2, 1)])
def test_mixture(activation: str, k: int, normalize: int) -> None:
    inputs = [_f(2, 3, _H), _f(_N, _E), _f(_E, _I, _H), _f(_E, _I), _f(_E, _H, _I), _f(_E, _H)]
    attributes = {"activation_type": activation, "k": k, "normalize_routing_weights": normalize}
    against_onnxruntime("MoE", inputs, attributes)


@pytest.mark.parametrize("fusion", [1, 2])
@pytest.mark.parametrize("limit", [None, 0.2])
def test_gated_mixture(fusion: int, limit: float | None) -> None:
    inputs = [_f(_N, _H), _f(_N, _E), _f(_E, 2 * _I, _H), _f(_E, 2 * _I), _f(_E, _H, _I), _f(_E, _H)]
    attributes = {
        "activation_type": "swiglu",
        "k": 2,
        "swiglu_fusion": fusion,
        "activation_alpha": 1.702,
        "activation_beta": 1.0,
        **({} if limit is None else {"swiglu_limit": limit}),
    }
    if fusion == 1:
        against_onnxruntime("MoE", inputs, attributes)
    (y,) = answers("MoE", inputs, attributes)
    apart = list(inputs)
    halves = [(slice(0, None, 2), slice(1, None, 2)), (slice(0, _I), slice(_I, None))][fusion - 1]
    apart[2], apart[3] = inputs[2][:, halves[0]], inputs[3][:, halves[0]]
    apart += [inputs[2][:, halves[1]], inputs[3][:, halves[1]]]
    (want,) = answers("MoE", apart, {**attributes, "swiglu_fusion": 0})
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def _quantized(rows: int, columns: int, bits: int, block: int, zeros: bool) -> list[Any]:
    w = _random.integers(0, 256, (_E, rows, columns * bits // 8), np.uint8)
    n = columns // block if block else 1
    scales = _random.uniform(0.005, 0.02, (_E, rows, n) if block else (_E, rows)).astype(np.float32)
    if not zeros:
        return [w, scales, None]
    shape = (_E, rows, -(-n * bits // 8)) if block else (_E, rows * bits // 8)
    return [w, scales, _random.integers(0, 256, shape, np.uint8)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "silu"])
def test_quantized_mixture(bits: int, block: int, zeros: bool, activation: str) -> None:
    one = _quantized(_I * (2 if activation == "swiglu" else 1), _H, bits, block, zeros)
    two = _quantized(_H, _I, bits, block, zeros)
    inputs = [_f(_N, _H), _f(_N, _E), one[0], one[1], None, two[0], two[1], None, None, None, None, one[2], two[2]]
    attributes: dict[str, Any] = {"activation_type": activation, "k": 2, "expert_weight_bits": bits}
    if activation == "swiglu":
        attributes |= {"swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0}
    if block:
        attributes["block_size"] = block
    # onnxruntime takes its inputs in 8 bits where the weights are 8 bits in blocks; results are around 20
    loose = {"rtol": 0.05, "atol": 1.0} if block and bits == 8 else {"rtol": 1e-3, "atol": 1e-3}
    against_onnxruntime("QMoE", inputs, attributes, constant=(2, 3, 5, 6, 11, 12) if zeros else (2, 3, 5, 6), **loose)


def test_weights_apart_from_the_choice() -> None:
    one, two = _quantized(_I, _H, 4, 0, False), _quantized(_H, _I, 4, 0, False)
    inputs = [_f(_N, _H), _f(_N, _E), *one[:2], None, *two[:2], *[None] * 7, np.abs(_f(_N, _E))]
    attributes = {"activation_type": "relu", "k": 2, "expert_weight_bits": 4}
    against_onnxruntime("QMoE", inputs, attributes, rtol=1e-3, constant=(2, 3, 5, 6))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_group_router(dtype: Any) -> None:
    inputs = [_f(5, 12).astype(dtype), _f(12)]
    attributes = {"n_group": 4, "topk_group": 2, "top_k": 3, "group_topk": 2}
    against_onnxruntime("MoEGroupRouter", inputs, attributes, rtol=2e-3)


def test_scores_of_a_router() -> None:
    inputs = [_f(5, 12), _f(12)]
    against_onnxruntime("MoEGroupRouter", inputs, {"top_k": 3}, n_outputs=3, wanted=(False, True, True))


def _embedding(*, segments: bool, mask: bool, positions: bool) -> list[Any]:
    ids = _random.integers(0, 10, (2, 5)).astype(np.int32)
    return [
        ids,
        _random.integers(0, 2, (2, 5)).astype(np.int32) if segments else None,
        _f(10, 8),
        _f(6, 8),
        _f(2, 8) if segments else None,
        _f(8),
        _f(8),
        np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32) if mask else None,
        _random.integers(0, 6, (2, 5)).astype(np.int32) if positions else None,
    ]


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_embed_layer_normalization(segments: bool, mask: bool, positions: bool) -> None:
    inputs = _embedding(segments=segments, mask=mask, positions=positions)
    against_onnxruntime("EmbedLayerNormalization", inputs, {"epsilon": 1e-6}, n_outputs=3)


@pytest.mark.parametrize("segments", [False, True])
def test_quantized_embedding(segments: bool) -> None:
    inputs = _embedding(segments=segments, mask=True, positions=False)[:8]
    scales, zeros = [], []
    for place in (2, 3, 4, 5, 6):
        if inputs[place] is not None:
            inputs[place] = _random.integers(0, 255, inputs[place].shape, np.uint8)
        scales.append(None if inputs[place] is None else np.float32(_random.uniform(0.01, 0.02)))
        zeros.append(None if inputs[place] is None else np.uint8(_random.integers(100, 150)))
    inputs += [None if value is None else np.asarray(value) for value in (*scales, *zeros)]
    against_onnxruntime("QEmbedLayerNormalization", inputs, n_outputs=2)
