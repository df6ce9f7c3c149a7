"""If, Loop and Scan within a plan, against the plain program."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.engine import load_model
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from distort.kernels.program import Program

Feeds = dict[str, np.ndarray[Any, Any]]


def compiled(text: str, n_threads: int = 1) -> tuple[CompiledProgram, Program]:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    graph = load_model(model.SerializeToString()).graph
    return CompiledProgram(graph, n_threads=n_threads), Program(graph)


def check(programs: tuple[CompiledProgram, Program], feeds: Feeds) -> None:
    for _ in range(2):
        for ours, plain in zip(*(program.run(feeds) for program in programs), strict=True):
            assert ours.dtype == plain.dtype
            np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def hosts(program: CompiledProgram, feeds: Feeds) -> list[str]:
    plan = program.prepare([(feeds[name].dtype, feeds[name].shape) for name in program.inputs])
    return [o.node.op_type for o in plan.operations if isinstance(o, Host)]


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_a_branch_that_refuses_its_inputs() -> None:
    """The plan has the other one. A run that takes it all the same is made by plain kernels, later ones by bodies."""
    text = """g (bool c, float[N] x) => (float[M] z) {
        y = If(c) <
            then_branch = then () => (float[M] a) { a = Add(x, x) },
            else_branch = other () => (float[M] a) { shape = Constant<value = int64[1] {4}>()  a = Reshape(x, shape) }
        >
        z = Neg(y)
    }"""
    program, plain = compiled(text)
    taken, good = numbers(6), numbers(4)
    check((program, plain), {"c": np.array(True), "x": taken})
    assert not hosts(program, {"c": np.array(True), "x": taken})
    for _ in range(3):
        with pytest.raises(KernelError, match="reshape"):
            program.run({"c": np.array(False), "x": taken})
    check((program, plain), {"c": np.array(True), "x": taken})
    assert hosts(program, {"c": np.array(True), "x": taken}) == ["If"]
    check((program, plain), {"c": np.array(False), "x": good})


IF = """g (bool c, float[N] x) => (float[N] y, float[N] z) {
    w = Mul(x, x)
    y, z = If(c) <
        then_branch = then () => (float[N] a, float[N] b) { a = Add(w, x)  t = Tanh(x)  b = Mul(t, w) },
        else_branch = other () => (float[N] a, float[N] b) { a = Identity(x)  t = Neg(w)  b = Relu(t) }
    >
}"""


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("size", [5, 50_000])
def test_if(n_threads: int, size: int) -> None:
    programs = compiled(IF, n_threads)
    for condition in (True, False, True):
        feeds = {"c": np.array(condition), "x": numbers(size)}
        check(programs, feeds)
    assert not hosts(programs[0], feeds)


def test_if_within_if() -> None:
    text = """g (bool c, bool d, float[N] x) => (float[N] y) {
        t = If(c) <
            then_branch = then () => (float[N] a) {
                a = If(d) <then_branch = one () => (float[N] p) { p = Exp(x) },
                           else_branch = two () => (float[N] p) { p = Neg(x) }>
            },
            else_branch = other () => (float[N] a) { a = Mul(x, x) }
        >
        y = Add(t, x)
    }"""
    programs = compiled(text)
    for c in (True, False):
        for d in (True, False):
            feeds = {"c": np.array(c), "d": np.array(d), "x": numbers(7)}
            check(programs, feeds)
    assert not hosts(programs[0], feeds)


def test_a_condition_that_shapes_decide_is_no_branch() -> None:
    text = """g (float[N, M] x) => (float[K] y) {
        n = Shape<start = 0, end = 1>(x)
        one = Constant<value = int64[1] {1}>()
        c = Equal(n, one)
        y = If(c) <
            then_branch = then () => (float[K] a) { axes = Constant<value = int64[1] {0}>()  a = Squeeze(x, axes) },
            else_branch = other () => (float[K] a) {
                axes = Constant<value = int64[1] {1}>()
                a = ReduceSum<keepdims = 0>(x, axes)
            }
        >
    }"""
    programs = compiled(text)
    for shape in ((1, 4), (3, 4)):
        check(programs, {"x": numbers(*shape)})


def test_a_branch_known_to_be_taken_may_hold_plain_nodes() -> None:
    """Of an operator with results of unknown shapes: first by name, then with the shapes that were seen."""
    text = """g (float[N, M] x) => (int64[2, K] y, int64[2, K] z) {
        n = Shape<start = 0, end = 1>(x)
        one = Constant<value = int64[1] {1}>()
        c = Greater(n, one)
        y = If(c) <
            then_branch = then () => (int64[2, K] a) { t = Relu(x)  a = NonZero(t) },
            else_branch = other () => (int64[2, K] a) { a = NonZero(x) }
        >
        z = Neg(y)
    }"""
    program, plain = compiled(text)
    for shape in ((2, 3), (2, 3), (1, 3), (1, 3)):
        check((program, plain), {"x": numbers(*shape)})
    check((program, plain), {"x": numbers(2, 3) * 0})  # another number of results than was learned


def test_weights_around_a_body_are_its_own() -> None:
    text = """g (bool c, float[N, 2] x) => (float[M, 2] y) <float[2, 2] w = {1, 2, 3, 4}> {
        y = If(c) <
            then_branch = then () => (float[M, 2] a) { t = MatMul(x, w)  a = Concat<axis = 0>(t, t) },
            else_branch = other () => (float[M, 2] a) { a = MatMul(x, w) }
        >
    }"""
    programs = compiled(text)
    for condition in (True, False) * 4:
        check(programs, {"c": np.array(condition), "x": numbers(3, 2)})


def test_branches_of_different_shapes_are_run_by_bodies() -> None:
    text = """g (bool c, float[N] x) => (float[M] y) {
        y = If(c) <
            then_branch = then () => (float[M] a) { a = Concat<axis = 0>(x, x) },
            else_branch = other () => (float[M] a) { a = Neg(x) }
        >
    }"""
    programs = compiled(text)
    for condition in (True, False, True, True, True):
        feeds = {"c": np.array(condition), "x": numbers(6)}
        check(programs, feeds)
    assert hosts(programs[0], feeds) == ["If"]


FIBONACCI = """g (int64 n, bool go, float[N] a, float[N] b) => (float[N] y, float[N] z, float[R, N] all) {
    y, z, all = Loop(n, go, a, b) <
        body = round (int64 i, bool c, float[N] p, float[N] q) => (bool d, float[N] r, float[N] s, float[N] t) {
            d = Identity(c)
            r = Identity(q)
            s = Add(p, q)
            f = Cast<to = 1>(i)
            t = Mul(s, f)
        }
    >
}"""


def test_states_change_places() -> None:
    text = FIBONACCI.replace("int64 n, bool go, ", "").replace(
        "=> (float[N] y, float[N] z, float[R, N] all) {",
        """=> (float[N] y, float[N] z, float[R, N] all) {
        n = Constant<value = int64 {6}>()
        go = Constant<value = bool {1}>()""",
    )
    programs = compiled(text)
    feeds = {"a": numbers(5), "b": numbers(5) + 1}
    check(programs, feeds)
    assert not hosts(programs[0], feeds)


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_rounds_that_a_feed_counts(rounds: int) -> None:
    """What is stacked has no shape before the run: bodies are run."""
    check(compiled(FIBONACCI), {"n": np.array(rounds), "go": np.array(True), "a": numbers(3), "b": numbers(3)})


WHILE = """g (float[N] x, float limit) => (float[N] y, int64 n) {
    zero = Constant<value = int64 {0}>()
    none = Constant<value = bool {1}>()
    y, n = Loop("", none, x, zero) <
        body = round (int64 i, bool c, float[N] p, int64 m) => (bool d, float[N] q, int64 k) {
            one = Constant<value = int64 {1}>()
            two = Constant<value = float {2.0}>()
            q = Mul(p, two)
            k = Add(m, one)
            top = ReduceMax<keepdims = 0>(q)
            d = Less(top, limit)
        }
    >
}"""


@pytest.mark.parametrize("n_threads", [1, 2])
def test_while(n_threads: int) -> None:
    programs = compiled(WHILE, n_threads)
    for limit in (0.1, 5.0, 1000.0):
        check(programs, {"x": numbers(9), "limit": np.array(limit, np.float32)})


def test_fewer_rounds_than_were_thought_of() -> None:
    text = """g (float[N] x, float limit) => (float[N] y, float[R, N] all) {
        n = Constant<value = int64 {10}>()
        go = Constant<value = bool {1}>()
        y, all = Loop(n, go, x) <
            body = round (int64 i, bool c, float[N] p) => (bool d, float[N] q, float[N] t) {
                two = Constant<value = float {2.0}>()
                q = Mul(p, two)
                t = Neg(q)
                zero = Constant<value = int64 {0}>()
                first = Gather(q, zero)
                size = Abs(first)
                d = Less(size, limit)
            }
        >
    }"""
    programs = compiled(text)
    for limit in (1e9, 3.0, 1e9):
        check(programs, {"x": numbers(4), "limit": np.array(limit, np.float32)})


def test_a_state_that_no_round_changes_stays_known() -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}> {
        n = Constant<value = int64 {3}>()
        go = Constant<value = bool {1}>()
        y, rest = Loop(n, go, x, w) <
            body = round (int64 i, bool c, float[N, 4] p, float[4, 4] v) => (bool d, float[N, 4] q, float[4, 4] u) {
                d = Identity(c)
                u = Identity(v)
                m = MatMul(p, v)
                q = Tanh(m)
            }
        >
    }"""
    programs = compiled(text)
    feeds = {"x": numbers(2, 4)}
    check(programs, feeds)
    assert not hosts(programs[0], feeds)


SCAN = """g (float[N] s, float[T, N] x, float[N, T] w) => (float[N] y, float[N, T] all, float[T, N] back) {
    y, all, back = Scan <
        num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
        scan_output_axes = [1, 0], scan_output_directions = [0, 1],
        body = round (float[N] p, float[N] a, float[N] b) => (float[N] q, float[N] t, float[N] u) {
            m = Mul(p, a)
            q = Add(m, b)
            t = Neg(q)
            u = Mul(q, b)
        }
    > (s, x, w)
}"""


@pytest.mark.parametrize("n_threads", [1, 2])
def test_scan(n_threads: int) -> None:
    programs = compiled(SCAN, n_threads)
    feeds = {"s": numbers(6), "x": numbers(5, 6), "w": numbers(6, 5)}
    check(programs, feeds)
    assert not hosts(programs[0], feeds)


def test_loop_within_a_branch_within_a_loop() -> None:
    text = """g (float[N] x) => (float[N] y) {
        n = Constant<value = int64 {4}>()
        go = Constant<value = bool {1}>()
        y = Loop(n, go, x) <
            body = outer (int64 i, bool c, float[N] p) => (bool d, float[N] q) {
                d = Identity(c)
                two = Constant<value = int64 {2}>()
                early = Less(i, two)
                q = If(early) <
                    then_branch = then () => (float[N] a) {
                        m = Constant<value = int64 {3}>()
                        a = Loop(m, "", p) <
                            body = inner (int64 j, bool e, float[N] r) => (bool h, float[N] s) {
                                h = Identity(e)
                                s = Add(r, x)
                            }
                        >
                    },
                    else_branch = other () => (float[N] a) { a = Neg(p) }
                >
            }
        >
    }"""
    programs = compiled(text)
    feeds = {"x": numbers(4)}
    check(programs, feeds)
    assert not hosts(programs[0], feeds)


def test_shapes_that_grow_are_run_by_bodies() -> None:
    text = """g (int64 n, float[N] x) => (float[M] y) {
        go = Constant<value = bool {1}>()
        y = Loop(n, go, x) <
            body = round (int64 i, bool c, float[P] p) => (bool d, float[Q] q) {
                d = Identity(c)
                q = Concat<axis = 0>(p, x)
            }
        >
    }"""
    programs = compiled(text)
    for rounds in (1, 4, 2, 4, 4):
        check(programs, {"n": np.array(rounds), "x": numbers(3)})


def test_rounds_as_many_as_in_an_earlier_run() -> None:
    text = """g (int64 n, bool go, float[N] x) => (float[N] last, float[R, N] all) {
        last, all = Loop(n, go, x) <body = b (int64 i, bool c, float[N] s) => (bool d, float[N] t, float[N] u) {
            d = Identity(c)
            t = Add(s, x)
            u = Mul(t, t)
        }>
    }"""
    for others in ((7,), (2,), (0,), (50, 3)):
        programs = compiled(text)
        feeds = {"n": np.array(5), "go": np.array(True), "x": numbers(40)}
        check(programs, feeds)
        assert not hosts(programs[0], feeds)
        check(programs, feeds)
        for n in others:  # more of them must not be written where there is no room
            check(programs, feeds | {"n": np.array(n)})
        check(programs, feeds)
