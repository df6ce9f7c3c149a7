"""Products by cuBLASLt, convolutions and attention by cuDNN, held against double precision; torch's errors beside.

Operands are random, results are poisoned with NaN before a run, and lie as the problem's strides say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gpu_checks import programs, references
from gpu_checks.arrays import TOLERANCES, Array, error, kind, random_of, to_device, to_host
from gpu_checks.report import SKIPPED, Report, words_of

_FLOATS = ("float32", "tf32", "float16", "bfloat16", "float64")


def run(report: Report) -> None:
    # what each algorithm computes is the library's; which one is the fastest is of no matter here
    context = programs.context_of(cudnn_conv_algo_search="HEURISTIC")
    with report.part("cuBLASLt products"):
        _products(report, context)
    with report.part("cuDNN convolutions"):
        _convolutions(report, context)
    with report.part("cuDNN attention"):
        _attentions(report, context)


class Memory:
    """Bytes of tensors that lie by strides, on the host and on the GPU."""

    def __init__(self) -> None:
        self.flat: dict[str, Array] = {}
        self.there: dict[str, Any] = {}
        self._shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def add(
        self, name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], content: Array | None
    ) -> None:
        n = sum((size - 1) * step for size, step in zip(shape, strides, strict=True)) + 1
        self.flat[name] = np.zeros(n, dtype) if dtype.kind in "iu" else np.full(n, np.nan, np.float32).astype(dtype)
        self._shapes[name] = shape, strides
        if content is not None:
            self.view(name)[...] = content
        self.there[name] = to_device(self.flat[name].view(np.uint8))

    def view(self, name: str) -> Array:
        shape, strides = self._shapes[name]
        whole = self.flat[name]
        return np.lib.stride_tricks.as_strided(whole, shape, [step * whole.itemsize for step in strides])

    def address(self, name: str) -> int:
        return int(self.there[name].data.ptr) if name in self.there else 0

    def fetched(self, name: str) -> Array:
        found = to_host(self.there[name], np.dtype(np.uint8))
        self.flat[name] = found.view(self.flat[name].dtype)
        return np.array(self.view(name))


def _workspace(nbytes: int) -> Any:
    import cupy

    return cupy.empty(max(nbytes, 256), cupy.uint8)


def _tell(
    report: Report, what: str, got: Array, want: Array, precision: str, rival: Callable[[], Array | None] | None
) -> None:
    """``rival``: what torch answers; None where it isn't asked. An error of its own is none of ours."""
    extra = ""
    try:
        torchs = None if rival is None else rival()
        extra = "" if torchs is None else f"torch {error(torchs, want):.1e}"
    except RuntimeError as problem:
        extra = f"torch: {words_of(problem)[:60]}"
    report.within(what, error(got, want), TOLERANCES[precision], extra)


# -- products


def _products(report: Report, context: Any) -> None:
    from distort.kernels.cuda.product_problems import Matrix, ProductProblem

    sizes = (
        [(64, 48, 32), (1, 72, 96), (37, 53, 71)] if report.small else [(1024, 3072, 768), (1, 768, 3072), (37, 53, 71)]
    )
    problems = []
    for precision in _FLOATS:
        dtype = "float32" if precision == "tf32" else precision
        for m, n, k in sizes:
            plain = ProductProblem(dtype, m, n, k, Matrix(k), Matrix(n), Matrix(n), tf32=precision == "tf32")
            problems.append((precision, plain))
        if dtype != "float64":
            m, n, k = sizes[0]
            wide = ProductProblem(dtype, m, n, k, Matrix(k), Matrix(k, True), Matrix(n), bias=True)
            problems += [
                (precision, replace(wide, tf32=precision == "tf32", activation=a)) for a in ("relu", "gelu_tanh")
            ]
        heads = ProductProblem(
            dtype, 33, 40, 64, Matrix(64, False, 33 * 64), Matrix(64, True, 40 * 64), Matrix(40, False, 33 * 40), 12
        )
        problems.append((precision, replace(heads, tf32=precision == "tf32", alpha=0.125)))
    problems.append(("int32", ProductProblem("int8", 64, 64, 128, Matrix(128), Matrix(128, True), Matrix(64))))
    for number, (precision, problem) in enumerate(problems):
        what = f"product {precision} {problem.rows}x{problem.columns}x{problem.depth}"
        what += f" x{problem.batch}" * (problem.batch > 1) + f" bias {problem.activation}" * problem.bias
        if report.is_done(what):
            continue
        with report.part(what):
            product(report, context, what, problem, precision, number)
        report.go_on(what)


def product(report: Report, context: Any, what: str, p: Any, precision: str, seed: int, rival: bool = True) -> None:
    """One product against double precision; ``rival``: and torch's beside."""
    plan = context.libraries.products.plan(p)
    if plan is None:
        report.add(what, SKIPPED, str(context.libraries.products.reasons.get(p, "no plan"))[:160])
        return
    rng, memory = np.random.default_rng(seed), Memory()
    for name, matrix, rows, columns, dtype in (
        ("a", p.a, p.rows, p.depth, kind(p.dtype)),
        ("b", p.b, p.depth, p.columns, kind(p.dtype)),
        ("out", p.out, p.rows, p.columns, kind(p.result)),
    ):
        steps = (1, matrix.leading) if matrix.transposed else (matrix.leading, 1)
        shape = (p.batch, rows, columns)
        content = None if name == "out" else random_of(shape, dtype, rng)
        memory.add(name, shape, (matrix.batch_stride if p.batch > 1 else 0, *steps), dtype, content)
    if p.bias:
        memory.add("bias", (p.columns,), (1,), kind(p.result), random_of((p.columns,), kind(p.result), rng))
    workspace = _workspace(plan.workspace_nbytes)
    addresses = [memory.address(name) for name in ("a", "b", "out", "bias")]
    plan.run(*addresses, context.stream.ptr, 0, workspace.data.ptr)
    got = memory.fetched("out")
    views = {name: memory.view(name) for name in memory.flat}
    want = references.product(p, views)
    _tell(report, what, got, want, precision, (lambda: references.torch_product(p, views)) if rival else None)


# -- convolutions and attention


def run_graph(context: Any, plan: Any, memory: Memory) -> None:
    """A plan of cuDNN's on its tensors."""
    workspace = _workspace(plan.workspace_nbytes)
    addresses: Mapping[str, int] = {name: memory.address(name) for name in plan.names}
    plan.run(addresses, workspace.data.ptr, context.stream.ptr)


def convolutions(small: bool) -> dict[str, Any]:
    from gpu.dnn_problems import CONVOLUTIONS, conv

    found = dict(CONVOLUTIONS)
    if small:
        return {name: found[name] for name in ("plain", "uneven pads", "groups", "all", "transposed, longer")}
    for dtype in ("float32", "float16", "bfloat16"):
        for last in (False, True):
            more = {"begins": (1, 1), "ends": (1, 1), "bias": True, "activation": "relu", "last": last}
            name = f"resnet 3x3 {dtype}{' channels last' * last}"
            found[name] = conv(dtype, (8, 64, 56, 56), (64, 64, 3, 3), **more)
        found[f"resnet first {dtype}"] = conv(
            dtype, (4, 3, 224, 224), (64, 3, 7, 7), steps=(2, 2), begins=(3, 3), ends=(3, 3), bias=True
        )
        found[f"patches {dtype}"] = conv(dtype, (4, 3, 224, 224), (768, 3, 16, 16), steps=(16, 16), bias=True)
    found["resnet 3x3 tf32"] = replace(found["resnet 3x3 float32"], tf32=True)
    return found


def _convolutions(report: Report, context: Any) -> None:
    for number, (name, p) in enumerate(convolutions(report.small).items()):
        what = f"convolution {name}"
        if report.is_done(what):
            continue
        with report.part(what):
            convolution(report, context, what, p, number)
        report.go_on(what)


def convolution(report: Report, context: Any, what: str, p: Any, seed: int) -> None:
    """One convolution against torch's in double precision, torch's in its type beside."""
    plan = context.libraries.networks.convolution(p)
    if plan is None:
        report.add(what, SKIPPED, str(context.libraries.networks.reasons.get(p, "no plan"))[:160])
        return
    rng, memory, dtype = np.random.default_rng(seed), Memory(), kind(p.dtype)
    memory.add("x", p.x, p.x_strides, dtype, random_of(p.x, dtype, rng))
    memory.add("w", p.w, p.w_strides, dtype, random_of(p.w, dtype, rng))
    memory.add("y", p.y, p.y_strides, dtype, None)
    if p.bias:
        memory.add("bias", p.y[1:2], (1,), dtype, random_of(p.y[1:2], dtype, rng))
    if p.z_strides is not None:
        memory.add("z", p.y, p.z_strides, dtype, random_of(p.y, dtype, rng))
    run_graph(context, plan, memory)
    got = memory.fetched("y")
    views = {n: memory.view(n) for n in memory.flat}
    want = references.convolution(p, views)
    _tell(report, what, got, want, "tf32" if p.tf32 else p.dtype, lambda: references.torch_convolution(p, views))


def attentions(small: bool) -> dict[str, Any]:
    from gpu.dnn_problems import attention

    large: dict[str, Any] = {"depth": 64, "columns": 64}
    sizes = {"queries": 5, "keys": 9} if small else {"queries": 128, "keys": 384, **large}
    found = {}
    for dtype in ("float16", "bfloat16"):
        for name, more in {
            "plain": {},
            "causal, first": {"causal": "first"},
            "causal, last": {"causal": "last"},
            "bias": {"bias": (2, 4)},
            "bias for all": {"bias": (1, 1)},
            "lengths": {"lengths": True},
            "heads side by side": {"flat": True},
        }.items():
            found[f"{name} {dtype}"] = attention(dtype, **{**sizes, **more})
        if not small:
            found[f"one query {dtype}"] = attention(dtype, heads=32, groups=8, queries=1, keys=2048, **large)
            found[f"bert {dtype}"] = attention(dtype, batch=8, heads=12, groups=12, queries=128, keys=128, **large)
            found[f"odd sizes {dtype}"] = attention(dtype, queries=77, keys=77, **large)
    return found


def _attentions(report: Report, context: Any) -> None:
    for number, (name, p) in enumerate(attentions(report.small).items()):
        what = f"attention {name}"
        if report.is_done(what):
            continue
        with report.part(what):
            attention(report, context, what, p, number)
        report.go_on(what)


def attention(report: Report, context: Any, what: str, p: Any, seed: int, rival: bool = True) -> None:
    """One attention against double precision; ``rival``: and torch's beside."""
    plan = context.libraries.networks.attention(p)
    if plan is None:
        report.add(what, SKIPPED, str(context.libraries.networks.reasons.get(p, "no plan"))[:160])
        return
    rng, memory, dtype = np.random.default_rng(seed), Memory(), kind(p.dtype)
    shapes = {
        "q": (p.batch, p.heads, p.queries, p.depth),
        "k": (p.batch, p.groups, p.keys, p.depth),
        "v": (p.batch, p.groups, p.keys, p.columns),
        "o": (p.batch, p.heads, p.queries, p.columns),
    }
    for one, shape in shapes.items():
        content = None if one == "o" else random_of(shape, dtype, rng)
        memory.add(one, shape, getattr(p, one), dtype, content)
    if p.bias is not None:
        of_bias = kind(p.bias_dtype or p.dtype)
        memory.add("bias", *p.bias, of_bias, random_of(p.bias[0], of_bias, rng))
    if p.lengths:
        for one, most in (("n_queries", p.queries), ("n_keys", p.keys)):
            content = rng.integers(1, most + 1, p.batch).astype(np.int32)
            memory.add(one, (p.batch,), (1,), content.dtype, content)
    run_graph(context, plan, memory)
    got = memory.fetched("o")
    views = {n: memory.view(n) for n in memory.flat}
    want = references.attention(p, views)
    if p.lengths:  # of queries that aren't there, nothing is said
        for entry, n in enumerate(views["n_queries"]):
            got[entry, :, n:], want[entry, :, n:] = 0, 0
    _tell(report, what, got, want, p.dtype, (lambda: references.torch_attention(p, views)) if rival else None)


__all__ = ["attention", "attentions", "convolution", "convolutions", "product", "run", "run_graph"]
__all__ = ["attentions", "convolutions", "run"]
