"""Speed as shares of what the machine gives: bytes a second against its best copy, operations a second against torch.

Times are the GPU's own, by events; inputs are far larger than its cache, and random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from gpu_checks import programs
from gpu_checks.arrays import events_s, torch_on
from gpu_checks.report import FIGURE, Report, Skipped
from gpu_checks.sketch import Sketch

_SECONDS = 0.3


def run(report: Report) -> None:
    peak = 1.0
    with report.part("a copy on the GPU"):
        peak = _copy(report, (1 if report.small else 4096) << 20)
    for what, (model, shapes) in _bound_by_memory(report.small).items():
        with report.part(what):
            program = programs.program_of(model)
            taken, nbytes = _time(program, shapes)
            rate = nbytes / taken
            figure = f"{rate / 1e9:.0f} GB/s, {100 * rate / peak:.0f} % of the copy's"
            report.add(what, FIGURE, figure, gb_s=rate / 1e9, ms=1e3 * taken)
    for what, (model, shapes, options, n_operations, rival) in _bound_by_arithmetic(report.small).items():
        with report.part(what):
            _against_torch(report, what, model, shapes, options, n_operations, rival)


def _copy(report: Report, nbytes: int) -> float:
    """Bytes read and written a second, the best of CuPy's and torch's copies."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        source, target = cupy.empty(nbytes, cupy.uint8), cupy.empty(nbytes, cupy.uint8)
        source.fill(7)
        best = events_s(lambda: target.data.copy_from_device_async(source.data, nbytes, stream), stream, _SECONDS)
    rate = 2 * nbytes / best
    report.add("a copy on the GPU", FIGURE, f"{rate / 1e9:.0f} GB/s, read and written", gb_s=rate / 1e9)
    return rate


def _random(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """On the GPU; a block of random numbers again and again, for drawing gigabytes takes long."""
    import cupy

    n = math.prod(shape)
    block = cupy.asarray(np.random.default_rng(0).standard_normal(min(n, 1 << 20), np.float32).astype(dtype))
    made = cupy.empty(n, dtype)
    n_whole = n // block.size
    made[: n_whole * block.size].reshape(n_whole, block.size)[...] = block
    made[n_whole * block.size :] = block[: n - n_whole * block.size]
    return made.reshape(shape)


def _time(program: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[float, int]:
    """Seconds of a run, and bytes that it reads and writes: each input and output once."""
    import cupy

    types = program.input_types
    with program.using():
        feeds = {}
        for name, shape in shapes.items():
            element = types[program.inputs.index(name)] if isinstance(types, (list, tuple)) else types[name]
            feeds[name] = _random(shape, _dtype(element))
        (made,) = program.run(feeds)
        into = {program.outputs[0]: cupy.empty(made.shape, made.dtype)}
        nbytes = sum(feed.nbytes for feed in feeds.values()) + int(made.nbytes)
        del made
        for _ in range(4):  # from the third run with the same addresses on it is a graph
            program.run(feeds, into=into)
        taken = events_s(lambda: program.run(feeds, into=into, synchronize=False), program.stream, _SECONDS, n=10)
    program.synchronize()
    return taken, nbytes


def _dtype(told: Any) -> np.dtype[Any]:
    from distort.graph.types import DTYPE_OF

    return np.dtype(DTYPE_OF[told.element])


def _bound_by_memory(small: bool) -> dict[str, tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]]:
    rows, columns = (64, 128) if small else (131_072, 4096)
    found = {}
    for dtype in ("float32", "float16"):
        shape = (rows, columns) if dtype == "float16" else (rows // 2, columns)
        for name, build in _KERNELS.items():
            made = Sketch(dtype)
            x = made.input("x", *shape)
            out = build(made, x, columns)
            sizes = shape if name != "sum of rows" else (shape[0], 1)
            sizes = shape[::-1] if name == "transpose" else sizes
            found[f"{name} {dtype}"] = made.model(y=(out, sizes)), {"x": shape}
    return found


_KERNELS: dict[str, Callable[[Sketch, str, int], str]] = {
    "x · 2 + 1": lambda g, x, n: g.node("Add", g.node("Mul", x, g.constant(2, g.dtype)), g.constant(1, g.dtype)),
    "gelu": lambda g, x, n: g.node("Gelu", x, approximate="none"),
    "softmax": lambda g, x, n: g.node("Softmax", x, axis=-1),
    "layer norm": lambda g, x, n: g.norm(x, n),
    "sum of rows": lambda g, x, n: g.node("ReduceSum", x, g.constant([1]), keepdims=1),
    "transpose": lambda g, x, n: g.node("Transpose", x, perm=[1, 0]),
}

_Case = tuple[onnx.ModelProto, dict[str, tuple[int, ...]], dict[str, int], float, Callable[..., Any]]


def _bound_by_arithmetic(small: bool) -> dict[str, _Case]:
    found: dict[str, _Case] = {}
    n = 64 if small else 8192
    for what, dtype, options in (
        ("float16", np.float16, {}),
        ("float32 with TF32", np.float32, {"use_tf32": 1}),
        ("float32", np.float32, {"use_tf32": 0}),
    ):
        made = Sketch(dtype)
        product = made.node("MatMul", made.input("a", n, n), made.input("b", n, n))
        shapes = {"a": (n, n), "b": (n, n)}
        found[f"product {n}³ {what}"] = (
            made.model(y=(product, (n, n))),
            shapes,
            options,
            2.0 * n**3,
            lambda t, a, b: t.matmul(a, b),
        )
    b, h, s, d = (1, 2, 8, 8) if small else (16, 16, 2048, 64)
    made = Sketch(np.float16)
    q, k, v = (made.input(name, b, h, s, d) for name in "qkv")
    scores = made.node("MatMul", q, made.node("Transpose", k, perm=[0, 1, 3, 2]))
    scaled = made.node("Mul", scores, made.constant(d**-0.5, np.float16))
    out = made.node("MatMul", made.node("Softmax", scaled, axis=-1), v)
    found["attention float16"] = (
        made.model(y=(out, (b, h, s, d))),
        dict.fromkeys("qkv", (b, h, s, d)),
        {},
        4.0 * b * h * s * s * d,
        lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v),
    )
    batch, channels, side = (1, 8, 6) if small else (64, 256, 56)
    made = Sketch(np.float16)
    x, w = made.input("x", batch, channels, side, side), made.input("w", channels, channels, 3, 3)
    out = made.node("Conv", x, w, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    found["convolution float16"] = (
        made.model(y=(out, (batch, channels, side, side))),
        {"x": (batch, channels, side, side), "w": (channels, channels, 3, 3)},
        {},
        2.0 * batch * side**2 * channels**2 * 9,
        lambda t, x, w: t.nn.functional.conv2d(x, w, padding=1),
    )
    return found


def _against_torch(
    report: Report,
    what: str,
    model: onnx.ModelProto,
    shapes: dict[str, tuple[int, ...]],
    options: dict[str, int],
    n_operations: float,
    rival: Callable[..., Any],
) -> None:
    taken, _ = _time(programs.program_of(model, **options), shapes)
    figure, theirs = f"{n_operations / taken / 1e12:.1f} TFLOP/s", None
    try:
        theirs = _torchs(model, shapes, bool(options.get("use_tf32", 1)), rival)
        figure += f", torch {n_operations / theirs / 1e12:.1f}: {100 * theirs / taken:.0f} % of its speed"
    except Skipped as why:
        figure += f" ({why})"
    report.add(what, FIGURE, figure, ms=1e3 * taken, torch_ms=None if theirs is None else 1e3 * theirs)


def _torchs(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], tf32: bool, rival: Callable[..., Any]) -> float:
    """Seconds, the least of several medians: what the machine gives."""
    torch, device = torch_on()
    if device != "cuda":
        raise Skipped("torch has no GPU here")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    half = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    given = [torch.randn(s, device=device, dtype=torch.float16 if half else torch.float32) for s in shapes.values()]
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    best = math.inf
    with torch.inference_mode():
        for turn in range(6):
            begin.record()
            for _ in range(10):
                rival(torch, *given)
            end.record()
            torch.cuda.synchronize()
            if turn:
                best = min(best, begin.elapsed_time(end) / 1e4)
    return best
