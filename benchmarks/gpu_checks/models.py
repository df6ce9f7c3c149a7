"""Models against torch: the same graph, the same inputs on the GPU, results left there; answers held together first.

torch runs the ONNX graph operator by operator (``torch_graph.py``): eagerly, and as one captured CUDA graph, which is
what our sessions do by themselves. Both may use TF32 in single precision. ``compiled.py`` has torch.compile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from gpu_checks import architectures, halves, programs, sketch
from gpu_checks.arrays import Array, error, median_s, torch_on
from gpu_checks.report import FIGURE, Report, Skipped

#: a large batch, for throughput
BATCHES = {"resnet50": 128, "bert_base": 64, "llama_kv": 64, "vit": 64}
_LENGTH, _PAST = 128, 512
#: of results of a whole model against single precision without TF32
_TOLERANCES = {"float32": 1e-2, "float16": 3e-2}
_SECONDS = 0.5


class Case(NamedTuple):
    model: onnx.ModelProto
    feeds: dict[str, Array]


def case_of(report: Report, name: str, dtype: str, batch: int) -> Case:
    """A model, and what it is fed; a small one in its place on a machine that only stands in for a GPU's."""
    rng = np.random.default_rng(batch)
    side = 32 if report.small else 224
    model = _model("small" if report.small else name, dtype == "float16", report.arch)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        told = value.type.tensor_type
        element = onnx.helper.tensor_dtype_to_np_dtype(told.elem_type)
        feeds[value.name] = _feed(value.name, [d.dim_value for d in told.shape.dim], element, batch, rng, side)
    return Case(model, feeds)


@functools.cache
def _model(name: str, half: bool, arch: Path | None) -> onnx.ModelProto:
    """Not to be changed: it is the next caller's too."""
    if half:
        return halves.halved(_model(name, False, arch))
    if name == "small":
        return sketch.vit(size=16, heads=2, layers=1, image=32)
    if name == "vit":
        return sketch.vit()
    if arch is None:
        raise Skipped("no folder of architectures: give --arch")
    return architectures.model_of(arch / name)


def _feed(name: str, sizes: list[int], dtype: np.dtype[Any], batch: int, rng: np.random.Generator, side: int) -> Array:
    decodes = _PAST + 1
    if name == "attention_mask" or name == "token_type_ids":
        # the decoder's has the past and the new token; it is known by its batch's other inputs
        return np.full((batch, _LENGTH), name == "attention_mask", dtype)
    if name == "input_ids":
        return rng.integers(1, 10_000, (batch, _LENGTH)).astype(dtype)
    if name == "position_ids":
        return np.full((batch, 1), decodes - 1, dtype)
    if name.startswith("past."):
        return (0.5 * rng.standard_normal((batch, sizes[1], _PAST, sizes[3]), np.float32)).astype(dtype)
    return rng.standard_normal((batch, 3, side, side), np.float32).astype(dtype)


def decoding(case: Case) -> Case:
    """A decoder is fed one token, and a mask over what there was and that."""
    feeds = dict(case.feeds)
    if "position_ids" in feeds:
        batch = len(feeds["position_ids"])
        feeds["input_ids"] = feeds["input_ids"][:, :1]
        feeds["attention_mask"] = np.ones((batch, _PAST + 1), feeds["attention_mask"].dtype)
    return Case(case.model, feeds)


def run(report: Report, name: str) -> None:
    torch, device = torch_on()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for batch in (1, 3 if report.small else BATCHES[name]):
        for dtype in ("float16", "float32"):
            what = f"{name} {dtype} batch {batch}"
            with report.part(what):
                if report.left_s < 4:
                    raise Skipped("no time left")
                _compare(report, what, decoding(case_of(report, name, dtype, batch)), dtype, batch, device)
                if device == "cuda":
                    torch.cuda.empty_cache()
    what = f"{name} float16, cuDNN's plans timed"
    if any(node.op_type == "Conv" for node in case_of(report, name, "float32", 1).model.graph.node):
        with report.part(what):
            if report.left_s < 15 and not report.small:
                raise Skipped("no time left")
            batch = 3 if report.small else BATCHES[name]
            case = decoding(case_of(report, name, "float16", batch))
            ours = Ours(case, cudnn_conv_algo_search="EXHAUSTIVE")
            taken = median_s(ours.run, _SECONDS)
            report.add(what, FIGURE, f"{1e3 * taken:.3f} ms at batch {batch}", ms=1e3 * taken)


def _compare(report: Report, what: str, case: Case, dtype: str, batch: int, device: str) -> None:
    import torch

    from gpu_checks.torch_graph import TorchGraph, tensor_of

    module = TorchGraph(case.model, case.feeds, device).eval()
    tensors = [tensor_of(case.feeds[name]).to(device) for name in module.inputs]
    exact = _exactly(case, device)
    ours = Ours(case)
    ours.run()
    errors = [error(got, want) for got, want in zip(ours.results(), exact, strict=True)]
    with torch.inference_mode():
        theirs = [error(made.double().cpu().numpy(), want) for made, want in zip(module(*tensors), exact, strict=True)]
    report.within(f"{what}: answers", max(errors), _TOLERANCES[dtype], f"torch {max(theirs):.1e}")
    ms = {"ours": 1e3 * median_s(ours.run, _SECONDS)}
    eager = runner(module, tensors, device)
    ms["eager"] = 1e3 * median_s(eager, _SECONDS)
    if device == "cuda":
        with report.part(f"{what}: torch's graph"):
            ms["graph"] = 1e3 * median_s(captured(module, tensors), _SECONDS)
    rivals = ", ".join(f"torch {name} {ms[name]:.3f} ms ({ms[name] / ms['ours']:.2f})" for name in ms if name != "ours")
    figure = f"{ms['ours']:.3f} ms, {1e3 * batch / ms['ours']:.0f}/s; {rivals}"
    report.add(f"{what}: time", FIGURE, figure, ms=ms)
    steps = ", ".join(f"{n} {kind}" for kind, n in programs.steps_of(ours.program).items())
    away = programs.obstacles(ours.program)
    told = f"{steps}; {ours.program.n_graph_runs} runs were graphs{f'; {away}' if away else ''}"
    report.add(f"{what}: plan", FIGURE, told, libraries=ours.program.context.libraries.obstacles()[:40])
    report.faults(what, ours.program)


def _exactly(case: Case, device: str) -> list[Array]:
    """In single precision without TF32, by torch; of the numbers that a half's model has."""
    import torch

    from gpu_checks.torch_graph import TorchGraph, tensor_of

    model, feeds = onnx.ModelProto(), dict(case.feeds)
    model.CopyFrom(case.model)
    single(model)
    for name, feed in feeds.items():
        feeds[name] = feed.astype(np.float32) if feed.dtype == np.float16 else feed
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    for kind in kinds:
        kind.allow_tf32 = False
    try:
        module = TorchGraph(model, feeds, device).eval()
        with torch.inference_mode():
            made = module(*[tensor_of(feeds[name]).to(device) for name in module.inputs])
            return [tensor.double().cpu().numpy() for tensor in made]
    finally:
        for kind in kinds:
            kind.allow_tf32 = True


def single(model: onnx.ModelProto) -> None:
    """float16 weights, inputs and casts as float32, in place: the opposite of ``halves``, for what that made."""
    half, whole = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for tensor in model.graph.initializer:
        if tensor.data_type == half:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = whole
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == half:
                attribute.i = whole
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == half:
                values = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(values))


class Ours:
    """A session with everything on the GPU: inputs, outputs, one launch of a graph a run."""

    def __init__(self, case: Case, **options: Any) -> None:
        import distort

        options = {"cudnn_conv_algo_search": "HEURISTIC", **options}
        self.session = programs.session_of(case.model, **options)
        self.program = programs.program_in(self.session)
        self._binding = self.session.io_binding()
        for name, feed in case.feeds.items():
            # sizes and masks that only the host reads stay there
            self._binding.bind_ortvalue_input(name, distort.OrtValue.ortvalue_from_numpy(feed, "cuda", 0))
        for value in case.model.graph.output:
            self._binding.bind_output(value.name, "cuda")

    def run(self) -> None:
        self.session.run_with_iobinding(self._binding)

    def results(self) -> list[Array]:
        return [value.numpy() for value in self._binding.get_outputs()]


def runner(module: Any, tensors: list[Any], device: str) -> Callable[[], None]:
    import torch

    def run() -> None:
        with torch.inference_mode():
            module(*tensors)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def captured(module: Any, tensors: list[Any]) -> Callable[[], None]:
    """torch's module as a CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            module(*tensors)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        module(*tensors)

    def run() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return run
