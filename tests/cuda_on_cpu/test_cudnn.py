"""cuDNN on the CPU: the project's convolutions and attention by the real frontend, and what cuDNN forbids."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

import distort
from distort.kernels.cuda.dnn import Networks
from distort.kernels.cuda.dnn_graphs import ConvProblem, nbytes_of

DTYPES = {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64}
TOLERANCES = {"float": 2e-6, "float16": 2e-3, "bfloat16": 2e-2, "double": 1e-12}
CONVOLUTIONS = {
    # x, w, attributes of Conv or ConvTranspose
    "pads differ": ((1, 3, 9, 11), (5, 3, 3, 2), "Conv<pads=[0,1,2,0], strides=[2,1]>"),
    "groups": ((2, 8, 7, 7), (12, 2, 3, 3), "Conv<group=4, dilations=[2,1]>"),
    "one axis": ((2, 8, 17), (16, 8, 5), "Conv<pads=[2,2], strides=[2]>"),
    "three axes": ((1, 4, 5, 6, 7), (8, 4, 3, 3, 2), "Conv<pads=[1,1,0,1,1,1]>"),
    "transposed": ((1, 8, 5, 7), (8, 4, 2, 4), "ConvTranspose<group=2, strides=[1,3], dilations=[2,1]>"),
}
N_ENGINES = 5
Q, K, V = (2, 4, 5, 16), (2, 2, 7, 16), (2, 2, 7, 8)
ATTENTIONS = {
    "plain": ("", "Attention(q, k, v)"),
    "causal": ("", "Attention<is_causal=1>(q, k, v)"),
    "bias": (", {type}[2,1,5,7] m", "Attention(q, k, v, m)"),
    "lengths": (", int64[2] n", 'Attention(q, k, v, "", "", "", n)'),
}

pytestmark = pytest.mark.filterwarnings("ignore:.*libcudart")


@pytest.fixture
def library() -> Any:
    pytest.importorskip("cupy")
    pytest.importorskip("cudnn")
    found = ctypes.CDLL("libcudnn.so.9")
    found.cuda_on_cpu_cudnn_executions.restype = ctypes.c_int64
    return found


def model_of(inputs: str, dtype: str, body: str) -> bytes:
    text = f'<ir_version: 10, opset_import: ["" : 24]> g ({inputs}) => ({dtype} y) {{ {body} }}'
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def assert_same(model: bytes, feeds: Mapping[str, Any], dtype: str, n_runs: int = 3, **options: str) -> None:
    """As on the CPU: by nodes, by a plan and as a graph."""
    expected = distort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    gpu: Any = ("CUDAExecutionProvider", {"use_tf32": "0", **options})
    session = distort.InferenceSession(model, providers=[gpu, "CPUExecutionProvider"])
    for _ in range(n_runs):
        (result,) = session.run(None, feeds)
        assert result.dtype == expected.dtype
        result, want = result.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_allclose(result, want, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


def convolution(name: str, dtype: str) -> tuple[bytes, dict[str, Any]]:
    x, w, operator = CONVOLUTIONS[name]
    n_results = w[1] * 2 if "Transpose" in operator else w[0]
    shapes = {"x": x, "w": w, "b": (n_results,)}
    rng = np.random.default_rng(0)
    feeds = {key: rng.normal(size=shape).astype(DTYPES[dtype]) for key, shape in shapes.items()}
    feeds["w"] = (feeds["w"] / np.sqrt(np.prod(w[1:]))).astype(DTYPES[dtype])
    inputs = ", ".join(f"{dtype}[{','.join(map(str, shape))}] {key}" for key, shape in shapes.items())
    return model_of(inputs, dtype, f"c = {operator}(x, w, b) y = Relu(c)"), feeds


def attention(name: str, dtype: str) -> tuple[bytes, dict[str, Any]]:
    more, operator = ATTENTIONS[name]
    rng = np.random.default_rng(1)
    shapes = {"q": Q, "k": K, "v": V, **({"m": (2, 1, 5, 7)} if " m" in more else {})}
    feeds = {key: rng.normal(size=shape).astype(DTYPES[dtype]) for key, shape in shapes.items()}
    if " n" in more:
        feeds["n"] = np.array([7, 3], np.int64)
    inputs = ", ".join(
        f"{dtype}[{','.join(map(str, shape))}] {key}" for key, shape in zip("qkv", (Q, K, V), strict=True)
    )
    return model_of(inputs + more.format(type=dtype), dtype, f"y = {operator}"), feeds


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(library: Any, name: str, dtype: str) -> None:
    before = library.cuda_on_cpu_cudnn_executions(-1)
    assert_same(*convolution(name, dtype), dtype, cudnn_conv_algo_search="DEFAULT")
    assert library.cuda_on_cpu_cudnn_executions(-1) > before


def test_the_fastest_of_several_engines(library: Any) -> None:
    before = [library.cuda_on_cpu_cudnn_executions(engine) for engine in range(N_ENGINES)]
    assert_same(*convolution("groups", "float16"), "float16", cudnn_conv_algo_search="EXHAUSTIVE")
    after = [library.cuda_on_cpu_cudnn_executions(engine) for engine in range(N_ENGINES)]
    assert sum(now > then for now, then in zip(after, before, strict=True)) > 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(library: Any, name: str, dtype: str) -> None:
    before = library.cuda_on_cpu_cudnn_executions(-1)
    assert_same(*attention(name, dtype), dtype)
    if name != "lengths":
        assert library.cuda_on_cpu_cudnn_executions(-1) > before


@pytest.mark.parametrize("version", [90800, 91200, 92000])
def test_attention_of_an_older_version(library: Any, version: int) -> None:
    """The frontend builds it of other operations."""
    code = "from tests.cuda_on_cpu import test_cudnn as t\n"
    code += "for name in t.ATTENTIONS: t.assert_same(*t.attention(name, 'float16'), 'float16', 1)\n"
    code += "assert t.ctypes.CDLL('libcudnn.so.9').cuda_on_cpu_cudnn_executions(-1) > 0"
    environment = {**os.environ, "CUDA_ON_CPU_CUDNN_VERSION": str(version)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("words", ["all", "epilogue", "plan0", "plans"])
def test_what_no_engine_does_is_done_by_others(library: Any, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv("CUDA_ON_CPU_CUDNN_DECLINE", words)
    before = library.cuda_on_cpu_cudnn_executions(-1)
    assert_same(*convolution("groups", "float16"), "float16", cudnn_conv_algo_search="DEFAULT")
    if words in ("all", "plans"):
        assert library.cuda_on_cpu_cudnn_executions(-1) == before


def test_what_an_execution_refuses(library: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import cupy

    shapes = ((2, 6, 9, 10), (8, 6, 3, 3), (2, 8, 7, 8))
    strides = [tuple(int(np.prod(shape[axis + 1 :])) for axis in range(4)) for shape in shapes]
    problem = ConvProblem("float16", *shapes, *strides, (1, 1), (1, 1), (0, 0), (0, 0), bias=True)
    plan = Networks(90, "DEFAULT").convolution(problem)
    assert plan is not None
    memory = {name: cupy.cuda.alloc(nbytes) for name, nbytes in nbytes_of(problem).items()}
    workspace = cupy.cuda.alloc(plan.workspace_nbytes)
    addresses = {name: pointer.ptr for name, pointer in memory.items()}
    host = np.zeros(nbytes_of(problem)["x"] + 16, np.uint8).ctypes.data // 16 * 16 + 16
    plan.run(addresses, workspace.ptr, 0)
    refused = [
        ({**addresses, "x": addresses["x"] + 2}, workspace.ptr, "isn't aligned to 16 bytes"),
        ({**addresses, "x": host}, workspace.ptr, "aren't allocated on device 0"),
        ({**addresses, "y": addresses["x"]}, workspace.ptr, "lies on tensor"),
        (addresses, addresses["y"], "lies on the workspace"),
        (addresses, 0, "no workspace"),
    ]
    for given, workspace_address, why in refused:
        with pytest.raises(Exception, match="execute"):
            plan.run(given, workspace_address, 0)
        assert why in capfd.readouterr().err


def test_what_descriptors_refuse(library: Any, capfd: pytest.CaptureFixture[str]) -> None:
    int64, boolean, data_type = 3, 2, 1  # cudnnBackendAttributeType_t
    alignment, of_type, dims, strides, uid = 900, 901, 902, 903, 906  # CUDNN_ATTR_TENSOR_…

    def put(tensor: Any, attribute: int, kind: int, *values: int) -> int:
        item = ctypes.c_int if kind == data_type else ctypes.c_int64
        array, count = (item * len(values))(*values), ctypes.c_int64(len(values))
        return int(library.cudnnBackendSetAttribute(tensor, attribute, kind, count, array))

    tensor = ctypes.c_void_p()
    assert library.cudnnBackendCreateDescriptor(17, ctypes.byref(tensor)) == 0
    assert put(tensor, uid, boolean, 1) == 2010
    assert "attribute 906 is of type 3, not 2" in capfd.readouterr().err
    assert put(tensor, uid, int64, 1, 2) == 2000
    assert "with 2 elements" in capfd.readouterr().err
    assert put(tensor, 700, int64, 1) == 2000
    assert library.cudnnBackendFinalize(tensor) == 2000
    assert "attribute 906 isn't set" in capfd.readouterr().err
    assert put(tensor, uid, int64, 1) == put(tensor, of_type, data_type, 2) == put(tensor, alignment, int64, 16) == 0
    assert put(tensor, dims, int64, 4, 8) == put(tensor, strides, int64, 4, 1) == 0
    assert library.cudnnBackendFinalize(tensor) == 2000
    assert "elements lie on each other" in capfd.readouterr().err
    assert put(tensor, strides, int64, 8, 1) == 0
    assert library.cudnnBackendFinalize(tensor) == 0
    assert put(tensor, strides, int64, 8, 1) == 1001
    assert library.cudnnBackendDestroyDescriptor(tensor) == 0
    assert library.cudnnBackendDestroyDescriptor(tensor) == 2000
