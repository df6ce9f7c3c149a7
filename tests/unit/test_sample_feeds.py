"""Feeds made up from what a model declares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

import distort
from distort.graph.ir import Graph
from distort.graph.reader import read_model
from distort.graph.types import DTYPE_OF, TensorType
from distort.sample_feeds import GUESSES, Guess, NoSample, check_dims, sample

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
ONES = Guess(1, 1)


def made(text: str, **dims: int) -> dict[str, Any]:
    """Feeds that the model ran on."""
    session = distort.InferenceSession(onnx.parser.parse_model(HEADER + text).SerializeToString())
    graph = session._sess._loaded.engine.model.graph
    check_dims(graph, dims)
    feeds = sample(graph, dims, ONES)
    session.run(None, feeds)
    return feeds


def graph_of(inputs: str) -> Graph:
    """A graph whose inputs have types as in ONNX's text; P is there for ``past + N``, which that text can't say."""
    text = f"{HEADER} g ({inputs}) => (int64 y) {{ y = Constant <value_int = 1> () }}"
    graph = read_model(onnx.parser.parse_model(text)).graph
    sums = {"P": "past + N", "Q": "past + 1", "R": "past + unknown"}
    for name in graph.inputs:
        known = graph.types[name]
        assert isinstance(known, TensorType) and known.shape is not None
        graph.types[name] = replace(known, shape=tuple(sums.get(str(dim), dim) for dim in known.shape))
    return graph


def shapes(inputs: str, guess: Guess, **dims: int) -> dict[str, tuple[int, ...]]:
    return {name: feed.shape for name, feed in sample(graph_of(inputs), dims, guess).items()}


@pytest.mark.parametrize(
    ("dim", "expected"), [("4", 4), ("N", 7), ("P", 9), ("Q", 3), ("unknown", 1), ("?", 1), ("R", 3)]
)
def test_sizes_of_dimensions(dim: str, expected: int) -> None:
    assert shapes(f"float[{dim}] x", ONES, N=7, past=2) == {"x": (expected,)}


def test_sizes_that_nobody_declared_are_guessed() -> None:
    inputs = "int64[batch, seq] ids, float[batch, 2, past, 8] past_key, string[seq] words"
    assert shapes(inputs, GUESSES[0]) == {"ids": (1, 64), "past_key": (1, 2, 0, 8), "words": (64,)}
    assert shapes(inputs, GUESSES[0], seq=7, past=2) == {"ids": (1, 7), "past_key": (1, 2, 2, 8), "words": (7,)}
    assert shapes(inputs, Guess(256, 1, last_only=True))["words"] == (256,)


def test_a_sum_has_the_sizes_of_its_parts() -> None:
    inputs = "int64[batch, P] mask, int64[batch, N] ids, float[batch, 2, past, 8] past_key"
    assert shapes(inputs, GUESSES[0]) == {"mask": (1, 64), "ids": (1, 64), "past_key": (1, 2, 0, 8)}
    assert shapes(inputs, GUESSES[0], past=5) == {"mask": (1, 69), "ids": (1, 64), "past_key": (1, 2, 5, 8)}
    assert shapes(inputs, GUESSES[0], **{"past + N": 3})["mask"] == (1, 3)


def test_feeds_that_would_be_too_large_are_not_made() -> None:
    with pytest.raises(NoSample, match="too much"):
        shapes("float[N] x", ONES, N=2**40)


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
        """g (float16[2] a, bfloat16[2] b, uint8[2] c, bool[2] d, string[2] e, double[2] f)
        => (float16[2] v, bfloat16[2] w, uint8[2] x, bool[2] y, string[2] z, double[2] u) {
        v = Identity (a) w = Identity (b) x = Identity (c) y = Identity (d) z = Identity (e) u = Identity (f)
    }"""
    )
    assert [feeds[name].dtype for name in "abcdef"] == [
        *(np.float16, ml_dtypes.bfloat16, np.uint8, np.bool_, np.dtype(object), np.float64)
    ]
    assert feeds["e"].tolist() == ["text", "text"]
    assert all(0 <= value < 128 for value in feeds["c"]) and feeds["d"].all()


@pytest.mark.parametrize("element", DTYPE_OF)
def test_every_element_type_is_known(element: int) -> None:
    graph = Graph("g", ["x"], types={"x": TensorType(element, (3,))})
    assert sample(graph, {}, ONES)["x"].dtype == DTYPE_OF[element]


def test_the_same_feeds_each_time() -> None:
    graph = "g (float[N,N] x) => (float[N,N] y) { y = Neg (x) }"
    np.testing.assert_array_equal(made(graph, N=3)["x"], made(graph, N=3)["x"])


def test_what_no_feed_can_be_made_for_is_said() -> None:
    with pytest.raises(NoSample, match=r"'s' is seq\(tensor\(float\)\)"):
        made("g (seq(float[N]) s) => (int64 n) { n = SequenceLength (s) }")
    with pytest.raises(NoSample, match=r"'x' is tensor\(double\) of unknown rank"):
        made("g (double[] x) => (double[] y) { y = Neg (x) }")
    with pytest.raises(NoSample, match="They have: N, past"):
        made("g (float[N, past] x) => (float[N, past] y) { y = Neg (x) }", M=1)


def test_dimensions_without_a_name_have_a_place() -> None:
    graph = "g (float[N,?] x, float[N,2] w) => (float[N,?] y) { y = Neg (x) }"
    feeds = made(graph, N=2, **{"x:1": 5})
    assert feeds["x"].shape == (2, 5)
    with pytest.raises(NoSample, match=r"They have: N, x:1$"):
        made(graph, **{"x:2": 5})
