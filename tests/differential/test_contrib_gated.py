"""Gated and linear attention of com.microsoft, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import against_onnxruntime, answers

_random = np.random.default_rng(9)


def _f(*shape: int, dtype: Any = np.float32) -> Any:
    return (_random.normal(size=shape) * 0.5).astype(dtype)


_HALF: dict[str, float] = {"rtol": 3e-3, "atol": 3e-3}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes", "n_outputs"),
    [
        ("ScaledSiLU", [(3, 5)], {"alpha": 1.5}, 1),
        ("GatedAdd", [(2, 3, 8), (2, 3, 8), (2, 3, 1)], {}, 1),
        ("GatedRMSNorm", [(2, 3, 8), (4,), (2, 3, 8)], {}, 1),
        ("GatedRMSNorm", [(2, 3, 8), (8,), (2, 3, 8)], {"activation": "sigmoid", "epsilon": 1e-3}, 1),
        ("BranchwiseRMSNorm", [(2, 3, 8), (3, 8)], {}, 1),
        ("BranchwiseRMSNorm", [(2, 24), (8,)], {"num_branches": 3}, 1),
        ("BranchwiseRMSNorm", [(2, 3, 8)], {}, 1),
        ("HyperConnectionPreMix", [(2, 3, 8), (2, 3)], {"reduction_scale": 0.5}, 1),
        ("HyperConnectionPreMix", [(2, 24), (2, 24)], {"num_branches": 3}, 1),
        ("HyperConnectionPostMix", [(2, 3, 8), (2, 8), (2, 3), (2, 3, 3)], {}, 1),
        ("HyperConnectionPostMix", [(2, 24), (2, 8), (2, 3, 8)], {"num_branches": 3}, 1),
        ("EngramGate", [(1, 2, 3, 8), (1, 2, 3, 8), (1, 2, 8), (3, 8), (3, 8), (3, 8)], {}, 2),
    ],
    ids=str,
)
def test_gates(
    op_type: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any], n_outputs: int, dtype: Any
) -> None:
    inputs = [_f(*shape, dtype=dtype) for shape in shapes]
    loose = _HALF if dtype == np.float16 else {}
    against_onnxruntime(op_type, inputs, attributes, n_outputs=n_outputs, **loose)


def test_linear_attention_gate() -> None:
    inputs = [_f(2, 3, 4), _f(4), _f(4), _f(2, 3, 4)]
    against_onnxruntime("LinearAttentionGate", inputs, n_outputs=2)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize(("q_heads", "kv_heads"), [(2, 2), (4, 2), (2, 4)])
@pytest.mark.parametrize("past", [False, True])
def test_linear_attention(rule: str, q_heads: int, kv_heads: int, past: bool) -> None:
    batch, tokens, size, width = 2, 5, 4, 6
    key = _f(batch, tokens, kv_heads, size)
    key /= np.linalg.norm(key, axis=-1, keepdims=True)
    inputs = [
        _f(batch, tokens, q_heads * size),
        key.reshape(batch, tokens, -1),
        _f(batch, tokens, kv_heads * width),
        _f(batch, kv_heads, size, width) if past else None,
        -np.abs(_f(batch, tokens, kv_heads)) if "gated" in rule else None,
        np.abs(_f(batch, tokens, kv_heads)) if "delta" in rule else None,
    ]
    attributes = {"q_num_heads": q_heads, "kv_num_heads": kv_heads, "update_rule": rule}
    against_onnxruntime("LinearAttention", inputs, attributes, n_outputs=2)


@pytest.mark.parametrize("window", [3, 7])
def test_states_of_the_last_tokens(window: int) -> None:
    """Which onnxruntime's CPU kernel lacks: each slot is the state that a run up to its token leaves."""
    batch, tokens, heads, size = 1, 4, 2, 4
    past = _f(batch, heads, size, size)
    streams = [_f(batch, tokens, heads * size) for _ in range(3)]
    decay = -np.abs(_f(batch, tokens, heads * size))
    attributes = {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": "gated"}
    wide = [*streams, np.stack([past * 0] * (window - 1) + [past]), decay]
    y, states = answers("LinearAttention", wide, {**attributes, "state_window": window}, n_outputs=2)
    for slot in range(window):
        upto = tokens - window + slot + 1
        if upto < 1:
            assert not states[slot].any()
            continue
        part = [*(value[:, :upto] for value in streams), past, decay[:, :upto]]
        want, state = against_onnxruntime("LinearAttention", part, attributes, n_outputs=2)
        np.testing.assert_allclose(states[slot], state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("window", [0, 2, 7])
def test_causal_conv(activation: str, channels_last: int, dilation: int, window: int) -> None:
    batch, channels, steps, taps = 2, 3, 5, 3
    state = (taps - 1) * dilation
    x, past = _f(batch, channels, steps), _f(batch, channels, state)
    if channels_last:
        x, past = x.swapaxes(1, 2).copy(), past.swapaxes(1, 2).copy()
    attributes = {"activation": activation, "channels_last": channels_last, "dilation": dilation}
    weights = [_f(channels, 1, taps), _f(channels)]
    want, _ = against_onnxruntime("CausalConvWithState", [x, *weights, past], attributes, n_outputs=2)
    if not window:
        return
    old = np.stack([past * 0] * (window - 1) + [past])
    inputs = [x, *weights, old]
    y, states = answers("CausalConvWithState", inputs, {**attributes, "state_window": window}, n_outputs=2)
    np.testing.assert_array_equal(y, want)
    for slot in range(window):
        upto = steps - window + slot + 1
        part = x[:, :upto] if channels_last else x[:, :, :upto]
        if upto < 1:
            assert not states[slot].any()
            continue
        _, last = answers("CausalConvWithState", [part, *weights, past], attributes, n_outputs=2)
        np.testing.assert_array_equal(states[slot], last)
