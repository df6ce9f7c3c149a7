"""Elements of 8 bits and fewer as CUDA C against the NumPy kernels, and their way through runs."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

from distort import InferenceSession, OrtValue
from distort.graph.reader import read_model
from distort.kernels.compiler.ir import Map
from distort.kernels.cuda.codegen.narrow import DTYPES, FLOATS, INTEGERS
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.ops.cast import convert
from distort.kernels.program import Program

from .corpus import of_casts
from .graphs import check
from .simulating import WAYS, Array, Memory, run_all, view

RANDOM = np.random.default_rng(37)


def numbers() -> Array:
    """All of float16, what lies close to ties between two codes, and numbers of any size."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    codes = np.concatenate([np.arange(256, dtype=np.uint8).view(DTYPES[one]).astype(np.float32) for one in FLOATS])
    codes = np.unique(codes[np.isfinite(codes)])
    ties = ((codes[1:].astype(np.float64) + codes[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(ties, np.float32(end)) for end in (-np.inf, np.inf)]
    any_size = RANDOM.integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    return np.concatenate([halves, ties, *near, any_size])


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_floats_are_rounded_to_the_nearest_code(dtype: str, saturate: int) -> None:
    (cast,) = of_casts("float32", dtype, saturate, numbers())
    x = cast.inputs[0].buffer.array
    assert x is not None
    memory = Memory()
    run_all([cast], memory)
    got = memory.bytes_of(cast.outputs[0].buffer)
    with np.errstate(all="ignore"):
        want = convert(np, x, DTYPES[dtype], bool(saturate))
    are_nan = np.isnan(want.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got.view(want.dtype).astype(np.float32)), are_nan)
    np.testing.assert_array_equal(got[~are_nan], want.view(np.uint8)[~are_nan])


@pytest.mark.parametrize("to", ["float32", "float16", "int32", "bool", "float8_e4m3fn", "int4"])
@pytest.mark.parametrize("dtype", sorted([*FLOATS, *INTEGERS]))
def test_codes_are_numbers(dtype: str, to: str) -> None:
    n_codes = 256 if dtype in FLOATS else 1 << INTEGERS[dtype]
    codes = np.arange(n_codes, dtype=np.uint8).view(DTYPES[dtype])
    values = codes.astype(np.float32)
    # what integers make of what is no number is not told
    codes = codes[np.isfinite(values)] if to in ("int32", "int4") else codes
    if dtype == to:
        return
    (cast,) = of_casts(dtype, to, 1, codes)
    assert isinstance(cast, Map)
    memory = Memory()
    run_all([cast], memory, WAYS[1])
    got = memory.view(cast.outputs[0])
    with np.errstate(all="ignore"):
        want = convert(np, codes, got.dtype)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("to", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_as_integers(half: str, to: str) -> None:
    x = np.concatenate([np.arange(-120, 120) / 2, [0.99, -0.99]]).astype(
        ml_dtypes.bfloat16 if half == "bfloat16" else half
    )
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to))
    check(f"({to} y) {{ y = Cast <to = {element}> (x) }}", {"x": x}, kinds=["map"], ways=WAYS[1:2])


@pytest.mark.parametrize(("shape", "axis", "block"), [((), 1, 0), ((6,), 1, 0), ((4, 3), 1, 2), ((2, 6), 0, 2)])
@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "float8_e4m3fn", "float8_e5m2fnuz"])
def test_quantized_and_back(dtype: str, shape: tuple[int, ...], axis: int, block: int) -> None:
    x = (RANDOM.standard_normal((4, 6)) * 4).astype(np.float32)
    x[0, :4] = 1e6, -1e6, 0.5, np.nan
    scale = RANDOM.uniform(0.3, 0.9, shape).astype(np.float32)
    given = np.zeros(shape) if dtype in FLOATS else RANDOM.integers(0, 2, shape)
    feeds = {"x": x, "s": scale, "z": np.asarray(given).astype(DTYPES[dtype])}
    attributes = f"axis = {axis}, block_size = {block}"
    text = f"q = QuantizeLinear <{attributes}> (x, s, z) \n y = DequantizeLinear <{attributes}> (q, s, z)"
    operations = check(f"(float y) {{ {text} }}", feeds, ways=WAYS[1:2], opset=25)
    assert {operation.kind for operation in operations} == {"map"}


def _model(text: str, inputs: str) -> Any:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => {text}')


_THROUGH = """(float8e4m3fn[N, K] kept, float[N, K] y, string[N, K] words) {
    narrow = Cast <to = 17> (x)
    kept = Transpose <perm = [1, 0]> (narrow)
    words = Cast <to = 8> (narrow)
    y = DequantizeLinear (old, s)
}"""


def test_codes_leave_and_enter_runs(fake_cuda: Any) -> None:
    model = _model(_THROUGH, "float[K, N] x, float8e4m3fn[N, K] old, float s")
    program = CudaProgram(read_model(model).graph)
    narrow = DTYPES["float8_e4m3fn"]
    x, old = np.array([[1, 500], [0.3, -2]], np.float32), np.array([[2, 3], [4, -8]]).astype(narrow)
    feeds = {"x": x, "old": old, "s": np.float32(0.5)}
    want = Program(program.graph).run(feeds)
    for given in (feeds, feeds | {"old": fake_cuda.asarray(old.view(np.uint8))}):
        for _ in range(3):  # what a run shows of shapes is used in the next
            kept, y, words = program.run(given)
            assert kept.dtype == narrow and np.array_equal(kept.astype(np.float32), want[0].astype(np.float32))
            assert np.array_equal(y.get(), want[1]) and np.array_equal(words, want[2])
    steps = program.plans[-1][1].steps
    assert [step.host.node.op_type for step in steps if step.host is not None] == ["Cast"]


def test_bound_codes_stay_on_the_gpu(fake_cuda: Any) -> None:
    text = "(float8e5m2[N] y) { y = Cast <to = 19> (x) }"
    session = InferenceSession(_model(text, "float[N] x").SerializeToString(), providers=["CUDAExecutionProvider"])
    binding = session.io_binding()
    x = np.array([1.0, 3.3, -1e9], np.float32)
    binding.bind_cpu_input("x", x)
    room = OrtValue.ortvalue_from_shape_and_type((3,), 19, "cuda", 0)
    binding.bind_ortvalue_output("y", room)
    session.run_with_iobinding(binding)
    found = room.numpy().astype(np.float32)
    np.testing.assert_array_equal(found, np.clip(x, -57344, 57344).astype(DTYPES["float8_e5m2"]).astype(np.float32))


def test_weights_of_four_bits_are_read_as_they_are(fake_cuda: Any) -> None:
    model = _model("(float[N] y) { v = Cast <to = 1> (w) \n y = Add (v, x) }", "float[N] x")
    weights = np.array([-8, 7, 0, 3]).astype(DTYPES["int4"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    program = CudaProgram(read_model(model).graph)
    (y,) = program.run({"x": np.ones(4, np.float32)})
    assert y.get().tolist() == [-7, 8, 1, 4]


def test_views_of_codes_are_copied(fake_cuda: Any) -> None:
    x = np.arange(16).reshape(4, 4).astype(DTYPES["uint4"])
    (operation,) = of_casts("uint4", "uint4", 1, x.T)
    memory = Memory()
    run_all([operation], memory)
    np.testing.assert_array_equal(memory.view(operation.outputs[0]), x.T)
    assert view(x).element == "uint4"
