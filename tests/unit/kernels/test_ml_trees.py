"""Tree ensembles against a descent row by row, and the rules for scores of two classes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.graph.ir import Graph, Node
from distort.kernels.errors import InvalidInput
from distort.kernels.program import Program

ML = "ai.onnx.ml"
MODES: dict[str, Callable[[float, float], bool]] = {
    "BRANCH_LEQ": operator.le,
    "BRANCH_LT": operator.lt,
    "BRANCH_GTE": operator.ge,
    "BRANCH_GT": operator.gt,
    "BRANCH_EQ": operator.eq,
    "BRANCH_NEQ": operator.ne,
}


def run(op_type: str, x: Any, outputs: int, opset: int = 3, **attributes: Any) -> list[Any]:
    names = [f"y{i}" for i in range(outputs)]
    node = Node(op_type, ML, ["x"], names, attributes, opset=opset)
    return Program(Graph(inputs=["x"], outputs=names, nodes=[node])).run({"x": x})


class Trees:
    """Random trees: attributes for the operators, and a plain descent."""

    def __init__(
        self, seed: int, n: int, depth: int, features: int, targets: int, modes: tuple[str, ...] = ("BRANCH_LEQ",)
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.n, self.features, self.targets, self.modes = n, features, targets, modes
        self.nodes: list[tuple[int, int, str, int, float, int, int, int]] = []
        self.votes: list[tuple[int, int, int, float]] = []
        for tree in range(n):
            self._grow(tree, depth, [0])

    def _grow(self, tree: int, depth: int, counter: list[int]) -> int:
        me = 3 * counter[0] + 7  # ids need not be dense
        counter[0] += 1
        position = len(self.nodes)
        self.nodes.append((tree, me, "LEAF", 0, 0.0, 0, 0, 0))
        if depth == 0 or (counter[0] > 1 and self.rng.random() < 0.2):
            for target in self.rng.choice(self.targets, self.rng.integers(1, self.targets + 1), replace=False):
                self.votes.append((tree, me, int(target), float(np.float32(self.rng.normal()))))
            return me
        mode, feature = str(self.rng.choice(self.modes)), int(self.rng.integers(self.features))
        split, missing = float(self.rng.integers(-2, 3)), int(self.rng.integers(2))
        true, false = self._grow(tree, depth - 1, counter), self._grow(tree, depth - 1, counter)
        self.nodes[position] = (tree, me, mode, feature, split, missing, true, false)
        return me

    def attributes(self, prefix: str, ids: str, double: bool = False) -> dict[str, Any]:
        tree, node, mode, feature, split, missing, true, false = (list(c) for c in zip(*self.nodes, strict=True))
        vote_tree, vote_node, target, weight = (list(c) for c in zip(*self.votes, strict=True))
        values: dict[str, Any] = {"nodes_values": split, f"{prefix}_weights": weight}
        if double:
            values = {f"{name}_as_tensor": np.float64(value) for name, value in values.items()}
        return {
            "nodes_treeids": tree,
            "nodes_nodeids": node,
            "nodes_modes": mode,
            "nodes_featureids": feature,
            "nodes_missing_value_tracks_true": missing,
            "nodes_truenodeids": true,
            "nodes_falsenodeids": false,
            f"{prefix}_treeids": vote_tree,
            f"{prefix}_nodeids": vote_node,
            ids: target,
            **values,
        }

    def votes_for(self, row: Any) -> list[list[float]]:
        """For each target the weights of the leaves that the row reaches, tree by tree."""
        found: list[list[float]] = [[] for _ in range(self.targets)]
        table = {node[:2]: node for node in self.nodes}
        for tree in range(self.n):
            at = next(node for node in self.nodes if node[0] == tree)
            while at[2] != "LEAF":
                _, _, mode, feature, split, missing, true, false = at
                value = row[feature]
                at = table[tree, true if MODES[mode](value, split) or (missing and value != value) else false]
            for vote in self.votes:
                if vote[:2] == at[:2]:
                    found[vote[2]].append(vote[3])
        return found


AGGREGATES: dict[str, Callable[[list[float], int], float]] = {
    "SUM": lambda votes, n: sum(votes),
    "AVERAGE": lambda votes, n: sum(votes) / n,
    "MIN": lambda votes, n: min(votes, default=0.0),
    "MAX": lambda votes, n: max(votes, default=0.0),
}


@pytest.mark.parametrize("how", AGGREGATES)
@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), tuple(MODES)])
def test_regressor_reaches_the_right_leaves(how: str, modes: tuple[str, ...]) -> None:
    trees = Trees(1, 5, 4, 3, 2, modes)
    x = np.random.default_rng(2).integers(-3, 4, (12, 3)).astype(np.float32)
    x[::3, 1] = np.nan
    attributes = trees.attributes("target", "target_ids")
    (y,) = run("TreeEnsembleRegressor", x, 1, n_targets=2, aggregate_function=how, **attributes)
    want = [[AGGREGATES[how](votes, trees.n) for votes in trees.votes_for(row)] for row in x]
    assert y.dtype == np.float32 and y.shape == (12, 2)
    np.testing.assert_allclose(y, want, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("double", [False, True])
def test_classifier_of_many_classes(dtype: Any, double: bool) -> None:
    trees = Trees(3, 9, 3, 4, 4)
    x = np.random.default_rng(4).integers(-3, 4, (20, 4)).astype(dtype)
    attributes = trees.attributes("class", "class_ids", double)
    labels, scores = run("TreeEnsembleClassifier", x, 2, classlabels_strings=["a", "b", "c", "d"], **attributes)
    votes = [trees.votes_for(row) for row in x]
    np.testing.assert_allclose(scores, [[sum(v) for v in row] for row in votes], atol=1e-5)
    best = [max((sum(v), -k) for k, v in enumerate(row) if v)[1] for row in votes]
    assert labels.tolist() == ["abcd"[-k] for k in best] and scores.dtype == np.float32


def test_rows_in_chunks_give_what_one_chunk_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = Trees(5, 6, 4, 3, 3)
    x = np.random.default_rng(6).normal(size=(17, 3)).astype(np.float32)
    attributes = trees.attributes("target", "target_ids")
    (want,) = run("TreeEnsembleRegressor", x, 1, n_targets=3, **attributes)
    monkeypatch.setattr("distort.kernels.ops.ml_tree_tables._CHUNK", 24)
    (got,) = run("TreeEnsembleRegressor", x, 1, n_targets=3, **attributes)
    np.testing.assert_array_equal(got, want)


def test_a_row_alone_and_no_rows() -> None:
    attributes = Trees(7, 2, 2, 3, 1).attributes("target", "target_ids")
    (y,) = run("TreeEnsembleRegressor", np.zeros(3, np.float32), 1, n_targets=1, **attributes)
    assert y.shape == (1, 1)
    (y,) = run("TreeEnsembleRegressor", np.zeros((0, 3), np.float32), 1, n_targets=1, **attributes)
    assert y.shape == (0, 1)


def stump(votes: tuple[list[tuple[int, float]], list[tuple[int, float]]], prefix: str = "class") -> dict[str, Any]:
    """One node: x[0] <= 0 reaches the first leaf."""
    flat = [(leaf, target, weight) for leaf, pairs in ((1, votes[0]), (2, votes[1])) for target, weight in pairs]
    return {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_featureids": [0, 0, 0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        f"{prefix}_treeids": [0] * len(flat),
        f"{prefix}_nodeids": [leaf for leaf, _, _ in flat],
        "class_ids" if prefix == "class" else "target_ids": [target for _, target, _ in flat],
        f"{prefix}_weights": [weight for _, _, weight in flat],
    }


X = np.float32([[-1], [1]])
ONE = ([(0, 0.25)], [(0, 0.75)])
MIXED = ([(0, -0.25)], [(0, 0.75)])
SECOND = ([(1, 0.25)], [(1, 0.75)])


def logistic(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


@pytest.mark.parametrize(
    ("votes", "more", "labels", "scores"),
    [
        (ONE, {}, [4, 9], [[0.75, 0.25], [0.25, 0.75]]),
        (ONE, {"post_transform": "LOGISTIC"}, [4, 9], [[logistic(s), logistic(-s)] for s in (-0.25, -0.75)]),
        (ONE, {"base_values": [0.5]}, [9, 9], [[0.25, 0.75], [-0.25, 1.25]]),
        (MIXED, {}, [4, 9], [[0.25, -0.25], [-0.75, 0.75]]),
        (SECOND, {}, [4, 9], [[0, 0.25], [0, 0.75]]),
        (SECOND, {"post_transform": "SOFTMAX_ZERO"}, [4, 9], [[0, 1], [0, 1]]),
        (([(0, 0.5), (1, -0.5)], [(0, -0.5), (1, 0.5)]), {}, [4, 9], [[0.5, -0.5], [-0.5, 0.5]]),
        (([(0, 0.5), (1, 0.25)], [(1, 0.5)]), {"base_values": [1.0, 1.0]}, [9, 9], [[-1.5, 1.5], [0, 1.0]]),
    ],
)
def test_two_classes(votes: Any, more: dict[str, Any], labels: list[int], scores: list[list[float]]) -> None:
    got = run("TreeEnsembleClassifier", X, 2, classlabels_int64s=[4, 9], **stump(votes), **more)
    assert got[0].tolist() == labels and got[0].dtype == np.int64
    np.testing.assert_allclose(got[1], scores, rtol=1e-6)


def test_sums_round_as_single_precision_does() -> None:
    """Five votes of 0.1 are 0.5 in float32, no majority; in float64 they'd be more."""
    one = stump(([(0, 0.1)], [(0, 0.1)]))
    attributes = {name: list(value) * 5 for name, value in one.items()}
    for name in ("nodes_treeids", "class_treeids"):
        each = len(attributes[name]) // 5
        attributes[name] = [tree for tree in range(5) for _ in range(each)]
    labels, _ = run("TreeEnsembleClassifier", X, 2, classlabels_int64s=[0, 1], **attributes)
    assert labels.tolist() == [0, 0]


def test_post_transforms_of_targets() -> None:
    votes = ([(0, 0.25), (1, 0.5)], [(0, 0.25), (1, 0.75)])
    attributes = stump(votes, "target")
    (plain,) = run("TreeEnsembleRegressor", X, 1, n_targets=2, **attributes)
    (y,) = run("TreeEnsembleRegressor", X, 1, n_targets=2, post_transform="SOFTMAX", **attributes)
    np.testing.assert_allclose(y, np.exp(plain) / np.exp(plain).sum(1, keepdims=True), rtol=1e-6)
    (y,) = run("TreeEnsembleRegressor", X, 1, n_targets=2, post_transform="PROBIT", **attributes)
    np.testing.assert_allclose(y[:, 1], [0, 0.6744898], atol=3e-3)  # quantiles of the normal distribution


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"nodes_truenodeids": [0, 0, 0]}, "roots|ancestor"),
        ({"nodes_truenodeids": [5, 0, 0]}, "does not exist"),
        ({"nodes_truenodeids": [2, 0, 0]}, "two parents|roots"),
        ({"nodes_values": [0.0]}, "length"),
        ({"nodes_modes": ["BRANCH_MAYBE", "LEAF", "LEAF"]}, "unknown mode"),
        ({"nodes_nodeids": [0, 1, 1]}, "one id"),
        ({"class_ids": [0, 7]}, "votes for target"),
        ({"class_nodeids": [1, 8]}, "does not exist"),
        ({"post_transform": "HARDMAX"}, "post_transform"),
        ({"classlabels_strings": ["a", "b"]}, "labels"),
        ({"base_values": [1.0, 2.0, 3.0]}, "base values"),
    ],
)
def test_broken_trees_are_refused_when_lowered(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        run("TreeEnsembleClassifier", X, 2, **{"classlabels_int64s": [0, 1], **stump(ONE), **change})


def test_a_feature_that_rows_lack() -> None:
    attributes = {**stump(ONE), "nodes_featureids": [3, 0, 0]}
    with pytest.raises(InvalidInput, match="feature 3"):
        run("TreeEnsembleClassifier", X, 2, classlabels_int64s=[0, 1], **attributes)
