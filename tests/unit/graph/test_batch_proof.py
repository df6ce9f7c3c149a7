"""The proof over whole graphs: shapes that are computed, guesses of the batch axis, bodies, and what refusals say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from distort.graph.batch import BatchProof, Layout, Refusal, find_batch, prove
from distort.graph.batch.rules import Site
from distort.graph.batch.sizes import computed
from distort.graph.batch.values import Element, Refused, Size, Sizes, Tensor
from distort.graph.ir import Model, Node

ReadText = Callable[[str], Model]
INT64 = np.dtype(np.int64)


def attention(batch_first: bool = True) -> str:
    """Heads by shapes that are computed, as exporters write them."""
    order = "[0, 2, 1, 3]" if batch_first else "[1, 2, 0, 3]"
    return f"""g (float[n, s, 8] x, float[8, 8] w) => (float[n, s, 8] y) <
      int64 zero = {{0}}, int64 one = {{1}}, int64[1] front = {{0}}, int64[2] heads = {{2, 4}}, int64[1] width = {{8}}
      > {{
      shape = Shape(x)
      n = Gather(shape, zero)
      s = Gather(shape, one)
      n1 = Unsqueeze(n, front)
      s1 = Unsqueeze(s, front)
      split = Concat<axis=0>(n1, s1, heads)
      joined = Concat<axis=0>(n1, s1, width)
      p = MatMul(x, w)
      q = Reshape(p, split)
      t = Transpose<perm={order}>(q)
      k = Transpose<perm=[0, 1, 3, 2]>(t)
      scores = MatMul(t, k)
      a = Softmax(scores)
      o = MatMul(a, t)
      b = Transpose<perm=[0, 2, 1, 3]>(o)
      y = Reshape(b, joined)
    }}"""


def test_heads_by_computed_shapes(read: ReadText) -> None:
    proof = find_batch(read(attention()).graph, {"x": (4, 5, 8), "w": (8, 8)})
    assert isinstance(proof, BatchProof)
    assert proof.inputs == {"x": 0, "w": None}
    assert proof.outputs == {"y": 0}
    assert proof.layouts["scores"] == Layout((1, 2, 5, 5), 0)
    assert proof.layouts["y"].of(4) == (4, 5, 8)


def test_attention_over_samples_is_refused(read: ReadText) -> None:
    """The same graph with samples where the sequence should be."""
    refusal = find_batch(read(attention(batch_first=False)).graph, {"x": (4, 5, 8), "w": (8, 8)})
    assert isinstance(refusal, Refusal)
    assert refusal.op_type == "MatMul"
    assert str(refusal) == "node 'MatMul -> scores' (MatMul): it multiplies samples with other samples"


def test_a_declared_batch_size_is_split_where_nothing_depends_on_it(read: ReadText) -> None:
    text = "g (float[16, 3] x) => (float[16, 3] y) { y = Relu(x) }"
    proof = find_batch(read(text).graph, {"x": (16, 3)})
    assert isinstance(proof, BatchProof)
    assert proof.outputs == {"y": 0}


def test_a_table_with_a_row_for_each_sample_is_refused(read: ReadText) -> None:
    text = "g (float[16, 3] x) => (float[16, 3] y) <float[2, 1] t = {1, 2}> { y = Add(x, t) }"
    refusal = find_batch(read(text).graph, {"x": (2, 3)})
    assert isinstance(refusal, Refusal)
    assert "2 rows along the batch axis" in refusal.reason


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = Shape(x)", "the output 'y' holds the batch size"),
        ("s = Shape(x)\n z = Gather(s, one)\n y = Cast<to=1>(z)", "the output 'y' is the same for every part"),
    ],
)
def test_outputs_without_samples_are_refused(read: ReadText, nodes: str, reason: str) -> None:
    graph = read(f"g (float[n, 3] x) => (float[k] y) <int64[1] one = {{1}}> {{ {nodes} }}").graph
    found = find_batch(graph, {"x": (4, 3)})
    assert isinstance(found, Refusal)
    assert reason in found.reason
    assert found.node == ""


def test_only_what_is_fetched_counts(read: ReadText) -> None:
    graph = read("g (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) { y = Relu(x)\n z = Softmax<axis=0>(x) }").graph
    assert isinstance(find_batch(graph, {"x": (4, 3)}, ["y"]), BatchProof)
    assert isinstance(find_batch(graph, {"x": (4, 3)}), Refusal)


def test_an_output_may_be_the_same_for_every_part(read: ReadText) -> None:
    graph = read("g (float[n, 3] x, float[3] w) => (float[n, 3] y, float[3] z) { y = Add(x, w)\n z = Neg(w) }").graph
    proof = find_batch(graph, {"x": (4, 3), "w": (3,)})
    assert isinstance(proof, BatchProof)
    assert proof.outputs == {"y": 0, "z": None}


class TestGuesses:
    """Which axis is the batch's."""

    def test_states_have_it_elsewhere(self, read: ReadText) -> None:
        graph = read("g (float[n, 3] x, float[2, n, 3] h) => (float[2, n, 3] y) { y = Add(x, h) }").graph
        proof = find_batch(graph, {"x": (4, 3), "h": (2, 4, 3)})
        assert isinstance(proof, BatchProof)
        assert proof.inputs == {"x": 0, "h": 1}

    def test_a_fixed_dimension_of_the_same_size_is_not_taken_for_it(self, read: ReadText) -> None:
        graph = read("g (float[n, 4] x, float[3, n, 4] h) => (float[3, n, 4] y) { y = Add(x, h) }").graph
        proof = find_batch(graph, {"x": (3, 4), "h": (3, 3, 4)})
        assert isinstance(proof, BatchProof)
        assert proof.inputs == {"x": 0, "h": 1}

    def test_steps_come_first_in_recurrent_nets(self, read: ReadText) -> None:
        text = """g (float[t, n, 3] x, float[1, 8, 3] w, float[1, 8, 2] r) => (float[t, 1, n, 2] y) {
          y = LSTM<hidden_size=2>(x, w, r)
        }"""
        proof = find_batch(read(text).graph, {"x": (6, 4, 3), "w": (1, 8, 3), "r": (1, 8, 2)})
        assert isinstance(proof, BatchProof)
        assert proof.inputs["x"] == 1
        assert proof.outputs["y"] == 2

    def test_a_table_of_as_many_rows_stays_whole(self, read: ReadText) -> None:
        graph = read("g (int64[n] x, float[4, 3] t) => (float[n, 3] y) { y = Gather(t, x) }").graph
        proof = find_batch(graph, {"x": (4,), "t": (4, 3)})
        assert isinstance(proof, BatchProof)
        assert proof.inputs == {"x": 0, "t": None}

    def test_one_sample_is_no_batch(self, read: ReadText) -> None:
        found = find_batch(read("g (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }").graph, {"x": (1, 3)})
        assert found == Refusal("", "", "no input has more than one sample")

    def test_features_are_no_batch(self, read: ReadText) -> None:
        """The columns are kept apart, but nobody means them by a batch."""
        found = find_batch(read("g (float[n, 3] x) => (float[n, 3] y) { y = Softmax<axis=0>(x) }").graph, {"x": (4, 3)})
        assert isinstance(found, Refusal)


def test_an_unknown_axis_is_refused(read: ReadText) -> None:
    graph = read("g (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }").graph
    assert isinstance(prove(graph, {"x": 2}, {"x": (4, 3)}), Refusal)


class TestSizes:
    """Arithmetic on the batch size N."""

    @staticmethod
    def binary(op_type: str, a: Element, b: Element) -> Element | bool:
        site = Site(Node(op_type, "", ["a", "b"], ["y"], opset=18), [_vector(a), _vector(b)])
        made = computed(site)
        assert made is not None
        (value,) = made
        if isinstance(value, Tensor):
            assert value.array is not None
            return value.array.reshape(-1)[0].item()
        assert isinstance(value, Sizes)
        return value.elements[0]

    @pytest.mark.parametrize(
        ("op_type", "a", "b", "result"),
        [
            ("Add", Size(2, 1), 3, Size(2, 4)),
            ("Add", Size(2, 1), Size(-2, 0), 1),
            ("Sub", Size(1), Size(1), 0),
            ("Mul", Size(1), 6, Size(6)),
            ("Mul", Size(1), 0, 0),
            ("Div", Size(6), 3, Size(2)),
            ("Div", Size(6), Size(2), 3),
            ("Div", Size(1), Size(1), 1),
            ("Max", Size(1), 1, Size(1)),
            ("Min", Size(1), 1, 1),
            ("Equal", Size(1), -1, False),
            ("Equal", Size(1, 2), Size(1, 2), True),
            ("Less", Size(1), 1, False),
            ("GreaterOrEqual", Size(1), 1, True),
            ("Greater", Size(1), 0, True),
            ("Equal", Size(2), 3, False),
            ("Div", -7, 2, -3),
        ],
    )
    def test_what_holds_for_every_batch(self, op_type: str, a: Element, b: Element, result: Element | bool) -> None:
        assert self.binary(op_type, a, b) == result

    @pytest.mark.parametrize(
        ("op_type", "a", "b"),
        [
            ("Mul", Size(1), Size(1)),
            ("Div", Size(1), 2),
            ("Equal", Size(1), 4),
            ("Max", Size(1), 5),
            ("Add", Size(1), None),
        ],
    )
    def test_what_differs_is_refused(self, op_type: str, a: Element, b: Element) -> None:
        with pytest.raises(Refused):
            self.binary(op_type, a, b)

    @pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "GreaterOrEqual"])
    def test_against_numbers(self, op_type: str) -> None:
        """Whatever is said of N holds for the first few N."""
        known: list[Element] = [Size(1), Size(2), Size(3, 1), Size(-1, 2), Size(4, -4), 0, 1, 2, -1, 3]
        functions = {
            "Add": np.add,
            "Sub": np.subtract,
            "Mul": np.multiply,
            "Max": max,
            "Min": min,
            "Equal": np.equal,
            "Div": lambda x, y: int(x / y),
            "Less": np.less,
            "GreaterOrEqual": np.greater_equal,
        }
        n_decided = 0
        for a in known:
            for b in known:
                try:
                    result = self.binary(op_type, a, b)
                except Refused:
                    continue
                for n in (1, 2, 3, 7):
                    x, y = _at(a, n), _at(b, n)
                    if op_type == "Div" and y == 0:
                        continue
                    if result is not None:
                        assert _at(result, n) == functions[op_type](x, y), (a, b, n)
                        n_decided += 1
        assert n_decided > 100


def _vector(element: Element) -> Sizes | Tensor:
    return Sizes((element,), 1, INT64).settled()


def _at(element: Element, n: int) -> int:
    assert element is not None
    return element.per_sample * n + element.fixed if isinstance(element, Size) else int(element)
