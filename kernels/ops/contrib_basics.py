"""Small operators of onnxruntime's own domain: forms of standard ones, matrices, windows, hashes, tokens."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput, MissingKernel
from distort.kernels.ops.constants import sequence_range
from distort.kernels.ops.gather import gather_nd
from distort.kernels.ops.joining import pad
from distort.kernels.ops.sampling import grid_sample
from distort.kernels.ops.shape import axis_of, trilu
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"

kernel("GatherND", domain=_MS)(gather_nd)
kernel("GridSample", domain=_MS)(grid_sample)
kernel("Trilu", domain=_MS, host=(1,))(trilu)


@kernel("Range", domain=_MS, host=(0, 1, 2))
def range_ms(xp: ModuleType, start: Any, limit: Any, delta: Any = None) -> Any:
    """As the standard's, with a step of 1 unless told; operands may have one dimension."""
    values = [np.asarray(value).reshape(()) for value in (start, limit, 1 if delta is None else delta)]
    return sequence_range(xp, values[0], values[1], values[2].astype(values[0].dtype))


@kernel("Pad", domain=_MS, host=(1, 2))
def pad_ms(xp: ModuleType, x: Array, pads: Any, value: Any = None, *, mode: str = "constant") -> Array:
    """As the standard's; pads may be [1, 2 * rank], the value [1]."""
    filler = None if value is None else np.asarray(value).reshape(())
    return pad(xp, x, np.asarray(pads).reshape(-1), filler, mode=mode)


@kernel("ExpandDims", domain=_MS, host=(1,))
def expand_dims(xp: ModuleType, x: Array, axis: Any) -> Array:
    """An axis of size 1 at ``axis``; negative ones count in the result."""
    place = np.asarray(axis)
    if place.size != 1:
        raise InvalidInput(f"An axis tensor must be a scalar tensor, got shape {list(place.shape)}")
    return xp.expand_dims(x, axis_of(int(place.reshape(-1)[0]), x.ndim + 1))


@kernel("SampleOp", domain=_MS)
def sample_op(xp: ModuleType, x: Array) -> Array:
    return x


@kernel("Unique", domain=_MS)
def unique_ms(xp: ModuleType, x: Array) -> tuple[Array, Array, Array]:
    """(values in the order in which they come first, where each element's value is among them, how often it comes)."""
    if x.ndim != 1:
        raise InvalidInput(f"Input tensor to Unique op should be 1D, got shape {list(x.shape)}")
    values, first, inverse, counts = xp.unique(x, return_index=True, return_inverse=True, return_counts=True)
    order = xp.argsort(first)
    rank = xp.empty_like(order)
    rank[order] = xp.arange(len(order))
    return values[order], rank[inverse].astype(xp.int64), counts[order].astype(xp.int64)


@kernel("Inverse", domain=_MS)
def inverse(xp: ModuleType, x: Array) -> Array:
    """Of each matrix [..., n, n]."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise InvalidInput(f"Inverse needs square matrices, got shape {list(x.shape)}")
    wide = x.astype(xp.float64 if x.dtype == xp.float64 else xp.float32, copy=False)
    try:
        return xp.linalg.inv(wide).astype(x.dtype, copy=False)
    except np.linalg.LinAlgError:
        raise InvalidInput("Inverse of a singular matrix") from None


@kernel("CDist", domain=_MS)
def cdist(xp: ModuleType, a: Array, b: Array, *, metric: str = "sqeuclidean") -> Array:
    """Distances of the rows of a [M, N] and b [K, N], [M, K]."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InvalidInput(f"CDist of {list(a.shape)} and {list(b.shape)}")
    if metric not in ("sqeuclidean", "euclidean"):
        raise MissingKernel(f"CDist has no metric {metric!r}; 'euclidean' and 'sqeuclidean' are there")
    wide = xp.float64  # the difference of large squares
    left, right = a.astype(wide), b.astype(wide)
    squares = (left * left).sum(1)[:, None] + (right * right).sum(1) - 2 * (left @ right.T)
    xp.maximum(squares, 0, out=squares)
    return (xp.sqrt(squares) if metric == "euclidean" else squares).astype(a.dtype)


@kernel("UnfoldTensor", domain=_MS)
def unfold_tensor(xp: ModuleType, x: Array, *, dim: int = -1, size: int, step: int = 1) -> Array:
    """All slices of ``size`` along ``dim``, every ``step``; their elements are a new last axis."""
    axis = axis_of(dim, x.ndim)
    if size < 1 or step < 1 or size > x.shape[axis]:
        raise InvalidInput(f"UnfoldTensor of size {size}, step {step} along axis {dim} of {list(x.shape)}")
    slices = xp.lib.stride_tricks.sliding_window_view(x, size, axis=axis)
    take = [slice(None)] * slices.ndim
    take[axis] = slice(None, None, step)
    return xp.ascontiguousarray(slices[tuple(take)])


@kernel("DynamicTimeWarping", domain=_MS, device="cpu")
def dynamic_time_warping(xp: ModuleType, x: Array) -> Array:
    """The cheapest path from the first to the last element of costs [M, N] or [1, M, N], as [2, length] of int32."""
    if x.ndim == 3 and x.shape[0] == 1:
        x = x[0]
    if x.ndim != 2 or not x.size:
        raise InvalidInput(f"DynamicTimeWarping of costs {list(x.shape)}")
    rows, columns = x.shape
    cost = np.full((rows + 1, columns + 1), np.inf, np.float32)
    cost[0, 0] = 0
    came = np.full(
        (rows + 1, columns + 1), -1, np.int8
    )  # 0: from both, 1: from the row above, 2: from the column before
    # the elements of a diagonal don't depend on one another
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]])
        # the diagonal only where it is less than both, the row above only where less than the other two
        both = (before[0] < before[1]) & (before[0] < before[2])
        above = ~both & (before[1] < before[0]) & (before[1] < before[2])
        choice = np.where(both, 0, np.where(above, 1, 2))
        cost[i, j] = x[i - 1, j - 1] + before[choice, np.arange(len(i))]
        came[i, j] = choice
    came[0, :], came[:, 0] = 2, 1
    path = []
    i, j = rows, columns
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return np.array(path[::-1], np.int32).T.copy()


@kernel("BifurcationDetector", domain=_MS, device="cpu")
def bifurcation_detector(
    xp: ModuleType,
    src_tokens: Array,
    cur_tokens: Array,
    prev_suffix_match_idx: Array,
    pred_tokens: Array | None = None,
    *,
    max_ngram_size: int = 3,
    min_ngram_size: int = 1,
) -> tuple[Array, Array]:
    """(tokens with the predicted ones up to the first unlike the source, where their last n-gram lies in it)."""
    tokens = cur_tokens
    if pred_tokens is not None:
        start = int(prev_suffix_match_idx.reshape(-1)[0])
        expected = src_tokens[start:]
        if start < 0 or start > len(src_tokens) or len(pred_tokens) != len(expected) + 1:
            raise InvalidInput(
                f"{len(pred_tokens)} predicted tokens for {len(src_tokens)} of the source from {start} on"
            )
        differ = np.flatnonzero(pred_tokens[:-1] != expected)
        count = int(differ[0]) if differ.size else len(expected)
        tokens = np.concatenate([cur_tokens, pred_tokens[: count + 1]])
    match = -1
    for size in range(min_ngram_size, max_ngram_size + 1):
        if size > len(tokens) or size > len(src_tokens):
            break
        grams = np.lib.stride_tricks.sliding_window_view(src_tokens, size)
        found = np.flatnonzero((grams == tokens[len(tokens) - size :]).all(axis=1))
        if not found.size:
            break
        if found.size == 1:
            match = int(found[0]) + size
            if match >= len(src_tokens):
                match = -1
            break
        match = -1
    return tokens, np.array(match, np.int64).reshape(prev_suffix_match_idx.shape)


@kernel("NGramRepeatBlock", domain=_MS)
def ngram_repeat_block(xp: ModuleType, input_ids: Array, scores: Array, *, ngram_size: int) -> Array:
    """Scores [B, V] with -inf where a token would end an n-gram that input_ids [B, S] have had."""
    if input_ids.ndim != 2 or scores.ndim != 2 or input_ids.shape[0] != scores.shape[0] or ngram_size < 1:
        raise InvalidInput(f"input_ids {list(input_ids.shape)}, scores {list(scores.shape)}, ngram_size {ngram_size}")
    steps = input_ids.shape[1]
    result = xp.array(scores)
    if steps + 1 < ngram_size or steps < ngram_size:
        return result
    last = input_ids[:, steps - ngram_size + 1 :]  # the first tokens of an n-gram that the next one ends
    grams = xp.lib.stride_tricks.sliding_window_view(input_ids, ngram_size, axis=1)
    row, place = xp.nonzero((grams[:, :, :-1] == last[:, None]).all(axis=2))
    token = grams[row, place, -1]
    if token.size and (int(token.min()) < 0 or int(token.max()) >= scores.shape[1]):
        raise InvalidInput(f"a token of input_ids is beyond the vocabulary of {scores.shape[1]}")
    result[row, token] = -xp.inf
    return result


@kernel("MurmurHash3", domain=_MS, device="cpu")
def murmur_hash_3(xp: ModuleType, x: Array, *, positive: int = 1, seed: int = 0) -> Array:
    """The 32-bit hash of each element's bytes, MurmurHash3_x86_32."""
    if x.dtype == object:
        texts = [value.encode() if isinstance(value, str) else bytes(value) for value in x.reshape(-1).tolist()]
        longest = max(map(len, texts), default=0)
        data = np.zeros((len(texts), -(-longest // 4) * 4 + 4), np.uint8)
        for row, text in zip(data, texts, strict=True):
            row[: len(text)] = np.frombuffer(text, np.uint8)
        lengths = np.array([len(text) for text in texts], np.uint32)
    else:
        little = x.astype(x.dtype.newbyteorder("<"), copy=False) if sys.byteorder == "big" else x
        size = x.dtype.itemsize
        data = np.zeros((x.size, size + 4), np.uint8)
        data[:, :size] = np.ascontiguousarray(little).view(np.uint8).reshape(x.size, size)
        lengths = np.full(x.size, size, np.uint32)
    hashes = _murmur(data.view("<u4"), lengths, seed & 0xFFFFFFFF)
    return hashes.view(np.uint32 if positive else np.int32).reshape(x.shape)


def _murmur(words: Array, lengths: Array, seed: int) -> Array:
    """Of texts as 32-bit words, filled up with zeros, and their lengths in bytes."""
    h = np.full(len(words), seed, np.uint32)
    whole, tail = lengths // 4, lengths % 4
    for place in range(words.shape[1]):
        k = words[:, place].astype(np.uint32) * np.uint32(0xCC9E2D51)
        k = ((k << 15) | (k >> 17)) * np.uint32(0x1B873593)
        mixed = h ^ k
        full = ((mixed << 13) | (mixed >> 19)) * np.uint32(5) + np.uint32(0xE6546B64)
        h = np.where(place < whole, full, np.where((place == whole) & (tail > 0), mixed, h)).astype(np.uint32)
    h ^= lengths
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> shift)) * np.uint32(factor)
    return h ^ (h >> 16)
