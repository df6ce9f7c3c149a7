"""onnxruntime's GroupQueryAttention.

What is in the past of each entry, and how long the result is, stands in tensors. That all of the past is used and the
result has room for the new positions is taken for likely, and a run in which it isn't so is refused. From then on the
cache is one of which each entry uses a part.
"""

from __future__ import annotations

import math

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.attention import ALL
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.expecting import expect
from distort.kernels.compiler.lower.gathering import element_of
from distort.kernels.compiler.lower.rotary import angles_at, consecutive, rotated
from distort.kernels.compiler.scores import SO_FAR, Scores, attend, causal, joined, split_heads

Result = list[Tensor | None] | None
#: entries of a batch whose lengths are looked at, if they are all to be the same
_MOST_ALIKE = 1024
#: else, where each is worked with
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
    if not plain or unusual or any(t is not None for t in others):
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
    before = b.seen(node.outputs[1]) if len(node.outputs) > 1 and node.outputs[1] else None
    may_be_full = not b.cautious and (before is None or before[2:3] == (past + steps,))
    made = _Full(b, past, steps) if may_be_full else _filled(b, before, past, batch, steps, lengths, total)
    if made is None or (isinstance(made, _Full) and not made.checked(lengths, total, batch)):
        return None
    keys = made.keys
    if a.get("do_rotary", 0):
        turned = _turned(b, q, k, cos, sin, made.positions(positions, batch, cos), a.get("rotary_interleaved", 0))
        if turned is None:
            return None
        q, k = turned
    k, v = made.joined(past_key, k), made.joined(past_value, v)
    scores = Scores()
    scores.scaled(a.get("scale") or 1 / math.sqrt(size))
    if a.get("softcap", 0.0) > 0:
        scores.capped(a["softcap"])
    if bias is not None:
        if len(bias.shape) != 4 or bias.shape[3] != keys or bias.dtype != q.dtype:
            return None
        scores.then("add", SO_FAR, bias)
    is_causal = bool(a.get("causal", 1))
    mask = made.seen(is_causal, a.get("local_window_size", -1))
    if mask is not None:
        scores.seen(mask, -math.inf)
    reach = made.reach if is_causal else ALL
    y = attend(b, q, k, v, scores, zeros=True, flat=True, reach=reach, limits=made.limits)
    if y is None:
        return None
    b.guessed |= isinstance(made, _Full)
    return [y, k, v]


class _Full:
    """A past all of which is used, and a result that has room for it and what is new."""

    limits: Tensor | None = None

    def __init__(self, b: Builder, past: int, steps: int) -> None:
        self._b, self._past, self._steps = b, past, steps
        self.keys, self.reach = past + steps, past + 1

    def checked(self, lengths: Tensor, total: Tensor, batch: int) -> bool:
        return _expects(self._b, lengths, batch, self.keys - 1) and _expects(self._b, total, 1, self.keys)

    def positions(self, given: Tensor | None, batch: int, cos: Tensor | None) -> Tensor | None:
        """[B, S] or [1, S]"""
        b, steps = self._b, self._steps
        if given is None or not given.size:
            return b.constant(np.arange(self._past, self._past + steps)[None])
        if self._past:
            return given if given.shape == (batch, steps) else None
        start = given.view((1, 1), (0, 0))  # of a first prompt its first element alone counts
        start.value = None if given.value is None else given.value.reshape(-1)[:1].reshape(1, 1)
        return consecutive(b, start, steps)

    def joined(self, past: Tensor | None, new: Tensor) -> Tensor:
        return new if past is None else joined(self._b, past, new)

    def seen(self, is_causal: bool, window: int) -> Tensor | None:
        if not is_causal:
            return None
        return causal(self._b, self._steps, self.keys, self._past, window - 1 if window > 0 else -1, 0)


class _Partial:
    """A cache of ``keys`` positions whose entries are filled so far each: ``limits``, int64 [B], with what is new."""

    reach = ALL

    def __init__(self, b: Builder, keys: int, steps: int, limits: Tensor) -> None:
        self._b, self.keys, self._steps, self.limits = b, keys, steps, limits
        self._new = b.map("min", [limits, b.number("steps", steps)])
        self._starts = b.map("sub", [limits, self._new])

    def _column(self, numbers: Tensor, rank: int) -> Tensor:
        return numbers.view((numbers.size, *[1] * (rank - 1)), (numbers.strides[0], *[0] * (rank - 1)))

    def positions(self, given: Tensor | None, batch: int, cos: Tensor | None) -> Tensor | None:
        b, steps = self._b, self._steps
        places = b.constant(np.arange(steps))
        if cos is None:
            return None
        if given is None or not given.size:
            at = b.map("add", [self._column(self._starts, 2), places])
            return b.map("min", [at, _whole(b, cos.shape[0] - 1)])
        if given.shape != (batch, steps) or given.element not in ("int32", "int64"):
            return None
        given = b.plain(given) if given.dtype == np.int64 else b.map("cast", [given], np.int64)
        first = self._starts
        for i in range(1, batch):  # of a first prompt, where no entry has anything, the first element alone counts
            first = b.map("max", [first, self._starts.view((1,), (0,), i * self._starts.strides[0])])
        later = b.map("greater", [first.view((1, 1), (0, 0)), _whole(b, 0)], np.bool_)
        return b.map("where", [later, given, b.map("add", [given.view((1, 1), (0, 0)), places])], np.int64)

    def joined(self, past: Tensor | None, new: Tensor) -> Tensor:
        return self._b.cached(past, new, self.limits, self.keys)

    def seen(self, is_causal: bool, window: int) -> Tensor | None:
        """bool [B, 1, S, keys]; what lies beyond an entry's tokens need not be hidden."""
        b, steps = self._b, self._steps
        if steps == 1 and (not is_causal or window <= 0):
            return None
        rows = b.constant(np.arange(steps).reshape(-1, 1))
        mask = b.map("less", [rows, self._column(self._new, 4)], np.bool_)  # others are padding
        if is_causal:
            columns = b.constant(np.arange(self.keys))
            ahead = b.map("sub", [columns, b.map("add", [self._column(self._starts, 4), rows])])
            mask = b.map("and", [mask, b.map("less_or_equal", [ahead, _whole(b, 0)], np.bool_)])
            if window > 0:
                mask = b.map("and", [mask, b.map("greater", [ahead, _whole(b, -window)], np.bool_)])
        return mask


def cached_kernel(b: Builder, past: Tensor | None, new: Tensor, limits: Tensor, keys: int) -> Tensor:
    """As :meth:`Builder.cached`."""
    batch, groups, steps, size = new.shape
    new = new if new.strides[3] == 1 or size == 1 else b.contiguous(new)
    result = b.new(new.dtype, (batch, groups, keys, size))
    n_past = 0 if past is None else past.shape[2]
    source = result if past is None else b.contiguous(b.plain(past))
    words: list[Word] = [batch, groups, keys, n_past, steps, size, *new.strides[:3]]
    words += [source.address(), new.address(), limits.address(), result.address()]
    inputs = [new, limits] if past is None else [source, new, limits]
    call = Call(Key("cache", (element_of(new),)), words, result.nbytes * 0.08, most_threads=batch * groups)
    b.add(Native(inputs, [result], [call]))
    return result


def _whole(b: Builder, number: int) -> Tensor:
    return b.constant(np.asarray(number, np.int64))


def _filled(
    b: Builder, shape: tuple[int, ...] | None, past: int, batch: int, steps: int, lengths: Tensor, total: Tensor
) -> _Partial | None:
    """Of a cache as large as an earlier run had it. A run with another, or with lengths that don't fit, is refused."""
    if shape is None or len(shape) != 4 or lengths.size != batch or total.size != 1 or batch > _MOST_ENTRIES:
        return None
    if lengths.dtype.kind != "i" or total.dtype.kind != "i":
        return None
    keys = shape[2]
    wide = [t if t.dtype == np.int64 else b.map("cast", [t], np.int64) for t in (b.plain(lengths), b.plain(total))]
    tokens = b.map("add", [b.contiguous(wide[0]).reshaped((batch,)), _whole(b, 1)])
    most = b.contiguous(wide[1]).reshaped((1,))
    before = b.map("sub", [tokens, b.map("min", [tokens, b.number("steps", steps)])])
    fits = b.map("greater", [tokens, _whole(b, 0)], np.bool_)
    fits = b.map("and", [fits, b.map("less_or_equal", [tokens, most], np.bool_)])
    fits = b.map("and", [fits, b.map("less_or_equal", [before, b.number("past", past)], np.bool_)])
    if not _expects(b, b.map("cast", [fits], np.int64), batch, 1):
        return None
    if not _expects(b, b.map("max", [most, b.number("past", past)]), 1, keys):
        return None
    limits = b.map("max", [b.map("min", [tokens, b.number("keys", keys)]), _whole(b, 1)])
    return _Partial(b, keys, steps, limits)


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
    if numbers.size != count or count > _MOST_ALIKE or numbers.dtype.kind != "i":
        return False
    if numbers.value is not None:
        return bool((numbers.value == expected).all())
    wide = b.contiguous(numbers if numbers.dtype == np.int64 else b.map("cast", [numbers], np.int64))
    expect(b, wide, [expected] * count)
    return True


def _turned(
    b: Builder,
    q: Tensor,
    k: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    positions: Tensor | None,
    interleaved: int,
) -> tuple[Tensor, Tensor] | None:
    """Queries and keys [B, H, S, D], turned by the angles of their positions."""
    batch, steps = q.shape[0], q.shape[2]
    if cos is None or sin is None or positions is None or q.element == "float64":
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
