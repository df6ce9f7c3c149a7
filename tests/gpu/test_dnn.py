"""cuDNN through its frontend: graphs, computed by one that is here and held against their definitions."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.kernels.cuda import dnn
from distort.kernels.cuda.dnn import ConvProblem, Networks
from distort.kernels.cuda.dnn_graphs import graph_of, nbytes_of
from distort.kernels.cuda.libraries import LibraryFailed, LibraryMissing

from .device_memory import Block
from .dnn_problems import CONVOLUTIONS, attention, conv

FAKE = Path(__file__).resolve().parents[1] / "fake_cuda" / "cudnn"
DTYPES = {"bfloat16": ml_dtypes.bfloat16}
TOLERANCES = {"float32": 1e-4, "float64": 1e-11, "float16": 5e-3, "bfloat16": 4e-2}


@pytest.fixture(scope="module")
def cudnn() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("cudnn", FAKE / "__init__.py", submodule_search_locations=[str(FAKE)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "cudnn"}
    sys.modules["cudnn"] = module
    spec.loader.exec_module(module)
    yield module
    for name in [*sys.modules]:
        if name.split(".")[0] == "cudnn":
            del sys.modules[name]
    sys.modules.update(before)


class _Memory:
    def __init__(self, nbytes: int) -> None:
        self.block = Block(nbytes)
        self.ptr = self.block.address


@pytest.fixture(scope="module")
def networks(cudnn: Any) -> Iterator[Networks]:
    made = Networks(90, "HEURISTIC")
    yield made
    made.close()
    assert not cudnn.handles


def reference(p: ConvProblem, x: Any, w: Any, bias: Any, z: Any) -> Any:
    """By its definition, element by element."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    y = np.zeros(p.y)
    image, made = (y, x) if p.transposed else (x, y)
    groups = image.shape[1] // p.w[1]
    each = p.w[0] // groups
    for index in itertools.product(*map(range, made.shape)):
        n, k, *place = index
        for tap in itertools.product(*map(range, p.w[2:])):
            pixel = [
                o * s + t * d - b for o, s, t, d, b in zip(place, p.steps, tap, p.dilations, p.begins, strict=True)
            ]
            if any(not 0 <= q < size for q, size in zip(pixel, image.shape[2:], strict=True)):
                continue
            first = k // each * p.w[1]
            channels = slice(first, first + p.w[1])
            taps = w[(k, slice(None), *tap)]
            if p.transposed:
                y[(n, channels, *pixel)] += taps * x[index]
            else:
                y[index] += (x[(n, channels, *pixel)] * taps).sum()
    if p.z_strides is not None:
        y = y + z.astype(np.float64)
    if p.bias:
        y = y + bias.astype(np.float64).reshape(-1, *[1] * (len(p.y) - 2))
    return {
        "": lambda y: y,
        "relu": lambda y: np.maximum(y, 0),
        "leaky_relu": lambda y: np.where(y < 0, y * p.parameters[0], y),
        "clip": lambda y: np.clip(y, *p.parameters),
        "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
        "tanh": np.tanh,
        "swish": lambda y: y / (1 + np.exp(-y)),
    }[p.activation](y)


def run(plan: Any, problem: Any, arrays: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]], rng: Any) -> Any:
    """The arrays of a run, by name: given ones are random, of shape, strides, dtype."""
    blocks = {name: Block(nbytes) for name, nbytes in nbytes_of(problem).items()}
    assert set(blocks) == set(plan.names) == set(arrays)
    views = {}
    for name, (shape, strides, dtype) in arrays.items():
        views[name] = blocks[name].view(np.dtype(DTYPES.get(dtype, dtype)), shape, strides)
        if views[name].dtype.kind != "i":
            views[name][...] = rng.standard_normal(shape)
    workspace = Block(plan.workspace_nbytes)

    def go() -> None:
        addresses = {name: block.address for name, block in blocks.items()}
        plan.run(addresses, workspace.address if plan.workspace_nbytes else 0, 77)
        for block in (*blocks.values(), workspace):
            block.check()

    return views, go


def compare(networks: Networks, p: ConvProblem, seed: int = 0) -> None:
    plan = networks.convolution(p)
    assert plan is not None, networks.reasons[p]
    arrays = {
        "x": (p.x, p.x_strides, p.dtype),
        "w": (p.w, p.w_strides, p.dtype),
        "y": (p.y, p.y_strides, p.dtype),
    }
    if p.bias:
        arrays["bias"] = ((p.y[1],), (1,), p.dtype)
    if p.z_strides is not None:
        arrays["z"] = (p.y, p.z_strides, p.dtype)
    views, go = run(plan, p, arrays, np.random.default_rng(seed))
    go()
    want = reference(p, views["x"], views["w"], views.get("bias"), views.get("z"))
    scale = max(1.0, np.abs(want).max())
    np.testing.assert_allclose(views["y"].astype(np.float64), want, rtol=0, atol=TOLERANCES[p.dtype] * scale)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_those_of_their_definition(networks: Networks, name: str) -> None:
    compare(networks, CONVOLUTIONS[name])


@st.composite
def convolutions(draw: st.DrawFn) -> ConvProblem:
    n = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    groups = draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(n))
    dilations = tuple(draw(st.integers(1, 2)) for _ in range(n))
    size = tuple((k - 1) * d + 1 + draw(st.integers(0, 3)) for k, d in zip(kernel, dilations, strict=True))
    windows = {
        "steps": tuple(draw(st.integers(1, 2)) for _ in range(n)),
        "begins": tuple(draw(st.integers(0, (k - 1) // 2)) for k in kernel),
        "ends": tuple(draw(st.integers(0, (k - 1) // 2)) for k in kernel),
    }
    a, b = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = (draw(st.integers(1, 2)), a * groups, *size)
    w = (a * groups, b, *kernel) if transposed else (b * groups, a, *kernel)
    dtype = draw(st.sampled_from(["float32", "float64", "float16", "bfloat16"]))
    more: dict[str, Any] = {} if dtype == "float64" else {"bias": draw(st.booleans()), "z": draw(st.booleans())}
    return (
        conv(
            dtype,
            x,
            w,
            dilations=dilations,
            transposed=transposed,
            groups=groups,
            last=draw(st.booleans()),
            **windows,
            **more,
        )
        if transposed
        else conv(dtype, x, w, dilations=dilations, last=draw(st.booleans()), **windows, **more)
    )


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(0, 100))
def test_any_convolution(networks: Networks, problem: ConvProblem, seed: int) -> None:
    compare(networks, problem, seed)


ATTENTIONS = {
    "plain": attention(),
    "bfloat16": attention("bfloat16", heads=2),
    "by positions": attention(flat=True),
    "causal": attention(causal="first", queries=5),
    "causal to the last": attention(causal="last", flat=True),
    "bias": attention(bias=(2, 4)),
    "bias for all": attention(bias=(1, 1), bias_dtype="float32"),
    "lengths": attention(lengths=True),
    "all": attention(bias=(2, 1), causal="last", lengths=True, queries=5),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_is_that_of_its_definition(networks: Networks, name: str) -> None:
    p = ATTENTIONS[name]
    plan = networks.attention(p)
    assert plan is not None, networks.reasons[p]
    arrays = {
        "q": ((p.batch, p.heads, p.queries, p.depth), p.q, p.dtype),
        "k": ((p.batch, p.groups, p.keys, p.depth), p.k, p.dtype),
        "v": ((p.batch, p.groups, p.keys, p.columns), p.v, p.dtype),
        "o": ((p.batch, p.heads, p.queries, p.columns), p.o, p.dtype),
    }
    if p.bias is not None:
        arrays["bias"] = (*p.bias, p.bias_dtype or p.dtype)
    if p.lengths:
        arrays |= dict.fromkeys(("n_queries", "n_keys"), ((p.batch, 1, 1, 1), (1, 1, 1, 1), "int32"))
    views, go = run(plan, p, arrays, np.random.default_rng(1))
    n_queries, n_keys = [p.queries, p.queries - 1], [p.keys - 1, p.keys]
    if p.lengths:
        views["n_queries"][:, 0, 0, 0], views["n_keys"][:, 0, 0, 0] = n_queries, n_keys
    go()
    q, k, v = (views[name].astype(np.float64) for name in "qkv")
    bias = np.broadcast_to(views["bias"].astype(float) if p.bias else 0.0, (p.batch, p.heads, p.queries, p.keys))
    for b, h, s in itertools.product(range(p.batch), range(p.heads), range(p.queries)):
        g = h // (p.heads // p.groups)
        scores = k[b, g] @ q[b, h, s] * p.scale + bias[b, h, s]
        limit = {"": p.keys, "first": s + 1, "last": s + 1 + p.keys - p.queries}[p.causal]
        scores[limit:] = -np.inf
        if p.lengths:
            scores[n_keys[b] :] = -np.inf
        weights = np.exp(scores - scores.max())
        want = weights / weights.sum() @ v[b, g]
        if p.lengths and s >= n_queries[b]:
            want = 0 * want
        np.testing.assert_allclose(views["o"][b, h, s].astype(float), want, rtol=0, atol=TOLERANCES[p.dtype])


def test_plans_are_kept_with_their_stream_and_workspace(cudnn: Any, networks: Networks) -> None:
    p = CONVOLUTIONS["channels last"]
    plan = networks.convolution(p)
    assert plan is networks.convolution(replace(p)) and plan is not None
    assert plan.workspace_nbytes == 4096
    cudnn.executed.clear()
    compare(networks, p)
    assert cudnn.executed == [(0, 77)]


def test_without_tf32_no_plan_rounds(cudnn: Any, networks: Networks) -> None:
    cudnn.executed.clear()
    compare(networks, CONVOLUTIONS["plain"])
    compare(networks, replace(CONVOLUTIONS["plain"], tf32=True))
    assert [index for index, _ in cudnn.executed] == [1, 0]


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_never_made_half_precision(cudnn: Any, monkeypatch: pytest.MonkeyPatch, tf32: bool) -> None:
    """Engines that convert their inputs are fast, and wrong by more than TF32: what is beyond 65504 is infinite."""
    monkeypatch.setattr(dnn, "_current_stream", lambda: 77)
    networks = Networks(90, "EXHAUSTIVE", allocate=_Memory, timer=lambda enqueue, stream: enqueue(stream) or 1.0)
    cudnn.executed.clear()
    assert networks.convolution(replace(CONVOLUTIONS["plain"], tf32=tf32)) is not None
    converts = [i for i, plan in enumerate(cudnn.PLANS) if cudnn.numerical_note.DOWN_CONVERT_INPUTS in plan.notes]
    assert converts and cudnn.executed and not {index for index, _ in cudnn.executed} & set(converts)
    networks.close()


def test_small_workspaces(cudnn: Any) -> None:
    networks = Networks(90, "DEFAULT", any_workspace=False)
    cudnn.executed.clear()
    compare(networks, CONVOLUTIONS["plain"])
    assert [index for index, _ in cudnn.executed] == [3]
    networks.close()


def test_the_fastest_of_all_plans(cudnn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {0: 3.0, 1: 2.0, 3: 1.0, 4: 4.0}
    monkeypatch.setattr(dnn, "_current_stream", lambda: 77)

    def timer(enqueue: Any, stream: int) -> float:
        enqueue(stream)
        return times[cudnn.executed[-1][0]]

    networks = Networks(90, "EXHAUSTIVE", allocate=_Memory, timer=timer)
    cudnn.executed.clear()
    p = CONVOLUTIONS["bias and relu"]
    plan = networks.convolution(p)
    assert plan is not None and plan.workspace_nbytes == 1024
    assert [index for index, _ in cudnn.executed] == [0, 1, 3, 4]
    compare(networks, p)
    assert cudnn.executed[-1] == (3, 77)
    networks.close()


def test_plans_are_timed_on_the_stream_whose_memory_they_use(fake_cuda: Any) -> None:
    """A pool's memory is in that stream's order: on another one it may still be in use."""
    seen: list[int] = []

    def timer(enqueue: Any, stream: int) -> float:
        enqueue(stream)
        fake_cuda.cuda.runtime.streamSynchronize(stream)
        seen.append(stream)
        return 1.0

    networks = Networks(90, "EXHAUSTIVE", timer=timer)
    with fake_cuda.cuda.Stream(non_blocking=True) as stream:
        assert networks.convolution(CONVOLUTIONS["bias and relu"]) is not None
    assert set(seen) == {stream.ptr}
    assert {stream for _, stream in networks.cudnn.executed} == {stream.ptr}
    networks.close()


def test_what_fails_in_a_run_is_told_with_its_problem(cudnn: Any, networks: Networks) -> None:
    p = CONVOLUTIONS["plain"]
    plan = networks.convolution(p)
    assert plan is not None
    with pytest.raises(LibraryFailed, match=r"no good address for x: 0 while running convolution of float32") as error:
        plan.run(dict.fromkeys(plan.names, 0), 1 << 20, 0)
    assert "enable_cudnn=0" in error.value.text


def test_timing_ends_in_time(cudnn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first plan that runs is timed, and others while there is time."""
    monkeypatch.setattr(dnn, "_current_stream", lambda: 77)
    networks = Networks(
        90, "EXHAUSTIVE", allocate=_Memory, timer=lambda enqueue, stream: enqueue(stream) or 1.0, timing_s=0
    )
    cudnn.executed.clear()
    assert networks.convolution(CONVOLUTIONS["plain"]) is not None
    assert [index for index, _ in cudnn.executed] == [1]  # 0 rounds operands
    networks.close()


def test_without_memory_to_time_in_heuristics_decide(cudnn: Any) -> None:
    def full(nbytes: int) -> Any:
        raise MemoryError

    networks = Networks(90, "EXHAUSTIVE", allocate=full)
    cudnn.executed.clear()
    compare(networks, CONVOLUTIONS["channels last"])
    assert cudnn.executed == [(0, 77)]
    networks.close()


def test_no_engine_is_a_reason(cudnn: Any, networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "decline", lambda graph: "No valid engine configs")
    p = conv("float32", (1, 1, 3, 3), (1, 1, 2, 2), steps=(3, 3))
    assert networks.convolution(p) is None
    assert networks.reasons[p].startswith("cuDNN has no engine for convolution of float32 [1, 1, 3, 3]")


@pytest.mark.parametrize(("n_declined", "n_asked", "n_supported"), [(99, 4, 0), (3, 8, 5)])
def test_epilogues_without_engines_are_not_looked_for_forever(
    cudnn: Any, monkeypatch: pytest.MonkeyPatch, n_declined: int, n_asked: int, n_supported: int
) -> None:
    """Unless one of the kind has an engine: others may have one too."""
    asked: list[Any] = []

    def decline(graph: Any) -> str:
        asked.append(graph)
        return "No valid engine configs" if len(graph._steps) > 1 and len(asked) <= n_declined else ""

    monkeypatch.setattr(cudnn, "decline", decline)
    problems = [conv("float32", (1, n, 4, 4), (n, n, 2, 2), bias=True) for n in range(1, 9)]
    networks = Networks(90, "DEFAULT")
    assert sum(networks.supports(problem) for problem in problems) == n_supported
    assert len(asked) == n_asked
    if not n_supported:
        assert networks.reasons[problems[-1]].startswith("cuDNN had no engine for any of 4 like convolution of")
        assert networks.supports(replace(problems[-1], bias=False))
    networks.close()


def test_what_is_refused_without_asking(networks: Networks) -> None:
    for problem, reason in (
        (attention("float32"), "float32 is no single operation"),
        (attention(depth=12), "multiple of 8"),
        (attention(causal="last", queries=6), "more causal queries"),
    ):
        assert networks.attention(problem) is None
        assert reason in networks.reasons[problem]
    double = replace(CONVOLUTIONS["dilated"], bias=True)
    assert networks.convolution(double) is None and "no epilogue" in networks.reasons[double]


def test_old_devices_have_no_attention(cudnn: Any) -> None:
    networks = Networks(75, "DEFAULT")
    assert networks.attention(attention()) is None
    assert "compute capability 8.0, not 7.5" in networks.reasons[attention()]
    networks.close()


def test_broken_libraries_are_errors_with_a_remedy(
    cudnn: Any, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Any) -> str:
        raise RuntimeError("cudnn_status: CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED")

    monkeypatch.setattr(cudnn, "decline", broken)
    with pytest.raises(LibraryFailed, match=r"LOADING_FAILED while planning convolution .* Remedy: .*enable_cudnn=0"):
        networks.convolution(conv("float32", (1, 1, 4, 4), (1, 1, 2, 2), steps=(4, 4)))


def test_a_frontend_without_cudnn_is_as_none(cudnn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be imported: what it calls isn't there."""

    def missing() -> int:
        raise RuntimeError("Unable to find symbol cudnnGetVersion")

    monkeypatch.setattr(cudnn, "backend_version", missing)
    with pytest.raises(LibraryMissing, match=r"cuDNN can't be used: Unable to find symbol.*distort"):
        Networks(90)


def test_a_missing_frontend_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", None)
    with pytest.raises(LibraryMissing, match=r"cuDNN can't be used: .* install distort\[cuda12\]"):
        Networks(90)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "int8"},
        {"y": (2, 4, 5, 5)},
        {"w": (4, 2, 3, 3)},
        {"begins": (-1, 0), "ends": (1, 0)},
        {"x": (0, 3, 7, 6)},
        {"steps": (1,)},
        {"activation": "gelu"},
        {"activation": "clip"},
        {"z_strides": (1, 2)},
    ],
)
def test_problems_that_contradict_themselves(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(CONVOLUTIONS["plain"], **change)


@pytest.mark.parametrize(
    ("strides", "expected"), [((30, 6, 1), [30, 6, 6, 1]), ((30, 1, 5), [30, 1, 30, 5])], ids=["first", "last"]
)
def test_one_axis_is_a_plane_as_it_lies_by_itself(cudnn: Any, strides: tuple[int, ...], expected: list[int]) -> None:
    """Engines know layouts by their strides: a row's is what it is where there are more of them."""
    y = ((20, 4, 1), (20, 1, 5))[strides[1] == 1]
    p = ConvProblem("float16", (2, 5, 6), (5, 5, 3), (2, 5, 4), strides, (15, 3, 1), y, (1,), (1,), (0,), (0,))
    graph = graph_of(cudnn, p)
    assert graph._tensors[0].stride == expected
    assert graph._tensors[1].stride == [15, 3, 3, 1]
