"""onnxruntime's attention: MultiHeadAttention, DecoderMaskedMultiHeadAttention, Attention, QAttention.

B: batch, H: heads, S, L: positions of query and of new keys, T: all keys, past ones included, D, Dv: head sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.contrib_quantized_matmul import matmul_integer_to_float
from distort.kernels.ops.contrib_rotary import rotated
from distort.kernels.ops.matmul import is_narrow, product
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


def split_heads(x: Array, heads: int, name: str) -> Array:
    """[B, S, H * D] -> [B, H, S, D]"""
    if x.ndim != 3 or heads < 1 or x.shape[2] % heads:
        raise InvalidInput(f"{name} of shape {list(x.shape)} can't be split into {heads} heads")
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def join_heads(x: Array) -> Array:
    """[B, H, S, D] -> [B, S, H * D]"""
    batch, heads, steps, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, steps, heads * size)


def softmax_rows(xp: ModuleType, logits: Array) -> Array:
    """Over the last axis, in place."""
    if logits.shape[-1]:
        logits -= logits.max(axis=-1, keepdims=True)
        xp.exp(logits, out=logits)
        logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def padding_mask(xp: ModuleType, mask: Array | None, batch: int, steps: int, keys: int, filler: float) -> Array | None:
    """What onnxruntime's forms of masks add to the logits, broadcasting to [B, 1, S, T].

    mask: [B] (the number of keys), [2 B] (ends, then starts), [3 B + 2] (lengths first), [B, T], [B, S, T] or
    [B, 1, M, M] with 0 for what is hidden.
    """
    if mask is None:
        return None
    places = xp.arange(keys)
    if mask.ndim == 1:
        if mask.shape[0] in (batch, 3 * batch + 2):
            seen = places < mask[:batch, None]
        elif mask.shape[0] == 2 * batch:
            seen = (places < mask[:batch, None]) & (places >= mask[batch:, None])
        else:
            raise InvalidInput(f"mask_index of shape {list(mask.shape)} for a batch of {batch}")
        seen = seen[:, None, None]
    elif mask.shape == (batch, keys):
        seen = (mask != 0)[:, None, None]
    elif mask.shape == (batch, steps, keys):
        seen = (mask != 0)[:, None]
    elif mask.ndim == 4 and mask.shape[:2] == (batch, 1) and mask.shape[2] == mask.shape[3] >= keys:
        seen = mask[:, :, keys - steps : keys, :keys] != 0
    else:
        raise InvalidInput(f"mask of shape {list(mask.shape)} for batch {batch}, queries {steps} and keys {keys}")
    return xp.where(seen, xp.float32(0), xp.float32(filler))


def attend(
    xp: ModuleType,
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float | None,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: int = 0,
) -> tuple[Array, Array]:
    """([B, H, S, Dv], the scaled products of queries and keys with the bias [B, H, S, T]). At least 32 bits."""
    (batch, heads, steps, size), keys = q.shape, k.shape[2]
    if k.shape != (batch, heads, keys, size) or v.shape[:3] != k.shape[:3]:
        raise InvalidInput(
            f"Q {list(q.shape)}, K {list(k.shape)}, V {list(v.shape)} (batch, heads, positions, head size)"
        )
    dtype = q.dtype
    if is_narrow(dtype):
        q, k, v = (value.astype(xp.float32) for value in (q, k, v))
    factor = q.dtype.type(scale or 1 / math.sqrt(size))  # 0 stands for the default
    logits = product(xp, q * factor, k.swapaxes(2, 3))
    shown = logits
    if bias is not None:
        try:
            fits = np.broadcast_shapes(bias.shape, logits.shape) == logits.shape and bias.ndim == 4
        except ValueError:
            fits = False
        if not fits:
            raise InvalidInput(f"attention_bias of shape {list(bias.shape)} for {list(logits.shape)}")
        shown = logits = logits + bias
    if mask is not None:
        logits = logits + mask
    if causal:
        hidden = xp.arange(keys) > xp.arange(steps)[:, None] + (keys - steps)
        logits = xp.where(hidden, xp.finfo(xp.float32).min, logits)
    weights = softmax_rows(xp, xp.array(logits))
    return product(xp, weights, v).astype(dtype, copy=False), shown


def _parts(bias: Array | None, sizes: Sequence[int]) -> list[Array | None]:
    """A bias of all three projections, cut."""
    if bias is None:
        return [None] * 3
    if bias.shape != (sum(sizes),):
        raise InvalidInput(f"bias of shape {list(bias.shape)}, needed {[sum(sizes)]}")
    ends = np.cumsum(sizes)
    return [bias[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _plus(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias


def _extended(xp: ModuleType, past: Array | None, new: Array, used: Any) -> tuple[Array, Array]:
    """(all keys or values, what to keep). With ``used`` the past is a buffer with so many places filled."""
    if past is None:
        return new, new
    if past.ndim != 4 or past.shape[:2] != new.shape[:2] or past.shape[3] != new.shape[3]:
        raise InvalidInput(f"a past of shape {list(past.shape)} for new keys or values {list(new.shape)}")
    if used is None:
        joined = xp.concatenate([past, new], axis=2)
        return joined, joined
    start = int(used.reshape(-1)[0])
    stop = start + new.shape[2]
    if not start >= 0 or stop > past.shape[2]:
        raise InvalidInput(
            f"past_sequence_length {start} with {new.shape[2]} new in a buffer of {past.shape[2]} positions"
        )
    kept = xp.array(past)
    kept[:, :, start:stop] = new
    return kept[:, :, :stop], kept


def _of_beams(xp: ModuleType, values: Array, indirection: Array | None) -> Array:
    """The past [B * W, H, T, D] of each beam, whose token t came from the beam that indirection [B, W, M] says."""
    if indirection is None:
        return values
    batch, beams = indirection.shape[:2]
    keys = values.shape[2]
    if batch * beams != values.shape[0] or indirection.shape[2] < keys:
        raise InvalidInput(f"cache_indirection {list(indirection.shape)} for keys {list(values.shape)}")
    source = indirection[:, :, : keys - 1].astype(xp.int64)  # the newest token is a beam's own
    split = values.reshape(batch, beams, *values.shape[1:])
    rows = xp.arange(batch)[:, None, None]
    past = xp.moveaxis(split[rows, source, :, xp.arange(keys - 1)], 2, 3)  # [B, W, H, T - 1, D]
    return xp.concatenate([past, split[:, :, :, keys - 1 :]], axis=3).reshape(values.shape)


def _multi_head(
    xp: ModuleType,
    query: Array,
    key: Array | None,
    value: Array | None,
    bias: Array | None,
    mask: Array | None,
    attention_bias: Array | None,
    past: tuple[Array | None, Array | None],
    used: Any,
    indirection: Array | None,
    heads: int,
    scale: float | None,
    filler: float,
    unidirectional: int,
) -> tuple[Array, Array, Array, Array]:
    if query.ndim == 5:  # [B, S, H, 3, D]
        if query.shape[2:4] != (heads, 3):
            raise InvalidInput(f"packed query, key and value of shape {list(query.shape)} for {heads} heads")
        query, key, value = (query[:, :, :, i].reshape(*query.shape[:2], -1) for i in range(3))
    elif query.ndim != 3:
        raise InvalidInput(f"query must have 3 or 5 dimensions. Actual: {list(query.shape)}")
    if key is not None and key.ndim == 5:  # [B, L, H, 2, D]
        if key.shape[2:4] != (heads, 2) or value is not None:
            raise InvalidInput(f"packed key and value of shape {list(key.shape)} for {heads} heads")
        key, value = (key[:, :, :, i].reshape(*key.shape[:2], -1) for i in range(2))
    if key is None and value is None and query.shape[2] % 3 == 0:  # [B, S, 3 * hidden]
        query, key, value = (query[..., i * query.shape[2] // 3 : (i + 1) * query.shape[2] // 3] for i in range(3))
    if key is None or value is None:
        raise InvalidInput("key and value are both needed where the query isn't packed")
    hidden = query.shape[2]
    if key.ndim == 4:  # of a cross attention, kept from before
        q_bias = None if bias is None else bias[:hidden]
        q, k, v = split_heads(_plus(query, q_bias), heads, "query"), key, value
        present = k, v
    else:
        if value.ndim != 3:
            raise InvalidInput(f"value must have 3 dimensions. Actual: {list(value.shape)}")
        biases = _parts(bias, (hidden, hidden, value.shape[2]))
        q, k, v = (
            split_heads(_plus(x, b), heads, name)
            for x, b, name in zip((query, key, value), biases, ("query", "key", "value"), strict=True)
        )
        (k, kept_k), (v, kept_v) = _extended(xp, past[0], k, used), _extended(xp, past[1], v, used)
        present = kept_k, kept_v
    added = padding_mask(xp, mask, q.shape[0], q.shape[2], k.shape[2], filler)
    k, v = _of_beams(xp, k, indirection), _of_beams(xp, v, indirection)
    y, products = attend(xp, q, k, v, scale=scale, mask=added, bias=attention_bias, causal=unidirectional)
    return join_heads(y), *present, products


@kernel("MultiHeadAttention", domain=_MS, host=(8,))
def multi_head_attention(
    xp: ModuleType,
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    bias: Array | None = None,
    key_padding_mask: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_sequence_length: Any = None,
    cache_indirection: Array | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Array, ...]:
    """Outputs: [B, S, H * Dv], present key and value [B, H, T, D], products of query and key [B, H, S, T].

    query, key, value: [B, S, hidden], or packed as [B, S, H, 3, D] or [B, L, H, 2, D]; keys [B, H, L, D] are those of
    an encoder, used as they are.
    """
    return _multi_head(
        xp, query, key, value, bias, key_padding_mask, attention_bias, (past_key, past_value), past_sequence_length,
        cache_indirection, num_heads, scale, mask_filter_value, unidirectional,
    )  # fmt: skip


@kernel("DecoderMaskedMultiHeadAttention", domain=_MS, host=(7, 8))
def decoder_masked_multi_head_attention(
    xp: ModuleType,
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    mask_index: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_sequence_length: Any = None,
    beam_width: Any = None,
    cache_indirection: Array | None = None,
    bias: Array | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    output_qk: int = 0,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
) -> tuple[Array, ...]:
    """As MultiHeadAttention, for one position of the query."""
    if query.ndim != 3 or query.shape[1] != 1:
        raise InvalidInput(f"Input 'query' must have a sequence length of 1. Actual: {list(query.shape)}")
    if past_present_share_buffer and past_key is not None and past_sequence_length is None:
        raise InvalidInput("past_sequence_length is needed where past and present share a buffer")
    return _multi_head(
        xp, query, key, value, bias, mask_index, attention_bias, (past_key, past_value),
        past_sequence_length if past_present_share_buffer else None, cache_indirection, num_heads, scale,
        mask_filter_value, 0,
    )  # fmt: skip


def _projected(
    xp: ModuleType,
    merged: Array,
    sizes: Sequence[int] | None,
    heads: int,
    mask: Array | None,
    past: Array | None,
    attention_bias: Array | None,
    used: Any,
    scale: float | None,
    filler: float,
    unidirectional: int,
    do_rotary: int,
    rotary_dim: int,
) -> tuple[Array, Array | None]:
    """Attention of queries, keys and values that lie side by side in merged [B, S, 3 * hidden]."""
    if merged.ndim != 3:
        raise InvalidInput(f"Input 'input' is expected to have 3 dimensions, got {merged.ndim}")
    if not sizes:
        if merged.shape[2] % 3:
            raise InvalidInput(f"weights for {merged.shape[2]} columns can't be cut into three")
        sizes = [merged.shape[2] // 3] * 3
    if len(sizes) != 3 or sum(sizes) != merged.shape[2] or sizes[0] != sizes[1] or min(sizes) < 1:
        raise InvalidInput(f"qkv_hidden_sizes {list(sizes)} for {merged.shape[2]} columns of the weights")
    ends = np.cumsum(sizes)
    q, k, v = (
        split_heads(merged[..., end - size : end], heads, name)
        for end, size, name in zip(ends, sizes, ("query", "key", "value"), strict=True)
    )
    before = (None, None)
    if past is not None:
        if past.ndim != 5 or past.shape[0] != 2:
            raise InvalidInput(
                f"Input 'past' must have shape [2, batch, heads, positions, head size]. Actual: {list(past.shape)}"
            )
        before = past[0], past[1]
    if do_rotary:
        start = 0 if past is None else int(used.reshape(-1)[0]) if used is not None else past.shape[3]
        q, k = (_turned(xp, x, start, rotary_dim) for x in (q, k))
    (k, kept_k), (v, kept_v) = _extended(xp, before[0], k, used), _extended(xp, before[1], v, used)
    added = padding_mask(xp, mask, q.shape[0], q.shape[2], k.shape[2], filler)
    y, _ = attend(xp, q, k, v, scale=scale, mask=added, bias=attention_bias, causal=unidirectional)
    # with values of another size there is no one tensor of both
    return join_heads(y), xp.stack([kept_k, kept_v]) if kept_k.shape == kept_v.shape else None


def _turned(xp: ModuleType, x: Array, start: int, turned: int) -> Array:
    """Rotary embedding from position ``start`` on, with the usual base of 10000."""
    size = turned or x.shape[3]
    frequency = 10000.0 ** (-xp.arange(0, size, 2, dtype=xp.float64) / size)
    angle = (xp.arange(start, start + x.shape[2])[:, None] * frequency)[None, None]
    return rotated(xp, x, xp.cos(angle), xp.sin(angle), 0)


@kernel("Attention", domain=_MS, host=(6,))
def attention_ms(
    xp: ModuleType,
    x: Array,
    weights: Array,
    bias: Array | None = None,
    mask_index: Array | None = None,
    past: Array | None = None,
    attention_bias: Array | None = None,
    past_sequence_length: Any = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    rotary_embedding_dim: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Array, Array | None]:
    """x [B, S, I], weights [I, 2 * hidden + v_hidden] -> [B, S, v_hidden], present [2, B, H, T, D]."""
    if x.ndim != 3 or weights.ndim != 2 or x.shape[2] != weights.shape[0]:
        raise InvalidInput(f"input {list(x.shape)} and weights {list(weights.shape)} don't match")
    merged = _plus(product(xp, x, weights), bias)
    used = past_sequence_length if past_present_share_buffer else None
    return _projected(
        xp, merged, qkv_hidden_sizes, num_heads, mask_index, past, attention_bias, used, scale, mask_filter_value,
        unidirectional, do_rotary, rotary_embedding_dim,
    )  # fmt: skip


@kernel("QAttention", domain=_MS)
def q_attention(
    xp: ModuleType,
    x: Array,
    weights: Array,
    bias: Array,
    input_scale: Array,
    weight_scale: Array,
    mask_index: Array | None = None,
    input_zero_point: Array | None = None,
    weight_zero_point: Array | None = None,
    past: Array | None = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Array, Array | None]:
    """Attention whose input [B, S, I] and weights [I, 3 * hidden] are 8-bit integers; scales may be by column."""
    merged = matmul_integer_to_float(
        xp, x, weights, input_scale, weight_scale, input_zero_point, weight_zero_point, bias
    )
    return _projected(
        xp, merged, None, num_heads, mask_index, past, None, None, scale, mask_filter_value, unidirectional,
        do_rotary, 0,
    )  # fmt: skip
