"""8-bit products, convolutions and quantization, compiled: exact against the NumPy kernels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import helper

from distort.kernels.compiler.library import Library
from tests.compiler.comparing import agree, both, object_for

Array = np.ndarray[Any, Any]
BYTES = (np.uint8, np.int8)
SIGNS = list(itertools.product(BYTES, BYTES))


def numbers(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> Array:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(1, 7, 5), (3, 64, 16), (5, 70, 33), (17, 33, 100), (37, 130, 66)]
)
@pytest.mark.parametrize(("a", "w"), SIGNS)
def test_matmul_integer(library: Library, a: Any, w: Any, rows: int, depth: int, columns: int) -> None:
    node = helper.make_node("MatMulInteger", ["a", "w", "az", "wz"], ["y"])
    feeds = {"a": numbers(a, (2, rows, depth)), "az": np.array(7, a)}
    for zero in (np.array(3, w), numbers(w, (columns,), 1), np.array(0, w)):
        results, expected, kinds = both(
            [node], feeds, {"w": numbers(w, (depth, columns), 2), "wz": zero}, library=library
        )
        assert kinds == ["quantized"]
        agree(results, expected)


def test_extreme_numbers_do_not_saturate(library: Library) -> None:
    node = helper.make_node("MatMulInteger", ["a", "w"], ["y"])
    for a, w in ((255, -128), (255, 127)):
        feeds = {"a": np.full((9, 256), a, np.uint8)}
        results, expected, _ = both([node], feeds, {"w": np.full((256, 20), w, np.int8)}, library=library)
        agree(results, expected)


@pytest.mark.parametrize(("depth", "weights"), [(3, "known"), (8, "run")])
def test_products_that_are_left_to_numpy(depth: int, weights: str) -> None:
    node = helper.make_node("MatMulInteger", ["a", "w"], ["y"])
    a, w = {"a": numbers(np.uint8, (4, depth))}, {"w": numbers(np.int8, (depth, 5))}
    results, expected, _ = both([node], a, w) if weights == "known" else both([node], a | w, {})
    agree(results, expected)


def test_a_chain_becomes_one_product(library: Library) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "s", "az"]),
        helper.make_node("MatMulInteger", ["a", "w", "az", "wz"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=1),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Mul", ["real", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "w": numbers(np.uint8, (50, 37)),
        "wz": np.array(120, np.uint8),
        "ws": np.float32(0.01),
        "bias": rng.standard_normal(37).astype(np.float32),
    }
    for rows in (1, 30):
        feeds = {"x": rng.standard_normal((rows, 50)).astype(np.float32)}
        results, expected, kinds = both(nodes, feeds, weights, library=library)
        assert kinds.count("quantized") == 1 and kinds[-1] == "quantized"
        agree(results, expected, 1e-5, 1e-5)


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 9, 9), (5, 3, 3, 3), {}),
    ((2, 6, 20, 23), (18, 6, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ((1, 70, 17, 19), (33, 70, 1, 1), {}),
    ((1, 8, 12, 40), (12, 8, 3, 3), {"strides": [3, 3], "auto_pad": "SAME_UPPER"}),
    ((2, 8, 12, 40), (12, 4, 3, 2), {"group": 2, "pads": [0, 1, 2, 1], "dilations": [2, 1]}),
    ((1, 8, 50), (12, 8, 3), {"strides": [2], "pads": [1, 1]}),
    ((1, 6, 9, 9), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    ((2, 6, 20, 43), (12, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ((2, 6, 20, 43), (6, 1, 5, 5), {"group": 6, "pads": [2, 2, 2, 2]}),
    ((1, 6, 15, 30), (6, 1, 3, 3), {"group": 6, "pads": [2, 2, 2, 2], "dilations": [2, 2]}),
]


@pytest.mark.parametrize(("a", "w"), SIGNS)
def test_conv_integer(library: Library, a: Any, w: Any) -> None:
    for x_shape, w_shape, attributes in CONVOLUTIONS:
        node = helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **attributes)
        feeds = {"x": numbers(a, x_shape), "xz": np.array(9, a)}
        for zero in (np.array(5, w), numbers(w, w_shape[:1], 1)):
            results, expected, kinds = both([node], feeds, {"w": numbers(w, w_shape, 2), "wz": zero}, library=library)
            assert kinds == ["interleave", "quantized conv"]
            agree(results, expected)


@pytest.mark.parametrize(("a", "w"), SIGNS)
def test_scaled_and_quantized_results(library: Library, a: Any, w: Any) -> None:
    rng = np.random.default_rng(3)
    scales = {"as": np.float32(0.01), "ys": np.float32(0.3), "bs": rng.uniform(0.001, 0.01, 33).astype(np.float32)}
    zeros = {"az": np.array(3, a), "yz": np.array(7, a), "bz": np.array(5, w), "bzs": numbers(w, (33,))}
    more = {
        "b": numbers(w, (70, 33)),
        "bt": numbers(w, (33, 70)),
        "f": numbers(w, (33, 10, 3, 3)),
        "bias": rng.standard_normal(33).astype(np.float32),
        "c": rng.integers(-1000, 1000, 33).astype(np.int32),
    }
    weights = {**scales, **zeros, **more}
    matrix, image = numbers(a, (37, 70)), numbers(a, (1, 10, 20, 20))
    cases: list[tuple[Any, Array]] = [
        (("QLinearMatMul", ["x", "as", "az", "b", "bs", "bzs", "ys", "yz"], {}), matrix),
        (("MatMulIntegerToFloat", ["x", "b", "as", "bs", "az", "bzs", "bias"], {}), matrix),
        (("QGemm", ["x", "as", "az", "b", "bs", "bzs", "c", "ys", "yz"], {"alpha": 0.7}), matrix),
        (("QGemm", ["x", "as", "az", "bt", "bs", "bz", "c"], {"transB": 1}), matrix),
        (("QLinearConv", ["x", "as", "az", "f", "bs", "bz", "ys", "yz", "c"], {"pads": [1, 1, 1, 1]}), image),
    ]
    for (op_type, inputs, attributes), x in cases:
        domain = "" if op_type.startswith("QLinear") else "com.microsoft"
        node = helper.make_node(op_type, inputs, ["y"], domain=domain, **attributes)
        results, expected, kinds = both([node], {"x": x}, weights, library=library)
        assert not any(kind.startswith("host") for kind in kinds)
        agree(results, expected, 1e-5, 1e-5)
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "b", "bs", "bzs", "bias"], ["y"], domain="com.microsoft")
    results, expected, _ = both(
        [node], {"x": rng.standard_normal((5, 70)).astype(np.float32)}, weights, library=library
    )
    agree(results, expected, 1e-5, 1e-5)


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "s", "az"]),
        helper.make_node("ConvInteger", ["a", "w", "az", "wz"], ["sums"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvInteger", ["a", "d", "az", "dz"], ["alone"], pads=[1, 1, 1, 1], group=40),
        helper.make_node("Cast", ["sums"], ["real"], to=1),
        helper.make_node("Mul", ["real", "s"], ["y"]),
    ]
    weights = {
        "w": numbers(np.uint8, (40, 40, 3, 3)),
        "d": numbers(np.int8, (40, 1, 3, 3)),
        "wz": np.array(100, np.uint8),
        "dz": numbers(np.int8, (40,)),
    }
    feeds = {"x": rng.standard_normal((1, 40, 40, 50)).astype(np.float32)}
    one, expected, _ = both(nodes, feeds, weights, ("y", "alone"))
    two, _, _ = both(nodes, feeds, weights, ("y", "alone"), n_threads=3)
    agree(two, one)
    agree(one, expected, 1e-6, 1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 17), (40_000,)])
def test_dynamic_quantize_linear(library: Library, shape: tuple[int, ...]) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    rng = np.random.default_rng(1)
    for low, high in ((-3, 3), (1, 2), (-2, -1), (0, 0)):
        feeds = {"x": np.asarray(rng.uniform(low, high, shape), np.float32)}
        results, expected, kinds = both([node], feeds, {}, ("y", "scale", "zero"), library=library)
        assert not any(kind.startswith("host") for kind in kinds)
        agree(results, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantize_linear_rounds_as_division_does(library: Library, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    for exponent in (-20, -7, 0, 5, 20):
        scale = np.float32(rng.uniform(0.5, 1) * 10.0**exponent)
        x = (rng.integers(-300, 300, 20_000) + rng.choice([0, 0.5, 0.25, 0.4999999], 20_000)) * scale
        x = x.astype(np.float32)
        x[:4] = np.inf, -np.inf, np.nan, 0
        zero = np.array(10, dtype)
        for known in ({"scale": scale, "zero": zero}, {"zero": zero}):
            feeds = {"x": x} | ({} if "scale" in known else {"scale": np.asarray(scale)})
            results, expected, kinds = both([node], feeds, known, library=library)
            assert kinds == ["map"]
            agree(results, expected)


def test_scales_along_an_axis(library: Library) -> None:
    scale, zero = np.linspace(0.01, 0.03, 5).astype(np.float32), np.arange(5, dtype=np.int8)
    x = np.random.default_rng(0).standard_normal((2, 5, 7)).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=-2),
    ]
    results, expected, kinds = both(nodes, {"x": x}, {"scale": scale, "zero": zero}, ("q", "y"), library=library)
    assert set(kinds) == {"map"}
    agree(results, expected)
    node = helper.make_node("DequantizeLinear", ["q", "scale"], ["y"])
    sums = np.random.default_rng(0).integers(-(2**31), 2**31, 100).astype(np.int32)
    results, expected, _ = both([node], {"q": sums}, {"scale": np.float32(0.1)}, library=library)
    agree(results, expected)


@pytest.mark.parametrize("features", [{"neon": True, "dotprod": True}, {"neon": True}])
@pytest.mark.parametrize("kind", BYTES)
def test_kernels_for_arm(features: dict[str, bool], kind: Any) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "s", "az"]),
        helper.make_node("ConvInteger", ["a", "f", "az", "wz"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvInteger", ["a", "d", "az", "wz"], ["z"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("MatMulInteger", ["a", "w", "az", "wz"], ["p"]),
    ]
    weights = {
        "f": numbers(kind, (20, 8, 3, 3)),
        "d": numbers(kind, (8, 1, 3, 3)),
        "w": numbers(kind, (30, 20)),
        "wz": np.array(3, kind),
    }
    feeds = {"x": np.zeros((1, 8, 20, 30), np.float32)}
    triple = "aarch64-unknown-linux-gnu"
    code, families = object_for(triple, features, nodes, feeds, weights, ("y", "z", "p"))
    assert code and {"quantized", "quantized_conv", "quantized_depthwise", "interleave"} <= families


@pytest.mark.parametrize("kind", BYTES)
def test_maps_of_bytes(library: Library, kind: Any) -> None:
    scales = {"as": np.float32(0.02), "bs": np.float32(0.03), "ys": np.float32(0.05)}
    zeros = {"az": np.array(3, kind), "bz": np.array(7, kind), "yz": np.array(5, kind)}
    feeds = {"a": numbers(kind, (2, 6, 9, 11)), "b": numbers(kind, (6, 9, 1)), "c": numbers(kind, (2, 3, 9, 11), 1)}
    condition = {"if": feeds["a"] > 0}
    a, b, c, y = ["a", "as", "az"], ["b", "bs", "bz"], ["c", "bs", "bz"], ["ys", "yz"]
    cases: list[tuple[str, list[str], dict[str, Any], int]] = [
        ("QLinearAdd", [*a, *b, *y], {}, 0),
        ("QLinearMul", [*a, *b, *y], {}, 0),
        ("QLinearSigmoid", [*a, *y], {}, 0),
        ("QLinearLeakyRelu", [*a, *y], {"alpha": 0.1}, 0),
        ("QLinearConcat", [*y, *a, *c, *a], {"axis": 1}, 0),
        ("QLinearWhere", ["if", *a, *b, *y], {}, 0),
        ("QLinearGlobalAveragePool", [*a, *y], {}, 1),
        ("QLinearAveragePool", [*a, *y], {"kernel_shape": [3, 3], "channels_last": 1}, 1),
    ]
    for op_type, inputs, attributes, steps in cases:
        node = helper.make_node(op_type, inputs, ["y"], domain="com.microsoft", **attributes)
        given = {name: value for name, value in (feeds | condition).items() if name in inputs}
        (result,), (expected,), kinds = both([node], given, {**scales, **zeros}, library=library)
        assert not any(kind.startswith("host") for kind in kinds), op_type
        assert result.shape == expected.shape and result.dtype == expected.dtype
        assert np.abs(result.astype(int) - expected.astype(int)).max() <= steps, op_type
