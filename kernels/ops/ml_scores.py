"""Post transforms of scores that classifiers and regressors of ai.onnx.ml share.

The formulas are onnxruntime's (its probit is Winitzki's approximation), as the standard gives none.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

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


def two_columns(xp: ModuleType, score: Array, transform: str, probabilities: bool) -> Array:
    """The scores of both classes from that of the positive one. score: [N] -> [N, 2]

    ``probabilities``: the other class has 1 - score, else -score. Probit gives the same one to both.
    """
    if transform == "PROBIT":
        one = probit(xp, score)
        return xp.stack([one, one], axis=1).astype(score.dtype, copy=False)
    if probabilities:
        return xp.stack([1 - score, score], axis=1)
    if transform == "LOGISTIC":
        return xp.stack([logistic(xp, -score), logistic(xp, score)], axis=1).astype(score.dtype, copy=False)
    return xp.stack([-score, score], axis=1)
