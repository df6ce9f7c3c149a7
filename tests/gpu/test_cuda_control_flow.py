"""Bodies that become part of a plan, and what those that don't copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

import distort

from .standing_in import crossed, floats, program_of, session_of

SUM = """g (float[3] x) => (float[3] y, float[K, 3] all) <int64 n = {4}, bool yes = {1}> {
    y, all = Loop(n, yes, x) <body = b (int64 i, bool go, float[3] s) => (bool more, float[3] t, float[3] kept) {
        more = Identity(go) number = Cast <to = 1> (i) sum = Add(s, number) t = Mul(sum, x) kept = Identity(t) } > }"""
COUNTING = """g (float[3] x) => (float[3] y, int64 count, float[K, 1] firsts) <int64 zero = {0}, int64 five = {5}> {
    y, count, firsts = Loop(, , x, zero) <body = b (int64 i, bool go, float[3] s, int64 k)
        => (bool more, float[3] t, int64 next, float[1] first)
        <int64 one = {1}, int64[1] begin = {0}, int64[1] end = {1}> {
        next = Add(k, one) more = Less(next, five) t = Neg(s) first = Slice(t, begin, end) } > }"""
SCANNED = """g (float[2] h, float[3, 4, 2] x) => (float[2] last, float[2, 4] states, float[3, 2] others) {
    last, states, others = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
        scan_output_axes = [1, 1], scan_output_directions = [0, 1],
        body = b (float[2] s, float[3, 2] item) => (float[2] t, float[2] kept, float[3] sums)
        <int64[1] first = {0}, int64[1] second = {1}> {
        mean = ReduceMean <keepdims = 0> (item, first) t = Add(s, mean) kept = Identity(t)
        sums = ReduceSum <keepdims = 0> (item, second) }> (h, x) }"""
UNTIL = """g (float[2, 2] x, float bound) => (float[2, 2] y)
    <float[2, 2] w = {0.5, 1.0, 2.0, 0.25}, int64 most = {9}, bool yes = {1}> {
    y = Loop(most, yes, x) <body = b (int64 i, bool go, float[2, 2] s) => (bool more, float[2, 2] t) {
        t = MatMul(s, w) sum = ReduceSum <keepdims = 0> (t) more = Less(sum, bound) } > }"""


def as_on_cpu(text: str, feeds: dict[str, Any]) -> Any:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    expected = distort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    session = session_of(text, use_tf32=0)
    for _ in range(4):
        for got, want in zip(session.run(None, feeds), expected, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got, want, 1e-6, 1e-6)
    return session


@pytest.mark.parametrize("text", [SUM, COUNTING])
def test_rounds_of_a_loop_are_one_graph(fake_cuda: Any, text: str) -> None:
    session = as_on_cpu(text, {"x": floats(0.5, 2, 3)})
    program = program_of(session)
    assert program.n_graph_runs == 2
    assert {transport for _, transport in crossed(session)} == {"h2d", "d2h"}
    assert {name for name, _ in crossed(session)} <= {"x", "y", "all", "count", "firsts"}


def test_kernels_of_rounds_are_the_same(fake_cuda: Any) -> None:
    """The number of a round is an argument."""
    ((_, plan),) = program_of(as_on_cpu(SUM, {"x": floats(0.5, 2, 3)})).plans
    names = [launch.kernel.name for step in plan.steps for launch in step.launches]
    assert len(names) == 5 and len(set(names[1:4])) == 1  # the first reads a feed, the last hands a value out


def test_a_scan_reads_and_writes_in_place(fake_cuda: Any) -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    session = as_on_cpu(SCANNED, {"h": floats(1, 2), "x": x})
    assert program_of(session).n_graph_runs == 2


def test_a_loop_that_data_ends_copies_its_condition_alone(fake_cuda: Any) -> None:
    x = np.array([[1, 2], [3, 4]], np.float32)
    session = as_on_cpu(UNTIL, {"x": x, "bound": np.array(40, np.float32)})
    before = crossed(session)
    session.run(None, {"x": x, "bound": np.array(40, np.float32)})
    found = {key: nbytes - before.get(key, 0) for key, nbytes in crossed(session).items()}
    inside = {key: n for key, n in found.items() if n and key[0] not in ("x", "y", "bound")}
    assert not inside


EITHER = """g (int64 rate, float[N] x) => (float[M] y)
    <int64 high = {16000}, int64[1] begin = {1}, int64[1] end = {9}> {
    is_high = Equal(rate, high)
    y = If(is_high) <then_branch = a () => (float[M] t) { t = Slice(x, begin, end) },
        else_branch = b () => (float[M] e) { e = Neg(x) } > }"""
WITH_TEXT = EITHER.replace("t = Slice(x, begin, end)", "text = Cast <to = 8> (x) t = Cast <to = 1> (text)")


def test_the_branch_that_an_earlier_run_took_is_part_of_the_plan(fake_cuda: Any) -> None:
    session, x = session_of(EITHER), floats(1, 2, 3)
    high, low = np.array(16000), np.array(8000)
    for _ in range(5):
        assert session.run(None, {"rate": high, "x": x})[0].tolist() == [2, 3]
    program = program_of(session)
    assert program.n_graph_runs and program.plans[-1][1].is_capturable
    for rate, wanted in ((low, [-1, -2, -3]), (high, [2, 3]), (low, [-1, -2, -3]), (high, [2, 3])):
        assert session.run(None, {"rate": rate, "x": x})[0].tolist() == wanted
    assert not program.plans[-1][1].is_capturable  # nothing is expected any more
    assert session.run(None, {"rate": low, "x": floats(4)})[0].tolist() == [-4]


def test_a_branch_with_nodes_on_the_host_runs_where_it_is_taken(fake_cuda: Any) -> None:
    session, x = session_of(WITH_TEXT), floats(1, 2, 3)
    for rate, sign in ((16000, 1), (16000, 1), (16000, 1), (8000, -1), (16000, 1)):
        assert session.run(None, {"rate": np.array(rate), "x": x})[0].tolist() == (sign * x).tolist()
    assert not program_of(session).plans[-1][1].is_capturable


def test_bodies_have_weights_of_the_graph_around_them_once(fake_cuda: Any) -> None:
    """What a body captures isn't copied again with each run."""
    w = ", ".join(["1.0"] * 64)
    text = UNTIL.replace("float[2, 2] w = {0.5, 1.0, 2.0, 0.25}", f"float[64] w = {{{w}}}").replace("[2, 2]", "[64]")
    text = text.replace("MatMul(s, w)", "Add(s, w)")
    x, bound = np.ones(64, np.float32), np.array(500, np.float32)
    session = as_on_cpu(text, {"x": x, "bound": bound})
    before = sum(crossed(session).values())
    session.run(None, {"x": x, "bound": bound})
    assert sum(crossed(session).values()) - before == 2 * x.nbytes + bound.nbytes
