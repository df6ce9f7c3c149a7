"""Labels and scores of classifiers of ai.onnx.ml, from what their models compute. N: rows, C: classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import STORED, Instruction
from distort.kernels.compiler.ir import Array, Call, Host, Native, Tensor
from distort.kernels.compiler.keys import Key

_ML = "ai.onnx.ml"
#: of scores, those that are compiled
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "PROBIT")


def feature_rows(b: Builder, x: Tensor | None) -> Tensor | None:
    """[F] or [N, F] as float32 [N, F], contiguous; None for what is neither, or nothing."""
    if x is None or len(x.shape) not in (1, 2) or not x.size or x.dtype.kind not in "fiu":
        return None
    if x.dtype != np.float32:
        x = b.map("cast", [x], np.float32)
    x = b.contiguous(b.plain(x))
    return x if len(x.shape) == 2 else x.reshaped((1, *x.shape))


def transformed(b: Builder, scores: Tensor, transform: str) -> Tensor:
    """Scores [N, C] by one of ``TRANSFORMS``."""
    if transform == "NONE":
        return scores
    if transform == "LOGISTIC":
        return b.map("sigmoid", [scores])
    if transform == "PROBIT":
        return probit(b, scores)
    result = b.new(np.float32, scores.shape)
    scores = b.contiguous(scores)
    n_rows, n_classes = scores.shape
    words: list[Any] = [n_rows, n_classes, scores.address(), result.address()]
    b.add(Native([scores], [result], [Call(Key("scores_softmax", ()), words, scores.size * 6.0, most_threads=n_rows)]))
    return result


def probit(b: Builder, scores: Tensor) -> Tensor:
    """As the NumPy kernels' function, in its order."""

    def number(value: float) -> Tensor:
        return b.constant(np.asarray(value, np.float32))

    one = number(1)
    y = b.map("sub", [b.map("mul", [scores, number(2)]), one])
    log = b.map("log", [b.map("mul", [b.map("sub", [one, y]), b.map("add", [one, y])])])
    v = b.map("add", [b.map("mul", [log, number(0.5)]), number(2 / (3.14159 * 0.147))])
    root = b.map("sqrt", [b.map("sub", [b.map("mul", [v, v]), b.map("div", [log, number(0.147)])])])
    size = b.map("sqrt", [b.map("sub", [root, v])])
    below = b.map("less", [y, number(0)], np.bool_)
    sign = b.map("where", [below, number(-1.41421356), number(1.41421356)], np.float32)
    return b.map("mul", [size, sign])


def one_column(b: Builder, score: Tensor, transform: str) -> Tensor:
    """A single score, which is transformed for PROBIT only."""
    return probit(b, score) if transform == "PROBIT" else score


def two_columns(b: Builder, score: Tensor, transform: str, probabilities: bool) -> Tensor:
    """The scores [N, 2] of both classes from that of the second [N, 1]: the first has 1 - score, or -score."""
    if transform == "PROBIT":  # the same for both
        return b.map("add", [probit(b, score), b.constant(np.zeros(2, np.float32))])
    both = b.map("mul", [score, b.constant(np.array([-1, 1], np.float32))])
    if transform == "LOGISTIC":
        return b.map("sigmoid", [both])
    return b.map("add", [both, b.constant(np.array([1, 0], np.float32))]) if probabilities else both


def of_largest(b: Builder, node: Node, scores: Tensor, labels: Array) -> Tensor | None:
    """The label [N] of the largest score in each row, the first of equal ones. None: it has no tensor."""
    n_rows, n_classes = scores.shape
    scores = b.contiguous(scores)
    known = b.constant(labels if labels.dtype == np.int64 else np.arange(1, len(labels) + 1))
    made = b.new(np.int64, (n_rows,))
    words: list[Any] = [n_rows, n_classes, scores.address(), known.address(), made.address()]
    call = Call(Key("labels", (STORED[scores.element],)), words, scores.size * 1.0, most_threads=n_rows)
    b.add(Native([scores, known], [made], [call]))
    if labels.dtype == np.int64:
        return made
    _name(b, node, made, labels)
    return None


def of_score(b: Builder, node: Node, score: Tensor, limit: float, labels: Array) -> Tensor | None:
    """The label [N] of the second class where its score [N] is larger than the limit, else that of the first."""
    integers = labels.dtype == np.int64
    first, second = (int(labels[0]), int(labels[1])) if integers else (1, 2)
    body = [
        Instruction("constant", (0,), score.element, (limit,)),
        Instruction("greater", (0, 1), "bool"),
        Instruction("constant", (0,), "int64", (second,)),
        Instruction("constant", (0,), "int64", (first,)),
        Instruction("where", (2, 3, 4), "int64"),
    ]
    made = b.map("", [score], np.int64, body=body)
    if integers:
        return made
    _name(b, node, made, labels)
    return None


def _name(b: Builder, node: Node, number: Tensor, labels: Array) -> None:
    """Labels that are text, from their numbers, which begin with 1: a NumPy kernel of its own looks them up."""
    name = node.outputs[0]
    if not name:
        return

    def make() -> Node:
        keys = list(range(1, len(labels) + 1))
        attributes: dict[str, Any] = {"keys_int64s": keys, "values_strings": labels.tolist()}
        return Node("LabelEncoder", _ML, [f"{name}/number"], [name], attributes, node.name, 4)

    lookup = b.once(("labels", b.origin_id), make)
    number = b.contiguous(number)
    b.add(Host([number], [], lookup, lookup, [number], [name]))


__all__ = ["TRANSFORMS", "feature_rows", "of_largest", "of_score", "one_column", "transformed", "two_columns"]
