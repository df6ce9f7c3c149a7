"""Attention and RotaryEmbedding against one query at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find

RNG = np.random.default_rng(8)
B, HQ, HK, SQ, SK, D, DV = 2, 4, 2, 3, 5, 6, 4


def call(op_type: str, *inputs: Any, **attributes: Any) -> Any:
    entry = find("", op_type, 25)
    assert entry is not None
    with np.errstate(all="ignore"):
        return entry.function(np, *inputs, **attributes)


def reference(q: Any, k: Any, v: Any, allowed: Any, bias: Any, scale: float, softcap: float) -> Any:
    """allowed, bias: [B, HQ, SQ, SK]"""
    y = np.zeros((*q.shape[:3], v.shape[3]))
    for b, h, i in np.ndindex(*q.shape[:3]):
        group = h // (q.shape[1] // k.shape[1])
        keys = np.flatnonzero(allowed[b, h, i])
        if not keys.size:
            continue
        score = k[b, group, keys] @ q[b, h, i] * scale
        score = (softcap * np.tanh(score / softcap) if softcap else score) + bias[b, h, i, keys]
        weight = np.exp(score - score.max())
        y[b, h, i] = weight / weight.sum() @ v[b, group, keys]
    return y


def qkv(dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    shapes = (B, HQ, SQ, D), (B, HK, SK, D), (B, HK, SK, DV)
    return tuple(RNG.normal(size=shape).astype(dtype) for shape in shapes)  # type: ignore[return-value]


FULL = (B, HQ, SQ, SK)
ALL, NONE = np.ones(FULL, bool), np.zeros(FULL)


@pytest.mark.parametrize("softcap", [0.0, 0.7])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("shape", [None, (SQ, SK), (1, SK), (HQ, SQ, SK), (B, 1, SQ, SK), (SQ, SK - 2), (B, HQ, 1, 1)])
@pytest.mark.parametrize("boolean", [False, True])
def test_masks(shape: tuple[int, ...] | None, boolean: bool, causal: int, softcap: float) -> None:
    q, k, v = qkv()
    allowed, bias, mask = ALL, NONE, None
    if shape is not None:
        mask = RNG.random(shape) < 0.7 if boolean else RNG.normal(size=shape)
        wide = [(0, 0)] * (len(shape) - 1) + [(0, SK - shape[-1])]
        if boolean:
            allowed = np.broadcast_to(np.pad(mask, wide), FULL)
        else:
            bias = np.broadcast_to(np.pad(mask, wide), FULL)
            allowed = np.broadcast_to(np.pad(np.ones(shape, bool), wide), FULL)
    if causal:
        allowed = allowed & np.tri(SQ, SK, dtype=bool)
    y = call("Attention", q, k, v, mask, is_causal=causal, softcap=softcap)[0]
    np.testing.assert_allclose(y, reference(q, k, v, allowed, bias, D**-0.5, softcap), atol=1e-12)


@pytest.mark.parametrize(("left", "right"), [(1, -1), (-1, 1), (0, 0), (1, 1), (9, 9)])
@pytest.mark.parametrize("causal", [0, 1])
def test_windows_start_behind_the_past(left: int, right: int, causal: int) -> None:
    q, k, v = qkv()
    past = 2
    position = np.arange(SQ)[:, None] + past
    ahead = np.arange(SK) - position
    allowed = np.ones((SQ, SK), bool)
    if left >= 0:
        allowed &= ahead >= -left
    if right >= 0:
        allowed &= ahead <= right
    if causal:
        allowed &= ahead <= 0
    y, present_key, present_value, _ = call(
        "Attention",
        *(q, k[:, :, past:], v[:, :, past:], None, k[:, :, :past], v[:, :, :past]),
        is_causal=causal,
        left_window_size=left,
        right_window_size=right,
    )
    want = reference(q, k, v, np.broadcast_to(allowed, FULL), NONE, D**-0.5, 0)
    np.testing.assert_allclose(y, want, atol=1e-12)
    np.testing.assert_array_equal(present_key, k)
    np.testing.assert_array_equal(present_value, v)


def test_valid_keys_of_each_sample_and_rows_that_see_none() -> None:
    q, k, v = qkv()
    valid = np.int64([2, 5])
    allowed = np.arange(SK) < valid[:, None, None, None]
    allowed = allowed & (np.arange(SK) <= np.arange(SQ)[:, None] + (valid - SQ)[:, None, None, None])
    y = call("Attention", q, k, v, None, None, None, valid, is_causal=1)[0]
    np.testing.assert_allclose(y, reference(q, k, v, np.broadcast_to(allowed, FULL), NONE, D**-0.5, 0), atol=1e-12)
    assert not y[0, :, 0].any()  # two keys, three queries: the first sees nothing


def test_flat_inputs_and_scale() -> None:
    q, k, v = qkv()
    want = call("Attention", q, k, v, scale=0.3)[0]
    flat = [x.transpose(0, 2, 1, 3).reshape(B, x.shape[2], -1) for x in (q, k, v)]
    y = call("Attention", *flat, scale=0.3, q_num_heads=HQ, kv_num_heads=HK)[0]
    np.testing.assert_allclose(y, want.transpose(0, 2, 1, 3).reshape(B, SQ, -1), atol=1e-12)
    np.testing.assert_allclose(want, reference(q, k, v, ALL, NONE, 0.3, 0), atol=1e-12)


def test_fourth_output_shows_the_product_on_its_way() -> None:
    q, k, v = qkv()
    mask = RNG.normal(size=(SQ, SK))
    raw = np.einsum("bhsd,bhtd->bhst", q, np.repeat(k, 2, axis=1)) * D**-0.5
    capped = 0.5 * np.tanh(raw / 0.5)
    weights = np.exp(capped + mask)
    stages = [raw, capped, capped + mask, weights / weights.sum(-1, keepdims=True)]
    for mode, want in enumerate(stages):
        shown = call("Attention", q, k, v, mask, softcap=0.5, qk_matmul_output_mode=mode, wanted=(True,) * 4)[3]
        np.testing.assert_allclose(shown, want, atol=1e-12)


def test_half_precision_does_not_overflow() -> None:
    q = np.full((1, 1, 1, 64), 60, np.float16)  # 64 * 60 * 60 is no float16
    y = call("Attention", q, q, q)[0]
    assert y.dtype == np.float16 and (y == 60).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"k": np.zeros((B, 3, SK, D))}, "Attention of Q"),
        ({"v": np.zeros((B, HK, SK + 1, DV))}, "Attention of Q"),
        ({"attn_mask": np.zeros((SQ, SK + 1))}, "keys"),
        ({"attn_mask": np.zeros((7, 1, SK))}, "broadcast"),
        ({"past_key": np.zeros((B, HK, 1, D))}, "together"),
        ({"q": np.zeros((B, SQ, 7))}, "heads"),
    ],
)
def test_contradicting_inputs(change: dict[str, Any], text: str) -> None:
    q, k, v = qkv()
    given = {"q": q, "k": k, "v": v, "attn_mask": None, "past_key": None, "past_value": None, **change}
    with pytest.raises(InvalidInput, match=text):
        call("Attention", *given.values(), q_num_heads=2)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("part", [0, 4])
@pytest.mark.parametrize("flat", [False, True])
def test_rotary_embedding_turns_pairs_by_their_angle(interleaved: int, part: int, flat: bool) -> None:
    turned = part or D
    x, angle = RNG.normal(size=(B, HQ, SQ, D)), RNG.normal(size=(10, turned // 2))
    ids = RNG.integers(0, 10, (B, SQ))
    want = x.copy()
    for b, h, s in np.ndindex(B, HQ, SQ):
        for p in range(turned // 2):
            first, second = (2 * p, 2 * p + 1) if interleaved else (p, p + turned // 2)
            z = complex(x[b, h, s, first], x[b, h, s, second]) * np.exp(1j * angle[ids[b, s], p])
            want[b, h, s, first], want[b, h, s, second] = z.real, z.imag
    if flat:
        x, want = (a.transpose(0, 2, 1, 3).reshape(B, SQ, HQ * D) for a in (x, want))
    more = {"interleaved": interleaved, "rotary_embedding_dim": part, "num_heads": HQ if flat else None}
    np.testing.assert_allclose(call("RotaryEmbedding", x, np.cos(angle), np.sin(angle), ids, **more), want, atol=1e-12)
    each = np.cos(angle)[ids], np.sin(angle)[ids]
    np.testing.assert_allclose(call("RotaryEmbedding", x, *each, **more), want, atol=1e-12)


def test_positions_beyond_the_cache() -> None:
    x, cache = np.zeros((1, 1, 1, 2)), np.zeros((3, 1))
    for position in (3, -1):
        with pytest.raises(InvalidInput, match="position_ids"):
            call("RotaryEmbedding", x, cache, cache, np.int64([[position]]))
    with pytest.raises(InvalidInput, match="cos_cache"):
        call("RotaryEmbedding", x, np.zeros((1, 2, 1)), cache)
