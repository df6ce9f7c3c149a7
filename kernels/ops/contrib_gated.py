"""onnxruntime's operators of gated and linear attention: recurrences with a state, their gates and normalizations.

B: batch, T: tokens, Hq, Hk: heads of queries and of keys and values, D, V: sizes of keys and values. What is narrower
is computed in float32. The standard has LinearAttention and CausalConvWithState too, with the same meaning.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from distort.kernels.errors import InvalidInput, MissingKernel
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


def _wide(xp: ModuleType, x: Array) -> Array:
    return x if x.dtype == xp.float64 else x.astype(xp.float32, copy=False)


def _sigmoid(xp: ModuleType, x: Array) -> Array:
    return xp.tanh(x * xp.float32(0.5)) * xp.float32(0.5) + xp.float32(0.5)


def _softplus(xp: ModuleType, x: Array) -> Array:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


def _rms(xp: ModuleType, x: Array, epsilon: float) -> Array:
    """Over the last axis."""
    return x / xp.sqrt((x * x).mean(axis=-1, keepdims=True) + xp.float32(epsilon))


@kernel("ScaledSiLU", domain=_MS)
def scaled_silu(xp: ModuleType, x: Array, scale: Array | None = None, *, alpha: float = 1.0) -> Array:
    """z * sigmoid(z) of z = scale * x, rounded to the type of x after each step."""
    factor = xp.float32(alpha) if scale is None else _wide(xp, scale).reshape(())
    z = (_wide(xp, x) * factor).astype(x.dtype)
    gate = _sigmoid(xp, _wide(xp, z)).astype(x.dtype)
    return (_wide(xp, z) * _wide(xp, gate)).astype(x.dtype)


@kernel("GatedAdd", domain=_MS)
def gated_add(xp: ModuleType, x: Array, y: Array, gate: Array, gate_weight: Array | None = None) -> Array:
    """x + y * gate, gate [..., 1]."""
    if gate_weight is not None:
        raise MissingKernel("GatedAdd with gate_weight has no kernel on the CPU")
    if x.shape != y.shape or gate.shape != (*x.shape[:-1], 1):
        raise InvalidInput(f"GatedAdd of {list(x.shape)}, {list(y.shape)} and a gate {list(gate.shape)}")
    product = (_wide(xp, y) * _wide(xp, gate)).astype(x.dtype)
    return (_wide(xp, x) + _wide(xp, product)).astype(x.dtype)


@kernel("GatedRMSNorm", domain=_MS)
def gated_rms_norm(
    xp: ModuleType, x: Array, scale: Array, gate: Array, *, activation: str = "silu", epsilon: float = 1e-5
) -> Array:
    """x [..., H * C] normalized in groups of C, the size of scale, times the activated gate of the same shape."""
    size = scale.shape[0] if scale.ndim == 1 else 0
    if not size or x.shape != gate.shape or x.shape[-1] % size:
        raise InvalidInput(f"GatedRMSNorm of {list(x.shape)}, scale {list(scale.shape)}, gate {list(gate.shape)}")
    if activation not in ("silu", "swish", "sigmoid"):
        raise InvalidInput(f"activation {activation!r} is none of silu, swish, sigmoid")
    rows = _rms(xp, _wide(xp, x).reshape(*x.shape[:-1], -1, size), epsilon) * _wide(xp, scale)
    z = _wide(xp, gate)
    opened = _sigmoid(xp, z) if activation == "sigmoid" else z * _sigmoid(xp, z)
    return (rows.reshape(x.shape) * opened).astype(x.dtype)


def _branches(x: Array, num_branches: int, name: str) -> Array:
    """[..., C, H], however x gives it."""
    if not num_branches:
        if x.ndim < 2:
            raise InvalidInput(f"{name} of shape {list(x.shape)} has no axis of branches")
        return x
    if num_branches < 0 or x.shape[-1] % num_branches:
        raise InvalidInput(f"{name} of shape {list(x.shape)} can't be cut into {num_branches} branches")
    return x.reshape(*x.shape[:-1], num_branches, -1)


@kernel("BranchwiseRMSNorm", domain=_MS)
def branchwise_rms_norm(
    xp: ModuleType, x: Array, scale: Array | None = None, *, epsilon: float = 1e-5, num_branches: int = 0
) -> Array:
    """Each branch of x [..., C, H] or [..., C * H] by itself; scale [C * H], [C, H] or [H]."""
    grouped = _branches(x, num_branches, "X")
    y = _rms(xp, _wide(xp, grouped), epsilon)
    if scale is not None:
        shape = grouped.shape[-2:]
        if scale.size not in (shape[1], shape[0] * shape[1]):
            raise InvalidInput(f"scale of shape {list(scale.shape)} for branches {list(shape)}")
        y = y * _wide(xp, scale).reshape(shape if scale.size > shape[1] else (shape[1],))
    return y.astype(x.dtype).reshape(x.shape)


def _gates(xp: ModuleType, gate: Array, grouped: Array, name: str) -> Array:
    """Gates of branches [..., C], [..., C, 1], [..., C, H] or [..., C * H], to broadcast to [..., C, H]."""
    wide, shape = _wide(xp, gate), grouped.shape
    if gate.shape in (shape, (*shape[:-1], 1)):
        return wide
    if gate.shape == shape[:-1]:
        return wide[..., None]
    if gate.shape == (*shape[:-2], shape[-2] * shape[-1]):
        return wide.reshape(shape)
    raise InvalidInput(f"{name} of shape {list(gate.shape)} for branches {list(shape)}")


@kernel("HyperConnectionPreMix", domain=_MS)
def hyper_connection_pre_mix(
    xp: ModuleType, streams: Array, pre_mix: Array, *, num_branches: int = 0, reduction_scale: float = 1.0
) -> Array:
    """The gated sum of the branches [..., C, H], times ``reduction_scale``."""
    grouped = _branches(streams, num_branches, "streams")
    total = (_wide(xp, grouped) * _gates(xp, pre_mix, grouped, "pre_mix")).sum(axis=-2)
    return (total * xp.float32(reduction_scale)).astype(streams.dtype)


@kernel("HyperConnectionPostMix", domain=_MS)
def hyper_connection_post_mix(
    xp: ModuleType,
    streams: Array,
    block_output: Array,
    post_mix: Array,
    stream_mix: Array | None = None,
    *,
    num_branches: int = 0,
) -> Array:
    """Branches mixed by stream_mix [..., C, C], plus the gated block_output [..., H] in each."""
    grouped = _branches(streams, num_branches, "streams")
    wide = _wide(xp, grouped)
    if stream_mix is not None:
        if stream_mix.shape != (*grouped.shape[:-2], grouped.shape[-2], grouped.shape[-2]):
            raise InvalidInput(f"stream_mix of shape {list(stream_mix.shape)} for branches {list(grouped.shape)}")
        wide = xp.matmul(_wide(xp, stream_mix).swapaxes(-1, -2), wide)
    if block_output.shape != (*grouped.shape[:-2], grouped.shape[-1]):
        raise InvalidInput(f"block_output of shape {list(block_output.shape)} for branches {list(grouped.shape)}")
    y = wide + _gates(xp, post_mix, grouped, "post_mix") * _wide(xp, block_output)[..., None, :]
    return y.astype(streams.dtype).reshape(streams.shape)


@kernel("EngramGate", domain=_MS)
def engram_gate(
    xp: ModuleType,
    key: Array,
    query: Array,
    value: Array,
    key_norm_scale: Array,
    query_norm_scale: Array,
    conv_norm_scale: Array | None = None,
    *,
    epsilon: float = 1e-5,
    wanted: tuple[bool, ...] = (True,),
) -> tuple[Array, Array | None]:
    """key, query [B, T, M, H], value [B, T, H] -> the gated value [B, T, M, H], and that normalized."""
    shape = key.shape
    if key.ndim != 4 or query.shape != shape or value.shape != (*shape[:2], shape[3]):
        raise InvalidInput(f"EngramGate of {list(shape)}, {list(query.shape)}, {list(value.shape)}")
    left, right = (
        _rms(xp, _wide(xp, x), epsilon) * _wide(xp, scale)
        for x, scale in ((key, key_norm_scale), (query, query_norm_scale))
    )
    dot = (left * right).sum(axis=-1, keepdims=True) / xp.float32(math.sqrt(shape[3]))
    gate = _sigmoid(xp, xp.sign(dot) * xp.sqrt(xp.maximum(xp.abs(dot), xp.float32(1e-6))))
    gated = gate * _wide(xp, value)[:, :, None]
    normed = None
    if len(wanted) > 1 and wanted[1]:
        if conv_norm_scale is None:
            raise InvalidInput("gated_value_normed needs conv_norm_scale")
        normed = (_rms(xp, gated, epsilon) * _wide(xp, conv_norm_scale)).astype(key.dtype)
    return gated.astype(key.dtype), normed


@kernel("LinearAttentionGate", domain=_MS)
def linear_attention_gate(
    xp: ModuleType, a: Array, dt_bias: Array, decay_scale: Array, b: Array | None = None
) -> tuple[Array, Array | None]:
    """decay_scale * softplus(a + dt_bias), and the sigmoid of b; a, b [B, T, H]."""
    if a.ndim != 3 or dt_bias.shape != a.shape[-1:] or decay_scale.shape != a.shape[-1:]:
        raise InvalidInput(f"LinearAttentionGate of {list(a.shape)}, {list(dt_bias.shape)}, {list(decay_scale.shape)}")
    decay = (decay_scale * _softplus(xp, _wide(xp, a) + dt_bias)).astype(a.dtype)
    return decay, None if b is None else _sigmoid(xp, _wide(xp, b)).astype(a.dtype)


def _recurrence(
    xp: ModuleType,
    q: Array,
    k: Array,
    v: Array,
    state: Array,
    decay: Array | None,
    beta: Array | None,
    delta: bool,
    keep: int = 0,
) -> tuple[Array, Array, list[Array]]:
    """q, k [B, T, H, D], v [B, T, H, V], state [B, H, D, V], decay [B, T, H, D or 1], beta [B, T, H].

    Returns the outputs [B, T, H, V], the state after the last token, and those after the last ``keep`` tokens.
    """
    tokens = q.shape[1]
    y = xp.empty((*q.shape[:3], v.shape[3]), q.dtype)
    kept: list[Array] = []
    for t in range(tokens):
        key, value = k[:, t], v[:, t]
        if decay is not None:
            state = state * xp.exp(decay[:, t])[..., None]
        if delta:
            value = value - xp.matmul(key[..., None, :], state)[..., 0, :]
            if beta is not None:
                value = value * beta[:, t][..., None]
        state = state + key[..., :, None] * value[..., None, :]
        y[:, t] = xp.matmul(q[:, t][..., None, :], state)[..., 0, :]
        if t >= tokens - keep:
            kept.append(state)
    return y, state, kept


_RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}


def _rule(name: str, decay: Array | None, beta: Array | None) -> tuple[bool, bool]:
    """(whether the state decays, whether what it holds is taken off)"""
    if name not in _RULES:
        raise InvalidInput(f"update_rule {name!r} is none of {', '.join(_RULES)}")
    gated, delta = _RULES[name]
    if (gated and decay is None) or (delta and beta is None):
        raise InvalidInput(f"update_rule {name!r} needs {'decay' if gated and decay is None else 'beta'}")
    return gated, delta


@kernel("LinearAttention", 27)
@kernel("LinearAttention", domain=_MS)
def linear_attention(
    xp: ModuleType,
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    state_window: int = 0,
    update_rule: str = "gated_delta",
) -> tuple[Array, Array]:
    """query [B, T, Hq * D], key [B, T, Hk * D], value [B, T, Hk * V] -> [B, T, max(Hq, Hk) * V], [B, Hk, D, V]."""
    gated, delta = _rule(update_rule, decay, beta)
    if query.ndim != 3 or query.shape[2] % q_num_heads or value.ndim != 3 or value.shape[2] % kv_num_heads:
        raise InvalidInput(f"LinearAttention of {list(query.shape)}, {list(key.shape)}, {list(value.shape)}")
    (batch, tokens, _), size, width = query.shape, query.shape[2] // q_num_heads, value.shape[2] // kv_num_heads
    key_heads, rest = divmod(key.shape[2], size)
    heads = max(q_num_heads, kv_num_heads)
    if rest or key.shape[:2] != (batch, tokens) or heads % q_num_heads or heads % kv_num_heads or heads % key_heads:
        raise InvalidInput(f"{q_num_heads} query heads, {key_heads} of keys and {kv_num_heads} of values don't match")
    if not 0 <= state_window <= 8:
        raise InvalidInput(f"state_window must be from 0 to 8, got {state_window}")
    q = _wide(xp, query).reshape(batch, tokens, q_num_heads, size)
    q = xp.repeat(q, heads // q_num_heads, axis=2) * q.dtype.type(scale or 1 / math.sqrt(size))
    k = xp.repeat(_wide(xp, key).reshape(batch, tokens, key_heads, size), max(kv_num_heads // key_heads, 1), axis=2)
    v = _wide(xp, value).reshape(batch, tokens, kv_num_heads, width)
    shape = (batch, kv_num_heads, size, width)
    past = past_state[-1] if past_state is not None and state_window else past_state
    if past is not None and past.shape != shape:
        raise InvalidInput(f"past_state of shape {list(past.shape)}, needed {list(shape)}")
    state = xp.zeros(shape, q.dtype) if past is None else _wide(xp, past)
    steps = rates = None
    if gated and decay is not None:
        steps = _wide(xp, decay).reshape(batch, tokens, kv_num_heads, -1)
    if delta and beta is not None:
        rates = xp.broadcast_to(_wide(xp, beta), (batch, tokens, kv_num_heads))
    groups = heads // kv_num_heads
    if groups > 1:  # several queries read one state
        q = q.reshape(batch, tokens, kv_num_heads, groups, size)
    y, state, kept = _grouped(xp, q, k, v, state, steps, rates, delta, max(state_window, 1))
    dtype = query.dtype if past_state is None else past_state.dtype
    present = state.astype(dtype)
    if state_window:
        present = xp.zeros((state_window, *shape), dtype)
        present[state_window - len(kept) :] = xp.stack(kept) if kept else present[:0]
    return y.reshape(batch, tokens, heads * width).astype(query.dtype), present


def _grouped(
    xp: ModuleType,
    q: Array,
    k: Array,
    v: Array,
    state: Array,
    decay: Array | None,
    beta: Array | None,
    delta: bool,
    keep: int,
) -> tuple[Array, Array, list[Array]]:
    """As _recurrence, with queries [B, T, H, D] or, several a state, [B, T, H, groups, D]."""
    if q.ndim == 4:
        return _recurrence(xp, q, k, v, state, decay, beta, delta, keep)
    outputs = [_recurrence(xp, q[:, :, :, g], k, v, state, decay, beta, delta, keep) for g in range(q.shape[3])]
    return xp.stack([y for y, _, _ in outputs], axis=3), *outputs[0][1:]


@kernel("CausalConvWithState", 27)
@kernel("CausalConvWithState", domain=_MS)
def causal_conv_with_state(
    xp: ModuleType,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    past_state: Array | None = None,
    *,
    activation: str = "none",
    channels_last: int = 0,
    dilation: int = 1,
    input_channel_offset: int = 0,
    input_channels: int = 0,
    ndim: int = 1,
    state_channels_last: int = -1,
    state_length: int = 0,
    state_update_capacity: int = 0,
    state_window: int = 0,
) -> tuple[Array, Array]:
    """Depthwise over x [B, C, L] (or [B, L, ...channels]); the state is the last (k - 1) * dilation positions."""
    if ndim != 1 or input_channel_offset or input_channels or state_length or state_update_capacity:
        raise MissingKernel("CausalConvWithState of several dimensions or channel slices has no kernel on the CPU")
    if activation not in ("none", "silu", "swish"):
        raise InvalidInput(f"activation {activation!r} is none of none, silu, swish")
    channels, taps = weight.shape[0], weight.shape[-1]
    given = x.shape
    if channels_last:
        x = x.reshape(*given[:2], -1).swapaxes(1, 2)
    if weight.ndim != 3 or weight.shape[1] != 1 or x.ndim != 3 or x.shape[1] != channels or dilation < 1:
        raise InvalidInput(f"CausalConvWithState of {list(given)} with weights {list(weight.shape)}")
    batch, _, steps = x.shape
    before = (taps - 1) * dilation
    past = past_state[-1] if past_state is not None and state_window else past_state
    if past is None:
        past = xp.zeros((batch, channels, before), x.dtype)
    elif channels_last:
        past = past.reshape(batch, before, channels).swapaxes(1, 2)
    if past.shape != (batch, channels, before):
        raise InvalidInput(f"past_state of shape {list(past.shape)}, needed {[batch, channels, before]}")
    line = xp.concatenate([past, x], axis=2)
    wide, kernel_ = _wide(xp, line), _wide(xp, weight)
    y = xp.zeros((batch, channels, steps), wide.dtype)
    for tap in range(taps):
        y += wide[:, :, tap * dilation : tap * dilation + steps] * kernel_[:, 0, tap, None]
    if bias is not None:
        y += _wide(xp, bias)[:, None]
    if activation != "none":
        y = y * _sigmoid(xp, y)

    def after(position: int) -> Array:
        """The state after so many of the new positions."""
        state = line[:, :, position : position + before]
        return state.swapaxes(1, 2).reshape(batch, before, *given[2:]) if channels_last else state

    y = y.astype(x.dtype)
    if channels_last:
        y = y.swapaxes(1, 2).reshape(given)
    if not state_window:
        return xp.ascontiguousarray(y), xp.ascontiguousarray(after(steps))
    last = after(steps)
    window = xp.zeros((state_window, *last.shape), x.dtype)
    for slot in range(max(0, state_window - steps), state_window):
        window[slot] = after(steps - state_window + slot + 1)
    return xp.ascontiguousarray(y), window
