"""Convolutions and products of bytes on a GPU, by kernels and by the library, against the NumPy kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from distort.graph.reader import read_model
from distort.kernels.cuda import plans
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.program import Program

from .graphs import check
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(41)
#: shapes of x and w, and attributes
_CASES: list[tuple[tuple[int, ...], tuple[int, ...], str]] = [
    ((2, 3, 7, 6), (5, 3, 3, 2), "pads = [1, 0, 2, 1], strides = [2, 1]"),
    ((1, 16, 5, 5), (4, 16, 3, 3), "dilations = [2, 1], pads = [1, 1, 1, 1]"),
    ((2, 6, 4, 5), (7, 6, 1, 1), "group = 1"),
    ((1, 8, 9), (3, 8, 4), 'auto_pad = "SAME_UPPER", strides = [2]'),
    ((1, 2, 3, 4, 5), (3, 2, 2, 2, 2), "pads = [0, 1, 0, 1, 0, 1]"),
    ((1, 6, 6, 6), (6, 1, 3, 3), "group = 6, pads = [1, 1, 1, 1]"),
    ((1, 6, 5, 5), (4, 3, 2, 2), "group = 2"),
]


def array(dtype: str, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _ways(n_cases: int) -> list[tuple[int, str, str, str]]:
    """Cases, types of x and w, and zero points: all of the first, one of others."""
    zeros = ("", ", a", ", a, b", ", a, c")
    types = (("uint8", "int8"), ("int8", "uint8"))
    return [(case, *types[case % 2], ", a, c") for case in range(1, n_cases)] + [
        (0, *of_both, given) for of_both in types for given in zeros
    ]


@pytest.fixture(autouse=True)
def errors_of_ours_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)


@pytest.mark.parametrize(("case", "of_x", "of_w", "zeros"), _ways(len(_CASES)))
def test_a_thread_makes_one_element(case: int, of_x: str, of_w: str, zeros: str) -> None:
    shape, of_weights, attributes = _CASES[case]
    feeds = {"x": array(of_x, *shape), "w": array(of_w, *of_weights), "a": array(of_x)}
    feeds |= {"b": array(of_w, 1), "c": array(of_w, of_weights[0])}
    text = f"(int32 y) {{ y = ConvInteger <{attributes}> (x, w{zeros}) }}"
    check(text, feeds, kinds=["cuda_byte_conv"], ways=WAYS[:2])


def _program(text: str, feeds: dict[str, Array], weights: dict[str, Array]) -> CudaProgram:
    declared = ", ".join(
        f"{a.dtype.name.replace('float32', 'float')}[{','.join(map(str, a.shape))}] {name}" for name, a in feeds.items()
    )
    head = f'<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g ({declared})'
    model = onnx.parser.parse_model(f"{head} => {text}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    return CudaProgram(read_model(model).graph, CudaOptions(use_tf32=False))


def _kinds(program: CudaProgram) -> list[str]:
    return [step.operation.kind for step in program.plans[-1][1].steps]


@pytest.mark.parametrize("known_zero", [True, False])
@pytest.mark.parametrize(("case", "of_x", "of_w", "zeros"), _ways(5))
def test_a_product_makes_all(
    fake_cuda_for_all: Any, case: int, of_x: str, of_w: str, zeros: str, known_zero: bool
) -> None:
    shape, of_weights, attributes = _CASES[case]
    feeds = {"x": array(of_x, *shape)}
    weights = {"w": array(of_w, *of_weights), "b": array(of_w, 1), "c": array(of_w, of_weights[0])}
    (weights if known_zero else feeds)["a"] = array(of_x)
    program = _program(f"(int32[] y) {{ y = ConvInteger <{attributes}> (x, w{zeros}) }}", feeds, weights)
    (y,) = program.run(feeds)
    np.testing.assert_array_equal(y.get(), Program(program.graph).run(feeds)[0])
    kinds = _kinds(program)
    assert "cuda product" in kinds and ("cuda_patches" in kinds) == (case != 2)


@pytest.mark.parametrize("last", [False, True])
def test_results_are_quantized_again(fake_cuda_for_all: Any, last: bool) -> None:
    x, w = array("uint8", 2, 8, 6, 6), array("int8", 5, 8, 3, 3)
    scales = RANDOM.uniform(0.01, 0.02, 5).astype(np.float32)
    weights = {"s": np.float32(0.02), "z": np.uint8(120), "w": w, "ws": scales, "wz": np.zeros(5, np.int8)}
    weights |= {"ys": np.float32(0.9), "yz": np.uint8(100), "b": array("int16", 5).astype(np.int32)}
    weights = {name: np.asarray(value) for name, value in weights.items()}
    op = "com.microsoft.QLinearConv <channels_last = 1" if last else "QLinearConv <group = 1"
    feeds = {"x": np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x}
    text = f"(uint8[] y) {{ y = {op}, pads = [1, 1, 1, 1]> (x, s, z, w, ws, wz, ys, yz, b) }}"
    program = _program(text, feeds, weights)
    (y,) = program.run(feeds)
    np.testing.assert_array_equal(y.get(), Program(program.graph).run(feeds)[0])
    assert "host" not in _kinds(program)


def test_what_was_dequantized_is_one_plan(fake_cuda_for_all: Any) -> None:
    x, w = array("uint8", 1, 4, 6, 6), array("int8", 6, 4, 3, 3)
    weights = {
        "s": np.float32(0.02),
        "z": np.uint8(120),
        "w": w,
        "ws": RANDOM.uniform(0.01, 0.02, 6).astype(np.float32),
    }
    weights |= {"wz": np.zeros(6, np.int8), "ys": np.float32(0.05), "b": RANDOM.standard_normal(6).astype(np.float32)}
    weights = {name: np.asarray(value) for name, value in weights.items()}
    text = """(uint8[] y) {
        d = DequantizeLinear (x, s, z)
        v = DequantizeLinear <axis = 0> (w, ws, wz)
        c = Conv <pads = [1, 1, 1, 1]> (d, v, b)
        r = Relu (c)
        q = QuantizeLinear (r, ys, z)
        e = DequantizeLinear (q, ys, z)
        p = MaxPool <kernel_shape = [2, 2]> (e)
        y = QuantizeLinear (p, ys, z)
    }"""
    program = _program(text, {"x": x}, weights)
    (y,) = program.run({"x": x})
    want = Program(program.graph).run({"x": x})[0]
    assert np.abs(y.get().astype(int) - want).max() <= 1  # a sum that lies between two codes
    assert _kinds(program).count("cuda convolution") == 1 and "host" not in _kinds(program)
    assert program.plans[-1][1].is_capturable


@pytest.mark.parametrize("zeros", ["", ", a, b", ", a, c"])
@pytest.mark.parametrize(("of_x", "of_w"), [("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8")])
@pytest.mark.parametrize(
    ("left", "right"), [((3, 5), (5, 6)), ((2, 3, 4), (2, 4, 8)), ((2, 3, 5), (5, 3)), ((5,), (5, 3))]
)
def test_products_of_values_that_only_runs_know(
    fake_cuda_for_all: Any, left: tuple[int, ...], right: tuple[int, ...], of_x: str, of_w: str, zeros: str
) -> None:
    feeds = {"x": array(of_x, *left), "w": array(of_w, *right), "a": array(of_x), "b": array(of_w)}
    if len(right) == 2:
        feeds["c"] = array(of_w, right[-1])
    elif "c" in zeros:
        return
    program = _program(f"(int32[] y) {{ y = MatMulInteger (x, w{zeros}) }}", feeds, {})
    (y,) = program.run(feeds)
    np.testing.assert_array_equal(y.get(), Program(program.graph).run(feeds)[0])
    assert "cuda product" in _kinds(program) and "host" not in _kinds(program)
