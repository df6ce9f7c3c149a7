"""onnxruntime's rotary position embeddings: RotaryEmbedding, MRotaryEmbedding.

B: batch, H: heads, S: positions, D: head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.matmul import is_narrow
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


def rotated(xp: ModuleType, x: Array, cos: Array, sin: Array, interleaved: int) -> Array:
    """x [B, H, S, D] turned by the angles [B, 1, S, turned / 2]; what lies beyond ``turned`` stays."""
    compute = xp.float32 if is_narrow(x.dtype) else x.dtype
    turned = 2 * cos.shape[-1]
    if turned > x.shape[-1]:
        raise InvalidInput(f"a rotary cache for {turned} of the {x.shape[-1]} elements of a head")
    cos, sin = cos.astype(compute, copy=False), sin.astype(compute, copy=False)
    if interleaved:
        first, second = slice(0, turned, 2), slice(1, turned, 2)
    else:
        first, second = slice(0, turned // 2), slice(turned // 2, turned)
    result = xp.array(x)
    real, imaginary = (x[..., part].astype(compute, copy=False) for part in (first, second))
    result[..., first] = real * cos - imaginary * sin
    result[..., second] = real * sin + imaginary * cos
    return result


def angles_at(cos_cache: Array, sin_cache: Array, positions: Array) -> tuple[Array, Array]:
    """Rows of the caches [positions, turned / 2] at ``positions``, checked."""
    for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache)):
        if cache.ndim != 2 or cache.shape != cos_cache.shape:
            raise InvalidInput(f"{name} must be 2 dimensional, both caches of one shape. Actual: {list(cache.shape)}")
    if positions.size and (int(positions.min()) < 0 or int(positions.max()) >= len(cos_cache)):
        raise InvalidInput(
            f"position_ids {int(positions.min())} to {int(positions.max())} for a cache of {len(cos_cache)} positions"
        )
    return cos_cache[positions], sin_cache[positions]


def _heads(x: Array, num_heads: int, turned: int, cache: Array) -> tuple[int, int]:
    """(heads, head size) of [B, S, hidden]."""
    if num_heads:
        if num_heads < 0 or x.shape[2] % num_heads:
            raise InvalidInput(f"input of shape {list(x.shape)} can't be split into {num_heads} heads")
        return num_heads, x.shape[2] // num_heads
    if turned:
        raise InvalidInput("num_heads must be provided if rotary_embedding_dim is specified")
    size = 2 * cache.shape[1]
    if not size or x.shape[2] % size:
        raise InvalidInput(f"input of shape {list(x.shape)} can't be split into heads of {size}")
    return x.shape[2] // size, size


def _applied(xp: ModuleType, x: Array, cos: Array, sin: Array, heads: int, size: int, interleaved: int) -> Array:
    """x [B, S, H * D] or [B, H, S, D], the angles [B, S, turned / 2]."""
    if x.ndim == 4:
        return rotated(xp, x, cos[:, None], sin[:, None], interleaved)
    split = x.reshape(*x.shape[:2], heads, size).transpose(0, 2, 1, 3)
    return rotated(xp, split, cos[:, None], sin[:, None], interleaved).transpose(0, 2, 1, 3).reshape(x.shape)


def _sizes(x: Array, cache: Array, num_heads: int, turned: int) -> tuple[int, int]:
    if x.ndim not in (3, 4):
        raise InvalidInput(f"Input 'x' is expected to have 3 or 4 dimensions, got {x.ndim}")
    if cache.ndim != 2:
        raise InvalidInput(f"cos_cache must be 2 dimensional. Actual: {list(cache.shape)}")
    heads, size = (x.shape[1], x.shape[3]) if x.ndim == 4 else _heads(x, num_heads, turned, cache)
    if 2 * cache.shape[1] != (turned or size):
        raise InvalidInput(f"cos_cache dimension 1 should be {(turned or size) // 2}. Actual: {list(cache.shape)}")
    return heads, size


@kernel("RotaryEmbedding", domain=_MS)
def rotary_embedding_ms(
    xp: ModuleType,
    x: Array,
    position_ids: Array,
    cos_cache: Array,
    sin_cache: Array,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Array:
    """x: [B, S, H * D] or [B, H, S, D]; position_ids: [B, S], or [1], the position of the first of S."""
    heads, size = _sizes(x, cos_cache, num_heads, rotary_embedding_dim)
    batch, steps = x.shape[0], x.shape[2 if x.ndim == 4 else 1]
    if position_ids.size == 1 and position_ids.ndim < 2:
        position_ids = xp.broadcast_to(position_ids.reshape(()) + xp.arange(steps), (batch, steps))
    elif position_ids.shape != (batch, steps):
        raise InvalidInput(f"position_ids must have shape {[batch, steps]} or [1]. Actual: {list(position_ids.shape)}")
    cos, sin = angles_at(cos_cache, sin_cache, position_ids)
    return _applied(xp, x, cos, sin, heads, size, interleaved)


@kernel("MRotaryEmbedding", domain=_MS)
def multimodal_rotary_embedding(
    xp: ModuleType,
    x: Array,
    position_ids: Array,
    cos_cache: Array,
    sin_cache: Array,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    mrope_layout: int = 0,
    mrope_section: Sequence[int],
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Array:
    """position_ids: [3, B, S], of time, height and width; mrope_section: how many angles each gives."""
    heads, size = _sizes(x, cos_cache, num_heads, rotary_embedding_dim)
    batch, steps = x.shape[0], x.shape[2 if x.ndim == 4 else 1]
    half = cos_cache.shape[1]
    if position_ids.shape != (3, batch, steps):
        raise InvalidInput(f"position_ids must have shape {[3, batch, steps]}. Actual: {list(position_ids.shape)}")
    if len(mrope_section) != 3 or min(mrope_section) < 0 or sum(mrope_section) != half:
        raise InvalidInput(f"mrope_section {list(mrope_section)} must be 3 sizes that sum to {half}")
    if mrope_layout not in (0, 1):
        raise InvalidInput(f"mrope_layout must be 0 or 1, got {mrope_layout}")
    stream = xp.zeros(half, int)  # which position each angle takes
    if mrope_layout:
        for which in (1, 2):
            stream[which : 3 * mrope_section[which] : 3] = which
    else:
        stream = xp.repeat(xp.arange(3), xp.asarray(mrope_section))
    cos, sin = angles_at(cos_cache, sin_cache, position_ids)  # [3, B, S, half]
    column = xp.arange(half)
    cos, sin = (xp.moveaxis(table[stream, :, :, column], 0, -1) for table in (cos, sin))
    return _applied(xp, x, cos, sin, heads, size, interleaved)
