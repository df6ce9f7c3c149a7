"""Tree ensembles of ai.onnx.ml. Attributes become tables once, when the node is lowered."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.ml_scores import check_transform, labels_of, one_column, pick, transformed, two_columns
from distort.kernels.ops.ml_tree_tables import LEAF, Forest, mode_numbers
from distort.kernels.registry import kernel

Array = Any
Ints = Sequence[int] | None
Floats = Sequence[float] | None
_ML = "ai.onnx.ml"
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


class Ensemble:
    """A forest, and what its leaves vote: for each node a range of (target, weight) pairs."""

    def __init__(self, forest: Forest, nodes: Array, targets: Array, weights: Array, n_targets: int, base: Array):
        """nodes, targets, weights: [votes]: the position of the leaf, the index of the class or target."""
        if targets.size and (targets.min() < 0 or targets.max() >= n_targets):
            raise InvalidInput(f"a leaf votes for target {targets.min()} or {targets.max()} of {n_targets}")
        if base.size not in (0, 1, n_targets):
            raise InvalidInput(f"{base.size} base values for {n_targets} targets")
        order = np.argsort(nodes, kind="stable")
        self.forest = forest
        self.n_targets = n_targets
        self.base = base
        self.targets, self.weights = targets[order], weights[order]
        self.counts = np.bincount(nodes, minlength=forest.n_nodes)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def of_one_target(self) -> Ensemble:
        """The same, where all votes are for target 0."""
        nodes = np.repeat(np.arange(self.forest.n_nodes), self.counts)
        return Ensemble(self.forest, nodes, self.targets, self.weights, 1, self.base)

    def _votes(self, xp: ModuleType, leaves: Array) -> tuple[Array, Array, Array]:
        """(row, target, weight) of all votes, tree by tree. leaves: [N, trees]"""
        counts, starts = xp.asarray(self.counts), xp.asarray(self.starts)
        leaves = leaves.T.reshape(-1)
        rows = xp.tile(xp.arange(len(leaves) // len(self.forest.roots)), len(self.forest.roots))
        each = counts[leaves]
        if (each == 1).all():
            vote = starts[leaves]
        else:
            rows = xp.repeat(rows, each)
            first = xp.cumsum(each) - each
            vote = xp.arange(len(rows)) - xp.repeat(first, each) + xp.repeat(starts[leaves], each)
        return rows, xp.asarray(self.targets)[vote], xp.asarray(self.weights)[vote]

    def aggregate(self, xp: ModuleType, x: Array, how: str) -> tuple[Array, Array]:
        """(scores, whether any leaf voted), each [N, targets], without base values.

        Sums are made tree by tree in the weights' type: a rounding may decide for a class, and so it decides as in
        onnxruntime.
        """
        if x.ndim == 1:
            x = x[None]
        if x.ndim != 2:
            raise InvalidInput(f"Input shape needs to be [N, F] or [F]: it is {list(x.shape)}")
        n, c = len(x), self.n_targets
        rows, targets, weights = self._votes(xp, self.forest.leaves(xp, x))
        at = rows * c + targets
        fill = {"MIN": np.inf, "MAX": -np.inf}.get(how, 0)
        dtype = xp.result_type(self.weights.dtype, xp.float64 if x.dtype == xp.float64 else xp.float32)
        scores = xp.full(n * c, fill, dtype)
        combine = {"MIN": xp.minimum, "MAX": xp.maximum}.get(how, xp.add)
        combine.at(scores, at, weights)
        voted = xp.zeros(n * c, bool)
        voted[at] = True
        if fill:
            scores = xp.where(voted, scores, 0)
        if how == "AVERAGE":
            scores /= scores.dtype.type(len(self.forest.roots))
        return scores.reshape(n, c), voted.reshape(n, c)


def _either(floats: Floats, tensor: Array | None, name: str) -> Array:
    """The values of an attribute that may come as floats or, in double, as a tensor."""
    if tensor is not None:
        if floats:
            raise InvalidInput(f"both {name} and {name}_as_tensor are given")
        return tensor.reshape(-1)
    return np.asarray(floats if floats is not None else [], np.float32)


def _positions(keys: Array, order: Array, tree: Array, node: Array, span: int) -> Array:
    """Positions of nodes (tree, id), -1 where there is none."""
    wanted = tree * span + node
    found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where((keys[found] == wanted) & (node >= 0) & (node < span), found, -1)


def _ensemble(
    treeids: Ints,
    nodeids: Ints,
    featureids: Ints,
    values: Array,
    modes: Sequence[str] | None,
    true_ids: Ints,
    false_ids: Ints,
    missing: Ints,
    votes: tuple[Ints, Ints, Ints],  # tree, node, target
    weights: Array,
    n_targets: int,
    base: Array,
) -> Ensemble:
    """Tables of the older operators, whose nodes are known by (tree, id)."""
    if not treeids or modes is None:
        raise InvalidInput("a tree ensemble without nodes")
    columns = [np.asarray(column or [], np.int64) for column in (treeids, nodeids, featureids, true_ids, false_ids)]
    tree, ids, features, true, false = columns
    n = len(tree)
    if any(len(column) != n for column in (*columns, values, modes)) or (missing and len(missing) != n):
        raise InvalidInput("the nodes_* attributes of a tree ensemble differ in length")
    kind = mode_numbers(modes)
    leaf = kind == LEAF
    if ids.min() < 0:
        raise InvalidInput("a tree's node has a negative id")
    span = int(ids.max()) + 1
    names, tree = np.unique(tree, return_inverse=True)
    keys = tree * span + ids
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        raise InvalidInput("two nodes of a tree have one id")
    children = np.stack([_positions(keys, order, tree, side, span) for side in (false, true)], axis=1)
    children[leaf] = 0
    if (children < 0).any():
        raise InvalidInput("a branch of a tree leads to a node that does not exist")
    is_child = np.zeros(n, bool)
    is_child[children[~leaf]] = True
    roots = np.flatnonzero(~is_child)
    if len(roots) != len(names):
        raise InvalidInput(f"{len(names)} trees with {len(roots)} roots")
    forest = Forest(features, values, kind, children, np.asarray(missing or [0] * n, bool), roots)
    vote_tree, vote_node, target = (np.asarray(column or [], np.int64) for column in votes)
    if not len(vote_tree) == len(vote_node) == len(target) == len(weights):
        raise InvalidInput("the attributes of a tree ensemble's leaves differ in length")
    known = np.minimum(np.searchsorted(names, vote_tree), len(names) - 1)
    at = np.where(names[known] == vote_tree, _positions(keys, order, known, vote_node, span), -1)
    if (at < 0).any():
        raise InvalidInput("a leaf's weight names a node that does not exist")
    at, target, weights = (column[leaf[at]] for column in (at, target, weights))  # branches have no votes
    return Ensemble(forest, at, target, weights, n_targets, base)


def _prepare_regressor(
    *,
    aggregate_function: str = "SUM",
    base_values: Floats = None,
    base_values_as_tensor: Array | None = None,
    n_targets: int = 1,
    nodes_falsenodeids: Ints = None,
    nodes_featureids: Ints = None,
    nodes_hitrates: Floats = None,
    nodes_hitrates_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Sequence[str] | None = None,
    nodes_nodeids: Ints = None,
    nodes_treeids: Ints = None,
    nodes_truenodeids: Ints = None,
    nodes_values: Floats = None,
    nodes_values_as_tensor: Array | None = None,
    post_transform: str = "NONE",
    target_ids: Ints = None,
    target_nodeids: Ints = None,
    target_treeids: Ints = None,
    target_weights: Floats = None,
    target_weights_as_tensor: Array | None = None,
) -> dict[str, Any]:
    if aggregate_function not in AGGREGATES:
        raise InvalidInput(f"aggregate_function {aggregate_function!r} is none of {', '.join(AGGREGATES)}")
    ensemble = _ensemble(
        nodes_treeids,
        nodes_nodeids,
        nodes_featureids,
        _either(nodes_values, nodes_values_as_tensor, "nodes_values"),
        nodes_modes,
        nodes_truenodeids,
        nodes_falsenodeids,
        nodes_missing_value_tracks_true,
        (target_treeids, target_nodeids, target_ids),
        _either(target_weights, target_weights_as_tensor, "target_weights"),
        n_targets,
        _either(base_values, base_values_as_tensor, "base_values"),
    )
    return {"ensemble": ensemble, "how": aggregate_function, "transform": check_transform(post_transform)}


def regression(xp: ModuleType, x: Array, ensemble: Ensemble, how: str, transform: str) -> Array:
    scores, voted = ensemble.aggregate(xp, x, how)
    if ensemble.base.size:
        scores += xp.asarray(ensemble.base)
        if ensemble.n_targets > 1:  # onnxruntime leaves a target that no leaf voted for at zero
            scores = xp.where(voted, scores, 0)
    return (one_column if ensemble.n_targets == 1 else transformed)(xp, scores, transform)


@kernel("TreeEnsembleRegressor", domain=_ML, prepare=_prepare_regressor)
def tree_ensemble_regressor(xp: ModuleType, x: Array, *, ensemble: Ensemble, how: str, transform: str) -> Array:
    """TreeEnsembleRegressor 1, 3, 5. x: [N, F]. Result: float32 [N, targets]."""
    return regression(xp, x, ensemble, how, transform).astype(xp.float32, copy=False)


def _prepare_classifier(
    *,
    base_values: Floats = None,
    base_values_as_tensor: Array | None = None,
    class_ids: Ints = None,
    class_nodeids: Ints = None,
    class_treeids: Ints = None,
    class_weights: Floats = None,
    class_weights_as_tensor: Array | None = None,
    classlabels_int64s: Ints = None,
    classlabels_strings: Sequence[str] | None = None,
    nodes_falsenodeids: Ints = None,
    nodes_featureids: Ints = None,
    nodes_hitrates: Floats = None,
    nodes_hitrates_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Sequence[str] | None = None,
    nodes_nodeids: Ints = None,
    nodes_treeids: Ints = None,
    nodes_truenodeids: Ints = None,
    nodes_values: Floats = None,
    nodes_values_as_tensor: Array | None = None,
    post_transform: str = "NONE",
) -> dict[str, Any]:
    labels = labels_of(classlabels_int64s, classlabels_strings)
    weights = _either(class_weights, class_weights_as_tensor, "class_weights")
    ensemble = _ensemble(
        nodes_treeids,
        nodes_nodeids,
        nodes_featureids,
        _either(nodes_values, nodes_values_as_tensor, "nodes_values"),
        nodes_modes,
        nodes_truenodeids,
        nodes_falsenodeids,
        nodes_missing_value_tracks_true,
        (class_treeids, class_nodeids, class_ids),
        weights,
        len(labels),
        _either(base_values, base_values_as_tensor, "base_values"),
    )
    return {
        "ensemble": ensemble,
        "labels": labels,
        "transform": check_transform(post_transform),
        "one_sided": len(labels) == 2 and len(set(class_ids or ())) == 1,
        "positive": bool((weights >= 0).all()),
    }


@kernel("TreeEnsembleClassifier", domain=_ML, prepare=_prepare_classifier)
def tree_ensemble_classifier(
    xp: ModuleType, x: Array, *, ensemble: Ensemble, labels: Array, transform: str, one_sided: bool, positive: bool
) -> tuple[Array, Array]:
    """TreeEnsembleClassifier 1, 3, 5. x: [N, F]. Results: labels [N], scores float32 [N, classes].

    What the standard leaves open is onnxruntime's choice. ``one_sided``: two classes, the leaves vote for one of
    them only; ``positive``: no weight is negative, so that scores are probabilities.
    """
    scores, voted = ensemble.aggregate(xp, x, "SUM")
    if ensemble.n_targets == 2:
        index, scores = _two_classes(xp, scores, voted, ensemble.base, transform, one_sided, positive)
    else:
        if ensemble.base.size:
            scores += xp.asarray(ensemble.base)
            voted[...] = True
        if ensemble.n_targets == 1:
            flags = (scores[:, 0] > 0).astype(xp.int64)
            scores = one_column(xp, scores, transform).astype(xp.float32, copy=False)
            return (flags if labels.dtype != object else pick(xp, labels, flags * 0)), scores
        index = xp.where(voted, scores, -xp.inf).argmax(axis=1)
        scores = transformed(xp, scores, transform)
    return pick(xp, labels, index), scores.astype(xp.float32, copy=False)


def _two_classes(
    xp: ModuleType,
    scores: Array,
    voted: Array,
    base: Array,
    transform: str,
    one_sided: bool,
    positive: bool,
) -> tuple[Array, Array]:
    """(index of the class [N], scores [N, 2]). scores, voted: [N, 2]; a class without a vote has score 0.

    Rows where nobody voted for the second class have one score, that of the positive class, unless there are two
    base values.
    """
    (first, second), second_voted = scores.T, voted[:, 1]
    if base.size == 2:
        mirrored = first + base[1]
        second = xp.where(second_voted, mirrored, 0)
        first = xp.where(second_voted, -mirrored, first + base[0])
    elif base.size == 1:
        first = first + base[0]
    decisive = xp.where(second_voted, second, xp.where(voted[:, 0], first, 0))
    index = (decisive > (0.5 if one_sided and positive else 0)).astype(xp.int64)
    both = transformed(xp, xp.stack([xp.where(voted[:, 0], first, 0), second], axis=1), transform)
    if base.size == 2 or second_voted.all():
        return index, both
    return index, xp.where(second_voted[:, None], both, two_columns(xp, first, transform, one_sided and positive))
