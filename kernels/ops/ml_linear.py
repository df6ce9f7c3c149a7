"""Linear models of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.ml_scores import check_transform, labels_of, one_column, pick, transformed, two_columns
from distort.kernels.registry import kernel

Array = Any
Floats = Sequence[float] | None
_ML = "ai.onnx.ml"


def feature_rows(xp: ModuleType, x: Array) -> Array:
    """[F] or [N, F] as float32 [N, F]"""
    if x.ndim not in (1, 2):
        raise InvalidInput(f"Input shape needs to be [N, F] or [F]: it is {list(x.shape)}")
    return (x[None] if x.ndim == 1 else x).astype(xp.float32, copy=False)


def _matrix(coefficients: Floats, rows: int) -> Array:
    """[rows, F], transposed to [F, rows]"""
    flat = np.asarray(coefficients or [], np.float32)
    if rows < 1 or not flat.size or flat.size % rows:
        raise InvalidInput(f"{flat.size} coefficients for {rows} classes or targets")
    return flat.reshape(rows, -1).T


def _linear(xp: ModuleType, x: Array, weights: Array, intercepts: Array) -> Array:
    """x: [N, F], weights: [F, C]"""
    if x.shape[1] != len(weights):
        raise InvalidInput(f"rows of {x.shape[1]} features, coefficients for {len(weights)}")
    return xp.matmul(x, xp.asarray(weights)) + xp.asarray(intercepts)


def _prepare_linear_classifier(
    *,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Floats = None,
    intercepts: Floats = None,
    multi_class: int = 0,
    post_transform: str = "NONE",
) -> dict[str, Any]:
    labels = labels_of(classlabels_ints, classlabels_strings)
    scores = len(intercepts) if intercepts else (1 if len(labels) == 2 else len(labels))
    if (len(labels) != 2) if scores == 1 else (scores > len(labels)):
        raise InvalidInput(f"LinearClassifier: {len(labels)} labels for {scores} intercepts")
    return {
        "weights": _matrix(coefficients, scores),
        "intercepts": np.asarray(intercepts or [0.0] * scores, np.float32),
        "labels": labels,
        "transform": check_transform(post_transform),
    }


@kernel("LinearClassifier", domain=_ML, prepare=_prepare_linear_classifier)
def linear_classifier(
    xp: ModuleType, x: Array, *, weights: Array, intercepts: Array, labels: Array, transform: str
) -> tuple[Array, Array]:
    """LinearClassifier 1. Results: labels [N], scores float32 [N, classes].

    One row of coefficients gives the score of the second of two classes; the first has 1 - score.
    """
    scores = _linear(xp, feature_rows(xp, x), weights, intercepts)
    if scores.shape[1] == 1:
        index = (scores[:, 0] > 0).astype(xp.int64)
        return pick(xp, labels, index), two_columns(xp, scores[:, 0], transform, True)
    return pick(xp, labels, scores.argmax(axis=1)), transformed(xp, scores, transform)


def _prepare_linear_regressor(
    *, coefficients: Floats = None, intercepts: Floats = None, post_transform: str = "NONE", targets: int = 1
) -> dict[str, Any]:
    if intercepts and len(intercepts) != targets:
        raise InvalidInput(f"LinearRegressor: {len(intercepts)} intercepts for {targets} targets")
    return {
        "weights": _matrix(coefficients, targets),
        "intercepts": np.asarray(intercepts or [0.0] * targets, np.float32),
        "transform": check_transform(post_transform),
    }


@kernel("LinearRegressor", domain=_ML, prepare=_prepare_linear_regressor)
def linear_regressor(xp: ModuleType, x: Array, *, weights: Array, intercepts: Array, transform: str) -> Array:
    """LinearRegressor 1. Result: float32 [N, targets]."""
    scores = _linear(xp, feature_rows(xp, x), weights, intercepts)
    return (one_column if scores.shape[1] == 1 else transformed)(xp, scores, transform)
