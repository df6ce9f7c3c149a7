"""Attention's operators, the standard's and onnxruntime's, compiled, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import InvalidInput
from distort.kernels.program import Program

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(9)
MS = "com.microsoft"
B, H, S, D, T = 2, 3, 4, 8, 7
HIDDEN = H * D


def f(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def check(
    op: str,
    inputs: list[Array | None],
    attributes: dict[str, Any],
    *,
    domain: str = "",
    outputs: int = 1,
    known: tuple[int, ...] = (),
    dtype: Any = np.float32,
) -> None:
    """The same from both programs, and no step for a NumPy kernel. ``known``: inputs that are weights."""
    names = [f"i{i}" if x is not None else "" for i, x in enumerate(inputs)]
    values = {
        name: x.astype(dtype) if x.dtype == np.float32 else x
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    }
    made = [f"o{i}" for i in range(outputs)]
    weights = {f"i{i}": values.pop(f"i{i}") for i in known}
    node = Node(op, domain, names, made, attributes=attributes, opset=1 if domain else 24)
    graph = Graph(nodes=[node], inputs=list(values), outputs=made, initializers=weights)
    program = CompiledProgram(graph, n_threads=2)
    plan = program.prepare([(v.dtype, v.shape) for v in values.values()])
    assert not [o for o in plan.operations if isinstance(o, Host)]
    tolerance = 1e-5 if dtype == np.float32 else 4e-3
    for got, expected in zip(program.run(values), Program(graph).run(values), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(*(x.astype(np.float64) for x in (got, expected)), rtol=tolerance, atol=tolerance)


def seen(*shape: int) -> Array:
    return RANDOM.random(shape) < 0.6


STANDARD: dict[str, tuple[list[Array | None], dict[str, Any]]] = {
    "plain": ([f(B, H, S, D), f(B, H, T, D), f(B, H, T, 5)], {}),
    "flat": ([f(B, S, HIDDEN), f(B, T, HIDDEN), f(B, T, HIDDEN)], {"q_num_heads": H, "kv_num_heads": H}),
    "groups": ([f(B, 6, S, D), f(B, 2, T, D), f(B, 2, T, D)], {"scale": 0.5, "softcap": 2.0}),
    "one query of groups": ([f(B, 6, 1, D), f(B, 2, 40, D), f(B, 2, 40, D), f(B, 6, 1, 40)], {}),
    "causal": ([f(B, H, S, D), f(B, H, S, D), f(B, H, S, D)], {"is_causal": 1}),
    "mask": ([f(B, H, S, D), f(B, H, T, D), f(B, H, T, D), f(S, T)], {}),
    "bool mask, empty rows": (
        [f(B, H, S, D), f(B, H, T, D), f(B, H, T, D), seen(B, 1, S, T) & (np.arange(S) > 0)[:, None]],
        {},
    ),
    "lengths": ([f(B, H, S, D), f(B, H, T, D), f(B, H, T, D), None, None, None, np.array([5, 7])], {}),
    "lengths, causal": (
        [f(B, H, S, D), f(B, H, T, D), f(B, H, T, D), None, None, None, np.array([3, 6])],
        {"is_causal": 1, "left_window_size": 2},
    ),
    "window": ([f(B, H, T, D)] * 3, {"left_window_size": 2, "right_window_size": 1}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("case", STANDARD)
def test_attention(case: str, dtype: Any) -> None:
    inputs, attributes = STANDARD[case]
    check("Attention", inputs, attributes, dtype=dtype)


def test_attention_with_a_past() -> None:
    inputs = [f(B, 6, S, D), f(B, 2, S, D), f(B, 2, S, D), None, f(B, 2, 5, D), f(B, 2, 5, D)]
    check("Attention", inputs, {"is_causal": 1}, outputs=3)
    check(
        "Attention", [*(x if x is None else x[:, :, :1] if i < 3 else x for i, x in enumerate(inputs))], {}, outputs=3
    )


def masks(keys: int) -> dict[str, Array | None]:
    part = np.ones((B, keys), np.int32)
    part[0, -2:] = 0
    part[1, 0] = 0
    cube = np.ones((B, S, keys), np.int32)
    cube[0, 1, :3] = 0
    return {
        "none": None,
        "lengths": np.array([keys - 1, keys - 2], np.int32),
        "more lengths": np.array([keys - 1, keys - 2, 0, 4, 8, 0, 4, 8], np.int32),
        "keys": part,
        "places": cube,
        "nothing": np.zeros((B, keys), np.int32),
        "ends": np.array([3, 4, 0, 1], np.int32),
        "square": (RANDOM.random((B, 1, 20, 20)) < 0.5).astype(np.int32),
    }


@pytest.mark.parametrize("mask", masks(S))
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_attention(mask: str, unidirectional: int) -> None:
    inputs = [f(B, S, HIDDEN), f(B, S, HIDDEN), f(B, S, 2 * HIDDEN), f(4 * HIDDEN), masks(S)[mask]]
    check("MultiHeadAttention", inputs, {"num_heads": H, "unidirectional": unidirectional}, domain=MS)


@pytest.mark.parametrize(
    ("inputs", "n_outputs"),
    [
        ([f(B, S, HIDDEN), f(B, H, 5, D), f(B, H, 5, D)], 1),
        ([f(B, S, HIDDEN), f(B, H, 5, D), f(B, H, 5, D), f(3 * HIDDEN)], 1),
        ([f(B, S, HIDDEN), f(B, 5, HIDDEN), f(B, 5, HIDDEN)], 3),
        ([*(f(B, S, HIDDEN) for _ in range(3)), None, None, None, f(B, H, 3, D), f(B, H, 3, D)], 3),
        ([*(f(B, S, HIDDEN) for _ in range(3)), None, None, f(1, H, S, S)], 1),
        ([f(B, S, H, 3, D)], 1),
        ([f(B, S, HIDDEN), f(B, 5, H, 2, D)], 1),
        ([f(B, S, 3 * HIDDEN)], 1),
    ],
    ids=["cross", "cross-bias", "present", "past", "bias", "packed", "packed keys", "side by side"],
)
def test_forms_of_multi_head_attention(inputs: list[Array | None], n_outputs: int) -> None:
    check("MultiHeadAttention", inputs, {"num_heads": H, "scale": 0.3}, domain=MS, outputs=n_outputs)


@pytest.mark.parametrize("mask", masks(S))
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention_of_onnxruntime(mask: str, unidirectional: int) -> None:
    inputs = [f(B, S, 10), f(10, 3 * HIDDEN), f(3 * HIDDEN), masks(S)[mask]]
    attributes = {"num_heads": H, "unidirectional": unidirectional}
    check("Attention", inputs, attributes, domain=MS, outputs=2, known=(1, 2))


@pytest.mark.parametrize("form", ["past", "bias", "sizes"])
def test_forms_of_attention_of_onnxruntime(form: str) -> None:
    x, w, bias = f(B, S, 10), f(10, 3 * HIDDEN), f(3 * HIDDEN)
    attributes: dict[str, Any] = {"num_heads": H}
    if form == "past":
        check("Attention", [x, w, bias, None, f(2, B, H, 5, D)], attributes, domain=MS, outputs=2)
    elif form == "bias":
        check("Attention", [x, w, bias, None, None, f(B, H, S, S)], attributes, domain=MS)
    else:
        attributes["qkv_hidden_sizes"] = [HIDDEN, HIDDEN, 2 * HIDDEN]
        check("Attention", [x, f(10, 4 * HIDDEN), f(4 * HIDDEN)], attributes, domain=MS)


CACHES = [f(20, D // 2), f(20, D // 2)]
POSITIONS = RANDOM.integers(0, 20, (B, S))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("form", ["flat", "apart", "in part", "given"])
def test_rotary_embedding(form: str, interleaved: int, dtype: Any) -> None:
    attributes: dict[str, Any] = {"interleaved": interleaved}
    x, inputs = f(B, H, S, D), [*CACHES, POSITIONS]
    if form == "flat":
        x, attributes = f(B, S, HIDDEN), {**attributes, "num_heads": H}
    elif form == "in part":
        x, attributes = f(B, H, S, 13), {**attributes, "rotary_embedding_dim": D}
    elif form == "given":
        inputs = [f(B, S, D // 2), f(B, S, D // 2)]
    check("RotaryEmbedding", [x, *inputs], attributes, dtype=dtype)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("form", ["flat", "apart", "in part", "start"])
def test_rotary_embedding_of_onnxruntime(form: str, interleaved: int) -> None:
    attributes: dict[str, Any] = {"interleaved": interleaved}
    x, positions = f(B, S, HIDDEN), POSITIONS
    if form == "apart":
        x = f(B, H, S, D)
    elif form == "in part":
        x, attributes = f(B, S, H * 13), {**attributes, "num_heads": H, "rotary_embedding_dim": D}
    elif form == "start":
        positions = np.array([3])
    check("RotaryEmbedding", [x, positions, *CACHES], attributes, domain=MS, known=(2, 3))


@pytest.mark.parametrize("wrong", [-1, 20])
def test_positions_beyond_the_cache_are_refused(wrong: int) -> None:
    node = Node("RotaryEmbedding", MS, ["x", "p", "c", "s"], ["y"], opset=1)
    caches = dict(zip("cs", CACHES, strict=True))
    graph = Graph(nodes=[node], inputs=["x", "p"], outputs=["y"], initializers=caches)
    positions = POSITIONS.copy()
    positions[1, 2] = wrong
    with pytest.raises(InvalidInput, match="position_ids"):
        CompiledProgram(graph).run({"x": f(B, S, HIDDEN), "p": positions})


def lengths(past: int, new: int) -> list[Array]:
    return [np.full(B, past + new - 1, np.int32), np.array(past + new, np.int32)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"do_rotary": 1},
        {"do_rotary": 1, "rotary_interleaved": 1, "local_window_size": 3},
        {"softcap": 3.0, "scale": 0.3},
    ],
)
@pytest.mark.parametrize("new", [1, S])
def test_group_query_attention(new: int, attributes: dict[str, Any], past: int, dtype: Any) -> None:
    kept = [f(B, 2, past, D), f(B, 2, past, D)]
    inputs = [f(B, new, 6 * D), f(B, new, 2 * D), f(B, new, 2 * D), *kept, *lengths(past, new), *CACHES]
    given = {"num_heads": 6, "kv_num_heads": 2, **attributes}
    check("GroupQueryAttention", inputs, given, domain=MS, outputs=3, known=(7, 8), dtype=dtype)
    packed = [f(B, new, 10 * D), None, None, *kept, *lengths(past, new), *CACHES]
    check("GroupQueryAttention", packed, given, domain=MS, outputs=3, known=(7, 8), dtype=dtype)


def cached(attributes: dict[str, Any], steps: int, capacity: int, more: list[str], dtype: Any) -> tuple[Graph, Any]:
    """A graph of one GroupQueryAttention with a cache, and what makes its feeds of counts of tokens."""
    names = ["q", "k", "v", "pk", "pv", "n", "t", "cos", "sin", *more]
    attributes = {"num_heads": 6, "kv_num_heads": 2, **attributes}
    node = Node("GroupQueryAttention", MS, names, ["y", "a", "c"], attributes=attributes, opset=1)
    known = {name: value.astype(dtype) for name, value in zip(("cos", "sin"), CACHES, strict=True)}
    given = [name for name in names if name and name not in known]
    graph = Graph(nodes=[node], inputs=given, outputs=["y", "a", "c"], initializers=known)

    def feeds(tokens: list[int], total: int) -> dict[str, Array]:
        shapes = {"q": (B, steps, 6 * D), "k": (B, steps, 2 * D), "v": (B, steps, 2 * D)}
        made = {name: f(*shape).astype(dtype) for name, shape in shapes.items()}
        for name in ("pk", "pv"):
            made[name] = f(B, 2, capacity, D).astype(dtype)
            for entry, count in enumerate(tokens):  # nobody looks at what lies beyond
                made[name][entry, :, count:] = np.nan
        made |= {"n": np.array(tokens, np.int32) - 1, "t": np.array(total, np.int32)}
        if "positions" in more:
            made["positions"] = (np.array(tokens)[:, None] - steps + np.arange(steps)).clip(0)
        if "bias" in more:
            made["bias"] = f(1, 6, steps, capacity).astype(dtype)
        return made

    return graph, feeds


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("attributes", "more"),
    [
        ({}, []),
        ({"do_rotary": 1}, []),
        ({"do_rotary": 1, "local_window_size": 3, "softcap": 2.0}, ["positions"]),
        ({"causal": 0}, []),
        ({}, ["", "bias"]),
    ],
)
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_caches_that_are_filled_in_part(steps: int, attributes: dict[str, Any], more: list[str], dtype: Any) -> None:
    graph, feeds = cached(attributes, steps, 12, more, dtype)
    program, plain = CompiledProgram(graph, n_threads=2), Program(graph)
    for tokens in ([5, 3], [5, 3], [5, 3], [1, 12], [12, 9], [3, 2], [1, 1]):
        given = feeds(tokens, max(tokens))
        for got, expected in zip(program.run(given), plain.run(given), strict=True):
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            tolerance = 1e-5 if dtype == np.float32 else 4e-3
            np.testing.assert_allclose(*(x.astype(np.float64) for x in (got, expected)), rtol=tolerance, atol=tolerance)
    assert not [o for o in program.plans[-1][1].operations if isinstance(o, Host)]
    for tokens, total in (([0, 3], 3), ([5, 3], 4), ([13, 3], 12)):
        with pytest.raises(InvalidInput):
            program.run(feeds(tokens, total))
    if "bias" not in more and steps > 1:
        assert program.run(feeds([13, 12], 13))[1].shape[2] == 13  # more than the cache has room for


@pytest.mark.parametrize(
    "attributes", [{"is_causal": 1}, {"right_window_size": 30}, {"is_causal": 1, "left_window_size": 9}]
)
def test_keys_that_no_query_of_a_block_sees_are_passed_over(attributes: dict[str, Any]) -> None:
    check("Attention", [f(1, 2, 300, D)] * 3, attributes)
    check("Attention", [f(1, 2, 140, D), f(1, 2, 300, D), f(1, 2, 300, D)], attributes)


def test_more_queries_than_keys() -> None:
    inputs = [f(1, 9, HIDDEN), f(1, 5, HIDDEN), f(1, 5, HIDDEN)]
    check("MultiHeadAttention", inputs, {"num_heads": H, "unidirectional": 1}, domain=MS)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("by_column", [False, True])
def test_attention_of_bytes(by_column: bool, zeros: bool) -> None:
    x = RANDOM.integers(0, 256, (B, S, 10), np.uint8)
    weights = RANDOM.integers(-127, 128, (10, 3 * HIDDEN)).astype(np.int8)
    scale = np.abs(f(3 * HIDDEN if by_column else 1)) * np.float32(0.01)
    points = [np.array(120, np.uint8), np.array(3, np.int8)] if zeros else [None, None]
    inputs = [x, weights, f(3 * HIDDEN), np.float32([0.02]), scale, masks(S)["keys"], *points]
    check("QAttention", inputs, {"num_heads": H}, domain=MS, known=(1, 2, 4, 7) if zeros else (1, 2, 4))
