"""Operators that libraries do on a GPU: products, convolutions, attention, with what becomes part of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from distort.kernels.cuda import lower
from distort.kernels.cuda.convolutions import CudaConv
from distort.kernels.cuda.device_libraries import Libraries
from distort.kernels.cuda.options import CudaOptions

from .lowered import Ran, run

Array = np.ndarray[Any, Any]
MS = "com.microsoft"


@pytest.fixture
def libraries(fake_cuda: Any) -> Iterator[Libraries]:
    made = Libraries(90, CudaOptions(cudnn_conv_algo_search="HEURISTIC", use_tf32=False))
    yield made
    assert not made.missing
    made.close()


@pytest.fixture
def stream(fake_cuda: Any) -> Any:
    return fake_cuda.cuda.Stream(non_blocking=True)


def real(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def node(op: str, inputs: str, outputs: str = "y", domain: str = "", **attributes: Any) -> NodeProto:
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), domain=domain, **attributes)


def test_the_table_names_what_modules_register() -> None:
    for domain, operator in lower.HOME:
        assert lower.lowering_of(domain, operator) is not None
    assert set(lower.LOWERINGS) == set(lower.HOME)


# -- products


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 7), (7, 3)),
        ((7,), (7, 3)),
        ((5, 7), (7,)),
        ((7,), (7,)),
        ((2, 5, 7), (7, 3)),
        ((2, 3, 5, 7), (7, 3)),
        ((2, 3, 5, 7), (2, 3, 7, 4)),
        ((2, 1, 5, 7), (1, 3, 7, 4)),
        ((3, 5, 7), (2, 1, 7, 4)),
        ((20, 1, 5, 7), (1, 18, 7, 4)),
        ((5, 1), (1, 3)),
        ((1, 1), (1, 1)),
        ((0, 7), (7, 3)),
        ((5, 0), (0, 3)),
    ],
)
def test_matmul(libraries: Libraries, stream: Any, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    ran = run([node("MatMul", "a b")], {"a": real(*left), "b": real(*right)}, {}, libraries, stream)
    ran.close()


@pytest.mark.parametrize("dtype", ["float16", "float64", "float32"])
def test_matmul_of_other_types(libraries: Libraries, stream: Any, dtype: str) -> None:
    feeds = {"a": real(2, 5, 7, dtype=dtype), "b": real(2, 7, 3, dtype=dtype)}
    ran = run([node("MatMul", "a b")], feeds, {}, libraries, stream)
    assert ran.kinds == ["cuda product"]
    ran.close(*((1e-2, 1e-2) if dtype == "float16" else (1e-5, 1e-5)))


def test_transposed_operands_are_read_where_they_are(libraries: Libraries, stream: Any) -> None:
    nodes = [
        node("Transpose", "a", "at", perm=[0, 2, 1]),
        node("Transpose", "b", "bt", perm=[2, 0, 1]),
        node("MatMul", "at bt"),
    ]
    ran = run(nodes, {"a": real(3, 7, 5), "b": real(7, 4, 3)}, {}, libraries, stream)
    assert ran.kinds == ["map", "cuda product"]  # b's matrices have steps both ways
    ran.close()
    nodes[1] = node("Transpose", "b", "bt", perm=[0, 2, 1])
    ran = run(nodes, {"a": real(3, 7, 5), "b": real(3, 4, 7)}, {}, libraries, stream)
    assert ran.kinds == ["cuda product"]
    ran.close()


@pytest.mark.parametrize("trans", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("bias", [(6,), (5, 6), (1, 6), (5, 1), (1,), ()])
def test_gemm(libraries: Libraries, stream: Any, trans: tuple[int, int], bias: tuple[int, ...]) -> None:
    a = real(*((7, 5) if trans[0] else (5, 7)))
    b = real(*((6, 7) if trans[1] else (7, 6)))
    gemm = node("Gemm", "a b c", transA=trans[0], transB=trans[1], alpha=0.5)
    ran = run([gemm], {"a": a, "c": real(*bias)}, {"b": b}, libraries, stream)
    part = ran.kinds == ["cuda product"]
    assert part == (bias in ((6,), (5, 6), (1, 6)))
    ran.close()


def test_gemm_with_beta(libraries: Libraries, stream: Any) -> None:
    gemm = node("Gemm", "a b c", alpha=0.25, beta=0.5)
    ran = run([gemm], {"a": real(5, 7), "b": real(7, 6)}, {"c": real(6)}, libraries, stream)
    assert ran.kinds == ["cuda product"]
    ran.close()


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_bias_and_activation_become_part_of_a_product(libraries: Libraries, stream: Any, approximate: str) -> None:
    nodes = [node("MatMul", "a b", "m"), node("Add", "m c", "s"), node("Gelu", "s", approximate=approximate)]
    ran = run(nodes, {"a": real(2, 5, 8)}, {"b": real(8, 16), "c": real(16)}, libraries, stream)
    # cuBLASLt's is the approximation
    assert ran.kinds == (["cuda product"] if approximate == "tanh" else ["cuda product", "map"])
    ran.close()


def test_a_residual_and_a_bias(libraries: Libraries, stream: Any) -> None:
    nodes = [node("MatMul", "a b", "m"), node("Add", "c m", "s"), node("Add", "s r", "t"), node("Relu", "t")]
    feeds = {"a": real(2, 5, 8), "r": real(2, 5, 16)}
    ran = run(nodes, feeds, {"b": real(8, 16), "c": real(16)}, libraries, stream)
    assert ran.kinds == ["cuda product"]
    ran.close()


def test_copies_become_the_place_of_a_result(libraries: Libraries, stream: Any) -> None:
    """A product, with an activation, and a convolution write their parts of a concatenation."""
    nodes = [node("MatMul", "a b", "m"), node("Relu", "m", "r"), node("Concat", "r c", axis=0)]
    ran = run(nodes, {"a": real(5, 8), "c": real(2, 6)}, {"b": real(8, 6)}, libraries, stream)
    assert ran.kinds == ["map", "cuda product"] or ran.kinds == ["cuda product", "map"]
    ran.close()
    leaky = [node("Conv", "x w", "m"), node("LeakyRelu", "m", "r", alpha=0.3), node("Concat", "r c", axis=1)]
    feeds = {"x": real(1, 3, 5, 5), "c": real(1, 2, 3, 3)}
    ran = run(leaky, feeds, {"w": real(4, 3, 3, 3)}, libraries, stream)
    assert sorted(ran.kinds) == ["cuda convolution", "map"]
    ran.close(1e-4, 1e-4)


def test_what_has_no_epilogue_stays_a_kernel(libraries: Libraries, stream: Any) -> None:
    for last in (node("Mul", "m r"), node("Exp", "m"), node("Add", "m q")):
        nodes = [node("MatMul", "a b", "m"), last]
        feeds = {"a": real(5, 8), "b": real(8, 6), "r": real(5, 6), "q": real(5, 1)}
        ran = run(nodes, feeds, {}, libraries, stream)
        assert ran.kinds == ["cuda product", "map"]
        ran.close()


@pytest.mark.parametrize("added", [(16,), (5, 16)], ids=["bias", "residual"])
def test_what_was_added_keeps_its_type(libraries: Libraries, stream: Any, added: tuple[int, ...]) -> None:
    """As scores with a mask that go to a softmax of float32: the library reads what is added as the result's type."""
    nodes = [node("MatMul", "a b", "m"), node("Add", "m c", "s"), node("Cast", "s", to=1)]
    half = {"a": real(5, 8, dtype=np.float16), "b": real(8, 16, dtype=np.float16), "c": real(*added, dtype=np.float16)}
    ran = run(nodes, half, {}, libraries, stream)
    assert ran.kinds == ["cuda product", "map"]
    ran.close(5e-3, 5e-3)
    alone = run([node("MatMul", "a b", "m"), node("Cast", "m", to=1)], half, {}, libraries, stream)
    assert alone.kinds == ["cuda product"]
    alone.close(5e-3, 5e-3)


def test_an_activation_ends_it(libraries: Libraries, stream: Any) -> None:
    nodes = [node("MatMul", "a b", "m"), node("Relu", "m", "r"), node("Add", "r c")]
    ran = run(nodes, {"a": real(5, 8), "b": real(8, 6)}, {"c": real(6)}, libraries, stream)
    assert ran.kinds == ["cuda product", "map"]
    ran.close()


def test_float64_has_no_epilogue(libraries: Libraries, stream: Any) -> None:
    nodes = [node("MatMul", "a b", "m"), node("Add", "m c")]
    feeds = {"a": real(5, 8, dtype=np.float64), "b": real(8, 6, dtype=np.float64)}
    ran = run(nodes, feeds, {"c": real(6, dtype=np.float64)}, libraries, stream)
    assert ran.kinds == ["cuda product", "map"]
    ran.close()


def test_batches_in_two_loops_take_what_comes_after(libraries: Libraries, stream: Any) -> None:
    """Heads [B, S, H, D] as [B, H, S, D]: no one step leads from each matrix to the next."""
    nodes = [
        node("Transpose", "a", "q", perm=[0, 2, 1, 3]),
        node("Transpose", "b", "k", perm=[0, 2, 3, 1]),
        node("MatMul", "q k", "m"),
        node("Add", "m r", "s"),
        node("Relu", "s", "t"),
        node("Transpose", "t", perm=[0, 2, 1, 3]),
    ]
    feeds = {"a": real(2, 5, 3, 8), "b": real(2, 6, 3, 8), "r": real(2, 3, 5, 6)}
    ran = run(nodes, feeds, {}, libraries, stream)
    assert ran.kinds.count("cuda product") == 1
    ran.close()


@pytest.mark.parametrize("trans", [0, 1])
def test_fused_forms(libraries: Libraries, stream: Any, trans: int) -> None:
    matmul = node("FusedMatMul", "a b", domain=MS, transA=trans, transB=1 - trans, alpha=0.3)
    a, b = (real(2, 7, 5), real(2, 7, 6)) if trans else (real(2, 5, 7), real(2, 6, 7))
    ran = run([matmul], {"a": a, "b": b}, {}, libraries, stream)
    assert ran.kinds == ["cuda product"]
    ran.close()
    gemm = node("FusedGemm", "a b c", domain=MS, activation="Relu")
    ran = run([gemm], {"a": real(5, 7), "b": real(7, 6)}, {"c": real(6)}, libraries, stream)
    assert ran.kinds == ["cuda product"]
    ran.close()


def test_einsum_is_made_of_products(libraries: Libraries, stream: Any) -> None:
    einsum = node("Einsum", "a b", equation="bhsd,bhtd->bhst")
    ran = run([einsum], {"a": real(2, 3, 5, 8), "b": real(2, 3, 6, 8)}, {}, libraries, stream)
    assert "cuda product" in ran.kinds
    ran.close()


def test_results_in_place_of_a_concatenation(libraries: Libraries, stream: Any) -> None:
    nodes = [node("MatMul", "a b", "m"), node("Relu", "m", "r"), node("Concat", "r c", axis=1)]
    ran = run(nodes, {"a": real(5, 8), "c": real(5, 2)}, {"b": real(8, 6)}, libraries, stream)
    ran.close()


@pytest.mark.parametrize("a_type", [np.int8, np.uint8])
@pytest.mark.parametrize("w_type", [np.int8, np.uint8])
@pytest.mark.parametrize("zeros", ["", "a", "w", "aw", "known", "columns"])
@pytest.mark.parametrize(("depth", "columns"), [(12, 8), (7, 5)])
def test_matmul_integer(
    libraries: Libraries, stream: Any, a_type: Any, w_type: Any, zeros: str, depth: int, columns: int
) -> None:
    rng = np.random.default_rng(3)

    def bytes_of(dtype: Any, *shape: int) -> Array:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)

    feeds, weights, inputs = {"a": bytes_of(a_type, 2, 3, depth)}, {"w": bytes_of(w_type, depth, columns)}, "a w"
    if zeros:
        inputs += " az" if zeros in ("a", "aw", "known") else " _"
    if zeros in ("a", "aw"):
        feeds["az"] = bytes_of(a_type)
    if zeros == "known":
        weights["az"] = bytes_of(a_type)
    if zeros in ("w", "aw", "columns"):
        inputs, weights["wz"] = f"{inputs} wz", bytes_of(w_type, *([columns] if zeros == "columns" else []))
    ran = run([node("MatMulInteger", inputs)], feeds, weights, libraries, stream)
    assert "cuda product" in ran.kinds
    ran.close()


def test_quantized_products_are_scaled_by_kernels(libraries: Libraries, stream: Any) -> None:
    rng = np.random.default_rng(5)
    feeds = {"a": rng.integers(0, 255, (3, 12)).astype(np.uint8)}
    weights: dict[str, Any] = {"w": rng.integers(-128, 127, (12, 8)).astype(np.int8), "wz": np.int8(3)}
    weights |= {"as": np.float32(0.02), "az": np.uint8(120), "ws": real(8) ** 2 + 0.01, "ys": np.float32(0.5)}
    weights["yz"] = np.uint8(128)
    quantized = node("QLinearMatMul", "a as az w ws wz ys yz")
    weights["wz"] = np.zeros(8, np.int8)
    ran = run([quantized], feeds, weights, libraries, stream)
    assert ran.kinds.count("cuda product") == 1
    ran.close()


# -- convolutions


def conv(ran: Ran, n_kernels: int = 1) -> None:
    assert ran.kinds.count("cuda convolution") == 1 and len(ran.kinds) == n_kernels, ran.kinds
    ran.close(1e-4, 1e-4)


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((2, 3, 8, 7), (4, 3, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((2, 4, 9), (6, 2, 3), {"group": 2, "dilations": [2], "auto_pad": "SAME_UPPER"}),
        ((1, 2, 4, 5, 6), (3, 2, 2, 3, 1), {"strides": [1, 2, 2]}),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_conv(
    libraries: Libraries, stream: Any, x: tuple[int, ...], w: tuple[int, ...], attributes: Any, bias: bool
) -> None:
    weights = {"w": real(*w)} | ({"b": real(w[0])} if bias else {})
    ran = run([node("Conv", "x w b" if bias else "x w", **attributes)], {"x": real(*x)}, weights, libraries, stream)
    conv(ran)


def test_a_residual_block_is_one_operation(libraries: Libraries, stream: Any) -> None:
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Add", "c x", "s"), node("Relu", "s")]
    ran = run(nodes, {"x": real(2, 4, 5, 6)}, {"w": real(4, 4, 3, 3), "b": real(4)}, libraries, stream)
    conv(ran)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip"])
def test_activations_of_convolutions(libraries: Libraries, stream: Any, activation: str) -> None:
    last = node(activation, "c lo hi" if activation == "Clip" else "c")
    nodes = [node("Conv", "x w", "c"), last]
    weights = {"w": real(4, 3, 3, 3), "lo": np.float32(0), "hi": np.float32(6)}
    ran = run(nodes, {"x": real(1, 3, 5, 5)}, weights, libraries, stream)
    conv(ran)


def test_a_swish_of_a_convolution(libraries: Libraries, stream: Any) -> None:
    nodes = [node("Conv", "x w", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s")]
    ran = run(nodes, {"x": real(1, 3, 5, 5)}, {"w": real(4, 3, 3, 3)}, libraries, stream)
    conv(ran)


@pytest.mark.parametrize("z", [False, True])
def test_fused_conv(libraries: Libraries, stream: Any, z: bool) -> None:
    fused = node("FusedConv", "x w b z" if z else "x w b", domain=MS, activation="Relu", pads=[1, 1, 1, 1])
    feeds = {"x": real(1, 3, 5, 5)} | ({"z": real(1, 4, 5, 5)} if z else {})
    ran = run([fused], feeds, {"w": real(4, 3, 3, 3), "b": real(4)}, libraries, stream)
    conv(ran)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last_stay_so(libraries: Libraries, stream: Any, is_known: bool, kernel: int) -> None:
    """A convolution between transpositions reads and writes channels last, without a copy; its weights are so too."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w b", "c"),
        node("Transpose", "c", perm=[0, 2, 3, 1]),
    ]
    w = {"w": real(4, 3, kernel, kernel)}
    feeds, weights = {"x": real(2, 5, 6, 3)}, {"b": real(4)}
    (weights if is_known else feeds).update(w)
    ran = run(nodes, feeds, weights, libraries, stream)
    conv(ran, n_kernels=len(ran.kinds))
    operation = next(o for o in ran.operations if o.kind == "cuda convolution")
    assert operation.outputs[0].strides[1] == 1
    assert isinstance(operation, CudaConv)
    assert operation.problem.w_strides == operation.inputs[1].strides == (3 * kernel * kernel, 1, 3 * kernel, 3)


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((2, 4, 5, 4), (4, 3, 3, 2), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
        ((1, 4, 6), (4, 2, 3), {"group": 2, "strides": [3], "output_padding": [2]}),
        ((1, 2, 3, 4, 3), (2, 3, 2, 2, 2), {"strides": [2, 2, 2]}),
        ((1, 2, 4, 4), (2, 3, 3, 3), {"dilations": [2, 1], "auto_pad": "SAME_LOWER"}),
        ((1, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [9, 8]}),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_conv_transpose(
    libraries: Libraries, stream: Any, x: tuple[int, ...], w: tuple[int, ...], attributes: Any, bias: bool
) -> None:
    outputs = w[1] * attributes.get("group", 1)
    weights = {"w": real(*w)} | ({"b": real(outputs)} if bias else {})
    name = "x w b" if bias else "x w"
    ran = run([node("ConvTranspose", name, **attributes)], {"x": real(*x)}, weights, libraries, stream)
    conv(ran)


def test_what_cudnn_has_not_with_a_bias_is_done_after_it(
    libraries: Libraries, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cudnn  # the one that is here

    monkeypatch.setattr(cudnn, "decline", lambda graph: "no" if len(graph._steps) > 1 else "")
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c")]
    ran = run(nodes, {"x": real(1, 3, 5, 5)}, {"w": real(4, 3, 3, 3), "b": real(4)}, libraries, stream)
    assert ran.kinds == ["cuda convolution", "map"]
    ran.close(1e-4, 1e-4)


def test_parts_that_begin_anywhere_are_copied(libraries: Libraries, stream: Any) -> None:
    """cuDNN wants tensors to begin at multiples of 16 bytes: what doesn't is read, and written, by way of copies."""
    nodes = [
        node("Split", "x", "p q", axis=1, num_outputs=2),
        node("Conv", "q w", "c"),
        node("Concat", "p c", axis=1),
    ]
    ran = run(nodes, {"x": real(1, 6, 3, 3)}, {"w": real(2, 3, 1, 1)}, libraries, stream)
    assert ran.kinds.count("cuda convolution") == 1
    convolution = next(o for o in ran.operations if o.kind == "cuda convolution")
    for tensor in (*convolution.inputs, *convolution.outputs):
        assert tensor.offset * 4 % 16 == 0
    ran.close(1e-4, 1e-4)


# -- attention


def _attended(ran: Ran, by_cudnn: bool, atol: float) -> None:
    assert ("cuda attention" in ran.kinds) == by_cudnn, ran.kinds
    assert by_cudnn or ran.kinds.count("cuda product") == 2
    ran.close(atol, atol)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_attention(libraries: Libraries, stream: Any, dtype: str, flat: bool, causal: int, groups: int) -> None:
    if flat:
        sizes = (2, 5, 4 * 8), (2, 5, groups * 8), (2, 5, groups * 16)
        attention = node("Attention", "q k v", is_causal=causal, q_num_heads=4, kv_num_heads=groups)
    else:
        sizes = (2, 4, 5, 8), (2, groups, 5, 8), (2, groups, 5, 16)
        attention = node("Attention", "q k v", is_causal=causal)
    feeds = {name: real(*shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(zip("qkv", sizes, strict=True))}
    ran = run([attention], feeds, {}, libraries, stream)
    _attended(ran, dtype == "float16", 2e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mask", ["bool", "real"])
def test_attention_with_masks(libraries: Libraries, stream: Any, dtype: str, mask: str) -> None:
    feeds = {name: real(2, 3, 6, 8, seed=i, dtype=dtype) for i, name in enumerate("qkv")}
    feeds["m"] = real(2, 1, 6, 6, dtype=dtype) if mask == "real" else real(6, 6) > 0
    if mask == "bool":
        feeds["m"][2] = False  # a query that sees no key
    ran = run([node("Attention", "q k v m")], feeds, {}, libraries, stream)
    # rows without keys are zeros, which cuDNN doesn't promise
    _attended(ran, dtype == "float16" and mask == "real", 2e-3 if dtype == "float16" else 1e-5)


def test_attention_with_a_past(libraries: Libraries, stream: Any) -> None:
    feeds = {name: real(1, 2, 3, 8, seed=i, dtype=np.float16) for i, name in enumerate("qkv")}
    feeds |= {name: real(1, 2, 4, 8, seed=9 + i, dtype=np.float16) for i, name in enumerate(("pk", "pv"))}
    attention = node("Attention", "q k v _ pk pv", "y k2 v2", is_causal=1)
    ran = run([attention], feeds, {}, libraries, stream, ("y", "k2", "v2"))
    _attended(ran, True, 2e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_entries_that_end_before_others(
    libraries: Libraries, stream: Any, dtype: str, steps: int, causal: int, masked: bool
) -> None:
    """cuDNN is told how many keys there are: of an entry without any the result is zeros."""
    sizes = {"q": (4, 4, steps, 8), "k": (4, 2, 7, 8), "v": (4, 2, 7, 16)}
    feeds = {name: real(*shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(sizes.items())}
    feeds["n"] = np.array([7, 0, 5, 1], np.int64)
    if masked:
        feeds["m"] = real(1, 1, steps, 7, dtype=dtype)
    attention = node("Attention", f"q k v {'m' if masked else '_'} _ _ n", is_causal=causal)
    ran = run([attention], feeds, {}, libraries, stream)
    # several causal queries are numbered from the last key that there is
    _attended(ran, dtype == "float16" and not (causal and steps > 1), 3e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mask", [False, True])
def test_multi_head_attention(libraries: Libraries, stream: Any, dtype: str, mask: bool) -> None:
    feeds = {name: real(2, 5, 32, seed=i, dtype=dtype) for i, name in enumerate("qkv")}
    feeds["b"] = real(96, dtype=dtype)
    inputs = "q k v b"
    if mask:
        feeds["m"] = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)
        inputs += " m"
    ran = run([node("MultiHeadAttention", inputs, domain=MS, num_heads=4)], feeds, {}, libraries, stream)
    _attended(ran, dtype == "float16", 3e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mask", [(), (2, 1, 1, 6), (2, 3, 5, 6), (1, 1, 5, 6), (5, 6)])
@pytest.mark.parametrize("scale", ["before", "after"])
def test_attention_is_found(libraries: Libraries, stream: Any, dtype: str, mask: tuple[int, ...], scale: str) -> None:
    """As exporters write it down: projections with heads apart, products, a softmax."""
    last = "d" if scale == "after" else "m"
    nodes = [
        node("Transpose", "q", "qt", perm=[0, 2, 1, 3]),
        node("Transpose", "k", "kt", perm=[0, 2, 3, 1]),
        node("Transpose", "v", "vt", perm=[0, 2, 1, 3]),
        *([node("Mul", "qt s", "qs")] if scale == "before" else []),
        node("MatMul", "qs kt" if scale == "before" else "qt kt", "m"),
        *([node("Div", "m r", "d")] if scale == "after" else []),
        *([node("Add", f"{last} mask", "e")] if mask else []),
        node("Softmax", "e" if mask else last, "w", axis=-1),
        node("MatMul", "w vt", "o"),
        node("Transpose", "o", perm=[0, 2, 1, 3]),
    ]
    feeds = {"q": real(2, 5, 3, 8, dtype=dtype), "k": real(2, 6, 3, 8, dtype=dtype), "v": real(2, 6, 3, 8, dtype=dtype)}
    if mask:
        feeds["mask"] = real(*mask, dtype=dtype)
    weights = {"s": np.array(0.25, dtype), "r": np.array(4.0, dtype)}
    ran = run(nodes, feeds, weights, libraries, stream)
    _attended(ran, dtype != "float32", {"float32": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}[dtype])


def test_a_softcap_is_none_of_cudnn_s(libraries: Libraries, stream: Any) -> None:
    feeds = {name: real(1, 2, 4, 8, seed=i, dtype=np.float16) for i, name in enumerate("qkv")}
    ran = run([node("Attention", "q k v", softcap=2.0)], feeds, {}, libraries, stream)
    _attended(ran, False, 2e-3)


def test_sdpa_kernel_says_who(fake_cuda: Any, stream: Any) -> None:
    libraries = Libraries(90, CudaOptions(sdpa_kernel=16))
    feeds = {name: real(1, 2, 4, 8, seed=i, dtype=np.float16) for i, name in enumerate("qkv")}
    _attended(run([node("Attention", "q k v")], feeds, {}, libraries, stream), False, 2e-3)
    libraries.close()


# -- libraries


def test_without_cudnn_there_is_no_convolution_of_it(fake_cuda: Any, stream: Any) -> None:
    libraries = Libraries(90, CudaOptions(enable_cudnn=False))
    with pytest.raises(AssertionError, match="Conv"):
        run([node("Conv", "x w")], {"x": real(1, 3, 5, 5)}, {"w": real(4, 3, 3, 3)}, libraries, stream)
    assert libraries.networks is None and not libraries.missing


def test_missing_libraries_are_told(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cudnn", None)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    libraries = Libraries(90, CudaOptions())
    assert libraries.products is None and libraries.networks is None
    assert set(libraries.missing) == {"cuBLASLt", "cuDNN"}
    assert all("distort[cuda12]" in text for text in libraries.missing.values())
