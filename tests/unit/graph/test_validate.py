"""Refused models, in onnxruntime's words; and nodes put in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distort.graph import reader
from distort.graph.errors import ModelError
from distort.graph.ir import Model
from distort.graph.validate import check_model

HEADER = '<ir_version: 9, opset_import: ["" : 17]>\n'
ML = '<ir_version: 9, opset_import: ["" : 17, "ai.onnx.ml" : 3, "my.dom" : 1]>\n'
G = "g (float[2] x) => (float[2] y) "
RELU = '("", Relu, "", -1) : ("x": tensor(float),) -> ("y": tensor(float),)'
IF = '("", If, "", -1) : ("c": tensor(bool),) -> ("y": tensor(float),)'
INVALID = "This is an invalid model. "


def contrib(domain: str, op_type: str, opset: int) -> bool:
    return (domain, op_type) == ("com.microsoft", "Gelu")


def check(text: str, change: Callable[[Any], None] | None = None) -> Model:
    parser = pytest.importorskip("onnx.parser")
    proto = parser.parse_model(text if text.startswith("<") else HEADER + text)
    if change is not None:
        change(proto)
    model = reader.read_model(proto)
    check_model(model, proto, contrib)
    return model


def branches(then: str, otherwise: str = "(float[2] q) { q = Neg(x) }", before: str = "") -> str:
    return (
        f"g (float[2] x, bool c) => (float[2] y) {{ {before} "
        f"y = If(c)<then_branch = t () => {then}, else_branch = e () => {otherwise}> }}"
    )


REFUSED = {
    "input twice": (
        "g (float[2] x, float[2] x) => (float[2] y) { y = Relu(x) }",
        "FAIL",
        "Error: Duplicate definition-site for (x).",
    ),
    "value made twice": (
        G + "{ y = Relu(x) y = Abs(x) }",
        "FAIL",
        INVALID + "Error: Duplicate definition of name (y).",
    ),
    "input made again": (
        G + "{ x = Relu(x) y = Relu(x) }",
        "FAIL",
        INVALID + "Error: Duplicate definition of name (x).",
    ),
    "node name twice": (
        G + "{ [n] w = Relu(x) [n] y = Relu(w) }",
        "FAIL",
        INVALID + "Error: two nodes with same node name (n).",
    ),
    "cycle": (G + "{ a = Add(x, y) y = Relu(a) }", "FAIL", INVALID + "Error: the graph is not acyclic."),
    "undefined input": (
        G + "{ y = Add(x, zzz) }",
        "INVALID_ARGUMENT",
        "Invalid model. Node input 'zzz' is not a graph input, initializer, or output of a previous node.",
    ),
    "output nobody makes": (
        "g (float[2] x) => (float[2] q) { y = Relu(x) }",
        "FAIL",
        INVALID + "Graph output (q) does not exist in the graph.",
    ),
    "too many inputs": (
        G + "{ y = Relu(x, x) }",
        "INVALID_GRAPH",
        INVALID + 'In Node, ("", Relu, "", -1) : ("x": tensor(float),"x": tensor(float),) -> ("y": tensor(float),) , '
        "Error Node with schema(::Relu:14) has input size 2 not in range [min=1, max=1].",
    ),
    "a required input left out": (
        G + '{ [n] y = Add(x, "") }',
        "INVALID_GRAPH",
        INVALID + 'In Node, ("n", Add, "", -1) : ("x": tensor(float),"",) -> ("y": tensor(float),) , Error '
        "Node (n)'s input 1 is marked single but has an empty string in the graph",
    ),
    "required attribute": (
        G + "{ y = Cast(x) }",
        "INVALID_GRAPH",
        INVALID + f"In Node, {RELU.replace('Relu', 'Cast')} , Error Required attribute 'to' is missing.",
    ),
    "unknown attribute": (
        G + "{ y = Relu<bogus = 1>(x) }",
        "INVALID_GRAPH",
        INVALID + f"In Node, {RELU} , Error Unrecognized attribute: bogus for operator Relu",
    ),
    "attribute of another type": (
        G + "{ y = LeakyRelu<alpha = 1>(x) }",
        "INVALID_GRAPH",
        INVALID + f"In Node, {RELU.replace('Relu', 'LeakyRelu')} , Error Mismatched attribute type in ' : alpha'. "
        "Expected: 'FLOAT', actual: 'INT'",
    ),
    "deprecated": (
        G + "{ y = Scatter(x, x, x) }",
        "INVALID_GRAPH",
        INVALID + 'In Node, ("", Scatter, "", -1) : ("x": tensor(float),"x": tensor(float),"x": tensor(float),) -> '
        '("y": tensor(float),) , Error Op registered for Scatter is deprecated in domain_version of 17',
    ),
    "unknown operator": (
        G + "{ y = Foo(x) }",
        "INVALID_GRAPH",
        INVALID + f"In Node, {RELU.replace('Relu', 'Foo')} , Error No Op registered for Foo with domain_version of 17",
    ),
    "unknown operator of an imported domain": (
        ML + G + "{ y = my.dom.Foo(x) }",
        "FAIL",
        "Fatal error: my.dom:Foo(-1) is not a registered function/op",
    ),
    "domain not imported": (
        G + "{ y = my.dom.Foo(x) }",
        "INVALID_GRAPH",
        INVALID + 'In Node, ("", Foo, "my.dom", -1) : ("x": tensor(float),) -> ("y": tensor(float),) , Error '
        "No opset import for domain 'my.dom'",
    ),
    "types that differ": (
        "g (float[2] x, int64[2] i) => (float[2] y) { [add] y = Add(x, i) }",
        "FAIL",
        "Type Error: Type parameter (T) of Optype (Add) bound to different types (tensor(float) and tensor(int64) in "
        "node (add).",
    ),
    "a type that the operator lacks": (
        "g (string[2] x) => (string[2] y) { y = Relu(x) }",
        "INVALID_GRAPH",
        INVALID + "Type Error: Type 'tensor(string)' of input parameter (x) of operator (Relu) in node () is invalid.",
    ),
    "declared output type": (
        "g (float[2] x) => (int64[2] y) { y = Relu(x) }",
        "FAIL",
        "Type Error: Type (tensor(int64)) of output arg (y) of node () does not match expected type (tensor(float)).",
    ),
    "default of another shape": (
        "g (float[2] x, float[3] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }",
        "FAIL",
        "Type Error: Shape of initializer w does not match. {3} != {2}",
    ),
    "default of another type": (
        "g (float[2] x, int64[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Relu(x) }",
        "FAIL",
        "Type Error: Data in initializer 'w' has element type tensor(float) but usage of initializer in graph expects "
        "tensor(int64)",
    ),
    "a body's undefined input": (
        branches("(float[2] z) { [abs] z = Abs(xx) }"),
        "INVALID_GRAPH",
        INVALID + f"In Node, {IF} , Error Nodes in a graph must be "
        "topologically sorted, however input 'xx' of node: \nname: abs OpType: Abs\n is not output of any previous "
        "nodes.",
    ),
    "a body's output that nobody makes": (
        branches("(float[2] zz) { z = Abs(x) }"),
        "FAIL",
        INVALID + "Graph output (zz) does not exist in the graph.",
    ),
    "a body's name that exists outside": (
        branches("(float[2] z) { z = Abs(x) }", before="z = Relu(x)"),
        "INVALID_GRAPH",
        INVALID + f"In Node, {IF} , Error Graph must be in single static assignment (SSA) form, however 'z' has been "
        "used as output names multiple times.",
    ),
    "a body's unknown operator": (
        branches("(float[2] z) { z = Foo(x) }"),
        "INVALID_GRAPH",
        INVALID + f"In Node, {IF} , Error No Op registered for Foo with domain_version of 17\n\n==> Context: Bad node "
        "spec for node. Name:  OpType: Foo",
    ),
    "branches of different length": (
        branches("(float[2] z, float[2] z2) { z = Abs(x) z2 = Abs(x) }"),
        "FAIL",
        "Node () Op (If) [TypeInferenceError] then_branch and else_branch produce different number of outputs. 2 != 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    text, status, message = REFUSED[case]
    with pytest.raises(ModelError) as caught:
        check(text)
    assert (caught.value.status, caught.value.text) == (status, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.ClearField("opset_import"), "Missing opset in the model. All ModelProtos MUST have at least one"),
        (lambda m: m.ClearField("ir_version"), "Missing model IR version."),
        (lambda m: setattr(m, "ir_version", 15), "Unsupported model IR version: 15, max supported IR version: 14"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "support for domain ai.onnx is till opset "),
        (lambda m: m.graph.input[0].ClearField("type"), "Model input (x) does not have type information."),
    ],
)
def test_refused_versions(change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        check(G + "{ y = Relu(x) }", change)
    assert caught.value.status == "FAIL"
    assert message in caught.value.text


def test_a_newer_opset_is_allowed_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")
    check(G + "{ y = Relu(x) }", lambda m: setattr(m.opset_import[0], "version", 99))


@pytest.mark.parametrize(
    "text",
    [
        G + "{ y = com.microsoft.Gelu(x) }",
        '<ir_version: 9, opset_import: ["ai.onnx.ml" : 3]>' + G + "{ y = Relu(x) }",
        G + '{ y = Clip(x, "", "") }',
        "g (float[2] x) => (float[2] y, float[2] y) { y = Relu(x) }",
        "g (float[2] x) => (float[2] x) { }",
        "g (float[2] x) => (float[2] w) <float[2] w = {1, 2}> { y = Add(x, w) }",
        branches("(float[2] z) { z = Abs(xx) }", before="xx = Relu(x)"),
        '<ir_version: 9, opset_import: ["" : 17, "f" : 1]>'
        + G
        + '{ y = f.A(x) } <domain: "f", opset_import: ["" : 17]> A (v) => (w) { w = Relu(v) }',
    ],
)
def test_accepted(text: str) -> None:
    check(text)


def test_a_domain_that_is_not_imported_is_the_newest() -> None:
    model = check('<ir_version: 9, opset_import: ["ai.onnx.ml" : 3]>' + G + "{ y = Relu(x) }")
    assert model.graph.nodes[0].opset >= 20


def test_sorting_keeps_the_listed_order_where_it_will_do() -> None:
    model = check(G + "{ y = Add(b, c) [first] a = Neg(x) b = Abs(a) [second] c = Exp(x) }")
    assert [node.op_type for node in model.graph.nodes] == ["Neg", "Abs", "Exp", "Add"]


def test_sorting_counts_what_bodies_capture() -> None:
    model = check(
        "g (float[2] x, bool c) => (float[2] y) {"
        "y = If(c)<then_branch = t () => (float[2] z) { z = Abs(late) }, else_branch = e () => (float[2] q) "
        "{ q = Neg(x) }> late = Relu(x) }"
    )
    assert [node.op_type for node in model.graph.nodes] == ["Relu", "If"]


def test_before_ir_4_initializers_are_no_inputs() -> None:
    text = 'opset_import: ["" : 8]>g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }'
    old, new = check("<ir_version: 3, " + text), check("<ir_version: 4, " + text)
    assert (old.graph.inputs, old.graph.defaults) == (["x"], [])
    assert (new.graph.inputs, new.graph.defaults) == (["x", "w"], ["w"])
