"""onnxruntime's attention with a cache of keys and values: GroupQueryAttention, SparseAttention.

B: batch, H, G: heads of the query and of keys, S: new positions, D: head size, C: positions of the cache. An entry of
the batch has T tokens after the step, Q of them new, P before it: T = P + Q. Entries differ, so each is taken alone.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.contrib_attention import join_heads, split_heads
from distort.kernels.ops.contrib_rotary import angles_at, rotated
from distort.kernels.ops.matmul import is_narrow, product
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


class Cache:
    """How keys and values lie in the cache: as they are, as bytes with a scale, or as pairs of 4 bits."""

    def __init__(self, xp: ModuleType, past: Array | None, scale: Array | None, kind: str, bits: int, dtype: Any):
        self._xp, self._scale, self._dtype = xp, scale, dtype
        self.bits = bits if kind != "NONE" else 0
        if kind not in ("NONE", "PER_TENSOR", "PER_CHANNEL"):
            raise InvalidInput(f"quantization type {kind!r} of the cache")
        if self.bits not in (0, 4, 8):
            raise InvalidInput(f"kv_cache_bit_width must be 4 or 8. Actual: {bits}")
        if self.bits and scale is None:
            raise InvalidInput("a quantized cache needs k_scale and v_scale")
        self.stored = np.dtype(np.uint8 if self.bits == 4 else np.int8) if self.bits else dtype
        if past is not None and past.dtype != self.stored:
            raise InvalidInput(f"a cache of {past.dtype} where {self.stored} is stored")

    def _factor(self, heads: int, size: int) -> Array:
        scale = self._scale
        if scale is None:
            raise InvalidInput("a quantized cache needs k_scale and v_scale")
        return scale.reshape(()) if scale.size == 1 else scale.reshape(heads, 1, size)

    def width(self, size: int) -> int:
        return (size + 1) // 2 if self.bits == 4 else size

    def pack(self, values: Array) -> Array:
        """[G, n, D] as stored."""
        xp = self._xp
        if not self.bits:
            return values
        heads, _, size = values.shape
        limit = 1 << (self.bits - 1)
        levels = xp.clip(xp.rint(values.astype(xp.float32) / self._factor(heads, size)), -limit, limit - 1)
        if self.bits == 8:
            return levels.astype(xp.int8)
        nibbles = (levels + 8).astype(xp.uint8)
        if size % 2:
            nibbles = xp.concatenate([nibbles, xp.full((*nibbles.shape[:2], 1), 8, xp.uint8)], axis=2)
        return nibbles[..., ::2] | (nibbles[..., 1::2] << 4)

    def unpack(self, stored: Array, size: int) -> Array:
        """[G, n, D] in numbers."""
        xp = self._xp
        if not self.bits:
            return stored
        if self.bits == 4:
            pairs = xp.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:2], -1)[..., :size]
            stored = pairs.astype(xp.float32) - 8
        return (stored.astype(xp.float32) * self._factor(stored.shape[0], size)).astype(self._dtype, copy=False)


def _resident(tokens: int, capacity: int, window: int) -> int:
    """How many of so many tokens a cache of a window keeps: full up to its capacity, then cut by whole steps."""
    if tokens <= capacity:
        return tokens
    step = capacity - window + 1
    return tokens - step * -(-(tokens - capacity) // step)


def _group_attend(
    xp: ModuleType,
    q: Array,
    k: Array,
    v: Array,
    seen: Array | None,
    *,
    scale: float | None,
    softcap: float,
    bias: Array | None,
    sink: Array | None,
) -> tuple[Array, Array, Array]:
    """One entry of the batch: q [H, n, D], k and v [G, t, D] -> [H, n, D], logits and weights [H, n, t].

    ``sink``: a logit per head that takes its share of the softmax and gives nothing.
    """
    (heads, steps, size), (groups, keys) = q.shape, k.shape[:2]
    dtype = q.dtype
    if is_narrow(dtype):
        q, k, v = (value.astype(xp.float32) for value in (q, k, v))
    factor = q.dtype.type(scale or 1 / math.sqrt(size))
    # heads that share a key are rows of one product
    rows = (q * factor).reshape(groups, heads // groups * steps, size)
    logits = product(xp, rows, k.swapaxes(1, 2)).reshape(heads, steps, keys)
    if softcap > 0:
        logits = xp.tanh(logits / softcap) * softcap
    if bias is not None:
        logits = logits + bias
    shown = logits
    if seen is not None:
        logits = xp.where(seen, logits, -xp.inf)
    top = logits.max(axis=-1, keepdims=True) if keys else xp.full((heads, steps, 1), -xp.inf, logits.dtype)
    if sink is not None:
        top = xp.maximum(top, sink.astype(logits.dtype)[:, None, None])
    top = xp.where(xp.isneginf(top), 0, top)
    weights = xp.exp(logits - top)
    total = weights.sum(axis=-1, keepdims=True)
    if sink is not None:
        total = total + xp.exp(sink.astype(logits.dtype)[:, None, None] - top)
    weights /= xp.where(total == 0, 1, total)
    y = product(xp, weights.reshape(groups, -1, keys), v).reshape(heads, steps, v.shape[2])
    return y.astype(dtype, copy=False), shown, weights


def _projections(query: Array, key: Array | None, value: Array | None, heads: int, groups: int) -> tuple[Array, ...]:
    """[B, H, S, D], [B, G, S, D] twice; the query may hold all three."""
    if heads < 1 or groups < 1 or heads % groups:
        raise InvalidInput(
            f"num_heads must be a multiple of kv_num_heads. Got num_heads {heads}, kv_num_heads {groups}"
        )
    if query.ndim != 3:
        raise InvalidInput(f"Input 'query' is expected to have 3 dimensions, got {query.ndim}")
    if (key is None) != (value is None):
        raise InvalidInput("key and value are given together or not at all")
    if key is None or value is None:
        if query.shape[2] % (heads + 2 * groups):
            raise InvalidInput(f"packed query of shape {list(query.shape)} for {heads} and {groups} heads")
        size = query.shape[2] // (heads + 2 * groups)
        ends = heads * size, (heads + groups) * size
        query, key, value = query[..., : ends[0]], query[..., ends[0] : ends[1]], query[..., ends[1] :]
    q, k, v = split_heads(query, heads, "query"), split_heads(key, groups, "key"), split_heads(value, groups, "value")
    if q.shape[3] != k.shape[3] or k.shape != v.shape or k.shape[0] != q.shape[0]:
        raise InvalidInput(f"query {list(q.shape)}, key {list(k.shape)}, value {list(v.shape)} don't match")
    return q, k, v


def _normed(xp: ModuleType, x: Array, weight: Array, epsilon: float) -> Array:
    """Root mean square normalization of each head."""
    if weight.shape != x.shape[-1:]:
        raise InvalidInput(f"a norm weight of shape {list(weight.shape)} for heads of {x.shape[-1]}")
    wide = x.astype(xp.float32)
    wide /= xp.sqrt((wide * wide).mean(axis=-1, keepdims=True) + xp.float32(epsilon))
    return (wide * weight.astype(xp.float32)).astype(x.dtype)


@kernel("GroupQueryAttention", domain=_MS, host=(5, 6, 16))
def group_query_attention(
    xp: ModuleType,
    query: Array,
    key: Array | None,
    value: Array | None,
    past_key: Array | None,
    past_value: Array | None,
    seqlens_k: Any,
    total_sequence_length: Any,
    cos_cache: Array | None = None,
    sin_cache: Array | None = None,
    position_ids: Array | None = None,
    attention_bias: Array | None = None,
    head_sink: Array | None = None,
    k_scale: Array | None = None,
    v_scale: Array | None = None,
    q_norm_weight: Array | None = None,
    k_norm_weight: Array | None = None,
    query_seqlens: Any = None,
    *,
    causal: int = 1,
    do_rotary: int = 0,
    k_norm_epsilon: float | None = None,
    k_quant_type: str = "NONE",
    kv_cache_bit_width: int = 0,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    q_norm_epsilon: float | None = None,
    qk_norm_epsilon: float = 1e-6,
    qk_output: int = 0,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    sliding_window_cache: int = 0,
    smooth_softmax: int = -1,
    softcap: float = 0.0,
    v_quant_type: str = "NONE",
) -> tuple[Array | None, ...]:
    """Outputs: [B, S, H * D], present key and value [B, G, C, D], products of query and key [B, H, S, total].

    seqlens_k [B]: T - 1. What lies beyond T in the presents, and output rows beyond Q, are zero or of the past.
    """
    q, k, v = _projections(query, key, value, num_heads, kv_num_heads)
    batch, heads, steps, size = q.shape
    lengths, new = _lengths(batch, steps, k.shape[2], seqlens_k, total_sequence_length, query_seqlens, past_key)
    total = int(np.asarray(total_sequence_length).reshape(-1)[0])
    if (past_key is None) != (past_value is None):
        raise InvalidInput("past_key and past_value are given together or not at all")
    if (q_norm_weight is None) != (k_norm_weight is None):
        raise InvalidInput("q_norm_weight and k_norm_weight are given together or not at all")
    if q_norm_weight is not None and k_norm_weight is not None:
        q = _normed(xp, q, q_norm_weight, q_norm_epsilon or qk_norm_epsilon)
        k = _normed(xp, k, k_norm_weight, k_norm_epsilon or qk_norm_epsilon)
    if head_sink is not None and head_sink.shape != (heads,):
        raise InvalidInput(f"head_sink of shape {list(head_sink.shape)} for {heads} heads")
    sink = head_sink if head_sink is not None else xp.zeros(heads, xp.float32) if smooth_softmax == 1 else None
    caches = (
        Cache(xp, past_key, k_scale, k_quant_type, kv_cache_bit_width, q.dtype),
        Cache(xp, past_value, v_scale, v_quant_type, kv_cache_bit_width, q.dtype),
    )
    capacity = max(total, 0 if past_key is None else past_key.shape[2])
    window = local_window_size
    if sliding_window_cache:
        if past_key is None or window < 1 or past_key.shape[2] < window:
            raise InvalidInput("sliding_window_cache needs local_window_size > 0 and a cache of at least that many")
        capacity = past_key.shape[2]
    starts = np.asarray(lengths) - np.asarray(new)
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise InvalidInput("do_rotary needs cos_cache and sin_cache")
        positions = _positions(xp, position_ids, starts, steps, len(cos_cache), first=not starts.any())
        angles = angles_at(cos_cache, sin_cache, positions)
        cos, sin = (xp.broadcast_to(angle, (batch, *angle.shape[1:]))[:, None] for angle in angles)
        q, k = (rotated(xp, x, cos, sin, rotary_interleaved) for x in (q, k))
    y = xp.zeros_like(q)
    presents = []
    for past, cache in zip((past_key, past_value), caches, strict=True):
        present = xp.zeros((batch, kv_num_heads, capacity, cache.width(size)), cache.stored)
        if past is not None:
            if past.ndim != 4 or past.shape[:2] != present.shape[:2] or past.shape[3] != present.shape[3]:
                raise InvalidInput(f"a past of shape {list(past.shape)} for a present of {list(present.shape)}")
            present[:, :, : past.shape[2]] = past[:, :, :capacity]
        presents.append(present)
    shown = xp.zeros((batch, heads, steps, total), q.dtype) if qk_output else None
    for entry in range(batch):
        tokens, fresh, before = lengths[entry], new[entry], int(starts[entry])
        held = _resident(before, capacity, window) if sliding_window_cache else before
        if held > (0 if past_key is None else past_key.shape[2]):
            raise InvalidInput(f"entry {entry} has {held} tokens before this step, the past holds fewer")
        kept = _resident(tokens, capacity, window) if sliding_window_cache else tokens
        if not sliding_window_cache and tokens > capacity:
            raise InvalidInput(f"entry {entry} has {tokens} tokens for a cache of {capacity} positions")
        full = []
        for present, cache, values in zip(presents, caches, (k, v), strict=True):
            stored = xp.concatenate([present[entry, :, :held], cache.pack(values[entry, :, :fresh])], axis=1)
            present[entry, :, :kept] = stored[:, stored.shape[1] - kept :]
            full.append(cache.unpack(stored, size))
        if not fresh:
            continue
        first = before - held  # the position of the first key at hand
        seen = _seen(xp, before, fresh, first, held + fresh, causal, window)
        bias = None
        if attention_bias is not None:
            one = attention_bias[entry if attention_bias.shape[0] > 1 else 0]
            bias = one[:, :fresh, first : first + held + fresh]
        result, logits, weights = _group_attend(
            xp, q[entry, :, :fresh], full[0], full[1], seen, scale=scale, softcap=softcap, bias=bias, sink=sink
        )
        y[entry, :, :fresh] = result
        if shown is not None:
            shown[entry, :, :fresh, first : first + held + fresh] = logits if qk_output == 1 else weights
    return join_heads(y), presents[0], presents[1], shown


def _lengths(
    batch: int, steps: int, keys: int, seqlens_k: Any, total: Any, query_seqlens: Any, past_key: Array | None
) -> tuple[list[int], list[int]]:
    """(T, Q) of each entry."""
    counts = np.asarray(seqlens_k).reshape(-1)
    if counts.shape != (batch,):
        raise InvalidInput(f"seqlens_k must be shape (batch_size). Got {list(np.shape(seqlens_k))}")
    most = np.asarray(total).reshape(-1)
    if most.size != 1:
        raise InvalidInput(f"total_sequence_length must be a scalar. Got {list(np.shape(total))}")
    if keys != steps:
        raise InvalidInput(f"key has {keys} positions and query {steps}")
    lengths = [int(count) + 1 for count in counts]
    if min(lengths, default=1) < 1 or max(lengths, default=1) > int(most[0]):
        raise InvalidInput(f"seqlens_k {counts.tolist()} for total_sequence_length {int(most[0])}")
    if query_seqlens is None:
        return lengths, [min(steps, length) for length in lengths]
    new = [int(count) for count in np.asarray(query_seqlens).reshape(-1)]
    if len(new) != batch or not all(0 <= q <= min(steps, t) for q, t in zip(new, lengths, strict=True)):
        raise InvalidInput(f"query_seqlens {new} for {steps} positions and lengths {lengths}")
    return lengths, new


def _positions(xp: ModuleType, position_ids: Array | None, starts: Any, steps: int, most: int, first: bool) -> Array:
    """[B, S] or [1, S]; rows that are padding are kept inside of the cache of angles."""
    if position_ids is not None and position_ids.size:
        if first:  # of a first prompt its first element alone counts
            return (position_ids.reshape(-1)[0] + xp.arange(steps))[None]
        if position_ids.shape != (len(starts), steps):
            raise InvalidInput(f"position_ids of shape {list(position_ids.shape)}, needed {[len(starts), steps]}")
        return position_ids
    return xp.minimum(xp.asarray(starts)[:, None] + xp.arange(steps), most - 1)


def _seen(xp: ModuleType, before: int, new: int, first: int, keys: int, causal: int, window: int) -> Array | None:
    """[Q, keys]: which keys a query may see by its position. Keys begin at position ``first``."""
    if not causal:
        return None
    ahead = xp.arange(first, first + keys) - (before + xp.arange(new))[:, None]
    seen = ahead <= 0
    if window > 0:
        seen &= ahead > -window
    return seen


@kernel("SparseAttention", domain=_MS, host=(5, 6, 7, 8))
def sparse_attention(
    xp: ModuleType,
    query: Array,
    key: Array | None,
    value: Array | None,
    past_key: Array,
    past_value: Array,
    block_row_indices: Any,
    block_col_indices: Any,
    total_sequence_length: Any,
    key_total_sequence_lengths: Any,
    cos_cache: Array | None = None,
    sin_cache: Array | None = None,
    *,
    do_rotary: int = 0,
    kv_num_heads: int,
    num_heads: int,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    sparse_block_size: int,
) -> tuple[Array, ...]:
    """Outputs [B, S, H * D], present key and value. A query sees the blocks of its row in the layout of its head."""
    q, k, v = _projections(query, key, value, num_heads, kv_num_heads)
    batch, heads, steps, _ = q.shape
    rows, columns = np.asarray(block_row_indices), np.asarray(block_col_indices)
    lengths = [int(n) for n in np.asarray(key_total_sequence_lengths).reshape(-1)]
    capacity = past_key.shape[2] if past_key.ndim == 4 else 0
    if sparse_block_size < 1 or rows.ndim != 2 or columns.ndim != 2 or len(rows) != len(columns) or heads % len(rows):
        raise InvalidInput(f"block_row_indices {list(rows.shape)} and block_col_indices {list(columns.shape)}")
    if len(lengths) != batch or not all(1 <= length <= capacity for length in lengths):
        raise InvalidInput(f"key_total_sequence_lengths {lengths} for a cache of {capacity} positions")
    if past_key.shape != past_value.shape or past_key.shape != (batch, kv_num_heads, capacity, q.shape[3]):
        raise InvalidInput(f"past_key {list(past_key.shape)} and past_value {list(past_value.shape)}")
    layouts = _block_masks(rows, columns)
    size = (rows.shape[1] - 1) * sparse_block_size
    if int(np.asarray(total_sequence_length).reshape(-1)[0]) > size:
        raise InvalidInput(f"total_sequence_length is beyond the {size} positions of the block mask")
    # a prompt may be padded at its end, an entry's own positions come first all the same
    new = [min(steps, length) for length in lengths]
    starts = np.asarray(lengths) - np.asarray(new)
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise InvalidInput("do_rotary needs cos_cache and sin_cache")
        positions = _positions(xp, None, starts, steps, len(cos_cache), first=False)
        cos, sin = (angle[:, None] for angle in angles_at(cos_cache, sin_cache, positions))
        q, k = (rotated(xp, x, cos, sin, rotary_interleaved) for x in (q, k))
    y, present_key, present_value = xp.zeros_like(q), xp.array(past_key), xp.array(past_value)
    for entry in range(batch):
        tokens, fresh, before = lengths[entry], new[entry], int(starts[entry])
        present_key[entry, :, before:tokens] = k[entry, :, :fresh]
        present_value[entry, :, before:tokens] = v[entry, :, :fresh]
        at = np.arange(before, tokens)
        blocks = layouts[:, at // sparse_block_size][:, :, np.arange(tokens) // sparse_block_size]
        seen = blocks & (np.arange(tokens) <= at[:, None])
        seen = np.tile(seen, (heads // len(layouts), 1, 1))  # layouts take turns over the heads
        y[entry, :, :fresh], _, _ = _group_attend(
            xp, q[entry, :, :fresh], present_key[entry, :, :tokens], present_value[entry, :, :tokens],
            xp.asarray(seen), scale=scale, softcap=0.0, bias=None, sink=None,
        )  # fmt: skip
    return join_heads(y), present_key, present_value


def _block_masks(rows: Any, columns: Any) -> Any:
    """[layouts, blocks, blocks] of the compressed rows."""
    n = rows.shape[1] - 1
    masks = np.zeros((len(rows), n, n), bool)
    for layout, (starts, places) in enumerate(zip(rows, columns, strict=True)):
        counts = np.diff(starts)
        used = places[: starts[-1]]
        if starts[0] != 0 or (counts < 0).any() or len(used) != starts[-1] or ((used < 0) | (used >= n)).any():
            raise InvalidInput(f"block_row_indices {starts.tolist()} with block_col_indices {places.tolist()}")
        masks[layout, np.repeat(np.arange(n), counts), used] = True
    return masks
