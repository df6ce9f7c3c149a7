"""What explain() says of a session's program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import distort as onnxruntime
from distort.graph.ir import Node
from distort.kernels.compiler import account
from distort.kernels.compiler.ir import Host

_HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def session(graph: str, compile_: str = "1") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("distort.compile", compile_)
    return onnxruntime.InferenceSession(onnx.parser.parse_model(_HEADER + graph).SerializeToString(), options)


def program_lines(opened: onnxruntime.InferenceSession) -> list[str]:
    return [line.strip() for line in opened.explain().partition("CPU program:")[2].strip().splitlines()]


def test_what_is_compiled_and_what_is_not_and_why() -> None:
    graph = """g (float[N,K,2,2] x) => (float[N,K] y, int64[2,M] z, int64[M,2] t) {
        [d] a = Det (x)
        y = Relu (a)
        [n] z = NonZero (y)
        t = Transpose (z)
    }"""
    opened = session(graph)
    assert program_lines(opened) == ["nothing is compiled now: that happens when the model is run"]
    for n in (3, 3, 5, 5):  # the second run goes by what the first has shown of NonZero
        opened.run(None, {"x": np.ones((n, 1, 2, 2), np.float32)})
    first, second, *others = program_lines(opened)
    assert first.startswith("compiled for 2 shapes of feeds, in ")
    assert "from 4 nodes" in second and second.endswith("on NumPy kernels, for x float32[5, 1, 2, 2]")
    assert "NumPy: Det 'd': there is no code for the operator" in others


def test_what_will_be_run_is_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the number of samples is known, and one is likely: kernels are made, if they aren't on disk."""
    monkeypatch.setenv("DISTORT_CACHE_DIR", str(tmp_path))
    graph = "g (float[N,8] x) => (float[N,8] y) { y = Relu (x) }"
    first, second, *_ = program_lines(session(graph))
    assert first.startswith("compiled for 1 shape of feeds, in ")
    assert second.endswith("for x float32[1, 8]")
    assert program_lines(session(graph)) == ["nothing is compiled now: that happens when the model is run"]
    other, *_ = program_lines(session(graph.replace("Relu", "Neg")))
    assert other.startswith("compiled for 1 shape of feeds, in ")
    exact, *_ = program_lines(session(graph.replace("N", "3")))
    assert exact.startswith("compiled for 1 shape of feeds, in ")


@pytest.mark.parametrize(("op_type", "known"), [("MatMul", True), ("Det", False), ("Warp", False)])
def test_operators_with_code(op_type: str, known: bool) -> None:
    assert account.has_code("", op_type) is known


def test_many_nodes_of_a_kind_are_counted() -> None:
    nodes = " ".join(f"[d{i}] y{i} = Det (x)" for i in range(5))
    opened = session(f"g (float[N,2,2] x) => ({', '.join(f'float[N] y{i}' for i in range(5))}) {{ {nodes} }}")
    for _ in range(2):
        opened.run(None, {"x": np.ones((3, 2, 2), np.float32)})
    assert "NumPy: Det 'd0', 'd1', 'd2' and 2 more: there is no code for the operator" in program_lines(opened)


def test_reasons_beyond_a_missing_operator() -> None:
    opened = session("g (string[N] x) => (bool[N] y) { [same] y = Equal (x, x) }")
    for _ in range(2):
        opened.run(None, {"x": np.array(["a", "b"])})
    assert program_lines(opened)[2].startswith("NumPy: Equal 'same': it reads what is no tensor")
    node = Node("Equal", "", ["x", "x"], ["y"])
    assert account.reason(Host([], [], node, node, [], [])) == "there is no code for its attributes or types"


def test_a_session_without_a_compiler_says_so() -> None:
    opened = session("g (float[N] x) => (float[N] y) { y = Relu (x) }", "0")
    assert "NumPy kernels run every node" in opened.explain()
