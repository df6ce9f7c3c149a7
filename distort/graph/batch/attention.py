"""Attention and what surrounds it in transformers, of ai.onnx and com.microsoft. Samples lie along axis 0."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import MICROSOFT, Site, rule
from .values import Tensor, Value


class _Batch:
    """The samples that a node's inputs must all be made of, or none of them."""

    def __init__(self, site: Site, *positions: int) -> None:
        """``positions``: inputs which the operator has one of for each sample."""
        self.site = site
        self.batched = any(isinstance(value, Tensor) and value.axis is not None for value in site.inputs)
        for position in positions:
            self.require(position)

    @property
    def axis(self) -> int | None:
        return 0 if self.batched else None

    def require(self, position: int, axis: int = 0) -> None:
        """An input that there is one of for each sample, where it is given."""
        value = self.site.optional(position)
        if self.batched and value is not None and (value.axis != axis or value.rows != 1):
            what = "is the same for every part" if value.axis is None else "has its samples along another axis"
            self.site.refuse(f"its input {position} {what}")

    def allow(self, position: int) -> None:
        """An input that may also be the same for all samples, with a first dimension of 1."""
        value = self.site.optional(position)
        if value is not None and self.batched and value.axis is None:
            if value.rank and value.dims[0] != 1:
                self.site.refuse(f"its input {position} is the same for every part, and may have rows for samples")
        else:
            self.require(position)

    def made(self, dims: Sequence[int | None]) -> Tensor:
        """An output with a row for each sample."""
        return Tensor((1, *dims) if self.batched else (None, *dims), self.axis)


@rule("Attention", samples=(0, 1, 2, 3, 4, 5, 6))
def attention(site: Site) -> Sequence[Value]:
    batch = _Batch(site, 0, 1, 2, 4, 5, 6)
    mask = site.optional(3)
    if batch.batched and mask is not None:
        # it is broadcast to [N, heads, queries, keys]
        if mask.axis is not None and (mask.rank, mask.axis, mask.rows) != (4, 0, 1):
            site.refuse("its mask has its samples along another axis than the queries")
        if mask.axis is None and mask.rank == 4 and mask.dims[0] != 1:
            site.refuse("its mask is the same for every part, and may have rows for samples")
    query, value = site.tensor(), site.tensor(2)
    if query.rank == 4:
        result = batch.made((*query.dims[1:3], value.dims[-1]))
    else:
        heads, value_heads = site.attribute("q_num_heads", 0), site.attribute("kv_num_heads", 0)
        width = value.dims[-1]
        result = batch.made((query.dims[1], width // value_heads * heads if width and value_heads else None))
    return [result, *(batch.made((None, None, None)) for _ in site.node.outputs[1:])]


@rule("RotaryEmbedding", samples=(0, 1, 2, 3))
def rotary(site: Site) -> Value:
    value = site.tensor()
    batch = _Batch(site, 0, 3)
    for position in (1, 2):
        cache = site.optional(position)
        if cache is not None and batch.batched:
            if site.has(3):
                if cache.axis is not None:
                    site.refuse("its tables are made of samples")
            else:
                batch.require(position)
    return Tensor(value.dims, value.axis)


@rule("RotaryEmbedding", domain=MICROSOFT, samples=(0, 1))
def contrib_rotary(site: Site) -> Value:
    value = site.tensor()
    _Batch(site, 0).allow(1)
    return Tensor(value.dims, value.axis)


@rule("Attention", "QAttention", domain=MICROSOFT, samples=tuple(range(9)))
def contrib_attention(site: Site) -> Sequence[Value]:
    quantized = site.node.op_type == "QAttention"
    batch = _Batch(site, 0)
    mask, past, bias = (5, 8, None) if quantized else (3, 4, 5)
    for position in range(1, len(site.inputs)):
        given = site.optional(position)
        if given is None or not batch.batched:
            continue
        if position == mask:
            batch.require(position)
        elif position == past:
            batch.require(position, axis=1)
        elif position == bias:
            batch.allow(position)
        elif given.axis is not None:
            site.refuse(f"its input {position} is made of samples")
    value, weights_bias = site.tensor(), site.optional(2)
    sizes = site.attribute("qkv_hidden_sizes")
    width = sizes[2] if sizes else None
    if width is None and weights_bias is not None and not quantized and weights_bias.shape and weights_bias.dims[0]:
        width = weights_bias.dims[0] // 3
    outputs: list[Value] = [batch.made((value.dims[1], width))]
    if site.wants(1):
        outputs.append(Tensor((2, 1, None, None, None), 1) if batch.batched else Tensor())
    return outputs


@rule("MultiHeadAttention", domain=MICROSOFT, samples=(0, 1, 2, 4, 5, 6, 7))
def multi_head_attention(site: Site) -> Sequence[Value]:
    batch = _Batch(site, 0, 1, 2, 4, 6, 7)
    batch.allow(5)
    if site.has(9) and batch.batched:
        site.refuse("beams are kept together")
    query, value = site.tensor(), site.optional(2)
    width: int | None = None
    if value is not None and value.rank == 3:
        width = value.dims[2]
    elif value is not None and value.rank == 4 and value.dims[1] is not None and value.dims[3] is not None:
        width = value.dims[1] * value.dims[3]
    result = batch.made((query.dims[1], width))
    return [result, *(batch.made((None, None, None)) for _ in site.node.outputs[1:])]


@rule("GroupQueryAttention", domain=MICROSOFT, samples=(0, 1, 2, 3, 4, 5, 9, 10))
def group_query_attention(site: Site) -> Sequence[Value]:
    batch = _Batch(site, 0, 1, 2, 3, 4, 5)
    batch.allow(9)
    batch.allow(10)
    query = site.tensor()
    width = query.dims[2]
    if not site.has(1):  # queries, keys and values in one
        heads, kv_heads = site.attribute("num_heads"), site.attribute("kv_num_heads")
        width = None if width is None else width // (heads + 2 * kv_heads) * heads
    result = batch.made((query.dims[1], width))
    return [result, *(batch.made((None, None, None)) for _ in site.node.outputs[1:])]


@rule("EmbedLayerNormalization", domain=MICROSOFT, samples=(0, 1, 7, 8))
def embedding(site: Site) -> Sequence[Value]:
    batch = _Batch(site, 0, 1, 7)
    batch.allow(8)
    ids, table = site.tensor(), site.tensor(2)
    result = batch.made((ids.dims[1], table.dims[1]))
    return [result, batch.made(()), result][: len(site.node.outputs)]


@rule("QEmbedLayerNormalization", domain=MICROSOFT, samples=(0, 1, 7))
def quantized_embedding(site: Site) -> Sequence[Value]:
    batch = _Batch(site, 0, 1, 7)
    ids, table = site.tensor(), site.tensor(2)
    return [batch.made((ids.dims[1], table.dims[1])), batch.made(())][: len(site.node.outputs)]
