"""onnxruntime's embedding layers of BERT: EmbedLayerNormalization, QEmbedLayerNormalization."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.gather import checked
from distort.kernels.ops.normalization import layer_normalization
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


def _rows(xp: ModuleType, table: Array, ids: Array, name: str) -> Array:
    if table.ndim != 2:
        raise InvalidInput(f"{name} is expected to have 2 dimensions, got {table.ndim}")
    return table[checked(xp, ids, table.shape[0])]


@kernel("EmbedLayerNormalization", domain=_MS)
def embed_layer_normalization(
    xp: ModuleType,
    input_ids: Array,
    segment_ids: Array | None,
    word_embedding: Array,
    position_embedding: Array,
    segment_embedding: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Array, Array, Array]:
    """input_ids [B, S] -> [B, S, H], how many of the mask's first tokens count [B], the sum before normalization."""
    if input_ids.ndim != 2:
        raise InvalidInput(f"input_ids is expected to have 2 dimensions, got {input_ids.ndim}")
    batch, steps = input_ids.shape
    if (segment_ids is None) != (segment_embedding is None):
        raise InvalidInput("segment_ids and segment_embedding are given together or not at all")
    total = _rows(xp, word_embedding, input_ids, "word_embedding")
    if position_ids is None:
        position_ids = xp.arange(steps)[None]
    elif position_ids.shape not in ((batch, steps), (1, steps)):
        raise InvalidInput(f"position_ids must have shape {[batch, steps]}. Actual: {list(position_ids.shape)}")
    total = total + _rows(xp, position_embedding, position_ids, "position_embedding")
    if segment_ids is not None and segment_embedding is not None:
        if segment_ids.shape != input_ids.shape:
            raise InvalidInput("Input 0 and 1 shall have same shape")
        total = total + _rows(xp, segment_embedding, segment_ids, "segment_embedding")
    counts = xp.zeros(batch, xp.int32)
    if mask is not None:
        if mask.shape != input_ids.shape:
            raise InvalidInput("Input 0 and 7 (mask) shall have same shape")
        counts = (mask == 1).sum(axis=1).astype(xp.int32)
    y, _, _ = layer_normalization(xp, total, gamma, beta, epsilon=epsilon)
    return y, counts, total


@kernel("QEmbedLayerNormalization", domain=_MS)
def q_embed_layer_normalization(
    xp: ModuleType,
    input_ids: Array,
    segment_ids: Array | None,
    word_embedding: Array,
    position_embedding: Array,
    segment_embedding: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None,
    word_scale: Array,
    position_scale: Array,
    segment_scale: Array | None,
    gamma_scale: Array,
    beta_scale: Array,
    word_zero_point: Array,
    position_zero_point: Array,
    segment_zero_point: Array | None,
    gamma_zero_point: Array,
    beta_zero_point: Array,
    *,
    epsilon: float = 1e-12,
) -> tuple[Array, Array]:
    """As EmbedLayerNormalization, of tables in 8 bits with one scale and zero point each."""

    def wide(table: Array | None, scale: Array | None, zero: Array | None) -> Array:
        if table is None or scale is None or zero is None:
            return None
        return (table.astype(xp.float32) - zero.astype(xp.float32).reshape(())) * scale.reshape(())

    y, counts, _ = embed_layer_normalization(
        xp,
        input_ids,
        segment_ids,
        wide(word_embedding, word_scale, word_zero_point),
        wide(position_embedding, position_scale, position_zero_point),
        wide(segment_embedding, segment_scale, segment_zero_point),
        wide(gamma, gamma_scale, gamma_zero_point),
        wide(beta, beta_scale, beta_zero_point),
        mask,
        epsilon=epsilon,
    )
    return y, counts
