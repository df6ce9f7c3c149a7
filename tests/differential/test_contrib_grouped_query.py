"""GroupQueryAttention and SparseAttention, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import answers, feeds_of, one_node_model

_random = np.random.default_rng(2)
_B, _H, _G, _D = 2, 4, 2, 16


def _f(*shape: int) -> Any:
    return _random.normal(size=shape).astype(np.float32)


def _caches(half: int = _D // 2, most: int = 32) -> list[Any]:
    angle = _random.uniform(0, 6, (most, half))
    return [np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)]


def _step(steps: int, past: int, capacity: int | None = None, batch: int = _B, packed: bool = False) -> list[Any]:
    """All required inputs of a step after ``past`` tokens in every entry."""
    new = [_f(batch, steps, _H * _D), _f(batch, steps, _G * _D), _f(batch, steps, _G * _D)]
    if packed:
        new = [np.concatenate(new, 2), None, None]
    old = [_f(batch, _G, capacity or past, _D) for _ in range(2)]
    total = past + steps
    return [*new, *old, np.full(batch, total - 1, np.int32), np.array(total, np.int32)]


def _compared(inputs: list[Any], attributes: dict[str, Any], tolerance: float = 1e-4) -> list[Any]:
    """All outputs; the caches up to the tokens that they hold."""
    rival = pytest.importorskip("onnxruntime")
    model = one_node_model("GroupQueryAttention", inputs, attributes, n_outputs=3)
    theirs = rival.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds_of(inputs))
    ours = answers("GroupQueryAttention", inputs, attributes, n_outputs=3)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=tolerance, atol=tolerance)
    for got, want in zip(ours[1:], theirs[1:], strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        for entry, last in enumerate(inputs[5]):
            np.testing.assert_allclose(got[entry, :, : last + 1], want[entry, :, : last + 1], rtol=1e-4, atol=1e-5)
    return ours


_ATTRIBUTES = {"num_heads": _H, "kv_num_heads": _G}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("steps", "past", "capacity"), [(5, 0, None), (1, 6, None), (1, 6, 10), (5, 0, 8)])
@pytest.mark.parametrize("rotary", [False, True])
def test_steps(packed: bool, steps: int, past: int, capacity: int | None, rotary: bool) -> None:
    inputs = _step(steps, past, capacity, packed=packed)
    attributes: dict[str, Any] = dict(_ATTRIBUTES)
    if rotary:
        inputs += _caches()
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(packed)}
    _compared(inputs, attributes)


@pytest.mark.parametrize(
    "more",
    [
        {"local_window_size": 3},
        {"softcap": 2.0},
        {"scale": 0.1},
        {"smooth_softmax": 1},
        {"causal": 0},
        {"local_window_size": 4, "softcap": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize(("steps", "past"), [(6, 0), (1, 7), (3, 4)])
def test_attributes(more: dict[str, Any], steps: int, past: int) -> None:
    # several new tokens after old ones are for one entry alone
    inputs = _step(steps, past, batch=1 if steps == 3 else _B)
    _compared(inputs, {**_ATTRIBUTES, **more})


@pytest.mark.parametrize(("steps", "past"), [(6, 0), (1, 7)])
def test_bias_sink_and_positions(steps: int, past: int) -> None:
    bias, sink = _f(1, _H, steps, steps + past), _f(_H)
    ids = np.tile(np.arange(past + 2, past + 2 + steps), (_B, 1))
    inputs = [*_step(steps, past), *_caches(), ids, bias, sink]
    _compared(inputs, {**_ATTRIBUTES, "do_rotary": 1})


@pytest.mark.parametrize("output", [1, 2])
def test_products_of_query_and_key(output: int) -> None:
    inputs = _step(4, 0)
    (want,) = answers("GroupQueryAttention", inputs, _ATTRIBUTES)
    attributes = {**_ATTRIBUTES, "qk_output": output}
    rival = pytest.importorskip("onnxruntime")
    model = one_node_model("GroupQueryAttention", inputs, attributes, n_outputs=4)
    session = rival.InferenceSession(model, providers=["CPUExecutionProvider"])
    theirs = session.run(None, feeds_of(inputs))
    ours = answers("GroupQueryAttention", inputs, attributes, n_outputs=4)
    np.testing.assert_allclose(ours[0], want, rtol=1e-5, atol=1e-6)
    visible = np.tril(np.ones((4, 4), bool))  # what lies beyond is nobody's promise before the softmax
    np.testing.assert_allclose(ours[3][..., visible], theirs[3][..., visible], rtol=1e-4, atol=1e-5)


def test_entries_of_different_lengths() -> None:
    inputs = _step(1, 6, 10)
    inputs[5] = np.array([6, 3], np.int32)
    _compared([*inputs, *_caches()], {**_ATTRIBUTES, "do_rotary": 1})


@pytest.mark.parametrize("kind", ["PER_TENSOR", "PER_CHANNEL"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("steps", "past"), [(4, 0), (1, 5)])
def test_quantized_cache(kind: str, bits: int, steps: int, past: int) -> None:
    inputs = _step(steps, past, 8)
    n = _D if bits == 8 else _D // 2
    dtype = np.int8 if bits == 8 else np.uint8
    for place in (3, 4):
        limits = (-128, 128) if bits == 8 else (0, 256)
        inputs[place] = _random.integers(*limits, (_B, _G, 8, n)).astype(dtype)
    shape = (1,) if kind == "PER_TENSOR" else (1, _G, 1, _D)
    scales = [_random.uniform(0.02, 0.05, shape).astype(np.float32) * (1 if bits == 8 else 10) for _ in range(2)]
    inputs += [None] * 5 + scales
    attributes = {**_ATTRIBUTES, "k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits}
    # onnxruntime quantizes the products of the query as well
    _compared(inputs, attributes, 1e-3)


def test_a_chunk_that_is_padded() -> None:
    inputs = _step(4, 0, 10)
    inputs[5], inputs[6] = np.array([6, 4], np.int32), np.array(10, np.int32)
    counts = np.array([3, 4], np.int32)
    inputs += [None] * 9 + [counts]
    y, k, _ = answers("GroupQueryAttention", inputs, _ATTRIBUTES, n_outputs=3)
    for entry in range(_B):
        alone = [None if v is None else v[entry : entry + 1] for v in inputs[:6]] + [np.array(7 - 2 * entry, np.int32)]
        n = int(counts[entry])
        alone[:3] = [value[:, :n] for value in alone[:3]]
        want, keys, _ = answers("GroupQueryAttention", alone, _ATTRIBUTES, n_outputs=3)
        np.testing.assert_allclose(y[entry, :n], want[0], rtol=1e-5, atol=1e-6)
        tokens = int(inputs[5][entry]) + 1
        np.testing.assert_array_equal(k[entry, :, :tokens], keys[0, :, :tokens])


@pytest.mark.parametrize("capacity", [4, 6])
def test_a_cache_of_a_window_answers_as_a_full_one(capacity: int) -> None:
    window, tokens = 4, 11
    attributes = {**_ATTRIBUTES, "local_window_size": window}
    new = [_f(1, tokens, _H * _D), _f(1, tokens, _G * _D), _f(1, tokens, _G * _D)]
    past = [np.zeros((1, _G, capacity, _D), np.float32)] * 2
    full = [np.zeros((1, _G, 0, _D), np.float32)] * 2
    for start, stop in ((0, 3), (3, 4), (4, 9), (9, 10), (10, 11)):
        lengths = [np.array([stop - 1], np.int32), np.array(stop, np.int32)]
        part = [value[:, start:stop] for value in new]
        narrow = {**attributes, "sliding_window_cache": 1}
        y, *past = answers("GroupQueryAttention", [*part, *past, *lengths], narrow, n_outputs=3)
        want, *full = answers("GroupQueryAttention", [*part, *full, *lengths], attributes, n_outputs=3)
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_normalized_heads() -> None:
    inputs = [*_step(3, 0), *[None] * 7, _f(_D), _f(_D)]
    (y,) = answers("GroupQueryAttention", inputs, _ATTRIBUTES)
    plain = list(inputs[:7])
    for place, weight in ((0, inputs[14]), (1, inputs[15])):
        heads = plain[place].reshape(_B, 3, -1, _D)
        normed = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6) * weight
        plain[place] = normed.reshape(plain[place].shape).astype(np.float32)
    (want,) = answers("GroupQueryAttention", plain, _ATTRIBUTES)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(("steps", "total"), [(40, 40), (1, 41)])
def test_sparse_attention(packed: bool, rotary: bool, steps: int, total: int) -> None:
    block, capacity = 16, 64
    rows = np.array([[0, 1, 3, 5, 8], [0, 1, 3, 6, 9]], np.int32)
    columns = np.array([[0, 0, 1, 1, 2, 1, 2, 3, -1], [0, 0, 1, 0, 1, 2, 0, 2, 3]], np.int32)
    new = [_f(_B, steps, _H * _D), _f(_B, steps, _G * _D), _f(_B, steps, _G * _D)]
    if packed:
        new = [np.concatenate(new, 2), None, None]
    past = [_f(_B, _G, capacity, _D) for _ in range(2)]
    lengths = [np.array([total], np.int32), np.full(_B, total, np.int32)]
    inputs = [*new, *past, rows, columns, *lengths, *(_caches(most=64) if rotary else [])]
    attributes = {**_ATTRIBUTES, "sparse_block_size": block, "do_rotary": int(rotary)}
    y, k, _ = answers("SparseAttention", inputs, attributes, n_outputs=3)
    theirs = _bound(inputs, attributes)
    np.testing.assert_allclose(y, theirs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(k[:, :, :total], theirs[1][:, :, :total], rtol=1e-4, atol=1e-5)


def _bound(inputs: list[Any], attributes: dict[str, Any]) -> list[Any]:
    """onnxruntime wants past and present in one buffer."""
    rival = pytest.importorskip("onnxruntime")
    model = one_node_model("SparseAttention", inputs, attributes, n_outputs=3)
    session = rival.InferenceSession(model, providers=["CPUExecutionProvider"])
    values = {name: rival.OrtValue.ortvalue_from_numpy(value.copy()) for name, value in feeds_of(inputs).items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y0")
    binding.bind_ortvalue_output("y1", values["x3"])
    binding.bind_ortvalue_output("y2", values["x4"])
    session.run_with_iobinding(binding)
    return [np.array(value.numpy()) for value in binding.get_outputs()]
