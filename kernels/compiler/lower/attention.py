"""Attention: the standard's, and onnxruntime's Attention, QAttention, MultiHeadAttention, as ``kernels/ops`` has them.

B: batch, H, G: heads of queries and of keys, S, L: positions of queries and of new keys, T: all keys, past ones
included, D, C: sizes of keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.attention import ALL
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.quantized_linear import scaled
from distort.kernels.compiler.products import multiply
from distort.kernels.compiler.scores import SO_FAR, Scores, attend, causal, joined, split_heads

Result = list[Tensor | None] | None
_MS = "com.microsoft"
_FLOAT64 = 11  # onnx.TensorProto.DOUBLE


def _wants(node: Node, position: int) -> bool:
    return len(node.outputs) > position and bool(node.outputs[position])


def _padded(inputs: Sequence[Tensor | None], count: int) -> list[Tensor | None]:
    return [*inputs, *[None] * count][:count]


# -- the standard's


@lowers("Attention")
def _attention(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    q, k, v, mask, past_key, past_value, lengths = _padded(inputs, 7)
    a = node.attributes
    if q is None or k is None or v is None or _wants(node, 3) or a.get("softmax_precision") == _FLOAT64:
        return None
    if (past_key is None) != (past_value is None) or (past_key is not None and lengths is not None):
        return None
    flat = len(q.shape) == 3
    heads = [_heads(b, x, a.get(name)) for x, name in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads"))]
    q, k, v = heads
    if q is None or k is None or v is None:
        return None
    past = 0
    if past_key is not None and past_value is not None:
        if not _continues(past_key, k) or not _continues(past_value, v):
            return None
        past = past_key.shape[2]
        k, v = joined(b, past_key, k), joined(b, past_value, v)
    (batch, _, steps, size), keys = q.shape, k.shape[2]
    scores = Scores()
    scale = a.get("scale")
    scores.scaled(1 / math.sqrt(size) if scale is None else scale)
    if a.get("softcap", 0.0) > 0:
        scores.capped(a["softcap"])
    if mask is not None:
        if not mask.shape or mask.shape[-1] != keys or mask.dtype not in (np.dtype(bool), q.dtype):
            return None  # the NumPy kernel fills it up
        if mask.dtype == bool:
            scores.seen(mask, -math.inf)
        else:
            scores.then("add", SO_FAR, mask)
    left, right = a.get("left_window_size", -1), 0 if a.get("is_causal", 0) else a.get("right_window_size", -1)
    if lengths is not None:
        if lengths.shape != (batch,) or lengths.dtype != np.int64:
            return None
        scores.padded(b, lengths, keys)
        count = lengths.view((batch, 1, 1, 1), (lengths.strides[0], 0, 0, 0))
        if left >= 0 or right >= 1 or (right == 0 and steps > 1):  # one query is the last, which sees all keys
            scores.seen(_after(b, count, steps, keys, left, right), -math.inf)
    elif left >= 0 or right >= 0:
        scores.seen(causal(b, steps, keys, past, left, right), -math.inf)
    reach = past + right + 1 if right >= 0 and lengths is None else ALL
    made = attend(b, q, k, v, scores, zeros=True, flat=flat, reach=reach)
    return None if made is None else [made, k, v]


def _heads(b: Builder, x: Tensor, heads: int | None) -> Tensor | None:
    """[B, S, H * D] or [B, H, S, D] as [B, H, S, D]"""
    return x if len(x.shape) == 4 else split_heads(b, x, heads or 0)


def _continues(past: Tensor, new: Tensor) -> bool:
    """Whether past keys or values [B, G, P, D] go before new ones."""
    return (
        len(past.shape) == 4
        and past.dtype == new.dtype
        and (*past.shape[:2], past.shape[3])
        == (
            *new.shape[:2],
            new.shape[3],
        )
    )


def _after(b: Builder, count: Tensor, steps: int, keys: int, left: int, right: int) -> Tensor:
    """As :func:`causal` where the last query is the last of ``count`` [B, 1, 1, 1] keys."""
    # how far a key is ahead of a query, were there no keys but the queries' own
    ahead = b.constant(np.arange(keys) - (np.arange(steps)[:, None] - steps))
    seen = None
    for op, limit in (("less_or_equal", right), ("greater_or_equal", -left)):
        if (right if op == "less_or_equal" else left) >= 0:
            bound = b.map("add", [count, b.constant(np.array(limit))])
            part = b.map(op, [ahead, bound], np.bool_)
            seen = part if seen is None else b.map("and", [seen, part], np.bool_)
    assert seen is not None
    return seen


# -- onnxruntime's


@lowers("MultiHeadAttention", domain=_MS)
def _multi_head_attention(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    query, key, value, bias, mask, added, past_key, past_value, used, beams = _padded(inputs, 10)
    a = node.attributes
    heads = a["num_heads"]
    if query is None or used is not None or beams is not None or _wants(node, 3):
        return None
    parts = _apart(b, query, key, value, heads)
    if parts is None:
        return None
    query, key, value = parts
    hidden = query.shape[2]
    kept = len(key.shape) == 4  # of a cross attention, from before
    sizes = [hidden] if kept else [hidden, key.shape[2], value.shape[2]]
    if not kept and (len(value.shape) != 3 or key.shape[2] != hidden):
        return None
    values: list[Tensor] = [query] if kept else [query, key, value]
    if bias is not None:
        if len(bias.shape) != 1 or bias.dtype != query.dtype or bias.shape[0] < sum(sizes):
            return None
        if not kept and bias.shape[0] != sum(sizes):
            return None
        begin = 0
        for i, size in enumerate(sizes):
            part = bias.view((size,), bias.strides, begin * bias.strides[0])
            part.value = None if bias.value is None else bias.value[begin : begin + size]
            values[i] = b.map("add", [values[i], part])
            begin += size
    split = [split_heads(b, x, heads) for x in values]
    q, k, v = (*split, key, value) if kept else split
    if q is None or k is None or v is None:
        return None
    if not kept and (past_key is not None or past_value is not None):
        if past_key is None or past_value is None or not _continues(past_key, k) or not _continues(past_value, v):
            return None
        k, v = joined(b, past_key, k), joined(b, past_value, v)
    made = _attended(b, node, q, k, v, mask, added)
    return None if made is None else [made, k, v]


def _apart(
    b: Builder, query: Tensor, key: Tensor | None, value: Tensor | None, heads: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Queries, keys and values [B, S, hidden], or keys and values [B, H, T, D]; they may come in one tensor."""

    def parts(x: Tensor, count: int) -> list[Tensor]:
        """[B, S, H, count, D] as [B, S, H * D] each; none where it isn't that."""
        if x.shape[2:4] != (heads, count):
            return []
        batch, steps, _, _, size = x.shape
        shape = (batch, steps, heads, size)
        strides = (*x.strides[:3], x.strides[4])
        whole = [b.contiguous(x.view(shape, strides, i * x.strides[3])) for i in range(count)]
        return [part.reshaped((batch, steps, heads * size)) for part in whole]

    found: list[Tensor | None] = [query, key, value]
    if len(query.shape) == 5:
        found = [*parts(query, 3)]
    elif len(query.shape) != 3:
        return None
    elif key is not None and len(key.shape) == 5:
        if value is not None:
            return None
        found = [query, *parts(key, 2)]
    elif key is None and value is None and query.shape[2] % 3 == 0:
        size = query.shape[2] // 3
        shape = (*query.shape[:2], size)
        found = [query.view(shape, query.strides, i * size * query.strides[2]) for i in range(3)]
    if len(found) != 3:
        return None
    q, k, v = found
    if q is None or k is None or v is None or len(k.shape) not in (3, 4) or len(v.shape) != len(k.shape):
        return None
    return q, k, v


def _attended(
    b: Builder, node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, added: Tensor | None
) -> Tensor | None:
    """onnxruntime's attention of heads with its masks: [B, S, H * C]."""
    a = node.attributes
    (batch, heads, steps, size), keys = q.shape, k.shape[2]
    if k.shape[1] != heads:
        return None
    scores = Scores()
    scores.scaled(a.get("scale") or 1 / math.sqrt(size))
    if added is not None:
        if len(added.shape) != 4 or added.dtype != q.dtype:
            return None
        scores.then("add", SO_FAR, added)
    if mask is not None and not _mask(b, scores, mask, batch, steps, keys, a.get("mask_filter_value", -10000.0)):
        return None
    reach = ALL
    if a.get("unidirectional", 0):
        scores.seen(causal(b, steps, keys, keys - steps), float(np.finfo(np.float32).min))
        if mask is None and added is None and keys >= steps:
            reach = keys - steps + 1  # what is hidden weighs nothing, as every query sees its own key
    return attend(b, q, k, v, scores, zeros=False, flat=True, reach=reach)


def _mask(b: Builder, scores: Scores, mask: Tensor, batch: int, steps: int, keys: int, filler: float) -> bool:
    """One of onnxruntime's forms of masks; False where it is none of them. See ``padding_mask`` of the kernels."""
    shape = (batch, 1, steps, keys)
    if mask.dtype.kind != "i":
        return False
    if len(mask.shape) == 1:
        if mask.shape[0] not in (batch, 2 * batch, 3 * batch + 2):
            return False
        places = b.constant(np.arange(keys, dtype=mask.dtype))
        step = mask.strides[0]

        def limit(begin: int) -> Tensor:
            return mask.view((batch, 1, 1, 1), (step, 0, 0, 0), begin * step)

        seen = b.map("less", [places, limit(0)], np.bool_)
        if mask.shape[0] == 2 * batch:
            seen = b.map("and", [seen, b.map("greater_or_equal", [places, limit(batch)], np.bool_)], np.bool_)
        scores.hidden(seen, filler)
        return True
    if mask.shape == (batch, keys):
        view = mask.view((batch, 1, 1, keys), (mask.strides[0], 0, 0, mask.strides[1]))
    elif mask.shape == (batch, steps, keys):
        view = mask.view(shape, (mask.strides[0], 0, *mask.strides[1:]))
    elif len(mask.shape) == 4 and mask.shape[:2] == (batch, 1) and mask.shape[2] == mask.shape[3] >= keys:
        view = mask.view(shape, mask.strides, (keys - steps) * mask.strides[2])
    else:
        return False
    scores.hidden(view, filler)
    return True


@lowers("Attention", domain=_MS)
def _attention_ms(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, weights, bias, mask, past, added, used = _padded(inputs, 7)
    a = node.attributes
    if x is None or weights is None or len(x.shape) != 3 or len(weights.shape) != 2 or a.get("do_rotary", 0):
        return None
    if used is not None and a.get("past_present_share_buffer", 0):
        return None
    merged = multiply(b, x, weights)
    if merged is None:
        return None
    if bias is not None:
        if bias.dtype != merged.dtype or bias.shape != merged.shape[2:]:
            return None
        merged = b.map("add", [merged, bias])
    return _of_projections(b, node, merged, mask, past, added)


@lowers("QAttention", domain=_MS)
def _q_attention(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """As Attention, with an input and weights of 8 bits."""
    x, weights, bias, x_scale, scale, mask, x_zero, zero, past = _padded(inputs, 9)
    a = node.attributes
    if x is None or weights is None or len(x.shape) != 3 or a.get("do_rotary", 0):
        return None
    if a.get("past_present_share_buffer", 0):
        return None
    merged = scaled(b, x, weights, (x_scale, scale), (x_zero, zero), bias)
    return None if merged is None else _of_projections(b, node, merged, mask, past, None)


def _of_projections(
    b: Builder, node: Node, merged: Tensor, mask: Tensor | None, past: Tensor | None, added: Tensor | None
) -> Result:
    """Attention of queries, keys and values side by side in merged [B, S, 2 * hidden + H * C]."""
    a, hidden = node.attributes, merged.shape[2]
    sizes = a.get("qkv_hidden_sizes") or [hidden // 3] * 3
    if len(sizes) != 3 or sum(sizes) != hidden or sizes[0] != sizes[1] or min(sizes) < 1:
        return None
    begins = (0, sizes[0], sizes[0] + sizes[1])
    views = [merged.view((*merged.shape[:2], n), merged.strides, at) for n, at in zip(sizes, begins, strict=True)]
    q, k, v = (split_heads(b, view, a["num_heads"]) for view in views)
    if q is None or k is None or v is None:
        return None
    present = None
    if past is not None or _wants(node, 1):
        before = past if past is not None else b.new(k.dtype, (2, *k.shape[:2], 0, k.shape[3]))
        if len(before.shape) != 5 or before.shape[0] != 2 or k.shape != v.shape:
            return None
        pasts = [before.view(before.shape[1:], before.strides[1:], i * before.strides[0]) for i in range(2)]
        if not _continues(pasts[0], k):
            return None
        batch, heads, steps, size = k.shape
        present = b.new(k.dtype, (2, batch, heads, before.shape[3] + steps, size))
        k, v = (
            joined(b, one, new, present.view(present.shape[1:], present.strides[1:], i * present.strides[0]))
            for i, (one, new) in enumerate(zip(pasts, (k, v), strict=True))
        )
    made = _attended(b, node, q, k, v, mask, added)
    return None if made is None else [made, present]
