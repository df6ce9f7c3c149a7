"""onnxruntime's GroupQueryAttention, for a past that is full and grows by what is new.

What is in the past of each entry, and how long the result is, stands in tensors. That all of the past is used and the
result has room for the new positions is taken for likely, and a run in which it isn't so is refused.
"""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.attention import ALL
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.rotary import angles_at, consecutive, rotated
from distort.kernels.compiler.scores import SO_FAR, Scores, attend, causal, joined, split_heads

Result = list[Tensor | None] | None
#: entries of a batch whose lengths are looked at
_MOST_ENTRIES = 16


@lowers("GroupQueryAttention", domain="com.microsoft")
def _group_query_attention(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    query, key, value, past_key, past_value, lengths, total, cos, sin, positions, bias, *others = [
        *inputs,
        *[None] * 17,
    ][:17]
    a = node.attributes
    plain = a.get("k_quant_type", "NONE") == a.get("v_quant_type", "NONE") == "NONE"
    unusual = a.get("smooth_softmax", -1) == 1 or a.get("sliding_window_cache", 0) or a.get("qk_output", 0)
    if not plain or unusual or any(t is not None for t in others) or b.cautious:
        return None
    if query is None or lengths is None or total is None or (past_key is None) != (past_value is None):
        return None
    heads, groups = a["num_heads"], a["kv_num_heads"]
    found = _projections(b, query, key, value, heads, groups)
    if found is None:
        return None
    q, k, v = found
    batch, _, steps, size = q.shape
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2] if len(past_key.shape) == 4 else -1
        if {past_key.shape, past_value.shape} != {(batch, groups, past, size)} or past_key.dtype != k.dtype:
            return None
    keys = past + steps
    if not _expects(b, lengths, batch, keys - 1) or not _expects(b, total, 1, keys):
        return None
    if a.get("do_rotary", 0):
        turned = _turned(b, q, k, cos, sin, positions, past, a.get("rotary_interleaved", 0))
        if turned is None:
            return None
        q, k = turned
    if past_key is not None and past_value is not None:
        k, v = joined(b, past_key, k), joined(b, past_value, v)
    scores = Scores()
    scores.scaled(a.get("scale") or 1 / math.sqrt(size))
    if a.get("softcap", 0.0) > 0:
        scores.capped(a["softcap"])
    if bias is not None:
        if len(bias.shape) != 4 or bias.shape[3] != keys or bias.dtype != q.dtype:
            return None
        scores.then("add", SO_FAR, bias)
    if a.get("causal", 1):
        window = a.get("local_window_size", -1)
        scores.seen(causal(b, steps, keys, past, window - 1 if window > 0 else -1, 0), -math.inf)
    made = attend(b, q, k, v, scores, zeros=True, flat=True, reach=past + 1 if a.get("causal", 1) else ALL)
    if made is None:
        return None
    b.guessed = True
    return [made, k, v]


def _projections(
    b: Builder, query: Tensor, key: Tensor | None, value: Tensor | None, heads: int, groups: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """[B, H, S, D], [B, G, S, D] twice; the query may hold all three."""
    if heads < 1 or groups < 1 or heads % groups or len(query.shape) != 3 or (key is None) != (value is None):
        return None
    if key is None or value is None:
        size, rest = divmod(query.shape[2], heads + 2 * groups)
        if rest:
            return None
        begins = (0, heads * size, (heads + groups) * size)
        widths = (heads * size, groups * size, groups * size)
        query, key, value = (
            query.view((*query.shape[:2], width), query.strides, begin * query.strides[2])
            for begin, width in zip(begins, widths, strict=True)
        )
    q, k, v = split_heads(b, query, heads), split_heads(b, key, groups), split_heads(b, value, groups)
    if q is None or k is None or v is None or k.shape != v.shape or not q.size:
        return None
    same = (q.shape[0], q.shape[2], q.shape[3]) == (k.shape[0], k.shape[2], k.shape[3])
    return (q, k, v) if same and q.dtype == k.dtype == v.dtype else None


def _expects(b: Builder, numbers: Tensor, count: int, expected: int) -> bool:
    """Refuse runs in which one of the numbers is another. False where none would go."""
    if numbers.size != count or count > _MOST_ENTRIES or numbers.dtype.kind != "i":
        return False
    if numbers.value is not None:
        return bool((numbers.value == expected).all())
    wide = b.contiguous(numbers if numbers.dtype == np.int64 else b.map("cast", [numbers], np.int64))
    for i in range(count):
        words: list[Word] = [wide.address(i), expected, ErrorWord()]
        b.add(Native([wide], [], [Call(Key("expect_rounds", ()), words, 1.0, most_threads=1)]))
    return True


def _turned(
    b: Builder,
    q: Tensor,
    k: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    positions: Tensor | None,
    past: int,
    interleaved: int,
) -> tuple[Tensor, Tensor] | None:
    """Queries and keys [B, H, S, D], turned by the angles of their positions."""
    batch, steps = q.shape[0], q.shape[2]
    if cos is None or sin is None or q.element == "float64":
        return None
    if positions is None or not positions.size:
        positions = b.constant(np.arange(past, past + steps)[None])
    elif not past:  # of a first prompt its first element alone counts
        start = positions.view((1, 1), (0, 0))
        start.value = None if positions.value is None else positions.value.reshape(-1)[:1].reshape(1, 1)
        positions = consecutive(b, start, steps)
    elif positions.shape != (batch, steps):
        return None
    angles = angles_at(b, (cos, sin), positions)
    if angles is None or 2 * angles[0].shape[2] > q.shape[3]:
        return None
    made = []
    for x in (q, k):
        whole = b.new(x.dtype, (batch, steps, x.shape[1], x.shape[3]))
        to = whole.permuted([0, 2, 1, 3])
        rotated(b, x, *angles, bool(interleaved), to)
        made.append(to)
    return made[0], made[1]
