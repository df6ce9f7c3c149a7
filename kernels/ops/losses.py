"""Losses: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss."""

from __future__ import annotations

from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import rounded, working
from distort.kernels.registry import kernel


def _loss(xp: Any, log_prob: Any, target: Any, weight: Any, ignore_index: int | None, reduction: str) -> Any:
    """-weight[target] * log_prob[n, target, d1, ...], reduced.

    log_prob: [N, C, d1, ...], target: [N, d1, ...] of classes, weight: [C] or None. A mean divides by the sum of the
    weights of the targets that are not ignored.
    """
    if reduction not in ("none", "sum", "mean"):
        raise InvalidInput(f"reduction is {reduction!r}, expected none, sum or mean")
    shape = log_prob.shape
    if log_prob.ndim < 2 or target.shape != shape[:1] + shape[2:]:
        raise InvalidInput(f"target has shape {list(target.shape)}, input {list(shape)}")
    if weight is not None and weight.shape != shape[1:2]:
        raise InvalidInput(f"weight has shape {list(weight.shape)}, input has {shape[1]} classes")
    ignored = None if ignore_index is None else target == ignore_index
    classes = target if ignored is None else xp.where(ignored, 0, target)
    if classes.size and (bool((classes < 0).any()) or bool((classes >= shape[1]).any())):
        raise InvalidInput(f"target holds classes outside 0 to {shape[1] - 1}")
    chosen = xp.take_along_axis(log_prob, xp.expand_dims(classes, 1).astype(xp.int64), axis=1)
    loss = -xp.squeeze(chosen, axis=1)
    scale = None if weight is None else weight.astype(loss.dtype, copy=False)[classes]
    if ignored is not None:
        scale = xp.where(ignored, 0, 1 if scale is None else scale).astype(loss.dtype)
        loss = xp.where(ignored, loss.dtype.type(0), loss)
    if scale is not None:
        loss = loss * scale
    if reduction == "none":
        return loss
    total = xp.sum(loss, dtype=loss.dtype)
    if reduction == "sum":
        return total
    return total / (target.size if scale is None else xp.sum(scale, dtype=loss.dtype))


@kernel("NegativeLogLikelihoodLoss", 12)
def negative_log_likelihood_loss(
    xp: Any, x: Any, target: Any, weight: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    return rounded(xp, xp.asarray(_loss(xp, working(xp, x), target, weight, ignore_index, reduction)), x)


@kernel("SoftmaxCrossEntropyLoss", 12)
def softmax_cross_entropy_loss(
    xp: Any,
    scores: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    n_outputs: int = 1,
) -> Any:
    """The loss, and the logarithms of the probabilities, [N, C, d1, ...]."""
    if scores.ndim < 2:
        raise InvalidInput(f"scores have shape {list(scores.shape)}, expected [N, C, ...]")
    wide = working(xp, scores)
    log_prob = wide - xp.max(wide, axis=1, keepdims=True) if wide.size else wide
    log_prob = log_prob - xp.log(xp.sum(xp.exp(log_prob), axis=1, keepdims=True))
    loss = rounded(xp, xp.asarray(_loss(xp, log_prob, target, weight, ignore_index, reduction)), scores)
    return (loss, rounded(xp, log_prob, scores)) if n_outputs > 1 else loss
