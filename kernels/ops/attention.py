"""Scaled dot product attention and rotary position embeddings.

B: batch, Hq: heads of the query, Hk: heads of key and value, Sq, Sk: positions of query and key, D, Dv: head sizes.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.matmul import is_narrow, product
from distort.kernels.registry import kernel

Array = Any
_FLOAT64 = 11  # onnx.TensorProto.DOUBLE


def _heads(xp: ModuleType, name: str, x: Array, heads: int | None) -> Array:
    """[B, S, H * D] or [B, H, S, D] -> [B, H, S, D]"""
    if x.ndim == 4:
        return x
    if x.ndim != 3:
        raise InvalidInput(f"{name} must have 3 or 4 dimensions. Actual: {list(x.shape)}")
    if not heads or heads < 0 or x.shape[2] % heads:
        raise InvalidInput(f"{name} of shape {list(x.shape)} can't be split into {heads} heads")
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def _softmax_rows(xp: ModuleType, logits: Array) -> Array:
    """Softmax over the last axis, in place. A row of -inf, which may see no key, gets zeros."""
    if not logits.shape[-1]:
        return logits
    top = logits.max(axis=-1, keepdims=True)
    logits -= xp.where(xp.isneginf(top), 0, top)
    xp.exp(logits, out=logits)
    total = logits.sum(axis=-1, keepdims=True)
    logits /= xp.where(total == 0, 1, total)
    return logits


def _visible(
    xp: ModuleType,
    offset: Any,
    steps: int,
    keys: int,
    is_causal: int,
    left: int,
    right: int,
) -> Array | None:
    """Which keys a query may see by its position, [Sq, Sk] or [B, 1, Sq, Sk]; None: all.

    ``offset`` is the position of the first query: an int, or [B].
    """
    if is_causal:
        right = 0
    if left < 0 and right < 0:
        return None
    position = xp.arange(steps)[:, None] + xp.asarray(offset)[..., None, None]
    ahead = xp.arange(keys) - position  # how far a key lies behind its query's own position
    seen = xp.ones(ahead.shape, bool)
    if right >= 0:
        seen &= ahead <= right
    if left >= 0:
        seen &= ahead >= -left
    return seen if seen.ndim == 2 else seen[:, None]


def _masked(xp: ModuleType, logits: Array, mask: Array | None, seen: list[Array]) -> None:
    """Apply a mask of the model and those by position to logits [B, Hq, Sq, Sk], in place."""
    if mask is not None:
        keys = logits.shape[-1]
        if not mask.ndim or mask.shape[-1] > keys:
            raise InvalidInput(f"attn_mask of shape {list(mask.shape)} for {keys} keys")
        if mask.shape[-1] < keys:  # the standard fills it up, even a single column
            fill = False if mask.dtype == bool else -xp.inf
            rest = xp.full((*mask.shape[:-1], keys - mask.shape[-1]), fill, mask.dtype)
            mask = xp.concatenate([mask, rest], axis=-1)
        try:
            np.broadcast_shapes(mask.shape, logits.shape)
        except ValueError:
            raise InvalidInput(
                f"attn_mask of shape {list(mask.shape)} doesn't broadcast to {list(logits.shape)}"
            ) from None
        if mask.dtype == bool:
            seen = [*seen, mask]
        else:
            logits += mask
    for one in seen:
        xp.copyto(logits, -xp.inf, where=~one)


@kernel("Attention", 23)
def attention(
    xp: ModuleType,
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    wanted: tuple[bool, ...] = (True,),
) -> tuple[Array, ...]:
    """Attention 23, 24, 25. Outputs Y, present_key, present_value, qk_matmul_output.

    float16 and bfloat16 compute in float32 throughout.
    """
    flat, dtype = q.ndim == 3, q.dtype
    q = _heads(xp, "Q", q, q_num_heads)
    k, v = _heads(xp, "K", k, kv_num_heads), _heads(xp, "V", v, kv_num_heads)
    if (past_key is None) != (past_value is None):
        raise InvalidInput("past_key and past_value must be provided together")
    if past_key is not None and nonpad_kv_seqlen is not None:
        raise InvalidInput("nonpad_kv_seqlen cannot be combined with past_key and past_value")
    past = 0
    if past_key is not None:
        past = past_key.shape[2]
        k, v = xp.concatenate([past_key, k], axis=2), xp.concatenate([past_value, v], axis=2)
    (batch, heads, steps, size), (groups, keys) = q.shape, k.shape[1:3]
    if k.shape[0] != batch or k.shape[3] != size or v.shape[:3] != k.shape[:3] or not groups or heads % groups:
        raise InvalidInput(
            f"Attention of Q {list(q.shape)}, K {list(k.shape)}, V {list(v.shape)} (batch, heads, positions, head size)"
        )
    present_key, present_value = k, v
    if is_narrow(dtype):
        q, k, v = (value.astype(xp.float32) for value in (q, k, v))
    # heads that share a key are rows of one product
    rows = (batch, groups, heads // groups * steps, size)
    q = (q * q.dtype.type(1 / math.sqrt(size) if scale is None else scale)).reshape(rows)
    logits = product(xp, q, k.swapaxes(2, 3)).reshape(batch, heads, steps, keys)
    shown = None  # the fourth output
    keep = len(wanted) > 3 and wanted[3]
    if keep and qk_matmul_output_mode == 0:
        shown = logits.astype(dtype)
    if softcap > 0:
        logits /= softcap
        xp.tanh(logits, out=logits)
        logits *= softcap
    if keep and qk_matmul_output_mode == 1:
        shown = logits.astype(dtype)
    offset: Any = past
    seen = []
    if nonpad_kv_seqlen is not None:
        if nonpad_kv_seqlen.shape != (batch,):
            raise InvalidInput(f"nonpad_kv_seqlen of shape {list(nonpad_kv_seqlen.shape)} for a batch of {batch}")
        offset = nonpad_kv_seqlen - steps
        seen.append(xp.arange(keys) < nonpad_kv_seqlen[:, None, None, None])
    by_position = _visible(xp, offset, steps, keys, is_causal, left_window_size, right_window_size)
    _masked(xp, logits, attn_mask, seen if by_position is None else [*seen, by_position])
    if keep and qk_matmul_output_mode == 2:
        shown = logits.astype(dtype)
    weights = _softmax_rows(xp, logits.astype(xp.float64) if softmax_precision == _FLOAT64 else logits)
    weights = weights.astype(q.dtype, copy=False)
    if keep and qk_matmul_output_mode == 3:
        shown = weights.astype(dtype)
    y = product(xp, weights.reshape(*rows[:3], keys), v).reshape(batch, heads, steps, v.shape[3])
    if flat:
        y = y.transpose(0, 2, 1, 3).reshape(batch, steps, heads * v.shape[3])
    return y.astype(dtype, copy=False), present_key, present_value, shown


@kernel("RotaryEmbedding", 23)
def rotary_embedding(
    xp: ModuleType,
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Array:
    """RotaryEmbedding 23. x: [B, H, S, D] or [B, S, H * D]; the caches give an angle a position and half dimension."""
    heads = _heads(xp, "X", x, num_heads)  # [B, H, S, D]
    batch, _, steps, size = heads.shape
    turned = rotary_embedding_dim or size
    if turned > size or turned % 2:
        raise InvalidInput(f"rotary_embedding_dim {turned} of heads of size {size}")
    if position_ids is not None:
        if position_ids.size and (int(position_ids.min()) < 0 or int(position_ids.max()) >= len(cos_cache)):
            raise InvalidInput(f"position_ids beyond a cache of {len(cos_cache)} positions")
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache)):
        if cache.shape != (batch, steps, turned // 2):
            raise InvalidInput(f"{name} gives {list(cache.shape)}, needed {[batch, steps, turned // 2]}")
    compute = xp.float32 if is_narrow(x.dtype) else x.dtype
    cos, sin = (cache[:, None].astype(compute, copy=False) for cache in (cos_cache, sin_cache))  # [B, 1, S, D / 2]
    if interleaved:
        first, second = slice(0, turned, 2), slice(1, turned, 2)
    else:
        first, second = slice(0, turned // 2), slice(turned // 2, turned)
    result = xp.array(heads)  # a copy: what isn't turned stays
    real, imaginary = (heads[..., part].astype(compute, copy=False) for part in (first, second))
    result[..., first] = real * cos - imaginary * sin
    result[..., second] = real * sin + imaginary * cos
    return result if x.ndim == 4 else result.transpose(0, 2, 1, 3).reshape(x.shape)
