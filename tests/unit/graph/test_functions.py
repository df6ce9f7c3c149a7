"""Functions replaced by their bodies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from distort.graph.errors import ModelError
from distort.graph.functions import expand
from distort.graph.ir import Graph, Model

Read = Callable[[str], Model]
HEADER = '<ir_version: 9, opset_import: ["" : 17, "f" : 1]>\n'
IMPORTS = '<domain: "f", opset_import: ["" : 17, "f" : 1]>'


def but(*missing: str) -> Callable[[str, str, int], bool]:
    """A registry with every kernel except these operators'."""
    return lambda domain, op_type, opset: op_type not in missing


def op_types(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def assert_closed(graph: Graph, outer: frozenset[str] = frozenset()) -> None:
    """Each value is defined once and before it is read."""
    known = set(outer) | set(graph.inputs) | set(graph.initializers)
    for node in graph.nodes:
        assert all(name in known for name in node.inputs if name), node.label()
        for body in node.subgraphs():
            assert_closed(body, frozenset(known))
        for name in node.outputs:
            assert not name or name not in known, f"{name} is defined twice"
            known.add(name)
    assert all(name in known for name in graph.outputs)


def test_nothing_to_do_leaves_the_nodes_alone(read: Read) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    nodes = model.graph.nodes
    expand(model, but())
    assert model.graph.nodes is nodes


def test_local_function_twice_gets_names_of_its_own(read: Read) -> None:
    model = read(
        HEADER
        + "g (float[2] x) => (float[2] y) { a = f.twice(x)  y = f.twice(a) }"
        + IMPORTS
        + "twice (v) => (w) { t = Add(v, v)  w = Abs(t) }"
    )
    expand(model, but())
    assert op_types(model.graph) == ["Add", "Abs", "Add", "Abs"]
    assert_closed(model.graph)
    assert len({node.name for node in model.graph.nodes}) == 4
    assert not model.functions


def test_attribute_references_take_the_call_the_default_or_nothing(read: Read) -> None:
    model = read(
        HEADER
        + "g (float[2] x) => (float[2] y, float[2] z) { y = f.leak<slope = 0.5>(x)  z = f.leak(x) }"
        + IMPORTS
        + "leak<slope>(v) => (w) { w = LeakyRelu<alpha : float = @slope>(v) }"
    )
    expand(model, but())
    given, left_out = model.graph.nodes
    assert given.attributes == {"alpha": 0.5}
    assert left_out.attributes == {}


def test_attribute_default_of_the_function(read: Read) -> None:
    model = read(
        HEADER
        + "g (float[2] x) => (float[2] y) { y = f.leak(x) }"
        + IMPORTS
        + "leak<slope : float = 0.25>(v) => (w) { w = LeakyRelu<alpha : float = @slope>(v) }"
    )
    expand(model, but())
    assert model.graph.nodes[0].attributes == {"alpha": 0.25}


def test_absent_inputs_and_unused_outputs(read: Read) -> None:
    model = read(
        HEADER
        + 'g (float[2] x) => (float[2] y) { y, "" = f.bounded(x) }'
        + IMPORTS
        + "bounded (v, low, high) => (w, other) { w = Clip(v, low, high)  other = Abs(v) }"
    )
    expand(model, but())
    assert model.graph.nodes[0].inputs == ["x", "", ""]
    assert_closed(model.graph)


def test_input_handed_through(read: Read) -> None:
    model = read(
        HEADER
        + "g (float[2] x) => (float[2] y, float[2] z) { y, z = f.both(x) }"
        + IMPORTS
        + "both (v) => (v, w) { w = Abs(v) }"
    )
    expand(model, but())
    assert sorted(op_types(model.graph)) == ["Abs", "Identity"]
    assert_closed(model.graph)


def test_inner_names_avoid_the_models(read: Read) -> None:
    model = read(
        HEADER
        + 'g (float[2] x) => (float[2] y) { "twice/0/t" = Neg(x)  u = f.twice(x)  y = Add(u, "twice/0/t") }'
        + IMPORTS
        + "twice (v) => (w) { t = Add(v, v)  w = Abs(t) }"
    )
    expand(model, but())
    assert_closed(model.graph)


def test_calls_inside_bodies_of_control_flow_and_captures(read: Read) -> None:
    model = read(
        HEADER
        + """g (bool c, float[2] x) => (float[2] y) {
            y = If(c)<then_branch = a () => (float[2] p) { p = f.outer(x) },
                      else_branch = b () => (float[2] q) { q = Neg(x) }>
        }"""
        + IMPORTS
        + "outer (v) => (w) { t = f.inner(v)  w = Abs(t) }"
        + IMPORTS
        + "inner (v) => (w) { w = Add(v, v) }"
    )
    expand(model, but())
    assert op_types(model.graph.nodes[0].attributes["then_branch"]) == ["Add", "Abs"]
    assert_closed(model.graph)


def test_body_keeps_its_own_opset(read: Read) -> None:
    model = read(
        HEADER
        + "g (float[2] x) => (float[2] y) { y = f.same(x) }"
        + '<domain: "f", opset_import: ["" : 13]>'
        + "same (v) => (w) { w = Relu(v) }"
    )
    expand(model, but())
    assert model.graph.nodes[0].opset == 13


@pytest.mark.parametrize("body", ["w = f.a(v)", "w = f.b(v)"])
def test_recursion_is_refused(read: Read, body: str) -> None:
    model = read(
        HEADER
        + "g (float[2] x) => (float[2] y) { y = f.a(x) }"
        + (IMPORTS + "a (v) => (w) {" + body + "}")
        + (IMPORTS + "b (v) => (w) { w = f.a(v) }")
    )
    with pytest.raises(ModelError, match=r"must not be recursive\. Cycle detected: f:a -> "):
        expand(model, but())


def test_too_many_arguments_name_the_function(read: Read) -> None:
    model = read(HEADER + "g (float[2] x) => (float[2] y) { y = f.a(x, x) }" + IMPORTS + "a (v) => (w) { w = Abs(v) }")
    with pytest.raises(ModelError, match=r"gives 2 inputs and 1 outputs to function f:a"):
        expand(model, but())


def test_schema_body_takes_the_schemas_defaults(read: Read) -> None:
    model = read('<ir_version: 9, opset_import: ["" : 22]>g (float[2] x) => (float[2] y) { y = Elu(x) }')
    expand(model, but("Elu"))
    constants = [node.attributes.get("value_float") for node in model.graph.nodes if node.op_type == "Constant"]
    assert 1.0 in constants
    assert "Elu" not in op_types(model.graph)
    assert_closed(model.graph)


def test_schema_body_newer_than_the_model_serves(read: Read) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Softsign(x) }")
    expand(model, but("Softsign"))
    assert "Softsign" not in op_types(model.graph)
    assert {node.opset for node in model.graph.nodes} == {18}


def test_context_dependent_body_of_an_input_without_a_declared_type(read: Read) -> None:
    model = read(
        """g (float[3, 4] x, int64[3] label) => (float loss) {
            scores = Neg(x)
            loss = SoftmaxCrossEntropyLoss<reduction = "mean">(scores, label)
        }"""
    )
    assert "scores" not in model.graph.types
    # the loss's body calls NegativeLogLikelihoodLoss, whose body depends on types again
    expand(model, but("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"))
    left = {"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"}.intersection(op_types(model.graph))
    assert not left
    assert_closed(model.graph)


def test_operator_without_kernel_or_body_stays(read: Read) -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Erf(x) }")
    expand(model, but("Erf"))
    assert op_types(model.graph) == ["Erf"]


def test_initializers_of_bodies_inside_functions_are_kept(read: Read) -> None:
    model = read(
        HEADER
        + "g (bool c, float[2] x) => (float[2] y) { y = f.pick(c, x) }"
        + IMPORTS
        + """pick (c, v) => (w) {
            w = If(c)<then_branch = a () => (float[2] p) <float[2] k = {1, 2}> { p = Add(v, k) },
                      else_branch = b () => (float[2] q) { q = Neg(v) }>
        }"""
    )
    expand(model, but())
    body = model.graph.nodes[0].attributes["then_branch"]
    assert [value.tolist() for value in body.initializers.values()] == [[1.0, 2.0]]
    assert all(isinstance(value, np.ndarray) for value in body.initializers.values())
    assert_closed(model.graph)
