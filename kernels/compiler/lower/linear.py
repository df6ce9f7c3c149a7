"""Linear models of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import classes
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Array, Tensor
from distort.kernels.compiler.products import multiply
from distort.kernels.errors import InvalidInput
from distort.kernels.ops import ml_linear

Result = list[Tensor | None] | None
_ML = "ai.onnx.ml"


def prepared(b: Builder, node: Node, prepare: Any) -> dict[str, Any] | None:
    """Keywords of the NumPy kernel, made once; None where that refuses the attributes."""

    def make() -> Any:
        try:
            return prepare(**node.attributes)
        except (InvalidInput, TypeError):
            return None

    found: dict[str, Any] | None = b.once(("prepared", b.origin_id), make)
    return found


def affine(b: Builder, x: Tensor, weights: Array, offsets: Array) -> Tensor | None:
    """x [N, F] · weights [F, C] + offsets [C] or one for all"""
    if x.shape[1] != len(weights):
        return None
    made = multiply(b, x, b.constant(weights), exact=True)
    return None if made is None else b.map("add", [made, b.constant(offsets)])


@lowers("LinearRegressor", domain=_ML)
def _regressor(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    known, x = prepared(b, node, ml_linear._prepare_linear_regressor), classes.feature_rows(b, inputs[0])
    if x is None or known is None or known["transform"] not in classes.TRANSFORMS:
        return None
    scores = affine(b, x, known["weights"], known["intercepts"])
    if scores is None:
        return None
    if scores.shape[1] == 1:
        return [classes.one_column(b, scores, known["transform"])]
    return [classes.transformed(b, scores, known["transform"])]


@lowers("LinearClassifier", domain=_ML)
def _classifier(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    known, x = prepared(b, node, ml_linear._prepare_linear_classifier), classes.feature_rows(b, inputs[0])
    if x is None or known is None or known["transform"] not in classes.TRANSFORMS:
        return None
    labels, transform = known["labels"], known["transform"]
    scores = affine(b, x, known["weights"], known["intercepts"])
    if scores is None or scores.dtype != np.float32:
        return None
    if scores.shape[1] == 1:
        made = classes.of_score(b, node, scores.reshaped(scores.shape[:1]), 0.0, labels)
        return [made, classes.two_columns(b, scores, transform, True)]
    return [classes.of_largest(b, node, scores, labels), classes.transformed(b, scores, transform)]
