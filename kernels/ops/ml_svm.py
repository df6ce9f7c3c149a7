"""Support vector machines of ai.onnx.ml. C: classes, V: support vectors."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.ml_linear import feature_rows
from distort.kernels.ops.ml_scores import (
    check_transform,
    labels_of,
    logistic,
    one_column,
    pick,
    transformed,
    two_columns,
)
from distort.kernels.registry import kernel

Array = Any
Floats = Sequence[float] | None
Ints = Sequence[int] | None
_ML = "ai.onnx.ml"


class KernelFunction:
    """The kernel of a support vector machine, between rows and vectors."""

    def __init__(self, name: str, parameters: Floats) -> None:
        if name not in ("LINEAR", "POLY", "RBF", "SIGMOID"):
            raise InvalidInput(f"kernel_type {name!r} is none of LINEAR, POLY, RBF, SIGMOID")
        self.name = name
        self.gamma, self.coef0, self.degree = (*(parameters or ()), 0.0, 0.0, 0.0)[:3]

    def __call__(self, xp: ModuleType, x: Array, vectors: Array) -> Array:
        """x: [N, F], vectors: [V, F] -> [N, V]"""
        if x.shape[1] != vectors.shape[1]:
            raise InvalidInput(f"rows of {x.shape[1]} features, vectors of {vectors.shape[1]}")
        dot = xp.matmul(x, vectors.T)
        if self.name == "LINEAR":
            return dot
        if self.name == "RBF":
            distance = (x * x).sum(axis=1)[:, None] + (vectors * vectors).sum(axis=1) - 2 * dot
            return xp.exp(-self.gamma * xp.maximum(distance, 0))
        dot = self.gamma * dot + self.coef0
        return xp.tanh(dot) if self.name == "SIGMOID" else dot**self.degree


def _vectors(support_vectors: Floats, count: int) -> Array:
    flat = np.asarray(support_vectors or [], np.float32)
    if count < 1 or not flat.size or flat.size % count:
        raise InvalidInput(f"{flat.size} values for {count} support vectors")
    return flat.reshape(count, -1)


def _prepare_regressor(
    *,
    coefficients: Floats = None,
    kernel_params: Floats = None,
    kernel_type: str = "LINEAR",
    n_supports: int = 0,
    one_class: int = 0,
    post_transform: str = "NONE",
    rho: Floats = None,
    support_vectors: Floats = None,
) -> dict[str, Any]:
    weights = np.asarray(coefficients or [], np.float32)
    if n_supports:
        vectors = _vectors(support_vectors, n_supports)
        if len(weights) != n_supports:
            raise InvalidInput(f"{len(weights)} coefficients for {n_supports} support vectors")
    else:  # the coefficients are the only vector
        vectors, weights = _vectors(coefficients, 1), np.ones(1, np.float32)
    return {
        "function": KernelFunction(kernel_type if n_supports else "LINEAR", kernel_params),
        "vectors": vectors,
        "weights": weights,
        "rho": float((rho or [0.0])[0]),
        "one_class": one_class,
        "transform": check_transform(post_transform),
    }


@kernel("SVMRegressor", domain=_ML, prepare=_prepare_regressor)
def svm_regressor(
    xp: ModuleType,
    x: Array,
    *,
    function: KernelFunction,
    vectors: Array,
    weights: Array,
    rho: float,
    one_class: int,
    transform: str,
) -> Array:
    """SVMRegressor 1. Result: float32 [N, 1]; for one class 1 (inside) or -1."""
    y = function(xp, feature_rows(xp, x), xp.asarray(vectors)) @ xp.asarray(weights) + xp.float32(rho)
    if one_class:
        return xp.where(y > 0, xp.float32(1), xp.float32(-1))[:, None]
    return one_column(xp, y[:, None], transform)


class Machine:
    """What SVMClassifier computes scores from: one row of weights a class, or one machine a pair of classes."""

    def __init__(
        self,
        function: KernelFunction,
        vectors: Array,
        coefficients: Array,
        rho: Array,
        per_class: Sequence[int] | None,
        prob_a: Array,
        prob_b: Array,
    ) -> None:
        self.function = function
        self.vectors = vectors  # [V, F]
        self.rho = rho
        self.prob_a, self.prob_b = prob_a, prob_b
        self.positive = bool((coefficients >= 0).all())
        self.pairs: list[tuple[int, int]] = []
        if per_class is None:
            self.weights = None
            return
        n = len(per_class)
        self.pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        if sum(per_class) != len(vectors) or coefficients.size != (n - 1) * len(vectors):
            raise InvalidInput(f"{coefficients.size} coefficients for {len(vectors)} vectors of {n} classes")
        for name, values in (("rho", rho), ("prob_a", prob_a), ("prob_b", prob_b)):
            if values.size != len(self.pairs) and (name == "rho" or values.size or prob_a.size):
                raise InvalidInput(f"{values.size} values of {name} for {len(self.pairs)} pairs of classes")
        table = coefficients.reshape(n - 1, -1)
        starts = np.concatenate([[0], np.cumsum(per_class)])
        # a pair's machine weighs the vectors of its two classes
        self.weights = np.zeros((len(vectors), len(self.pairs)), np.float32)
        for column, (i, j) in enumerate(self.pairs):
            first, second = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
            self.weights[first, column] = table[j - 1, first]
            self.weights[second, column] = table[i, second]

    def scores(self, xp: ModuleType, x: Array) -> Array:
        """[N, pairs], or [N, C] without pairs"""
        kernels = self.function(xp, x, xp.asarray(self.vectors))
        if self.weights is None:
            return kernels + xp.float32(self.rho[0])
        return kernels @ xp.asarray(self.weights) + xp.asarray(self.rho)

    def votes(self, xp: ModuleType, scores: Array, n: int) -> Array:
        """[N, pairs] -> [N, C]"""
        votes = xp.zeros((len(scores), n), xp.int64)
        for column, (i, j) in enumerate(self.pairs):
            wins = scores[:, column] > 0
            votes[:, i] += wins
            votes[:, j] += ~wins
        return votes

    def probabilities(self, xp: ModuleType, scores: Array, n: int) -> Array:
        """Probabilities [N, C] from pairwise ones (Wu, Lin and Weng 2004, second method, as libsvm iterates it)."""
        pairwise = 1 - logistic(xp, scores * xp.asarray(self.prob_a) + xp.asarray(self.prob_b))
        pairwise = xp.clip(pairwise, 1e-7, 1 - 1e-7).astype(xp.float64)
        r = xp.zeros((len(scores), n, n))
        for column, (i, j) in enumerate(self.pairs):
            r[:, i, j] = pairwise[:, column]
            r[:, j, i] = 1 - pairwise[:, column]
        q = -r * r.swapaxes(1, 2)
        diagonal = (r * r).sum(axis=1)
        index = xp.arange(n)
        q[:, index, index] = diagonal
        p = xp.full((len(scores), n), 1 / n)
        for _ in range(max(100, n)):
            qp = (q @ p[:, :, None])[:, :, 0]
            pqp = (p * qp).sum(axis=1)
            moving = xp.abs(qp - pqp[:, None]).max(axis=1) >= 0.005 / n
            if not moving.any():
                break
            for t in range(n):
                step = xp.where(moving, (pqp - qp[:, t]) / diagonal[:, t], 0)
                p[:, t] += step
                pqp = (pqp + step * (step * diagonal[:, t] + 2 * qp[:, t])) / (1 + step) ** 2
                qp = (qp + step[:, None] * q[:, t]) / (1 + step)[:, None]
                p /= (1 + step)[:, None]
        return p.astype(xp.float32)


def _prepare_classifier(
    *,
    classlabels_ints: Ints = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Floats = None,
    kernel_params: Floats = None,
    kernel_type: str = "LINEAR",
    post_transform: str = "NONE",
    prob_a: Floats = None,
    prob_b: Floats = None,
    rho: Floats = None,
    support_vectors: Floats = None,
    vectors_per_class: Ints = None,
) -> dict[str, Any]:
    labels = labels_of(classlabels_ints, classlabels_strings)
    per_class = vectors_per_class or None
    vectors = _vectors(support_vectors, sum(per_class)) if per_class else _vectors(coefficients, len(labels))
    if per_class and len(per_class) != len(labels):
        raise InvalidInput(f"vectors_per_class names {len(per_class)} classes, there are {len(labels)} labels")
    tables = (np.asarray(values or [], np.float32) for values in (coefficients, rho or [0.0], prob_a, prob_b))
    weights, offsets, a, b = tables
    function = KernelFunction(kernel_type if per_class else "LINEAR", kernel_params)
    machine = Machine(function, vectors, weights, offsets, per_class, a, b)
    return {"machine": machine, "labels": labels, "transform": check_transform(post_transform)}


@kernel("SVMClassifier", domain=_ML, prepare=_prepare_classifier)
def svm_classifier(xp: ModuleType, x: Array, *, machine: Machine, labels: Array, transform: str) -> tuple[Array, Array]:
    """SVMClassifier 1. Results: labels [N], scores float32 [N, classes or pairs of classes].

    Pairs vote for the label. Scores are probabilities where prob_a and prob_b are given.
    """
    n = len(labels)
    scores = machine.scores(xp, feature_rows(xp, x))
    if not machine.pairs:
        index = scores.argmax(axis=1)
        if n == 2:  # onnxruntime takes the better score for that of the second class
            index = xp.where(scores.max(axis=1) >= 0.5 if machine.positive else scores.max(axis=1) > 0, 1, index)
        return pick(xp, labels, index), (one_column if n == 1 else transformed)(xp, scores, transform)
    index = machine.votes(xp, scores, n).argmax(axis=1)
    if machine.prob_a.size:
        return pick(xp, labels, index), transformed(xp, machine.probabilities(xp, scores, n), transform)
    if n == 2:
        return pick(xp, labels, index), two_columns(xp, scores[:, 0], transform, transform != "NONE")
    return pick(xp, labels, index), transformed(xp, scores, transform)
