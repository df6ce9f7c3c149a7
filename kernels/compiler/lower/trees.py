"""Tree ensembles of ai.onnx.ml, and rows of features that are scaled."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowering_of, lowers
from distort.kernels.compiler.classes import TRANSFORMS, of_largest, of_score, transformed, two_columns
from distort.kernels.compiler.codegen.trees import TREES
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Call, Native, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.trees import Tables, tables_of
from distort.kernels.errors import InvalidInput
from distort.kernels.ops import ml, ml_tree_ensemble, ml_trees
from distort.kernels.ops.ml_trees import Ensemble

Result = list[Tensor | None] | None
_ML = "ai.onnx.ml"
#: rows that go down the trees of a group before the next group's turn
_UNIT_ROWS = 64


def _prepared(b: Builder, node: Node, prepare: Any) -> tuple[dict[str, Any], Tables] | None:
    """Keywords of the NumPy kernel and tables of the native one, made once; None where there are none."""

    def make() -> Any:
        try:
            keywords = prepare(**node.attributes)
        except (InvalidInput, TypeError):
            return None  # the NumPy kernel says so
        tables = tables_of(keywords["ensemble"])
        return None if tables is None else (keywords, tables)

    found: tuple[dict[str, Any], Tables] | None = b.once(("trees", b.origin_id), make)
    return found


def _scores(b: Builder, x: Tensor, ensemble: Ensemble, tables: Tables, how: str) -> Tensor | None:
    """float32 [rows, targets], base values not yet added."""
    if how not in ("SUM", "AVERAGE") or len(x.shape) not in (1, 2) or not x.size:
        return None
    if x.dtype.kind in "iu":
        x = b.map("cast", [x], np.float32)
    if x.dtype != np.float32:
        return None
    x = b.contiguous(b.plain(x))
    n_rows, n_features = (1, x.shape[0]) if len(x.shape) == 1 else x.shape
    if n_features < ensemble.forest.n_features:
        return None
    scores = b.new(np.float32, (n_rows, ensemble.n_targets))
    arrays = {name: b.packed(("trees", b.origin_id, name), lambda name=name: getattr(tables, name)) for name in _ARRAYS}  # type: ignore[misc]
    n_trees = len(tables.depths)
    # few trees: several rows at once
    by_rows = n_trees <= TREES // 2 and n_rows > 1
    n_groups = n_trees if by_rows else len(tables.levels)
    levels = arrays["depths" if by_rows else "levels"]
    unit = max(1, min(_UNIT_ROWS, -(-n_rows // (4 * b.n_threads))))
    words: list[Any] = [n_rows, unit, n_features * 4, x.address(), arrays["nodes"].address(), n_groups]
    words += [arrays["roots"].address(), levels.address(), ensemble.n_targets, scores.address()]
    words += [arrays["weights"].address(), arrays["spans"].address()]
    key = Key("trees", (tables.condition, tables.tracks_missing, tables.votes, by_rows))
    work = n_rows * n_trees * (tables.depth * 0.8 + 2 * ensemble.n_targets)
    b.add(Native([x], [scores], [Call(key, words, work, most_threads=-(-n_rows // unit))]))
    if how == "AVERAGE":
        number = b.constant(np.asarray(len(ensemble.forest.roots), np.float32))
        scores = b.map("div", [scores, number])
    return scores


_ARRAYS = ("nodes", "roots", "levels", "depths", "weights", "spans")


def _with_base(b: Builder, scores: Tensor, ensemble: Ensemble) -> Tensor:
    if not ensemble.base.size:
        return scores
    return b.map("add", [scores, b.constant(ensemble.base.astype(np.float32, copy=False))])


def _regression(b: Builder, node: Node, x: Tensor | None, prepare: Any) -> Result:
    prepared = _prepared(b, node, prepare)
    if x is None or prepared is None:
        return None
    keywords, tables = prepared
    ensemble, transform = keywords["ensemble"], keywords["transform"]
    if ensemble.base.dtype != np.float32 or transform == "PROBIT":
        return None
    if ensemble.n_targets > 1 and transform not in TRANSFORMS:
        return None
    scores = _scores(b, x, ensemble, tables, keywords["how"])
    if scores is None:
        return None
    scores = _with_base(b, scores, ensemble)
    if ensemble.n_targets == 1:
        return [scores]  # a single score is transformed for PROBIT only
    return [transformed(b, scores, transform)]


@lowers("TreeEnsembleRegressor", domain=_ML)
def _regressor(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    return _regression(b, node, inputs[0], ml_trees._prepare_regressor)


@lowers("TreeEnsemble", domain=_ML)
def _tree_ensemble(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    if x is None or x.dtype != np.float32:
        return None
    return _regression(b, node, x, ml_tree_ensemble._prepare)


@lowers("TreeEnsembleClassifier", domain=_ML)
def _classifier(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    prepared = _prepared(b, node, _classifier_of)
    if x is None or prepared is None:
        return None
    keywords, tables = prepared
    ensemble, labels, transform = keywords["ensemble"], keywords["labels"], keywords["transform"]
    if ensemble.base.dtype != np.float32 or transform not in TRANSFORMS:
        return None
    if keywords["one_sided"]:
        if transform == "SOFTMAX":
            return None
        return _one_sided(b, node, x, keywords, tables)
    if ensemble.n_targets < 2 or (ensemble.n_targets == 2 and ensemble.base.size):
        return None
    scores = _scores(b, x, ensemble, tables, "SUM")
    if scores is None:
        return None
    if ensemble.n_targets == 2:
        second = scores.view(scores.shape[:1], (2,), 1)
        return [of_score(b, node, second, 0.0, labels), transformed(b, scores, transform)]
    scores = _with_base(b, scores, ensemble)
    return [of_largest(b, node, scores, labels), transformed(b, scores, transform)]


def _classifier_of(**attributes: Any) -> dict[str, Any]:
    """As the NumPy kernel's; where all leaves vote for the first of two classes, with that as the only target."""
    keywords = ml_trees._prepare_classifier(**attributes)
    if keywords["one_sided"] and not keywords["ensemble"].targets.any() and keywords["ensemble"].base.size < 2:
        return {**keywords, "ensemble": keywords["ensemble"].of_one_target()}
    return {**keywords, "one_sided": False}


def _one_sided(b: Builder, node: Node, x: Tensor, keywords: dict[str, Any], tables: Tables) -> Result:
    """Two classes; the only score is that of the positive one."""
    scores = _scores(b, x, keywords["ensemble"], tables, "SUM")
    if scores is None:
        return None
    scores, positive = _with_base(b, scores, keywords["ensemble"]), keywords["positive"]
    label = of_score(b, node, scores.reshaped(scores.shape[:1]), 0.5 if positive else 0.0, keywords["labels"])
    return [label, two_columns(b, scores, keywords["transform"], positive)]


@lowers("Scaler", domain=_ML)
def _scaler(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or not x.shape or x.dtype.kind not in "fiu" or x.dtype == np.float64:
        return None
    try:
        known = ml._prepare_scaler(**node.attributes)
    except (InvalidInput, TypeError):
        return None
    size = known["offset"].size
    if size != 1 and (len(x.shape) > 2 or x.shape[-1] != size):
        return None
    wide = x if x.dtype == np.float32 else b.map("cast", [x], np.float32)
    offset, scale = (b.constant(known[name].reshape(() if size == 1 else -1)) for name in ("offset", "scale"))
    return [b.map("mul", [b.map("sub", [wide, offset]), scale])]


@lowers("Normalizer", domain=_ML)
def _normalizer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Rows by their largest element, or their L1 or L2 norm; rows of zeros stay."""
    (x,) = inputs
    norm = node.attributes.get("norm", "MAX")
    if x is None or x.dtype != np.float32 or len(x.shape) not in (1, 2) or not x.size or norm not in _NORMS:
        return None
    axes = b.constant(np.array([-1]))
    reduce = lowering_of("", _NORMS[norm])
    assert reduce is not None
    reduced = reduce(b, Node(_NORMS[norm], "", ["", ""], [""], {"keepdims": 1}), [x, axes])
    if reduced is None or reduced[0] is None:
        return None
    body = [
        Instruction("constant", (0,), "float32", (0.0,)),
        Instruction("equal", (1, 2), "bool"),
        Instruction("constant", (0,), "float32", (1.0,)),
        Instruction("where", (3, 4, 1), "float32"),
        Instruction("div", (0, 5), "float32"),
    ]
    return [b.map("", [x, b.plain(reduced[0])], body=body)]


_NORMS = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}
