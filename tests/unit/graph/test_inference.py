"""Types and shapes of values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from distort.graph import inference
from distort.graph.inference import infer
from distort.graph.ir import Model
from distort.graph.types import TensorType

Read = Callable[[str], Model]


def test_sizes_and_symbols(read: Read) -> None:
    model = read("g (float[N, 3] x, float[3, 5] w) => (float[N, 5] y) { p = MatMul(x, w) y = Relu(p) }")
    assert infer(model) == []
    assert model.graph.types["p"] == TensorType(1, ("N", 5))
    assert model.graph.types["y"] == TensorType(1, ("N", 5))


def test_sizes_given_to_symbols(read: Read) -> None:
    model = read("g (float[N, 3] x, float[3, 5] w) => (float[N, 5] y) { p = MatMul(x, w) y = Relu(p) }")
    infer(model, {"N": 7})
    assert model.graph.types["p"] == TensorType(1, (7, 5))
    assert model.graph.types["x"] == TensorType(1, (7, 3))


def test_small_constants_steer_shapes(read: Read) -> None:
    model = read("g (float[2, 6] x) => (float[a, b] y) <int64[2] shape = {3, 4}> { r = Reshape(x, shape) y = Relu(r) }")
    infer(model)
    assert model.graph.types["r"] == TensorType(1, (3, 4))


def test_shapes_follow_through_shape_arithmetic(read: Read) -> None:
    model = read(
        """g (float[2, 6] x, float[12] z) => (float[a, b] y) <int64[1] one = {1}, int64[1] zero = {0}> {
            s = Shape(x) n = Gather(s, zero) t = Concat<axis = 0>(n, s_last) y = Reshape(z, t)
            s_last = Gather(s, one)
        }"""
    )
    # the reader keeps the listed order; inference wants the topological one
    model.graph.nodes.insert(2, model.graph.nodes.pop())
    infer(model)
    assert model.graph.types["y"] == TensorType(1, (2, 6))


@pytest.mark.parametrize("size", [4, 4096])
def test_weights_have_types_whatever_their_size(read: Read, size: int) -> None:
    model = read(f"g (float[2, {size}] x) => (float[a, b] y) {{ y = Mul(x, w) }}")
    model.graph.initializers["w"] = np.ones(size, np.float32)
    infer(model)
    assert model.graph.types["w"] == TensorType(1, (size,))
    assert model.graph.types["y"] == TensorType(1, (2, size))


def test_large_weights_are_not_copied_into_protos(read: Read) -> None:
    model = read(
        """g (float[2] x, bool c) => (float[n, o] y) {
            y = If(c)<then_branch = t () => (float[m, o1] p) <float[2] k = {1, 2}> { p = Add(x, k) },
                      else_branch = e () => (float[m2, o2] q) { q = Mul(x, w) }>
        }"""
    )
    model.graph.initializers["w"] = np.ones((1000, 2), np.float32)
    body = model.graph.nodes[0].attributes["then_branch"]
    body.initializers["k"] = np.ones((1000, 2), np.float32)
    assert len(inference._skeleton(model).SerializeToString()) < 2000
    infer(model)
    assert model.graph.types["y"] == TensorType(1, (1000, 2))


def test_a_stale_declaration_does_not_hide_what_follows(read: Read) -> None:
    model = read("g (float[2, 3] x) => (float[2, 3] y) <float[5, 5] p> { p = Neg(x) y = Relu(p) }")
    infer(model)
    assert model.graph.types["p"] == TensorType(1, (2, 3))


def test_declarations_stand_in_for_operators_without_a_schema(read: Read) -> None:
    model = read(
        '<ir_version: 9, opset_import: ["" : 17, "my.dom" : 1]>'
        "g (float[2, 3] x) => (float[a, b] y) <float[4, 5] p> { p = my.dom.Foo(x) y = Relu(p) }"
    )
    infer(model)
    assert model.graph.types["y"] == TensorType(1, (4, 5))


def test_a_default_of_an_input_does_not_steer(read: Read) -> None:
    model = read(
        "g (float[12] x, int64[2] shape) => (float[a, b] y) <int64[2] shape = {3, 4}>"
        "{ r = Reshape(x, shape) y = Relu(r) }"
    )
    infer(model)
    known = model.graph.types["r"]
    assert isinstance(known, TensorType)
    assert known.shape is not None
    assert not any(isinstance(dim, int) for dim in known.shape)


def test_failure_leaves_a_note(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    model = read("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }")
    monkeypatch.setattr(
        inference, "_skeleton", lambda model: type("Broken", (), {"SerializeToString": lambda s: b"x"})()
    )
    before = dict(model.graph.types)
    notes = infer(model)
    assert len(notes) == 1
    assert notes[0].startswith("shapes were not inferred: ")
    assert model.graph.types == before
