"""The attention operators of com.microsoft, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import against_onnxruntime, answers

_random = np.random.default_rng(1)
_B, _H, _S, _D = 2, 3, 4, 8
_HIDDEN = _H * _D


def _f(*shape: int) -> Any:
    return _random.normal(size=shape).astype(np.float32)


def _masks(keys: int) -> dict[str, Any]:
    part = np.ones((_B, keys), np.int32)
    part[0, -2:] = 0
    part[1, 0] = 0
    cube = np.ones((_B, _S, keys), np.int32)
    cube[0, 1, :3] = 0
    return {
        "none": None,
        "lengths": np.array([keys - 1, keys - 2], np.int32),
        "keys": part,
        "places": cube,
        "nothing": np.zeros((_B, keys), np.int32),
    }


@pytest.mark.parametrize("mask", ["none", "lengths", "keys", "places", "nothing"])
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_attention(mask: str, unidirectional: int) -> None:
    inputs = [_f(_B, _S, _HIDDEN), _f(_B, _S, _HIDDEN), _f(_B, _S, 2 * _HIDDEN), _f(4 * _HIDDEN), _masks(_S)[mask]]
    attributes = {"num_heads": _H, "unidirectional": unidirectional}
    against_onnxruntime("MultiHeadAttention", inputs, attributes)


@pytest.mark.parametrize(
    ("inputs", "n_outputs"),
    [
        ([_f(_B, _S, _HIDDEN), _f(_B, _H, 5, _D), _f(_B, _H, 5, _D)], 1),
        ([_f(_B, _S, _HIDDEN), _f(_B, _H, 5, _D), _f(_B, _H, 5, _D), _f(3 * _HIDDEN)], 1),
        ([_f(_B, _S, _HIDDEN), _f(_B, 5, _HIDDEN), _f(_B, 5, _HIDDEN)], 3),
        ([_f(_B, _S, _HIDDEN), _f(_B, 5, _HIDDEN), _f(_B, 5, _HIDDEN)], 4),
        ([*(_f(_B, _S, _HIDDEN) for _ in range(3)), None, None, None, _f(_B, _H, 3, _D), _f(_B, _H, 3, _D)], 3),
        ([_f(_B, _S, _HIDDEN), _f(_B, _S, _HIDDEN), _f(_B, _S, _HIDDEN), None, None, _f(1, _H, _S, _S)], 1),
        ([_f(_B, _S, _HIDDEN), _f(_B, _S, _HIDDEN), _f(_B, _S, _HIDDEN), None, None, _f(_B, 1, _S, _S)], 4),
    ],
    ids=["cross", "cross-bias", "present", "qk", "past", "bias", "bias-qk"],
)  # fmt: skip
def test_forms_of_multi_head_attention(inputs: list[Any], n_outputs: int) -> None:
    attributes = {"num_heads": _H, "scale": 0.3}
    against_onnxruntime("MultiHeadAttention", inputs, attributes, n_outputs=n_outputs, output_types={3: 1})


def test_packed_projections_are_those_apart() -> None:
    """Which onnxruntime's CPU kernel lacks."""
    q, k, v = (_f(_B, _S, _H, _D) for _ in range(3))
    flat = [x.reshape(_B, _S, _HIDDEN) for x in (q, k, v)]
    (want,) = answers("MultiHeadAttention", flat, {"num_heads": _H})
    for packed in ([np.stack([q, k, v], 3)], [flat[0], np.stack([k, v], 3)], [np.concatenate(flat, 2)]):
        (got,) = answers("MultiHeadAttention", packed, {"num_heads": _H})
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_past_with_a_causal_mask() -> None:
    past = [_f(_B, _H, 3, _D), _f(_B, _H, 3, _D)]
    inputs = [*(_f(_B, _S, _HIDDEN) for _ in range(3)), None, _masks(7)["keys"], None, *past]
    against_onnxruntime("MultiHeadAttention", inputs, {"num_heads": _H, "unidirectional": 1}, n_outputs=3)


def test_decoder_masked_multi_head_attention() -> None:
    new = [_f(_B, 1, _HIDDEN) for _ in range(3)]
    past = [_f(_B, _H, 6, _D) for _ in range(2)]
    mask = np.ones((_B, 6), np.int32)
    mask[0, 1] = 0
    inputs = [*new, mask, None, *past, np.array([5], np.int32), None, None, _f(3 * _HIDDEN)]
    attributes = {"num_heads": _H, "past_present_share_buffer": 1}
    y, k, _ = against_onnxruntime("DecoderMaskedMultiHeadAttention", inputs, attributes, n_outputs=3)
    # onnxruntime knows the shared buffer alone
    apart = [*new, mask, None, *(value[:, :, :5] for value in past), None, None, None, inputs[-1]]
    y2, k2, _ = answers("DecoderMaskedMultiHeadAttention", apart, {"num_heads": _H}, n_outputs=3)
    np.testing.assert_array_equal(y, y2)
    np.testing.assert_array_equal(k, k2)


def test_beams_of_a_decoder() -> None:
    beams, used, most = 2, 4, 6
    new = [_f(_B * beams, 1, _HIDDEN) for _ in range(3)]
    past = [_f(_B * beams, _H, most, _D) for _ in range(2)]
    indirection = _random.integers(0, beams, (_B, beams, most)).astype(np.int32)
    inputs = [*new, None, None, *past, np.array([used], np.int32), np.array([beams], np.int32), indirection]
    attributes = {"num_heads": _H, "past_present_share_buffer": 1}
    against_onnxruntime("DecoderMaskedMultiHeadAttention", inputs, attributes, n_outputs=3)


def test_cross_attention_of_a_decoder() -> None:
    inputs = [_f(_B, 1, _HIDDEN), _f(_B, _H, 5, _D), _f(_B, _H, 5, _D)]
    against_onnxruntime("DecoderMaskedMultiHeadAttention", inputs, {"num_heads": _H})


@pytest.mark.parametrize("mask", ["none", "lengths", "keys", "places", "nothing", "ends"])
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention(mask: str, unidirectional: int) -> None:
    masks = {**_masks(_S), "ends": np.array([3, 4, 0, 1], np.int32)}
    inputs = [_f(_B, _S, 10), _f(10, 3 * _HIDDEN), _f(3 * _HIDDEN), masks[mask]]
    attributes = {"num_heads": _H, "unidirectional": unidirectional}
    against_onnxruntime("Attention", inputs, attributes, n_outputs=2)


@pytest.mark.parametrize("form", ["past", "bias", "sizes"])
def test_forms_of_attention(form: str) -> None:
    x, w, b = _f(_B, _S, 10), _f(10, 3 * _HIDDEN), _f(3 * _HIDDEN)
    attributes: dict[str, Any] = {"num_heads": _H}
    inputs: list[Any] = [x, w, b]
    n_outputs = 1
    if form == "past":
        inputs += [_masks(_S + 3)["keys"], _f(2, _B, _H, 3, _D)]
        n_outputs = 2
    elif form == "bias":
        inputs += [None, None, _f(_B, _H, _S, _S)]
    else:
        inputs = [x, _f(10, 2 * _HIDDEN + 6), _f(2 * _HIDDEN + 6)]
        attributes["qkv_hidden_sizes"] = [_HIDDEN, _HIDDEN, 6]
    against_onnxruntime("Attention", inputs, attributes, n_outputs=n_outputs)


def test_forms_of_attention_that_onnxruntime_lacks_on_the_cpu() -> None:
    x, w, b = _f(_B, _S, 10), _f(10, 3 * _HIDDEN), _f(3 * _HIDDEN)
    lower = np.tril(np.ones((_B, 1, 9, 9), np.int32))
    (masked,) = answers("Attention", [x, w, b, lower], {"num_heads": _H})
    (causal,) = answers("Attention", [x, w, b], {"num_heads": _H, "unidirectional": 1})
    np.testing.assert_allclose(masked, causal, rtol=1e-5, atol=1e-6)
    (turned,) = answers("Attention", [x, w, b], {"num_heads": _H, "do_rotary": 1})
    angle = np.arange(_S)[:, None] * 10000.0 ** (-np.arange(0, _D, 2) / _D)
    caches = [np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)]
    ids = np.tile(np.arange(_S), (_B, 1))
    parts = list(np.split(x @ w + b, 3, axis=2))
    parts[:2] = [answers("RotaryEmbedding", [part, ids, *caches])[0] for part in parts[:2]]
    (want,) = answers("MultiHeadAttention", parts, {"num_heads": _H})
    np.testing.assert_allclose(turned, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("past", [False, True])
def test_q_attention(signed: bool, columns: bool, past: bool) -> None:
    x = _random.integers(0, 255, (_B, _S, 10), np.uint8)
    kind = np.int8 if signed else np.uint8
    w = _random.integers(-100 if signed else 0, 100, (10, 3 * _HIDDEN)).astype(kind)
    n = 3 * _HIDDEN if columns else 1
    scale = _random.uniform(0.001, 0.01, n).astype(np.float32)
    zero = np.full(n, 3, kind)
    scalar = (lambda v: v) if columns else (lambda v: v.reshape(()))
    inputs = [
        x,
        w,
        _f(3 * _HIDDEN),
        np.float32(0.02),
        scalar(scale),
        np.array([3, 4], np.int32),
        np.uint8(120),
        scalar(zero),
    ]
    inputs = [np.asarray(value) for value in inputs]
    if past:
        inputs[5] = np.array([6, 7], np.int32)
        inputs.append(_f(2, _B, _H, 3, _D))
    attributes = {"num_heads": _H, "unidirectional": 1}
    against_onnxruntime("QAttention", inputs, attributes, n_outputs=2 if past else 1, constant=(1,))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("form", ["3d", "4d", "offset", "partial"])
def test_rotary_embedding(interleaved: int, dtype: Any, form: str) -> None:
    half = _D // 4 if form == "partial" else _D // 2
    angle = _random.uniform(0, 6, (10, half))
    caches = [np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)]
    x = (_f(_B, _H, _S, _D) if form == "4d" else _f(_B, _S, _HIDDEN)).astype(dtype)
    ids = np.array([3]) if form == "offset" else _random.integers(0, 10, (_B, _S))
    attributes: dict[str, Any] = {"interleaved": interleaved}
    if form == "partial":
        attributes |= {"num_heads": _H, "rotary_embedding_dim": 2 * half}
    against_onnxruntime("RotaryEmbedding", [x, ids, *caches], attributes, rtol=2e-3 if dtype == np.float16 else 1e-5)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_multimodal_rotary_embedding(layout: int, interleaved: int) -> None:
    angle = _random.uniform(0, 6, (10, 8))
    ids = _random.integers(0, 10, (3, _B, _S))
    inputs = [_f(_B, _S, 16 * _H), ids, *(f(angle).astype(np.float32) for f in (np.cos, np.sin))]
    attributes = {"interleaved": interleaved, "mrope_layout": layout, "mrope_section": [4, 2, 2], "num_heads": _H}
    against_onnxruntime("MRotaryEmbedding", inputs, attributes)
