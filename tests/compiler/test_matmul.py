"""Matrix products, compiled, against NumPy: forms of both operands, odd sizes, epilogues, threads, targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from distort.graph import reader
from distort.kernels.compiler.codegen import gemm_bf16
from distort.kernels.compiler.codegen.target import LIMIT_VARIABLE, Target, host, of_features
from distort.kernels.compiler.library import Library, compile_text, module_text
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.compiler.specialise import Plan
from distort.kernels.program import Program

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(7)


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return RANDOM.standard_normal(shape, dtype=np.float32).astype(dtype)


def model(nodes: Sequence[Any], feeds: dict[str, Array], weights: dict[str, Array], output: str = "y") -> Any:
    """A graph of nodes with one output."""
    kind = {str(name): helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in ("float32", "float16", "float64")}
    kind["bfloat16"] = TensorProto.BFLOAT16
    inputs = [helper.make_tensor_value_info(n, kind[a.dtype.name], a.shape) for n, a in feeds.items()]
    first = next(iter(feeds.values()))
    made = [helper.make_tensor_value_info(output, kind[first.dtype.name], None)]
    initializers = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(list(nodes), "g", inputs, made, initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return reader.read_model(helper.make_model(graph, opset_imports=opsets, ir_version=10)).graph


def node(op: str, inputs: Sequence[str], output: str = "y", domain: str = "", **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), [output], domain=domain, **attributes)


def check(
    graph: Any,
    feeds: dict[str, Array],
    *,
    n_threads: int = 1,
    library: Library | None = None,
    kinds: Sequence[str] = ("product",),
    rtol: float = 1e-4,
) -> Plan:
    """Compile, run, compare. ``kinds`` of operations that the plan has."""
    program = CompiledProgram(graph, n_threads=n_threads, library=library)
    (result,) = program.run(feeds)
    (expected,) = Program(graph).run(feeds)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    np.testing.assert_allclose(
        result.astype(np.float64),
        expected.astype(np.float64),
        rtol=rtol,
        atol=rtol * max(1, feeds["a"].shape[-1]) ** 0.5,
    )
    plan = program.prepare([(feeds[n].dtype, feeds[n].shape) for n in program.inputs])
    assert [o.kind for o in plan.operations] == list(kinds)
    return plan


SIZES = [
    (1, 1, 1),
    (1, 768, 100),
    (2, 33, 48),
    (3, 5, 17),
    (7, 64, 130),
    (8, 16, 32),
    (17, 100, 512),
    (50, 64, 64),
    (13, 2100, 40),
    (100, 3000, 49),
    (129, 40, 47),
    (5, 0, 6),
]


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@pytest.mark.parametrize("form", ["weights", "rows", "columns"])
def test_sizes(m: int, k: int, n: int, form: str) -> None:
    a, b = array(m, k), array(k, n)
    if form == "weights":
        check(model([node("MatMul", "ab")], {"a": a}, {"b": b}), {"a": a})
    elif form == "rows":
        check(model([node("MatMul", "ab")], {"a": a, "b": b}, {}), {"a": a, "b": b})
    else:
        b = np.ascontiguousarray(b.T)
        check(model([node("Gemm", "ab", transB=1)], {"a": a, "b": b}, {}), {"a": a, "b": b})


SHAPES = [
    ((2, 3, 9, 20), (2, 3, 20, 33)),
    ((4, 9, 20), (20, 33)),
    ((4, 9, 20), (1, 20, 33)),
    ((2, 3, 9, 20), (3, 20, 33)),
    ((2, 1, 9, 20), (1, 3, 20, 33)),
    ((2, 1, 3, 9, 20), (2, 2, 1, 20, 8)),
    ((9, 20), (3, 20, 33)),
    ((20,), (20, 33)),
    ((9, 20), (20,)),
    ((2, 9, 20), (20,)),
    ((20,), (20,)),
    ((0, 9, 20), (20, 3)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("known", [False, True])
def test_batches(left: tuple[int, ...], right: tuple[int, ...], known: bool) -> None:
    a, b = array(*left), array(*right)
    many = len(left) == 5
    feeds = {"a": a} if known else {"a": a, "b": b}
    graph = model([node("MatMul", "ab")], feeds, {"b": b} if known else {})
    check(graph, feeds, kinds=("map", "product") if many else ("product",))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("form", ["weights", "rows", "columns"])
def test_narrow_types(dtype: Any, form: str) -> None:
    a, b = array(19, 70, dtype=dtype), array(70, 35, dtype=dtype)
    nodes = [node("MatMul", "ab")]
    feeds, weights = {"a": a, "b": b}, {}
    if form == "weights":
        feeds, weights = {"a": a}, {"b": b}
    elif form == "columns":
        feeds["b"] = np.ascontiguousarray(b.T)
        nodes = [node("Transpose", "b", "t", perm=[1, 0]), node("MatMul", "at")]
    casts = 1 if form == "weights" else 2
    check(model(nodes, feeds, weights), feeds, rtol=1e-2, kinds=(*["map"] * casts, "product"))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("known", [False, True])
def test_narrow_matrices_of_a_few_rows(dtype: Any, known: bool) -> None:
    a, b = array(3, 70, dtype=dtype), array(70, 35, dtype=dtype)
    feeds, weights = ({"a": a}, {"b": b}) if known else ({"a": a, "b": b}, {})
    check(model([node("MatMul", "ab")], feeds, weights), feeds, rtol=1e-2, kinds=("map", "product"))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("shape", [(1,), (37,), (1, 37), (21, 1), (21, 37), ()])
def test_gemm(trans_a: int, trans_b: int, shape: tuple[int, ...]) -> None:
    a = array(*((50, 21) if trans_a else (21, 50)))
    b, c = array(*((37, 50) if trans_b else (50, 37))), array(*shape)
    nodes = [node("Gemm", "abc", transA=trans_a, transB=trans_b, alpha=0.5, beta=2.0)]
    check(model(nodes, {"a": a}, {"b": b, "c": c}), {"a": a})


def test_fused_forms() -> None:
    a, b = array(2, 21, 50), array(2, 37, 50)
    nodes = [node("FusedMatMul", "ab", domain="com.microsoft", transB=1, alpha=0.25)]
    check(model(nodes, {"a": a, "b": b}, {}), {"a": a, "b": b})
    a, b, c = array(21, 50), array(50, 37), array(37)
    nodes = [node("FusedGemm", "abc", domain="com.microsoft", activation="Relu")]
    check(model(nodes, {"a": a}, {"b": b, "c": c}), {"a": a})


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [None, np.uint8, np.float32])
@pytest.mark.parametrize(
    ("shape", "columns", "block"), [((1, 200), 50, 32), ((3, 192), 50, 32), ((2, 7, 96), 64, 16), ((90, 1100), 33, 128)]
)
def test_weights_in_codes(bits: int, zeros: Any, shape: tuple[int, ...], columns: int, block: int) -> None:
    depth = shape[-1]
    n_blocks = -(-depth // block)
    weights = {
        "w": RANDOM.integers(0, 256, (columns, n_blocks, block * bits // 8), np.uint8),
        "s": np.abs(array(columns * n_blocks)) * np.float32(0.02),
        "bias": array(columns),
    }
    if zeros is np.uint8:
        weights["z"] = RANDOM.integers(0, 256, columns * -(-n_blocks * bits // 8), np.uint8)
    elif zeros is not None:
        weights["z"] = np.abs(array(columns * n_blocks))
    inputs = ["a", "w", "s", "z" if zeros is not None else "", "", "bias"]
    sizes = {"K": depth, "N": columns, "bits": bits, "block_size": block}
    nodes = [node("MatMulNBits", inputs, domain="com.microsoft", **sizes)]
    a = array(*shape)
    few = (bits == 4 and a.size <= 4 * depth) or a.size <= 2 * depth
    kind = "nbits" if few and depth % block == 0 else "product"
    check(model(nodes, {"a": a}, weights), {"a": a}, rtol=1e-3, kinds=[kind])


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("bik,bkj->bij", (2, 5, 20), (2, 20, 7)),
        ("bhid,bhjd->bhij", (2, 3, 5, 20), (2, 3, 7, 20)),
        ("bihd,bjhd->bhij", (2, 5, 3, 20), (2, 7, 3, 20)),
        ("abc,cd->abd", (2, 5, 20), (20, 7)),
        ("ik,kj", (5, 20), (20, 7)),
        ("...ik,...kj->...ij", (3, 5, 20), (3, 20, 7)),
    ],
)
def test_einsum(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = array(*left), array(*right)
    graph = model([node("Einsum", "ab", equation=equation)], {"a": a, "b": b}, {})
    check(graph, {"a": a, "b": b})


def test_what_follows_joins() -> None:
    """A bias, an activation and a residual."""
    a, b, bias, other = array(2, 9, 40), array(40, 50), array(50), array(2, 9, 50)
    nodes = [
        node("MatMul", "ab", "t"),
        node("Add", ["t", "bias"], "u"),
        node("Relu", ["u"], "v"),
        node("Add", ["v", "other"]),
    ]
    feeds = {"a": a, "other": other}
    check(model(nodes, feeds, {"b": b, "bias": bias}), feeds)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1, 1, 11), (9, 1), (2, 3, 9, 11), (9, 11), (3, 1, 1)])
def test_broadcast_operands_join(shape: tuple[int, ...]) -> None:
    a, b, other = array(2, 3, 9, 20), array(2, 3, 20, 11), array(*shape)
    nodes = [node("MatMul", "ab", "t"), node("Add", ["t", "other"])]
    feeds = {"a": a, "b": b, "other": other}
    check(model(nodes, feeds, {}), feeds)


def test_an_operand_that_goes_another_way_stays_apart() -> None:
    a, b, other = array(9, 20), array(20, 11), array(11, 9)
    nodes = [
        node("MatMul", "ab", "t"),
        node("Transpose", ["other"], "u", perm=[1, 0]),
        node("Add", "tu"),
    ]
    feeds = {"a": a, "other": other}
    check(model(nodes, feeds, {"b": b}), feeds, kinds=("product", "map"))


def test_heads_are_read_and_written_where_they_are() -> None:
    """Attention without its softmax: no operation but three products."""
    a, weights = array(1, 30, 24), array(24, 24)
    shape, back = np.array([0, 0, 4, 6]), np.array([0, 0, 24])
    nodes = [
        node("MatMul", ["a", "w"], "p"),
        node("Reshape", ["p", "shape"], "h"),
        node("Transpose", ["h"], "q", perm=[0, 2, 1, 3]),
        node("Transpose", ["h"], "k", perm=[0, 2, 3, 1]),
        node("MatMul", "qk", "s"),
        node("MatMul", "sq", "o"),
        node("Transpose", ["o"], "t", perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "back"]),
    ]
    graph = model(nodes, {"a": a}, {"w": weights, "shape": shape, "back": back})
    check(graph, {"a": a}, kinds=("product",) * 3)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 768, 1000), (37, 1500, 200), (200, 64, 50)])
def test_threads_change_nothing(m: int, k: int, n: int) -> None:
    a, b = array(m, k), array(k, n)
    for feeds, weights in (({"a": a}, {"b": b}), ({"a": a, "b": b}, {})):
        graph = model([node("MatMul", "ab")], feeds, weights)
        results = [CompiledProgram(graph, n_threads=t).run(feeds)[0] for t in (1, 2, 3)]
        assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


@pytest.mark.skipif(not gemm_bf16.has_bf16_tiles(host()), reason="needs a processor with AMX")
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (5, 40, 50), (16, 64, 33), (33, 100, 64), (100, 33, 31), (200, 64, 40)]
)
def test_products_rounded_to_bfloat16(m: int, k: int, n: int) -> None:
    a, b, c = array(2, m, k), array(k, n), array(n)
    graph = model([node("MatMul", "ab", "t"), node("Add", "tc")], {"a": a}, {"b": b, "c": c})
    results = [CompiledProgram(graph, n_threads=t, precision="bf16").run({"a": a})[0] for t in (1, 2)]
    rounded = (x.astype(ml_dtypes.bfloat16).astype(np.float32) for x in (a, b))
    expected = np.matmul(*rounded) + c
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-4 * k**0.5)
    assert np.array_equal(*results)


def limited(name: str, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv(LIMIT_VARIABLE, name)
    return host.__wrapped__()


@pytest.mark.parametrize("limit", ["avx2", "sse4.2"])
def test_lesser_machines(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = limited(limit, monkeypatch)
    library = Library(target)
    for m, k, n in ((1, 33, 7), (19, 70, 35), (25, 1100, 20)):
        a, b = array(m, k), array(k, n)
        graph = model([node("MatMul", "ab", "t"), node("Relu", "t")], {"a": a}, {"b": b})
        plan = check(graph, {"a": a}, library=library)
        b = np.ascontiguousarray(b.T)
        graph = model([node("Gemm", "ab", transB=1)], {"a": a, "b": b}, {})
        check(graph, {"a": a, "b": b}, library=library)
    for m in (20,):
        weights = {"w": RANDOM.integers(0, 256, (60, 4, 8), np.uint8), "s": np.abs(array(60 * 4)) * np.float32(0.02)}
        sizes = {"K": 64, "N": 60, "bits": 4, "block_size": 16}
        a = array(m, 64)
        coded = model([node("MatMulNBits", ["a", "w", "s"], domain="com.microsoft", **sizes)], {"a": a}, weights)
        plan.steps += check(coded, {"a": a}, library=library, rtol=1e-3).steps
    arm = of_features("aarch64-unknown-linux-gnu", "generic", {"neon": True})
    keys = [step.call.key for step in plan.steps if step.call is not None]
    assert compile_text(module_text(keys, arm), arm)
