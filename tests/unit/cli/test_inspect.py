"""``distort inspect``: what a model has, and what no kernel runs."""

from __future__ import annotations

import json
from collections.abc import Callable

from .conftest import Ran

Distort = Callable[..., Ran]
BRANCHES = """branches (bool flag, float[N] x) => (float[N] y) {
    y = If <
        then_branch = then_body () => (float[N] a) { a = Relu(x) },
        else_branch = else_body () => (float[N] b) { n = Neg(x)
            b = Relu(n) }
    > (flag)
}"""
FUNCTIONS = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
calls (float[N] x) => (float[N] y) {
    y = local.twice(x)
}
<domain: "local", opset_import: ["" : 21]> twice (a) => (b) {
    b = Add(a, a)
}
"""
UNKNOWN = """<ir_version: 10, opset_import: ["" : 21, "com.acme" : 1]>
unknown (float[N] x) => (float[N] y) {
    z = com.acme.Warp(x)
    y = Relu(z)
}
"""


def inspect(distort: Distort, path: str) -> dict:
    ran = distort("inspect", path, "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def operators(told: dict) -> dict[str, tuple[int, str]]:
    return {item["op_type"]: (item["count"], item["runs_by"]) for item in told["operators"]}


def test_inputs_outputs_and_operators(distort: Distort, write_model: Callable[..., str]) -> None:
    told = inspect(distort, write_model())
    assert told["inputs"] == [
        {"name": "x", "type": "tensor(float)", "shape": ["N", 2]},
        {"name": "bias", "type": "tensor(float)", "shape": [2]},
    ]
    assert [output["name"] for output in told["outputs"]] == ["y", "doubled"]
    assert told["opsets"] == {"ai.onnx": 21}
    assert operators(told) == {"Add": (2, "kernel")}
    assert told["no_kernel"] == [] and told["problem"] is None


def test_operators_with_code_are_told_from_those_without(distort: Distort, write_model: Callable[..., str]) -> None:
    told = inspect(distort, write_model("g (float[N,2] x) => (float[N,2] y) { a = Det (x) y = Mul (x, a) }"))
    assert {item["op_type"]: item["compiled"] for item in told["operators"]} == {"Det": False, "Mul": True}


def test_bodies_count(distort: Distort, write_model: Callable[..., str]) -> None:
    told = inspect(distort, write_model(BRANCHES))
    assert operators(told) == {"If": (1, "kernel"), "Relu": (2, "kernel"), "Neg": (1, "kernel")}


def test_functions_of_the_model_count_with_their_bodies(distort: Distort, write_model: Callable[..., str]) -> None:
    told = inspect(distort, write_model(FUNCTIONS, header=""))
    assert operators(told) == {"twice": (1, "the model's function"), "Add": (1, "kernel")}
    assert told["functions"] == ["local:twice"]
    assert told["no_kernel"] == []


def test_an_operator_without_a_kernel_is_named(distort: Distort, write_model: Callable[..., str]) -> None:
    path = write_model(UNKNOWN, header="")
    told = inspect(distort, path)
    assert operators(told) == {"Warp": (1, "nothing"), "Relu": (1, "kernel")}
    assert told["no_kernel"] == ["com.acme:Warp(1)"]
    shown = distort("inspect", path)
    assert shown.code == 0
    assert "com.acme:Warp(1)" in shown.out and "Every operator" not in shown.out


def test_plain_text_has_the_tables(distort: Distort, write_model: Callable[..., str]) -> None:
    ran = distort("inspect", write_model())
    assert ran.code == 0 and "\x1b" not in ran.out
    lines = ran.out.splitlines()
    assert "x     tensor(float)  [N, 2]" in lines
    assert lines[-1] == "Every operator has a kernel."


def test_what_is_no_model(distort: Distort, tmp_path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model at all")
    ran = distort("inspect", str(path))
    assert ran.code == 1 and ran.out == ""
    assert "Protobuf parsing failed" in ran.err and ran.err.count("\n") == 1
