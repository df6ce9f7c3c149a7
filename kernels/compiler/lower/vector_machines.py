"""Support vector machines of ai.onnx.ml. C: classes, P: pairs of classes, V: support vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import classes
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.ir import Call, Native, Scratch, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.linear import affine, prepared
from distort.kernels.compiler.products import multiply
from distort.kernels.compiler.rows import Body
from distort.kernels.ops import ml_svm
from distort.kernels.ops.ml_svm import KernelFunction, Machine

Result = list[Tensor | None] | None
_ML = "ai.onnx.ml"
#: a sweep over the classes, for each pair of them
_SWEEP_NS = 10.0


def _similar(b: Builder, function: KernelFunction, x: Tensor, vectors: Any) -> Tensor | None:
    """x [N, F], vectors [V, F] -> [N, V]"""
    if x.shape[1] != vectors.shape[1]:
        return None

    def number(value: float) -> Tensor:
        return b.constant(np.asarray(value, np.float32))

    dot = multiply(b, x, b.constant(np.ascontiguousarray(vectors.T)), exact=True)
    if dot is None or function.name == "LINEAR":
        return dot
    if function.name == "RBF":
        body = Body(x.shape, "float32")
        element = body.input(x)
        squares = body.add(b, (1,), [(body.op("row_sum", body.op("mul", element, element)), "float32", True)])
        if squares is None:
            return None
        lengths = b.constant((vectors * vectors).sum(axis=1))
        distance = b.map("sub", [b.map("add", [squares[0], lengths]), b.map("mul", [dot, number(2)])])
        distance = b.map("max", [distance, number(0)])
        return b.map("exp", [b.map("mul", [distance, number(-function.gamma)])])
    dot = b.map("add", [b.map("mul", [dot, number(function.gamma)]), number(function.coef0)])
    return b.map("tanh", [dot]) if function.name == "SIGMOID" else b.map("pow", [dot, number(function.degree)])


@lowers("SVMRegressor", domain=_ML)
def _regressor(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    known, x = prepared(b, node, ml_svm._prepare_regressor), classes.feature_rows(b, inputs[0])
    if x is None or known is None:
        return None
    kernels = _similar(b, known["function"], x, known["vectors"])
    y = None if kernels is None else affine(b, kernels, known["weights"][:, None], np.asarray(known["rho"], np.float32))
    if y is None:
        return None
    if known["one_class"]:
        zero, one, other = (b.constant(np.asarray(n, np.float32)) for n in (0, 1, -1))
        return [b.map("where", [b.map("greater", [y, zero], np.bool_), one, other], np.float32)]
    return [classes.one_column(b, y, known["transform"])]


@lowers("SVMClassifier", domain=_ML)
def _classifier(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    known, x = prepared(b, node, ml_svm._prepare_classifier), classes.feature_rows(b, inputs[0])
    if x is None or known is None or known["transform"] not in classes.TRANSFORMS:
        return None
    machine, labels, transform = known["machine"], known["labels"], known["transform"]
    if machine.weights is None:
        return None
    kernels = _similar(b, machine.function, x, machine.vectors)
    scores = None if kernels is None else affine(b, kernels, machine.weights, machine.rho)
    if scores is None:
        return None
    n = len(labels)
    if n == 2:  # the pair's score is that of the first
        chosen = classes.of_score(b, node, scores.reshaped(scores.shape[:1]), 0.0, labels[::-1])
    else:
        votes = _votes(b, machine, scores, n)
        if votes is None:
            return None
        chosen = classes.of_largest(b, node, votes, labels)
    if machine.prob_a.size:
        return [chosen, classes.transformed(b, _probabilities(b, machine, scores, n), transform)]
    if n == 2:
        return [chosen, classes.two_columns(b, scores, transform, transform != "NONE")]
    return [chosen, classes.transformed(b, scores, transform)]


def _votes(b: Builder, machine: Machine, scores: Tensor, n: int) -> Tensor | None:
    """Scores [N, P] -> votes [N, C], as a product: a pair's vote goes to the second class, or is moved to the first."""
    moves, base = np.zeros((len(machine.pairs), n), np.float32), np.zeros(n, np.float32)
    for pair, (i, j) in enumerate(machine.pairs):
        moves[pair, i], moves[pair, j] = 1, -1
        base[j] += 1
    wins = b.map("greater", [scores, b.constant(np.zeros((), np.float32))], np.bool_)
    return affine(b, b.map("cast", [wins], np.float32), moves, base)


def _probabilities(b: Builder, machine: Machine, scores: Tensor, n: int) -> Tensor:
    """Probabilities [N, C] from scores [N, P]"""
    a, offset = b.constant(machine.prob_a), b.constant(machine.prob_b)
    pairwise = b.map("sigmoid", [b.map("add", [b.map("mul", [scores, a]), offset])])
    one, low, high = (b.constant(np.asarray(value, np.float32)) for value in (1.0, 1e-7, 1 - 1e-7))
    pairwise = b.contiguous(b.map("min", [b.map("max", [b.map("sub", [one, pairwise]), low]), high]))
    n_rows = scores.shape[0]
    result = b.new(np.float32, (n_rows, n))
    nbytes = 8 * n * (n + 2)
    words: list[Any] = [n_rows, n, pairwise.address(), result.address(), Scratch(), nbytes]
    work = n_rows * n * n * _SWEEP_NS
    call = Call(Key("couplings", ()), words, work, scratch_nbytes=nbytes * b.n_threads, most_threads=n_rows)
    b.add(Native([pairwise], [result], [call]))
    return result
