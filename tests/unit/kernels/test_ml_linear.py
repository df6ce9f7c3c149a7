"""Linear models, support vector machines and TreeEnsemble of ai.onnx.ml, computed row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.graph.ir import Graph, Node
from distort.kernels.errors import InvalidInput
from distort.kernels.program import Program

F = 3
NAN = float("nan")


def run(op_type: str, x: Any, outputs: int, opset: int = 5, **attributes: Any) -> list[Any]:
    names = [f"y{i}" for i in range(outputs)]
    node = Node(op_type, "ai.onnx.ml", ["x"], names, attributes, opset=opset)
    return Program(Graph(inputs=["x"], outputs=names, nodes=[node])).run({"x": x})


def floats(values: Any) -> list[float]:
    return [float(np.float32(value)) for value in np.ravel(values)]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


X = np.random.default_rng(0).normal(size=(9, F)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize(
    ("transform", "function"), [("NONE", lambda s: s), ("LOGISTIC", sigmoid), ("SOFTMAX", softmax)]
)
def test_linear_models(transform: str, function: Callable[[Any], Any], dtype: Any) -> None:
    rng = np.random.default_rng(1)
    weights, intercepts = rng.normal(size=(4, F)), rng.normal(size=4)
    x = (X * 3).astype(dtype)
    scores = x.astype(np.float64) @ weights.T + intercepts
    given = {"coefficients": floats(weights), "intercepts": floats(intercepts), "post_transform": transform}
    labels, got = run("LinearClassifier", x, 2, classlabels_strings=list("abcd"), **given)
    assert labels.tolist() == ["abcd"[k] for k in scores.argmax(1)] and got.dtype == np.float32
    np.testing.assert_allclose(got, function(scores), atol=1e-5)
    (got,) = run("LinearRegressor", x, 1, targets=4, **given)
    np.testing.assert_allclose(got, function(scores), atol=1e-5)


def test_one_row_of_coefficients_scores_the_second_class() -> None:
    scores = X[:, 0].astype(np.float64) - 0.25
    given = {"coefficients": [1.0, 0.0, 0.0], "intercepts": [-0.25], "classlabels_ints": [5, 3]}
    labels, got = run("LinearClassifier", X, 2, **given)
    np.testing.assert_allclose(got, np.stack([1 - scores, scores], 1), atol=1e-6)
    assert labels.tolist() == [3 if score > 0 else 5 for score in scores]
    _, got = run("LinearClassifier", X, 2, post_transform="LOGISTIC", **given)
    np.testing.assert_allclose(got, np.stack([sigmoid(-scores), sigmoid(scores)], 1), atol=1e-6)


def test_linear_models_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match="labels for"):
        run("LinearClassifier", X, 2, coefficients=[1.0] * 3, intercepts=[0.0], classlabels_ints=[1, 2, 3])
    with pytest.raises(InvalidInput, match="features"):
        run("LinearRegressor", X, 1, coefficients=[1.0, 2.0])
    with pytest.raises(InvalidInput, match="coefficients for"):
        run("LinearRegressor", X, 1, coefficients=[1.0, 2.0, 3.0], targets=2)


GAMMA, COEF0, DEGREE = 0.5, 0.25, 3.0
KERNELS: dict[str, Callable[[Any, Any], float]] = {
    "LINEAR": lambda a, b: float(a @ b),
    "POLY": lambda a, b: float((GAMMA * (a @ b) + COEF0) ** DEGREE),
    "RBF": lambda a, b: float(np.exp(-GAMMA * ((a - b) ** 2).sum())),
    "SIGMOID": lambda a, b: float(np.tanh(GAMMA * (a @ b) + COEF0)),
}


class Machine:
    """A random one-against-one machine; ``pair`` is the score of class i against class j."""

    def __init__(self, kernel: str, classes: int) -> None:
        rng = np.random.default_rng(classes)
        self.kernel, self.classes = kernel, classes
        self.per_class = [2, 3, 1, 2][:classes]
        self.vectors = rng.normal(size=(sum(self.per_class), F)).astype(np.float32)
        self.coefficients = rng.normal(size=(classes - 1, len(self.vectors))).astype(np.float32)
        self.pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
        self.rho = rng.normal(size=len(self.pairs)).astype(np.float32)
        self.owner = np.repeat(np.arange(classes), self.per_class)

    def pair(self, x: Any, i: int, j: int) -> float:
        total = float(self.rho[self.pairs.index((i, j))])
        for v, vector in enumerate(self.vectors):
            if self.owner[v] == i:
                total += self.coefficients[j - 1, v] * KERNELS[self.kernel](x, vector)
            elif self.owner[v] == j:
                total += self.coefficients[i, v] * KERNELS[self.kernel](x, vector)
        return total

    def label(self, x: Any) -> int:
        votes = [0] * self.classes
        for i, j in self.pairs:
            votes[i if self.pair(x, i, j) > 0 else j] += 1
        return votes.index(max(votes))

    def attributes(self) -> dict[str, Any]:
        return {
            "kernel_type": self.kernel,
            "kernel_params": [GAMMA, COEF0, DEGREE],
            "support_vectors": floats(self.vectors),
            "coefficients": floats(self.coefficients),
            "rho": floats(self.rho),
            "vectors_per_class": self.per_class,
            "classlabels_ints": list(range(self.classes)),
        }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_support_vector_classifier(kernel: str, classes: int) -> None:
    machine = Machine(kernel, classes)
    labels, scores = run("SVMClassifier", X, 2, **machine.attributes())
    want = np.array([[machine.pair(x, i, j) for i, j in machine.pairs] for x in X.astype(np.float64)])
    if classes == 2:
        want = np.concatenate([-want, want], axis=1)
    np.testing.assert_allclose(scores, want, rtol=1e-4, atol=1e-4)
    assert labels.tolist() == [machine.label(x) for x in X.astype(np.float64)]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_probabilities_agree_with_each_pair(classes: int) -> None:
    """They minimize the sum of (r_ji p_i - r_ij p_j)^2 (Wu, Lin and Weng 2004, equation 18), and sum to one."""
    machine = Machine("RBF", classes)
    a, b = [-1.5] * len(machine.pairs), [0.1] * len(machine.pairs)
    _, p = run("SVMClassifier", X, 2, prob_a=a, prob_b=b, **machine.attributes())
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    for row, x in zip(p, X.astype(np.float64), strict=True):
        r = np.zeros((classes, classes))
        for i, j in machine.pairs:
            r[i, j] = 1 - sigmoid(-1.5 * machine.pair(x, i, j) + 0.1)
            r[j, i] = 1 - r[i, j]
        q = np.diag((r**2).sum(0)) - r * r.T
        system = np.block([[q, np.ones((classes, 1))], [np.ones((1, classes)), np.zeros((1, 1))]])
        want = np.linalg.solve(system, np.r_[np.zeros(classes), 1])[:-1]
        np.testing.assert_allclose(row, want, atol=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_support_vector_regressor(kernel: str) -> None:
    rng = np.random.default_rng(3)
    vectors, weights = rng.normal(size=(4, F)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    want = [sum(w * KERNELS[kernel](x, v) for w, v in zip(weights, vectors, strict=True)) + 0.5 for x in X]
    given = {
        "kernel_type": kernel,
        "kernel_params": [GAMMA, COEF0, DEGREE],
        "support_vectors": floats(vectors),
        "coefficients": floats(weights),
        "rho": [0.5],
        "n_supports": 4,
    }
    (y,) = run("SVMRegressor", X, 1, **given)
    assert y.shape == (9, 1) and y.dtype == np.float32
    np.testing.assert_allclose(y[:, 0], want, rtol=1e-4, atol=1e-4)
    (y,) = run("SVMRegressor", X, 1, one_class=1, **given)
    assert y[:, 0].tolist() == [1.0 if score > 0 else -1.0 for score in want]


def test_machines_that_do_not_fit() -> None:
    attributes = Machine("RBF", 3).attributes()
    for change, text in (
        ({"rho": [0.0]}, "rho"),
        ({"coefficients": [1.0]}, "coefficients"),
        ({"prob_a": [1.0, 1.0, 1.0]}, "prob_b"),
        ({"kernel_type": "COSINE"}, "kernel_type"),
        ({"classlabels_ints": [1, 2]}, "vectors_per_class"),
    ):
        with pytest.raises(InvalidInput, match=text):
            run("SVMClassifier", X, 2, **{**attributes, **change})


#: x0 in {1, 3}: leaf 0; else x1 > 0: leaf 1, else leaf 2. The second tree is a single leaf.
ENSEMBLE: dict[str, Any] = {
    "tree_roots": [0, 2],
    "nodes_featureids": [0, 1, 0],
    "nodes_modes": np.uint8([6, 3, 0]),
    "nodes_splits": np.float32([0, 0, 0]),
    "nodes_truenodeids": [0, 1, 3],
    "nodes_trueleafs": [1, 1, 1],
    "nodes_falsenodeids": [1, 2, 3],
    "nodes_falseleafs": [0, 1, 1],
    "leaf_targetids": [0, 1, 0, 1],
    "leaf_weights": np.float32([10, 20, 30, 0.5]),
    "membership_values": np.float32([3, 1, NAN]),
    "n_targets": 2,
}
ROWS = [[1, 0], [3, 9], [2, 1], [2, 0], [NAN, 1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tree_ensemble(dtype: Any) -> None:
    (y,) = run("TreeEnsemble", np.array(ROWS, dtype), 1, **ENSEMBLE)
    assert y.dtype == dtype
    assert y.tolist() == [[10, 0.5], [10, 0.5], [0, 20.5], [30, 0.5], [0, 20.5]]
    (y,) = run("TreeEnsemble", np.array(ROWS, dtype), 1, **ENSEMBLE, nodes_missing_value_tracks_true=[1, 0, 0])
    assert y[4].tolist() == [10, 0.5]


@pytest.mark.parametrize(("number", "row"), [(0, [0, 10.25]), (1, [0, 20.5]), (2, [0, 0.5]), (3, [0, 20])])
def test_tree_ensemble_aggregates_by_number(number: int, row: list[float]) -> None:
    (y,) = run("TreeEnsemble", np.float32([[2, 1]]), 1, **ENSEMBLE, aggregate_function=number)
    assert y.tolist() == [row]


@pytest.mark.parametrize(("number", "function"), [(1, softmax), (2, sigmoid)])
def test_tree_ensemble_transforms_by_number(number: int, function: Callable[[Any], Any]) -> None:
    (y,) = run("TreeEnsemble", np.float32([[2, 0]]), 1, **ENSEMBLE, post_transform=number)
    np.testing.assert_allclose(y, function(np.array([[30, 0.5]])), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"membership_values": np.float32([1, NAN, 2, NAN])}, "sets"),
        ({"nodes_falsenodeids": [1, 9, 3]}, "does not exist"),
        ({"nodes_falsenodeids": [0, 2, 3]}, "two parents"),
        ({"leaf_targetids": [0, 1]}, "targets for"),
        ({"nodes_modes": np.uint8([7, 3, 0])}, "mode 7"),
        ({"nodes_splits": np.float32([0])}, "length"),
        ({"post_transform": 5}, "post_transform 5"),
    ],
)
def test_broken_tree_ensembles(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        run("TreeEnsemble", np.zeros((1, 2), np.float32), 1, **{**ENSEMBLE, **change})
