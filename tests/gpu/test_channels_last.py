"""prefer_nhwc: channels are the last dimension within what convolutions make, and are turned at its borders alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.engine import load_model
from distort.kernels.cuda import plans
from distort.kernels.cuda.convolutions import channels_last
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.program import Program

BLOCKS = """g (float16[2,8,9,7] x, float16[16,8,3,3] k, float16[16] b, float16[16,16,1,1] l, float16[16,1,3,3] m)
    => (float16[2,16] y, float16[2,16,5,4] z)
{
    c = Conv<pads=[1,1,1,1]>(x, k, b)
    r = Relu(c)
    p = MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]>(r)
    d = Conv(p, l)
    s = Sigmoid(d)
    e = Mul(d, s)
    f = Conv<pads=[1,1,1,1],group=16>(e, m, b)
    h = Add(f, e)
    z = Relu(h)
    a = AveragePool<kernel_shape=[2,2],pads=[1,0,0,1],count_include_pad=1>(z)
    q = GlobalAveragePool(a)
    y = Flatten(q)
}"""
EACH = {
    "one axis": "g (float16[2,6,9] x, float16[4,6,3] w) => (float16[2,4,7] y) { c = Conv(x, w) y = Relu(c) }",
    "three axes": """g (bfloat16[1,4,4,5,3] x, bfloat16[4,4,2,2,2] w) => (bfloat16[1,4,3,2,2] y) {
        c = Conv(x, w) y = MaxPool<kernel_shape=[1,3,1]>(c) }""",
    "one channel": "g (float16[2,1,5,5] x, float16[4,1,3,3] w) => (float16[2,4,3,3] y) { y = Conv(x, w) }",
    "transposed": """g (float16[1,4,3,3] x, float16[4,6,2,2] w) => (float16[1,6,6,6] y) {
        y = ConvTranspose<strides=[2,2]>(x, w) }""",
    "places": """g (float16[1,4,6,6] x, float16[4,4,3,3] w) => (float16[1,4,2,2] y, int64[1,4,2,2] i) {
        c = Conv(x, w) y, i = MaxPool<kernel_shape=[2,2],strides=[2,2]>(c) }""",
    "joined": """g (float16[1,4,4,4] x, float16[4,4,3,3] w) => (float16[1,8,4,4] y) {
        c = Conv<pads=[1,1,1,1]>(x, w) r = Tanh(c) y = Concat<axis=1>(c, r) }""",
    "softmax over channels": """g (float16[1,4,4,4] x, float16[4,4,3,3] w) => (float16[1,4,4,4] y) {
        c = Conv<pads=[1,1,1,1]>(x, w) y = Softmax<axis=1>(c) }""",
    "a number a channel": """g (float16[1,4,4,4] x, float16[4,4,3,3] w, float16[4,1,1] s) => (float16[1,4,4,4] y) {
        c = Conv<pads=[1,1,1,1]>(x, w) e = Exp(c) d = Mul(e, s) y = Div(d, e) }""",
}


@pytest.fixture(autouse=True)
def errors_of_ours_are_errors(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)


def run(text: str, **options: int) -> tuple[list[Any], CudaProgram]:
    """Steps of the plan, whose results are held against NumPy's kernels; and the program."""
    graph = load_model(
        onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {text}').SerializeToString()
    ).graph
    rng = np.random.default_rng(0)
    feeds = {}
    for name in graph.inputs:
        kind: Any = graph.types[name]
        dtype = np.float16 if kind.element == 10 else np.dtype("bfloat16")
        feeds[name] = (rng.random([int(n) for n in kind.shape], np.float32) - 0.5).astype(dtype)
    program = CudaProgram(graph, CudaOptions.read(options))
    for _ in range(3):
        got = program.run(feeds)
    for mine, theirs in zip(got, Program(graph).run(feeds), strict=True):
        np.testing.assert_allclose(mine.get().astype(float), theirs.astype(float), atol=0.02, rtol=0.02)
    return program.plans[-1][1].steps, program


def lies_last(tensor: Any) -> bool:
    return bool(tensor.strides == channels_last(tensor.shape))


def test_blocks_are_turned_at_their_borders_alone() -> None:
    steps, _ = run(BLOCKS, prefer_nhwc=1)
    kinds = [step.operation.kind for step in steps]
    assert kinds.count("cuda convolution") == 3 and kinds.count("cuda_pool") == 2
    inner = [step.operation for step in steps if step.operation.kind in ("cuda convolution", "cuda_pool")]
    assert all(lies_last(tensor) for operation in inner for tensor in (operation.inputs[0], operation.outputs[0]))
    turned = [
        step.operation
        for step in steps
        if step.operation.kind == "map"
        and len({lies_last(t) for t in (*step.operation.inputs, *step.operation.outputs) if len(t.shape) == 4}) == 2
    ]
    # x on its way in, z on its way out, and the weights, which are fed here
    assert sorted(operation.outputs[0].shape for operation in turned) == [
        (2, 8, 9, 7),
        (2, 16, 5, 4),
        (16, 8, 3, 3),
    ]


def test_without_the_option_the_models_layout_is_kept() -> None:
    steps, _ = run(BLOCKS)
    shaped = [t for step in steps for t in step.operation.outputs if len(t.shape) == 4]
    assert shaped and not any(lies_last(tensor) for tensor in shaped if tensor.shape[1] > 1 and tensor.shape[2] > 1)


@pytest.mark.parametrize("name", EACH)
def test_layouts_meet(name: str) -> None:
    run(EACH[name], prefer_nhwc=1)


def test_what_cudnn_has_no_engine_for_is_done_in_the_models_layout(
    fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distort.kernels.cuda.dnn import Networks

    supports = Networks.supports
    monkeypatch.setattr(
        Networks, "supports", lambda self, problem: problem.x_strides[1] != 1 and supports(self, problem)
    )
    steps, _ = run(EACH["joined"], prefer_nhwc=1)
    conv = next(step.operation for step in steps if step.operation.kind == "cuda convolution")
    assert not lies_last(conv.inputs[0]) and not lies_last(conv.outputs[0])
    kinds = [step.operation.kind for step in steps]
    assert kinds[0] == "cuda convolution"  # nothing is left of what was tried


def test_float32_stays() -> None:
    text = EACH["joined"].replace("float16", "float")
    graph = load_model(
        onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {text}').SerializeToString()
    ).graph
    program = CudaProgram(graph, CudaOptions.read({"prefer_nhwc": 1}))
    rng = np.random.default_rng(0)
    program.run({"x": rng.random((1, 4, 4, 4), np.float32), "w": rng.random((4, 4, 3, 3), np.float32)})
    steps = program.plans[-1][1].steps
    assert not any(lies_last(t) for step in steps for t in step.operation.outputs)
