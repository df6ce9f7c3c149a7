"""Lowering and running: slots, freeing, errors, control flow, cancellation."""

from __future__ import annotations

import pickle
import weakref
from typing import Any

import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.kernels.errors import InvalidInput, KernelError, MissingKernel, RunCancelled
from distort.kernels.program import Cancellation, Program, evaluate_node
from distort.kernels.registry import find, kernel

DOMAIN = "test.program"


@kernel("Plus", domain=DOMAIN)
def plus(xp: Any, a: Any, b: Any, *, scale: float = 1.0) -> Any:
    return (a + b) * xp.float32(scale)


@kernel("Parts", domain=DOMAIN)
def parts(xp: Any, a: Any, *, n_outputs: int, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
    return tuple(a + xp.float32(i) if wanted[i] else None for i in range(n_outputs))


@kernel("Refuse", domain=DOMAIN)
def refuse(xp: Any, a: Any) -> Any:
    raise InvalidInput(f"shape {list(a.shape)} is not welcome")


@kernel("Twice", domain=DOMAIN)
def twice(xp: Any, a: Any, *, body: Any) -> Any:
    return body(body(a)[0])[0]


@kernel("Version", (3, 7), domain=DOMAIN)
def version(xp: Any, *, opset: int) -> Any:
    return xp.asarray(opset)


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Node:
    return Node(op_type, DOMAIN, inputs, outputs, attributes, name=f"n_{op_type}", opset=9)


def test_values_flow_through_nodes_and_initializers() -> None:
    graph = Graph(
        inputs=["x"],
        outputs=["y"],
        nodes=[node("Plus", ["x", "w"], ["h"], scale=2.0), node("Plus", ["h", "x"], ["y"])],
        initializers={"w": np.float32([10, 20])},
    )
    (y,) = Program(graph).run({"x": np.float32([1, 2])})
    np.testing.assert_array_equal(y, np.float32([23, 46]))


def test_the_kernel_of_a_version_serves_until_the_next() -> None:
    assert find(DOMAIN, "Version", 2) is None
    assert [find(DOMAIN, "Version", v).since for v in (3, 6, 7, 99)] == [3, 3, 7, 7]  # type: ignore[union-attr]


def test_registering_a_version_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two kernels for test\.program:Plus"):
        kernel("Plus", domain=DOMAIN)(plus)


def test_outputs_that_nobody_wants_are_swallowed() -> None:
    graph = Graph(inputs=["x"], outputs=["c"], nodes=[node("Parts", ["x"], ["", "", "c"])])
    (c,) = Program(graph).run({"x": np.float32([1])})
    np.testing.assert_array_equal(c, np.float32([3]))


def test_a_value_is_freed_after_its_last_reader() -> None:
    alive: list[int] = []
    references: list[weakref.ref[Any]] = []

    def observe(at: Node, start_ns: int, end_ns: int, inputs: Any, outputs: Any) -> None:
        references.append(weakref.ref(outputs[0]))
        alive.append(sum(reference() is not None for reference in references))

    chain = [node("Plus", [f"v{i}", "x"], [f"v{i + 1}"]) for i in range(6)]
    graph = Graph(inputs=["v0", "x"], outputs=["v6"], nodes=chain)
    Program(graph).run({"v0": np.zeros(4, np.float32), "x": np.ones(4, np.float32)}, observe)
    assert max(alive) <= 2, alive


def test_inputs_are_not_written_and_templates_are_not_shared() -> None:
    program = Program(Graph(inputs=["x"], outputs=["y"], nodes=[node("Plus", ["x", "x"], ["y"])]))
    first = program.run({"x": np.float32([1])})[0]
    second = program.run({"x": np.float32([5])})[0]
    assert first[0] == 2 and second[0] == 10


def test_a_missing_kernel_names_operator_version_and_node() -> None:
    graph = Graph(nodes=[node("Nowhere", [], ["y"])], outputs=["y"])
    with pytest.raises(MissingKernel, match=r"implementation for Nowhere\(9\) node with name 'n_Nowhere'"):
        Program(graph)


def test_an_attribute_that_the_kernel_lacks_is_an_error_not_ignored() -> None:
    graph = Graph(inputs=["x"], nodes=[node("Plus", ["x", "x"], ["y"], bias=1)], outputs=["y"])
    with pytest.raises(MissingKernel, match="lacks attribute bias"):
        Program(graph)


def test_a_failing_kernel_names_its_node_and_keeps_its_class() -> None:
    graph = Graph(inputs=["x"], nodes=[node("Refuse", ["x"], ["y"])], outputs=["y"])
    with pytest.raises(InvalidInput, match=r"running Refuse node\. Name:'n_Refuse' Status Message: shape \[3\]"):
        Program(graph).run({"x": np.zeros(3)})


def test_numpy_errors_become_kernel_errors() -> None:
    graph = Graph(inputs=["x", "z"], nodes=[node("Plus", ["x", "z"], ["y"])], outputs=["y"])
    with pytest.raises(KernelError, match="could not be broadcast") as caught:
        Program(graph).run({"x": np.zeros(3), "z": np.zeros(4)})
    assert caught.value.op_type == "Plus"


def test_kernel_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(InvalidInput("bad", node="n", op_type="Op")))
    assert type(error) is InvalidInput and (error.text, error.node, error.op_type) == ("bad", "n", "Op")


def test_bodies_see_what_they_capture() -> None:
    body = Graph(inputs=["a"], outputs=["b"], nodes=[node("Plus", ["a", "w"], ["b"])])
    graph = Graph(inputs=["x", "w"], outputs=["y"], nodes=[node("Twice", ["x"], ["y"], body=body)])
    assert graph.nodes[0].reads() == ["x", "w"]
    (y,) = Program(graph).run({"x": np.float32([1]), "w": np.float32([10])})
    assert y[0] == 21


def test_a_cancelled_run_stops_between_nodes() -> None:
    cancellation = Cancellation()

    def observe(*_: Any) -> None:
        cancellation.requested = True

    graph = Graph(inputs=["x"], outputs=["y"], nodes=[node("Plus", ["x", "x"], ["h"]), node("Plus", ["h", "x"], ["y"])])
    with pytest.raises(RunCancelled):
        Program(graph).run({"x": np.zeros(1)}, observe, cancellation)


def test_evaluating_one_node() -> None:
    (result,) = evaluate_node(node("Plus", ["p", "q"], ["r"], scale=3.0), [np.float32([1]), np.float32([2])])
    assert result[0] == 9


def test_extract_names_what_crosses() -> None:
    graph = Graph(
        inputs=["x"],
        outputs=["y", "h"],
        nodes=[node("Plus", ["x", "w"], ["h"]), node("Plus", ["h", "w"], ["k"]), node("Plus", ["k", "h"], ["y"])],
        initializers={"w": np.float32([1])},
    )
    first, second = graph.extract([0]), graph.extract([1, 2])
    assert (first.inputs, first.outputs, list(first.initializers)) == (["x"], ["h"], ["w"])
    assert (second.inputs, second.outputs, list(second.initializers)) == (["h"], ["y"], ["w"])
