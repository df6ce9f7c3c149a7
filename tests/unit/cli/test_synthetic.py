"""Feeds made of what a model declares."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

import distort
from distort.cli.errors import UsageError
from distort.cli.synthetic import make_feeds, size

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def made(graph: str, **dims: int) -> dict[str, Any]:
    session = distort.InferenceSession(onnx.parser.parse_model(HEADER + graph).SerializeToString())
    feeds = make_feeds(session.get_inputs(), session._sess._loaded.engine.model.graph, dims)
    session.run(None, feeds)
    return feeds


@pytest.mark.parametrize(
    ("dim", "expected"),
    [(4, 4), ("N", 7), ("past + N", 9), ("past + 1", 3), ("unknown", 1), (None, 1), ("past + unknown", 3), ("2*N", 1)],
)
def test_sizes_of_dimensions(dim: int | str | None, expected: int) -> None:
    assert size(dim, {"N": 7, "past": 2}) == expected


def test_indices_lie_within_the_table_that_they_are_for() -> None:
    feeds = made(
        """g (int32[N] ids, int64[N] other) => (float[N,2] y) <float[3,2] table = {1, 2, 3, 4, 5, 6}> {
        wide = Cast <to = 7> (ids)
        rows = Gather (table, wide)
        more = Cast <to = 1> (other)
        axis = Constant <value = int64[1] {1}> ()
        column = Unsqueeze (more, axis)
        y = Add (rows, column)
    }""",
        N=64,
    )
    assert feeds["ids"].dtype == np.int32 and set(feeds["ids"]) == {0, 1, 2}
    assert set(feeds["other"]) == {1}


def test_each_element_type_has_values() -> None:
    feeds = made(
        """g (float16[2] a, bfloat16[2] b, uint8[2] c, bool[2] d, string[2] e, double[] f)
        => (float16[2] v, bfloat16[2] w, uint8[2] x, bool[2] y, string[2] z, double[] u) {
        v = Identity (a) w = Identity (b) x = Identity (c) y = Identity (d) z = Identity (e) u = Identity (f)
    }"""
    )
    assert [feeds[name].dtype for name in "abcdef"] == [
        *(np.float16, ml_dtypes.bfloat16, np.uint8, np.bool_, np.dtype(object), np.float64)
    ]
    assert feeds["f"].shape == () and feeds["e"].tolist() == ["a", "a"]


def test_the_same_feeds_each_time() -> None:
    graph = "g (float[N,N] x) => (float[N,N] y) { y = Neg (x) }"
    np.testing.assert_array_equal(made(graph, N=3)["x"], made(graph, N=3)["x"])


def test_what_no_feed_can_be_made_for_is_said() -> None:
    with pytest.raises(UsageError, match=r"'s', a seq\(tensor\(float\)\)"):
        made("g (seq(float[N]) s) => (int64 n) { n = SequenceLength (s) }")
    with pytest.raises(UsageError, match="They have: N, past"):
        made("g (float[N, past] x) => (float[N, past] y) { y = Neg (x) }", M=1)


def test_dimensions_without_a_name_have_a_place() -> None:
    graph = "g (float[N,?] x, float[N,2] w) => (float[N,?] y) { y = Neg (x) }"
    feeds = made(graph, N=2, **{"x:1": 5})
    assert feeds["x"].shape == (2, 5)
    with pytest.raises(UsageError, match=r"They have: N, x:1$"):
        made(graph, **{"x:2": 5})
