"""Attention, compiled: found among operations, and lowered from its operators, against the NumPy kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.graph import reader
from distort.graph.ir import Graph
from distort.kernels.compiler.codegen.target import LIMIT_VARIABLE, host, of_features
from distort.kernels.compiler.library import Library, compile_text, module_text
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.program import Program

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(5)


def array(*shape: int, dtype: Any = np.float32) -> Array:
    return RANDOM.standard_normal(shape).astype(dtype)


def graph_of(body: str, feeds: dict[str, Array], outputs: str = "float y", opset: int = 21) -> Graph:
    names = {"float32": "float", "float64": "double"}
    declared = ", ".join(
        f"{names.get(a.dtype.name, a.dtype.name)}[{','.join(map(str, a.shape))}] {name}" for name, a in feeds.items()
    )
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> g ({declared})'
    return reader.read_model(onnx.parser.parse_model(f"{head} => ({outputs}) {{ {body} }}")).graph


def check(
    graph: Graph,
    feeds: dict[str, Array],
    *,
    kinds: Sequence[str] | None = ("attention",),
    rtol: float = 1e-4,
    n_threads: int = 2,
    library: Library | None = None,
) -> None:
    """Compile, run, compare. ``kinds`` of operations that the plan has."""
    program = CompiledProgram(graph, n_threads=n_threads, library=library)
    for got, expected in zip(program.run(feeds), Program(graph).run(feeds), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        wide = [x.astype(np.float64) for x in (got, expected)]
        np.testing.assert_allclose(*wide, rtol=rtol, atol=rtol)
    (alone, *_) = CompiledProgram(graph, n_threads=1, library=library).run(feeds)
    assert np.array_equal(alone, program.run(feeds)[0], equal_nan=True)
    plan = program.prepare([(a.dtype, a.shape) for a in feeds.values()])
    found = [operation.kind for operation in plan.operations]
    assert kinds is None or found == list(kinds)
    assert "host" not in found


PLAIN = "t = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul (q, t) "
SCALED = PLAIN + "c = Constant <value_float = 0.125> () x = Mul (s, c) "
END = "p = Softmax <axis = -1> (x) y = MatMul (p, v)"

#: batch, heads, queries, keys, depth, columns
SIZES = [
    (1, 12, 16, 16, 64, 64),
    (2, 3, 7, 33, 20, 17),
    (1, 2, 130, 49, 32, 32),
    (3, 4, 49, 49, 32, 32),
    (1, 1, 300, 700, 40, 80),
    (2, 3, 1, 50, 64, 64),
    (1, 2, 4, 1000, 16, 100),
    (1, 2, 9, 2, 8, 3),
]


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size: tuple[int, ...]) -> None:
    b, h, s, t, d, c = size
    feeds = {"q": array(b, h, s, d), "k": array(b, h, t, d), "v": array(b, h, t, c)}
    check(graph_of(SCALED + END, feeds), feeds)


@pytest.mark.parametrize("shape", [(1, 1, 1, 33), (2, 1, 1, 33), (1, 3, 7, 33), (2, 3, 7, 33), (7, 1), (33,), ()])
def test_masks(shape: tuple[int, ...]) -> None:
    feeds = {"q": array(2, 3, 7, 20), "k": array(2, 3, 33, 20), "v": array(2, 3, 33, 16), "m": array(*shape)}
    check(graph_of(SCALED.replace("x = Mul", "w = Mul") + "x = Add (w, m)" + END, feeds), feeds)


def test_masks_by_where_and_more_than_one() -> None:
    feeds = {"q": array(2, 3, 40, 20), "k": array(2, 3, 40, 20), "v": array(2, 3, 40, 16)}
    feeds |= {"m": array(1, 3, 40, 40), "seen": np.tril(np.ones((40, 40), bool))}
    body = "c = Constant <value_float = 8.0> () w = Div (s, c) u = Add (w, m) n = Constant <value_float = -1e9> () "
    check(graph_of(PLAIN + body + "x = Where (seen, u, n)" + END, feeds), feeds)


def test_rows_without_keys_are_nan_and_others_are_not() -> None:
    feeds = {
        "q": array(1, 2, 20, 16),
        "k": array(1, 2, 21, 16),
        "v": array(1, 2, 21, 16),
        "m": np.zeros((20, 21), "f4"),
    }
    feeds["m"][[3, 17]] = -np.inf
    feeds["m"][5, 2:] = -np.inf
    feeds["v"][0, 0, 3, 2], feeds["q"][0, 1, 9, 0] = np.nan, np.inf
    check(graph_of(SCALED.replace("x = Mul", "w = Mul") + "x = Add (w, m)" + END, feeds), feeds)


HEADS = """
    sizes = Constant <value_ints = [2, -1, 3, 20]> () joined = Constant <value_ints = [2, 0, 60]> ()
    q4 = Reshape (q, sizes) k4 = Reshape (k, sizes) v4 = Reshape (v, sizes)
    qh = Transpose <perm = [0, 2, 1, 3]> (q4) t = Transpose <perm = [0, 2, 3, 1]> (k4)
    vh = Transpose <perm = [0, 2, 1, 3]> (v4) c = Constant <value_float = 0.2> ()
"""


@pytest.mark.parametrize("scaled", ["z = Mul (qh, c) x = MatMul (z, t)", "s = MatMul (qh, t) x = Mul (s, c)"])
def test_heads_side_by_side(scaled: str) -> None:
    """Nothing is copied to bring heads apart or together, and what follows the result joins it."""
    feeds = {"q": array(2, 9, 60), "k": array(2, 31, 60), "v": array(2, 31, 60), "bias": array(60)}
    end = "p = Softmax (x) o = MatMul (p, vh) r = Transpose <perm = [0, 2, 1, 3]> (o) a = Reshape (r, joined)"
    graph = graph_of(HEADS + scaled + end + " y = Add (a, bias)", feeds)
    first = ("map",) if scaled.startswith("z") else ()
    check(graph, feeds, kinds=None)
    plan = CompiledProgram(graph).prepare([(a.dtype, a.shape) for a in feeds.values()])
    assert [o.kind for o in plan.operations][: len(first) + 1] == [*first, "attention"]


@pytest.mark.parametrize("queries", [1, 5, 40])
def test_heads_that_share_keys(queries: int) -> None:
    """Keys and values are repeated by the model, and read where they are."""
    feeds = {"q": array(1, 8, queries, 32), "k": array(1, 2, 50, 32), "v": array(1, 2, 50, 32)}
    repeat = """
        one = Constant <value_ints = [2]> () apart = Constant <value_ints = [1, 2, 4, 50, 32]> ()
        all = Constant <value_ints = [1, 8, 50, 32]> ()
        k1 = Unsqueeze (k, one) k2 = Expand (k1, apart) kk = Reshape (k2, all)
        v1 = Unsqueeze (v, one) v2 = Expand (v1, apart) vv = Reshape (v2, all)
        t = Transpose <perm = [0, 1, 3, 2]> (kk) x = MatMul (q, t) p = Softmax (x) y = MatMul (p, vv)
    """
    check(graph_of(repeat, feeds), feeds)


@pytest.mark.parametrize("queries", [3, 40])
@pytest.mark.parametrize("casts", [False, True])
def test_half_precision(queries: int, casts: bool) -> None:
    feeds = {name: array(1, 2, n, 32, dtype=np.float16) for name, n in (("q", queries), ("k", 50), ("v", 50))}
    body = PLAIN + "x = Identity (s) " + END
    if casts:
        body = PLAIN + "x = Cast <to = 1> (s) w = Softmax (x) p = Cast <to = 10> (w) y = MatMul (p, v)"
    kinds = ["map", "attention"] if queries <= 8 else ["map", "map", "map", "attention"]
    # the NumPy kernel rounds scores, too
    check(graph_of(body, feeds, "float16 y"), feeds, kinds=kinds, rtol=1e-2)


def test_what_is_no_attention_stays() -> None:
    feeds = {"q": array(1, 2, 9, 8), "k": array(1, 2, 12, 8), "v": array(1, 2, 12, 8)}
    check(
        graph_of(PLAIN + "x = Identity (s) " + END, feeds, "float y, float p"),
        feeds,
        kinds=["product", "rows", "product"],
    )


@pytest.mark.parametrize("limit", ["avx2", "sse4.2"])
def test_narrower_machines(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, limit)
    library = Library(host.__wrapped__())
    for b, h, s, t, d, c in SIZES[1:4] + SIZES[5:6]:
        feeds = {"q": array(b, h, s, d), "k": array(b, h, t, d), "v": array(b, h, t, c), "m": array(s, t)}
        body = SCALED.replace("x = Mul", "w = Mul") + "x = Add (w, m)" + END
        check(graph_of(body, feeds), feeds, library=library)


def test_code_for_arm() -> None:
    target = of_features("aarch64-unknown-linux-gnu", "generic", {"neon": True})
    keys = []
    for queries in (2, 30):
        feeds = {"q": array(1, 2, queries, 8), "k": array(1, 2, 12, 8), "v": array(1, 2, 12, 8)}
        plan = CompiledProgram(graph_of(SCALED + END, feeds)).prepare([(a.dtype, a.shape) for a in feeds.values()])
        keys += [call.key for operation in plan.operations for call in operation.calls(target, 1)]
    assert compile_text(module_text(keys, target), target)


def test_windows_of_an_image() -> None:
    """As a Swin transformer has it: one product of all three, masks by window."""
    feeds = {"x": array(4, 49, 96), "bias": array(1, 3, 49, 49), "m": array(1, 4, 1, 49, 49)}
    body = """
        apart = Constant <value_ints = [4, 49, 3, 3, 32]> () windows = Constant <value_ints = [1, 4, 3, 49, 49]> ()
        all = Constant <value_ints = [4, 3, 49, 49]> () joined = Constant <value_ints = [4, 49, 96]> ()
        i0 = Constant <value_int = 0> () i1 = Constant <value_int = 1> () i2 = Constant <value_int = 2> ()
        x3 = Concat <axis = 2> (x, x, x) r = Reshape (x3, apart) h = Transpose <perm = [2, 0, 3, 1, 4]> (r)
        q = Gather <axis = 0> (h, i0) k = Gather <axis = 0> (h, i1) v = Gather <axis = 0> (h, i2)
        t = Transpose <perm = [0, 1, 3, 2]> (k) c = Constant <value_float = 0.2> () z = Mul (q, c)
        s = MatMul (z, t) s1 = Add (s, bias) s2 = Reshape (s1, windows) s3 = Add (s2, m) s4 = Reshape (s3, all)
        p = Softmax (s4) o = MatMul (p, v) w = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape (w, joined)
    """
    graph = graph_of(body, feeds)
    check(graph, feeds, kinds=None)
    plan = CompiledProgram(graph).prepare([(a.dtype, a.shape) for a in feeds.values()])
    assert [o.kind for o in plan.operations][-1] == "attention"
