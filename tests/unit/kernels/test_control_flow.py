"""If, Loop and Scan: absent inputs, zero rounds, captured values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from distort.graph.reader import read_model
from distort.kernels.program import Program


def run(text: str, **feeds: Any) -> list[np.ndarray]:
    model = read_model(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text}'))
    return Program(model.graph).run({name: np.asarray(value) for name, value in feeds.items()})


COUNTING = """
g (int64 trips, bool going, float[2] start) => (float[2] last, float[T,2] all) {{
    last, all = Loop ({inputs}, start) <body = step (int64 i, bool c, float[2] state)
        => (bool still, float[2] next, float[2] seen) {{
        next = Add (state, start)
        seen = Identity (next)
        top = Constant <value_float = 6.0> ()
        most = ReduceMax <keepdims = 0> (next)
        still = Less (most, top)
    }}>
}}
"""


@pytest.mark.parametrize(
    ("inputs", "trips", "going", "rounds"),
    [
        ("trips, going", 2, True, 2),
        ("trips, going", 0, True, 0),
        ("trips, going", 9, False, 0),
        ("trips, going", 9, True, 2),
        ('trips, ""', 2, False, 2),
        ('"", going', 0, True, 2),
        ('"", ""', 0, False, 2),
    ],
)
def test_loop(inputs: str, trips: int, going: bool, rounds: int) -> None:
    start = np.array([1, 2], np.float32)
    last, every = run(COUNTING.format(inputs=inputs), trips=trips, going=going, start=start)
    np.testing.assert_array_equal(last, start * (rounds + 1))
    assert every.shape == (rounds, 2) and every.dtype == np.float32
    np.testing.assert_array_equal(every, [start * (i + 2) for i in range(rounds)] or np.zeros((0, 2)))


def test_if_runs_one_branch_with_what_it_captures() -> None:
    text = """
    g (bool which, float[2] x) => (float[2] y) {
        y = If (which) <then_branch = a () => (float[2] p) { p = Neg (x) },
            else_branch = b () => (float[2] q) { inner = Add (x, x) q = Abs (inner) }>
    }
    """
    x = np.array([1, -2], np.float32)
    np.testing.assert_array_equal(run(text, which=True, x=x)[0], -x)
    np.testing.assert_array_equal(run(text, which=False, x=x)[0], [2, 4])


def test_scan_backwards_along_another_axis() -> None:
    text = """
    g (float[1] start, float[1,3] x) => (float[1] last, float[1,3] sums) {
        last, sums = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
            scan_output_axes = [1], scan_output_directions = [1],
            body = step (float[1] total, float[1] item) => (float[1] next, float[1] out) {
                next = Add (total, item)
                out = Identity (next)
            }> (start, x)
    }
    """
    last, sums = run(text, start=np.zeros(1, np.float32), x=np.array([[1, 2, 3]], np.float32))
    assert last.tolist() == [6] and sums.tolist() == [[6, 5, 3]]
