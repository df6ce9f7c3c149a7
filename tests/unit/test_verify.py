"""Values of stages compared with one process: what counts as different, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

from distort import verify
from distort.capi.onnxruntime_pybind11_state import EPFail
from distort.graph import reader
from distort.graph.inference import infer
from distort.graph.ir import Graph, SparseInitializer
from distort.kernels.program import Program
from distort.planning import cpu_devices
from distort.scheduler.plan import CALLER, Plan
from distort.scheduler.planner import plan_of_stages

CHAIN = """g (float[2,3] x) => (float[2,3] y) {
    [first] a = Exp(x)
    [second] b = Neg(a)
    [third] c = Exp(b)
    [fourth] y = Sqrt(c)
}"""


def planned(text: str, stage_of: list[int]) -> tuple[Graph, Plan]:
    model = reader.load(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]>' + text).SerializeToString())
    infer(model)
    plan = plan_of_stages(model.graph, stage_of, cpu_devices(max(stage_of) + 1, 1), why="were chosen")
    return model.graph, plan


def staged(graph: Graph, plan: Plan, feeds: dict[str, Any], spoil: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Run the stages one by one; ``spoil`` has each value that one hands on."""
    known: dict[str, Any] = dict(feeds)
    for stage in plan.stages:
        part = graph.extract(stage.nodes)
        for name, value in zip(part.outputs, Program(part).run(known), strict=True):
            known[name] = spoil(name, value)
    return {edge.value: known[edge.value] for edge in plan.edges if edge.producer != CALLER}


X = np.array([[0.5, 1.0, 1.5], [2.0, -1.0, 0.0]], np.float32)


def test_stages_that_agree() -> None:
    graph, plan = planned(CHAIN, [0, 1, 2, 2])
    reference = verify.Reference(graph, plan)
    assert reference.names == ("a", "b", "y")
    values = staged(graph, plan, {"x": X}, lambda _, value: value)
    assert reference.check(values, {"x": X}) is None
    assert set(reference.run({"x": X})) == set(values)


def test_the_first_that_differs_is_named_and_not_what_follows_from_it() -> None:
    graph, plan = planned(CHAIN, [0, 1, 2, 2])

    def spoil(name: str, value: Any) -> Any:
        if name == "b":
            value = value.copy()
            value[1, 2] += 0.25
        return value

    found = verify.Reference(graph, plan).check(staged(graph, plan, {"x": X}, spoil), {"x": X})
    assert found is not None
    assert (found.value, found.node, found.op_type) == ("b", "second", "Neg")
    assert (found.stage, found.device) == ("stage1", "cpu:1")
    assert (found.where, found.n_agreed) == ((1, 2), 1)
    assert found.largest == pytest.approx(0.25)
    error = found.error()
    assert isinstance(error, EPFail)
    assert str(error) == (
        "[ONNXRuntimeError] : 11 : EP_FAIL : distort.verify: 'b', made by node 'second' (Neg) in stage1 on cpu:1, "
        "differs from a run in one process: 1 of 6 elements differ; the largest difference, 0.25, is at [1, 2], -0.75 "
        "and not -1.0. The one value before it agrees."
    )


def test_a_value_that_got_another_s_place() -> None:
    """Two values of one shape swapped on their way."""
    text = "g (float[2,3] x) => (float[2,3] y) { [l] a = Exp(x) [r] b = Neg(x) [m] y = Add(a, b) }"
    graph, plan = planned(text, [0, 0, 1])
    reference = verify.Reference(graph, plan)
    right = reference.run({"x": X})
    found = verify.check(graph, plan, {**right, "a": right["b"], "b": right["a"]}, right)
    assert found is not None and (found.value, found.n_agreed) == ("a", 0)
    assert "6 of 6 elements differ" in found.text() and "the first that was compared" in found.text()
    found = reference.check({**right, "a": right["b"]}, {"x": X}, {0: ("stage0.2", "cpu:5")})
    assert found is not None and "in stage0.2 on cpu:5" in found.text()


def difference(got: Any, wanted: Any) -> str | None:
    graph, plan = planned(CHAIN, [0, 1, 1, 1])
    found = verify.check(graph, plan, {"a": got}, {"a": wanted})
    return None if found is None else found.how


def F(values: Any) -> Any:  # short, for long tables
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (F([1.0, 2.0]), F([1.0, 2.0])),
        (F([1.0, 2.0002]), F([1.0, 2.0])),  # other sums
        (F([1.0, 1e-6]), F([1.0, 0.0])),  # what is left of a cancellation
        (F([np.nan, np.inf, -np.inf]), F([np.nan, np.inf, -np.inf])),
        (F([0.0]), F([-0.0])),
        (np.array([1 + 1e-12]), np.array([1.0])),
        (np.array([1.001], np.float16), np.array([1.0], np.float16)),
        (np.array([1.008], ml_dtypes.bfloat16), np.array([1.0], ml_dtypes.bfloat16)),
        (np.array([1.125], ml_dtypes.float8_e4m3fn), np.array([1.0], ml_dtypes.float8_e4m3fn)),
        (np.array([1 + 1e-6j], np.complex64), np.array([1], np.complex64)),
        (F([]), F([])),
        (np.float32(3), F(3)),  # a scalar of numpy's is a tensor of rank 0
        (np.array(["a", "é"], object), np.array(["a", "é"])),
        (None, None),
        ([F([1]), F([2])], [F([1]), F([2])]),
        ({1: F(1), 2: F(2)}, {2: F(2), 1: F(1)}),
    ],
)  # fmt: skip
def test_what_agrees(got: Any, wanted: Any) -> None:
    assert difference(got, wanted) is None


@pytest.mark.parametrize(
    ("got", "wanted", "text"),
    [
        (F([1.0, 2.01]), F([1.0, 2.0]), "1 of 2 elements differ; the largest difference, 0.00999999, is at [1]"),
        (F([np.nan]), F([0.0]), "the largest difference, inf, is at [0], nan and not 0.0"),
        (F([np.inf]), F([-np.inf]), "inf and not -inf"),
        (F([3.4e38]), F([np.inf]), "and not inf"),
        # huge numbers of a mask don't hide what else differs
        (F([-3e38, -3e38, 1.0, 2.0, 3.0]), F([-3e38, -3e38, 1.0, 2.1, 3.0]), "at [3]"),
        (F([0.0, 0.0]), F([0.0, 1e-20]), "1 of 2"),
        (np.array([1 + 1e-6]), np.array([1.0]), "1 of 1"),
        (np.array([1.05], np.float16), np.array([1.0], np.float16), "1 of 1"),
        (np.array([1.25], ml_dtypes.float8_e4m3fn), np.array([1.0], ml_dtypes.float8_e4m3fn), "1.25 and not 1"),
        (np.array([2**62 + 1], np.int64), np.array([2**62], np.int64), "difference, 1, is at [0]"),
        (np.array([[1, 2], [3, 9]]), np.array([[1, 2], [3, 4]]), "difference, 5, is at [1, 1], 9 and not 4"),
        (np.array([255, 0], np.uint8), np.array([0, 0], np.uint8), "the largest difference, 255, is at [0]"),
        (np.array([True]), np.array([False]), "True and not False"),
        (np.array([5], ml_dtypes.int4), np.array([4], ml_dtypes.int4), "5 and not 4"),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), "the first is at [1], 'b' and not 'c'"),
        (np.float32(3), F(4), "is there, 3.0 and not 4.0"),
        (F([1]), np.array([1.0]), "its element type is float32, and float64 there"),
        (F([[1]]), F([1]), "its shape is [1, 1], and [1] there"),
        (F([1, 2]), F([1]), "its shape is [2], and [1] there"),
        (None, F([1]), "it is absent, and a tensor there"),
        ([F([1])], F([1]), "it is a sequence of 1, and a tensor there"),
        ([F([1])], [F([1]), F([2])], "it is a sequence of 1, and a sequence of 2 there"),
        ([F([1]), F([3])], [F([1]), F([2])], "in entry 1 of the sequence, 1 of 1 elements differ"),
        ({1: F(1)}, {2: F(1)}, "its keys are others"),
        ({"a": F(1)}, {"a": F(2)}, "in entry 'a' of the map, 1 of 1"),
    ],
)  # fmt: skip
def test_what_differs(got: Any, wanted: Any, text: str) -> None:
    found = difference(got, wanted)
    assert found is not None and text in found


def test_sparse_tensors() -> None:
    one = SparseInitializer(F([1, 2]), np.array([0, 3]), (2, 2))
    same = SparseInitializer(F([2, 1]), np.array([3, 0]), (2, 2))
    other = SparseInitializer(F([1, 5]), np.array([0, 3]), (2, 2))
    assert difference(one, same) is None
    assert "the largest difference, 3, is at [1, 1]" in (difference(other, one) or "")
    assert difference(one, one.dense()) == "it is a sparse tensor, and a tensor there"


def test_feeds_are_not_looked_at() -> None:
    graph, plan = planned(CHAIN, [0, 1, 1, 1])
    assert verify.check(graph, plan, {"x": X}, {}) is None
    with pytest.raises(KeyError, match="a"):
        verify.check(graph, plan, {"a": X}, {})


@pytest.mark.parametrize(
    ("draw", "drawn"),
    [
        ("r = RandomNormalLike(x)", True),
        ("r = Identity(x)", False),
        ("t = Constant<value = bool {1}>() q = Constant<value = float {0.5}>() r = Dropout(x, q, t)", True),
        ("r = Dropout(x)", False),
        ("t = Constant<value = bool {1}>() r = If(t)<then_branch = a () => (float[2,3] i) { i = RandomNormalLike(x) }, "
         "else_branch = b () => (float[2,3] j) { j = Exp(x) }>", True),
    ],
)  # fmt: skip
def test_what_depends_on_random_numbers_is_not_compared(draw: str, drawn: bool) -> None:
    text = f"g (float[2,3] x) => (float[2,3] y) {{ {draw} s = Neg(r) p = Exp(x) y = Add(s, p) }}"
    n_nodes = len(onnx.parser.parse_graph(text).node)
    graph, plan = planned(text, [0] * (n_nodes - 1) + [1])
    reference = verify.Reference(graph, plan)
    assert reference.names == (("p",) if drawn else ("s", "p", "y"))
    assert reference.not_comparable == (("s", "y") if drawn else ())
    # what can be compared still is
    right = reference.run({"x": X})
    found = reference.check({**dict.fromkeys(("s", "y"), X), "p": right["p"] + 1}, {"x": X})
    assert found is not None and found.value == ("p" if drawn else "s")
