"""Values whose shapes earlier runs have shown: compiled, until a run has other ones."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import onnx
import pytest

from distort.engine import load_model
from distort.kernels.compiler.codegen import drive, entering
from distort.kernels.compiler.codegen.target import of_features
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import compile_text, link, module_text
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from distort.kernels.program import Program


def programs(text: str) -> tuple[CompiledProgram, Program]:
    model = load_model(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>\n{text}').SerializeToString())
    return CompiledProgram(model.graph, n_threads=2), Program(model.graph)


def check(pair: tuple[CompiledProgram, Program], **feeds: np.ndarray[Any, Any]) -> None:
    compiled, plain = pair
    for value, wanted in zip(compiled.run(feeds), plain.run(feeds), strict=True):
        assert value.dtype == wanted.dtype
        np.testing.assert_array_equal(value, wanted)


def hosts(pair: tuple[CompiledProgram, Program]) -> list[str]:
    _, plan = pair[0].plans[-1]
    return [operation.node.op_type for operation in plan.operations if isinstance(operation, Host)]


NONZERO = "g ({type}[{dims}] x) => (int64[R,M] y) {{ y = NonZero(x) }}"


@pytest.mark.parametrize(("name", "dtype"), [("bool", np.bool_), ("float", np.float32), ("int64", np.int64)])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 1)])
def test_nonzero(name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    pair = programs(NONZERO.format(type=name, dims=",".join("ABC"[: len(shape)])))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, shape).astype(dtype)
    for _ in range(3):
        check(pair, x=x)
    assert hosts(pair) == []
    check(pair, x=np.ascontiguousarray(x[::-1]))  # as many, elsewhere
    for _ in range(4):
        check(pair, x=rng.integers(0, 2, shape).astype(dtype))
    if dtype == np.float32:
        check(pair, x=np.where(x == 0, -0.0, np.nan).astype(dtype))


RANGE = "g ({0} start, {0} limit, {0} delta) => ({0}[N] y) {{ y = Range(start, limit, delta) }}"


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_range(dtype: Any) -> None:
    pair = programs(RANGE.format(np.dtype(dtype).name))

    def run(*numbers: int) -> None:
        check(pair, **{n: np.array(v, dtype) for n, v in zip(("start", "limit", "delta"), numbers, strict=True)})

    for numbers in ((0, 5, 1), (0, 5, 1), (2, 7, 1), (7, 2, -1), (-9, 4, 3), (9, 0, -2), (0, 15, 3)):
        run(*numbers)
    assert hosts(pair) == []
    run(0, 16, 3)  # one more: the plan is gone, and the next one takes nothing for likely
    assert pair[0].plans == []
    for numbers in ((0, 5, 1), (0, 4, 1), (5, 5, 1), (5, 0, 1)):
        run(*numbers)
    with pytest.raises(Exception, match="delta of Range must not be 0"):
        run(0, 5, 0)


def test_numbers_that_say_a_shape() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 20)).astype(np.float32)
    top = programs("g (float[3,20] x, int64[1] k) => (float[A,B] y, int64[A,B] i) { y, i = TopK<axis=-1>(x, k) }")
    hot = programs(
        "g (int64[N] i, int64 k, float[2] v) => (float[A,B] y) { y = OneHot<axis=0>(i, k, v) }",
    )
    made = programs("g (int64[R] s) => (int64[A,B] y) { y = ConstantOfShape<value=int64[1] {7}>(s) }")
    wide = programs("g (float[3,1] x, int64[R] s) => (float[A,B,C] y) { y = Expand(x, s) }")
    i, v = np.array([0, 3, -1, 9]), np.array([1, 2], np.float32)
    for n in (4, 4, 4, 6, 6, 6, 5):
        for _ in range(2):
            check(top, x=x, k=np.array([n]))
            check(hot, i=i, k=np.array(n), v=v)
            check(made, s=np.array([n, 3]))
            check(wide, x=x[:, :1], s=np.array([2, 3, n]))
        if n == 4:
            assert [hosts(pair) for pair in (top, hot, made, wide)] == [[], [], [], []]
    with pytest.raises(KernelError):
        top[0].run({"x": x, "k": np.array([21])})
    with pytest.raises(KernelError):
        made[0].run({"s": np.array([-1, 3])})


@pytest.mark.parametrize("n", [6, 4, 30])
def test_compress(n: int) -> None:
    rows = programs("g (float[5,6] x, bool[N] c) => (float[A,B] y) { y = Compress<axis=-1>(x, c) }")
    flat = programs("g (float[5,6] x, bool[N] c) => (float[A] y) { y = Compress(x, c) }")
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    for places in ([0, 3], [1, 2], [2, 3], [0, 3], [], [0, 1, 2]):
        for pair in (rows, flat) if n <= 6 else (flat,):
            for _ in range(2):
                condition = np.zeros(n, np.bool_)
                condition[places] = True
                check(pair, x=x, c=condition)
            assert hosts(pair) == [] if len(places) == 2 else True


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8"])
def test_integers_divided_by_those_of_the_run(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for op in ("Div", "Mod"):
        pair = programs(f"g ({dtype}[4,9] a, {dtype}[9] b) => ({dtype}[4,9] y) {{ y = {op}(a, b) }}")
        for _ in range(3):
            a, b = rng.integers(1, 99, (4, 9)).astype(dtype), rng.integers(1, 9, 9).astype(dtype)
            check(pair, a=a, b=b)
            assert hosts(pair) == []
        b[3] = 0
        with pytest.raises(Exception, match=r"zero|0"):
            pair[0].run({"a": a, "b": b})
        check(pair, a=a, b=np.ones(9, dtype))


def test_ones_of_a_shape_that_something_is_expanded_to() -> None:
    pair = programs("g (float[3,1] x, int64[R] s) => (float[A,B] y) { y = Expand(x, s) }")
    x = np.arange(3, dtype=np.float32)[:, None]
    for first in (3, 3, 1, 3, 1):
        check(pair, x=x, s=np.array([first, 5]))
        check(pair, x=x, s=np.array([5]))
    assert hosts(pair) == []
    with pytest.raises(KernelError):
        pair[0].run({"x": x, "s": np.array([2, 5])})


def test_range_of_none_and_of_large_numbers() -> None:
    pair = programs(RANGE.format("int64"))
    for start, limit in ((3, 3), (3, 3), (4, 1), (0, 1), (1 << 60, (1 << 60) + 2), (-(1 << 62), 2 - (1 << 62))):
        check(pair, start=np.array(start), limit=np.array(limit), delta=np.array(1))


def test_tile() -> None:
    pair = programs("g (float[A,B] x, int64[2] n) => (float[C,D] y) { y = Tile(x, n) }")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for n in ((2, 3), (2, 3), (2, 3)):
        check(pair, x=x, n=np.array(n))
    assert hosts(pair) == []
    for n in ((3, 2), (1, 1), (0, 2), (2, 3)):
        check(pair, x=x, n=np.array(n))
    with pytest.raises(Exception, match="must not be negative"):
        pair[0].run({"x": x, "n": np.array([-1, 1])})


def test_code_for_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = of_features("aarch64-unknown-linux-gnu", "generic", {"neon": True})
    keys = [Key("counting", ("int16",)), Key("nonzero", ("bool", 3)), Key("nonzero", ("float64", 1))]
    assert compile_text(module_text([*keys, Key("expect_same", ()), Key("cache", ("i16",))], arm), arm)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert compile_text(link([*drive.functions(), *entering.functions()], arm), arm)


def test_what_is_wrong_with_feeds_changes_nothing() -> None:
    pair = programs("""g (float[A] x, int64[B] i) => (float[C] y) {
        p = NonZero(x)
        q = Gather(x, i)
        s = Concat<axis=0>(q, x)
        flat = Squeeze(p)
        y = Gather(s, flat)
    }""")
    x, i = np.array([0, 1, 2, 0, 3], np.float32), np.array([1, 0])
    for _ in range(3):
        check(pair, x=x, i=i)
    assert hosts(pair) == []
    with pytest.raises(Exception, match="out of data bounds"):
        pair[0].run({"x": x, "i": np.array([1, 9])})
    check(pair, x=x, i=i)
    assert hosts(pair) == []
    check(pair, x=x + 1, i=i)
    check(pair, x=x, i=i)
