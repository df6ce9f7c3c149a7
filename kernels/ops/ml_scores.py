"""Post transforms of scores that classifiers and regressors of ai.onnx.ml share.

The formulas are onnxruntime's (its probit is Winitzki's approximation), as the standard gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput

Array = Any
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def check_transform(name: str) -> str:
    """The transform's name, or InvalidInput."""
    if name not in TRANSFORMS:
        raise InvalidInput(f"post_transform {name!r} is none of {', '.join(TRANSFORMS)}")
    return name


def logistic(xp: ModuleType, scores: Array) -> Array:
    small = 1 / (1 + xp.exp(-xp.abs(scores)))
    return xp.where(scores < 0, 1 - small, small)


def probit(xp: ModuleType, scores: Array) -> Array:
    y = 2 * scores - 1
    log = xp.log((1 - y) * (1 + y))
    v = 2 / (3.14159 * 0.147) + 0.5 * log
    return 1.41421356 * xp.where(y < 0, -1, 1) * xp.sqrt(-v + xp.sqrt(v * v - log / 0.147))


def softmax(xp: ModuleType, scores: Array) -> Array:
    """Over the last axis."""
    e = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_zero(xp: ModuleType, scores: Array) -> Array:
    """Softmax over the last axis where scores of zero have no part."""
    top = scores.max(axis=-1, keepdims=True)
    present = xp.abs(scores) > 1e-7
    e = xp.where(present, xp.exp(scores - top), scores * xp.exp(-top))
    return e / xp.where(present, e, 0).sum(axis=-1, keepdims=True)


def transformed(xp: ModuleType, scores: Array, transform: str) -> Array:
    """scores: [N, C], C >= 2, by a post transform."""
    if transform == "NONE" or not scores.size:
        return scores
    functions = {"SOFTMAX": softmax, "LOGISTIC": logistic, "SOFTMAX_ZERO": softmax_zero, "PROBIT": probit}
    return functions[transform](xp, scores).astype(scores.dtype, copy=False)


def one_column(xp: ModuleType, scores: Array, transform: str) -> Array:
    """A single score, which onnxruntime transforms for PROBIT only. scores: [N, 1]"""
    return probit(xp, scores).astype(scores.dtype, copy=False) if transform == "PROBIT" else scores


def two_columns(xp: ModuleType, score: Array, transform: str, probabilities: bool) -> Array:
    """The scores of both classes from that of the positive one. score: [N] -> [N, 2]

    ``probabilities``: the other class has 1 - score, else -score. Probit gives the same one to both.
    """
    if transform == "PROBIT":
        one = probit(xp, score)
        return xp.stack([one, one], axis=1).astype(score.dtype, copy=False)
    if transform == "LOGISTIC":
        return xp.stack([logistic(xp, -score), logistic(xp, score)], axis=1).astype(score.dtype, copy=False)
    if probabilities:
        return xp.stack([1 - score, score], axis=1)
    return xp.stack([-score, score], axis=1)


def labels_of(integers: Sequence[int] | None, strings: Sequence[str] | None) -> Array:
    """The class labels that a classifier's attributes name, as an array [C]."""
    if bool(integers) == bool(strings):
        raise InvalidInput("a classifier needs its labels either as integers or as strings")
    return np.array(integers, np.int64) if integers else np.array(strings, object)


def pick(xp: ModuleType, labels: Array, index: Array) -> Array:
    """labels[index]; strings live on the host."""
    if labels.dtype == object:
        return labels[np.asarray(index if xp is np else index.get())]
    return xp.asarray(labels)[index]
