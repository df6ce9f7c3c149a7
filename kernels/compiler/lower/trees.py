"""Tree ensembles of ai.onnx.ml, and rows of features that are scaled."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowering_of, lowers
from distort.kernels.compiler.classes import TRANSFORMS, of_largest, of_score, one_column, transformed, two_columns
from distort.kernels.compiler.codegen.trees import ADD, ALL, TREES
from distort.kernels.compiler.expression import STORED, Instruction
from distort.kernels.compiler.ir import Array, Call, Native, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.trees import Tables, tables_of
from distort.kernels.errors import InvalidInput
from distort.kernels.ops import ml, ml_tree_ensemble, ml_trees
from distort.kernels.ops.ml_trees import Ensemble

Result = list[Tensor | None] | None
_ML = "ai.onnx.ml"
#: rows that go down the trees of a group before the next group's turn
_UNIT_ROWS = 64


def _prepared(b: Builder, node: Node, x: Tensor | None, prepare: Any) -> tuple[dict[str, Any], Tables] | None:
    """Keywords of the NumPy kernel and tables of the native one, made once; None where there are none."""
    if x is None:
        return None
    real = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)

    def make() -> Any:
        try:
            keywords = prepare(**node.attributes)
        except (InvalidInput, TypeError):
            return None  # the NumPy kernel says so
        tables = tables_of(keywords["ensemble"], keywords.get("how", "SUM"), real)
        return None if tables is None else (keywords, tables)

    found: tuple[dict[str, Any], Tables] | None = b.once(("trees", b.origin_id, real.name), make)
    return found


def _scores(b: Builder, x: Tensor, ensemble: Ensemble, tables: Tables, how: str) -> tuple[Tensor, Tensor | None] | None:
    """([rows, targets], base values not yet added; bool, whether there was a vote: None for always)."""
    if len(x.shape) not in (1, 2) or not x.size:
        return None
    if x.dtype.kind in "iu":
        if ensemble.forest.dtype != np.float32:
            return None
        x = b.map("cast", [x], np.float32)
    if x.dtype not in (np.float32, np.float64):
        return None
    x = b.contiguous(b.plain(x))
    n_rows, n_features = (1, x.shape[0]) if len(x.shape) == 1 else x.shape
    if n_features < ensemble.forest.n_features:
        return None
    real = np.float64 if tables.wide else np.float32
    scores = b.new(real, (n_rows, ensemble.n_targets))
    key = ("trees", b.origin_id, x.element)
    arrays = {name: b.packed((*key, name), partial(_plain, getattr(tables, name))) for name in _ARRAYS}
    n_trees = len(tables.depths)
    # few trees: several rows at once
    by_rows = n_trees <= TREES // 2 and n_rows > 1
    n_groups = n_trees if by_rows else len(tables.levels)
    levels = arrays["depths" if by_rows else "levels"]
    unit = max(1, min(_UNIT_ROWS, -(-n_rows // (4 * b.n_threads))))
    words: list[Any] = [n_rows, unit, n_features * x.dtype.itemsize, x.address(), arrays["nodes"].address(), n_groups]
    words += [arrays["roots"].address(), levels.address(), ensemble.n_targets, scores.address()]
    words += [arrays["weights"].address(), arrays["spans"].address()]
    voted = None if tables.all_vote else b.new(np.bool_, scores.shape)
    if voted is not None:
        words.append(voted.address())
    kind: tuple[Any, ...] = (tables.condition, tables.tracks_missing, tables.votes, by_rows, tables.combined)
    kind += (voted is not None, tables.wide, STORED[x.element])
    n_votes = ensemble.n_targets if tables.votes == ALL else 1
    work = n_rows * n_trees * (tables.depth * 0.8 + 2 * n_votes)
    call = Call(Key("trees", kind), words, work, most_threads=-(-n_rows // unit))
    b.add(Native([x], [scores] if voted is None else [scores, voted], [call]))
    if how == "AVERAGE":
        number = b.constant(np.asarray(len(ensemble.forest.roots), real))
        scores = b.map("div", [scores, number])
    if voted is not None and tables.combined != ADD:
        scores = _where(b, voted, scores)
    return scores, voted


def _where(b: Builder, condition: Tensor, a: Tensor, other: float | Tensor = 0.0) -> Tensor:
    if isinstance(other, float):
        other = b.constant(np.asarray(other, a.dtype))
    return b.map("where", [condition, a, other], a.dtype)


def _plain(table: Array) -> Array:
    """A table of records as bytes."""
    return table.view(np.uint8) if table.dtype.names else table


_ARRAYS = ("nodes", "roots", "levels", "depths", "weights", "spans")


def _with_base(b: Builder, scores: Tensor, ensemble: Ensemble) -> Tensor:
    if not ensemble.base.size:
        return scores
    return b.map("add", [scores, b.constant(ensemble.base.astype(scores.dtype, copy=False))])


def _narrow(b: Builder, scores: Tensor) -> Tensor:
    return scores if scores.dtype == np.float32 else b.map("cast", [scores], np.float32)


def _regression(b: Builder, node: Node, x: Tensor | None, prepare: Any) -> Result:
    prepared = _prepared(b, node, x, prepare)
    if x is None or prepared is None:
        return None
    keywords, tables = prepared
    ensemble, transform = keywords["ensemble"], keywords["transform"]
    if ensemble.base.dtype != np.float32 and not tables.wide:
        return None
    if ensemble.n_targets > 1 and transform not in TRANSFORMS:
        return None
    found = _scores(b, x, ensemble, tables, keywords["how"])
    if found is None:
        return None
    scores, voted = found
    scores = _with_base(b, scores, ensemble)
    if ensemble.n_targets > 1 and voted is not None and ensemble.base.size:
        scores = _where(b, voted, scores)
    if transform == "NONE" and node.op_type == "TreeEnsemble":
        return [scores]  # of the type of x
    transformation = one_column if ensemble.n_targets == 1 else transformed
    return [transformation(b, _narrow(b, scores), transform)]


@lowers("TreeEnsembleRegressor", domain=_ML)
def _regressor(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    return _regression(b, node, inputs[0], ml_trees._prepare_regressor)


@lowers("TreeEnsemble", domain=_ML)
def _tree_ensemble(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, transform = inputs[0], node.attributes.get("post_transform", 0)
    if x is None or (x.dtype != np.float32 and (x.dtype != np.float64 or transform != 0)):
        return None
    made = _regression(b, node, x, ml_tree_ensemble._prepare)
    return made if made is None or made[0] is None or made[0].dtype == x.dtype else None


@lowers("TreeEnsembleClassifier", domain=_ML)
def _classifier(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    prepared = _prepared(b, node, x, _classifier_of)
    if x is None or prepared is None:
        return None
    keywords, tables = prepared
    ensemble, labels, transform = keywords["ensemble"], keywords["labels"], keywords["transform"]
    if (ensemble.base.dtype != np.float32 and not tables.wide) or transform not in TRANSFORMS:
        return None
    if keywords["alone"]:
        return _one_sided(b, node, x, keywords, tables)
    if ensemble.n_targets < 2:
        return None
    found = _scores(b, x, ensemble, tables, "SUM")
    if found is None:
        return None
    scores, voted = found
    if ensemble.n_targets > 2:
        known = None if ensemble.base.size else voted
        scores = _with_base(b, scores, ensemble)
        largest = scores if known is None else _where(b, known, scores, -np.inf)
        return [of_largest(b, node, largest, labels), transformed(b, _narrow(b, scores), transform)]
    if voted is not None or ensemble.base.size:
        return _two_classes(b, node, scores, voted, keywords)
    second = scores.view(scores.shape[:1], (2,), 1)
    limit = 0.5 if keywords["one_sided"] and keywords["positive"] else 0.0
    return [of_score(b, node, second, limit, labels), transformed(b, _narrow(b, scores), transform)]


def _classifier_of(**attributes: Any) -> dict[str, Any]:
    """As the NumPy kernel's; ``alone``: all leaves vote for the first of two classes, which is the only target then."""
    keywords = ml_trees._prepare_classifier(**attributes)
    ensemble = keywords["ensemble"]
    alone = keywords["one_sided"] and not ensemble.targets.any() and ensemble.base.size < 2
    return {**keywords, "alone": alone, "ensemble": ensemble.of_one_target() if alone else ensemble}


def _one_sided(b: Builder, node: Node, x: Tensor, keywords: dict[str, Any], tables: Tables) -> Result:
    """Two classes; the only score is that of the positive one."""
    found = _scores(b, x, keywords["ensemble"], tables, "SUM")
    if found is None or keywords["transform"] == "SOFTMAX":
        return None
    scores, voted = found
    scores, positive = _with_base(b, scores, keywords["ensemble"]), keywords["positive"]
    decisive = (scores if voted is None else _where(b, voted, scores)).reshaped(scores.shape[:1])
    label = of_score(b, node, decisive, 0.5 if positive else 0.0, keywords["labels"])
    return [label, two_columns(b, _narrow(b, scores), keywords["transform"], positive)]


def _two_classes(b: Builder, node: Node, scores: Tensor, voted: Tensor | None, keywords: dict[str, Any]) -> Result:
    """As the NumPy kernel's function of this name. scores, voted: [N, 2]"""
    base, transform = keywords["ensemble"].base, keywords["transform"]
    n_rows, probabilities = scores.shape[0], keywords["one_sided"] and keywords["positive"]
    first, second = (scores.view((n_rows,), (2,), column) for column in (0, 1))
    by_first, by_second = (None if voted is None else voted.view((n_rows,), (2,), column) for column in (0, 1))

    def where(condition: Tensor | None, a: Tensor, other: float | Tensor = 0.0) -> Tensor:
        return a if condition is None else _where(b, condition, a, other)

    if base.size == 2:
        mirrored = b.map("add", [first, b.constant(base[1].astype(first.dtype))])
        second = where(by_second, mirrored)
        alone = b.map("add", [first, b.constant(base[0].astype(first.dtype))])
        first = where(by_second, b.map("neg", [mirrored]), alone)
    elif base.size == 1:
        first = b.map("add", [first, b.constant(base[0].astype(first.dtype))])
    counted = where(by_first, first)
    decisive = where(by_second, second, counted)
    both = b.new(np.float32, (n_rows, 2))
    for column, score in enumerate((counted, second)):
        b.copy(_narrow(b, score), both.view((n_rows,), (2,), column))
    made = transformed(b, both, transform)
    if base.size != 2 and by_second is not None:
        if transform == "SOFTMAX":
            return None
        single = two_columns(b, b.contiguous(_narrow(b, first)).reshaped((n_rows, 1)), transform, probabilities)
        made = _where(b, by_second.view((n_rows, 1), (2, 1)), made, single)
    return [of_score(b, node, decisive, 0.5 if probabilities else 0.0, keywords["labels"]), made]


@lowers("Scaler", domain=_ML)
def _scaler(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or not x.shape or x.dtype.kind not in "fiu":
        return None
    try:
        known = ml._prepare_scaler(**node.attributes)
    except (InvalidInput, TypeError):
        return None
    size = known["offset"].size
    if size != 1 and (len(x.shape) > 2 or x.shape[-1] != size):
        return None
    wide = x if x.dtype in (np.float32, np.float64) else b.map("cast", [x], np.float32)
    offset, scale = (
        b.constant(known[name].reshape(() if size == 1 else -1).astype(wide.dtype)) for name in ("offset", "scale")
    )
    return [_narrow(b, b.map("mul", [b.map("sub", [wide, offset]), scale]))]


@lowers("Normalizer", domain=_ML)
def _normalizer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Rows by their largest element, or their L1 or L2 norm; rows of zeros stay."""
    (x,) = inputs
    norm = node.attributes.get("norm", "MAX")
    if x is None or x.dtype.kind not in "fiu" or len(x.shape) not in (1, 2) or not x.size or norm not in _NORMS:
        return None
    if x.dtype not in (np.float32, np.float64):
        x = b.map("cast", [x], np.float32)
    real = x.element
    axes = b.constant(np.array([-1]))
    reduce = lowering_of("", _NORMS[norm])
    assert reduce is not None
    reduced = reduce(b, Node(_NORMS[norm], "", ["", ""], [""], {"keepdims": 1}), [x, axes])
    if reduced is None or reduced[0] is None:
        return None
    body = [
        Instruction("constant", (0,), real, (0.0,)),
        Instruction("equal", (1, 2), "bool"),
        Instruction("constant", (0,), real, (1.0,)),
        Instruction("where", (3, 4, 1), real),
        Instruction("div", (0, 5), real),
    ]
    return [_narrow(b, b.map("", [x, b.plain(reduced[0])], body=body))]


_NORMS = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}
