"""TreeEnsemble, which since version 5 of ai.onnx.ml stands for the older classifier and regressor."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.ml_scores import TRANSFORMS
from distort.kernels.ops.ml_tree_tables import LEAF, MEMBER, Forest
from distort.kernels.ops.ml_trees import AGGREGATES, Ensemble, regression
from distort.kernels.registry import kernel

Array = Any
Ints = Sequence[int]


def _sets(values: Array | None, modes: Array) -> tuple[Array, Array] | None:
    """The sets of the nodes that test membership: NaN ends each of them in ``values``."""
    of = np.flatnonzero(modes == MEMBER)
    if not of.size:
        return None
    given = np.zeros(0, np.float32) if values is None else values.reshape(-1)
    parts = np.split(given, np.flatnonzero(np.isnan(given)))
    sets = [np.sort(part[~np.isnan(part)]) for part in parts]
    if len(sets) > len(of) and not sets[-1].size:
        sets.pop()  # the last set may end with a NaN too
    if len(sets) != len(of):
        raise InvalidInput(f"membership_values hold {len(sets)} sets for {len(of)} nodes")
    ends = np.cumsum([len(part) for part in sets])
    bounds = np.zeros((len(modes), 2), np.int64)
    bounds[of, 1] = ends
    bounds[of, 0] = ends - [len(part) for part in sets]
    return np.concatenate([*sets, np.full(1, np.nan, given.dtype)]), bounds


def _prepare(
    *,
    aggregate_function: int = 1,
    leaf_targetids: Ints,
    leaf_weights: Array,
    membership_values: Array | None = None,
    n_targets: int = 1,
    nodes_falseleafs: Ints,
    nodes_falsenodeids: Ints,
    nodes_featureids: Ints,
    nodes_hitrates: Array | None = None,
    nodes_missing_value_tracks_true: Ints | None = None,
    nodes_modes: Array,
    nodes_splits: Array,
    nodes_trueleafs: Ints,
    nodes_truenodeids: Ints,
    post_transform: int = 0,
    tree_roots: Ints,
) -> dict[str, Any]:
    n = len(nodes_modes)
    missing = np.asarray(nodes_missing_value_tracks_true or [0] * n, bool)
    features, splits = np.asarray(nodes_featureids, np.int64), nodes_splits.reshape(-1)
    ids = np.asarray([nodes_falsenodeids, nodes_truenodeids], np.int64).T  # [nodes, 2]
    leads_to_leaf = np.asarray([nodes_falseleafs, nodes_trueleafs], bool).T
    if not n or any(len(column) != n for column in (missing, features, splits, ids, leads_to_leaf)):
        raise InvalidInput("the nodes_* attributes of a tree ensemble differ in length, or are empty")
    if len(leaf_targetids) != leaf_weights.size:
        raise InvalidInput(f"{len(leaf_targetids)} targets for {leaf_weights.size} weights of leaves")
    limit = np.where(leads_to_leaf, leaf_weights.size, n)
    roots = np.asarray(tree_roots, np.int64)
    if (ids < 0).any() or (ids >= limit).any() or roots.min(initial=0) < 0 or roots.max(initial=0) >= n:
        raise InvalidInput("a branch of a tree leads to a node that does not exist")
    if not (0 <= aggregate_function < len(AGGREGATES) and 0 <= post_transform < len(TRANSFORMS)):
        raise InvalidInput(f"aggregate_function {aggregate_function}, post_transform {post_transform}")
    modes = nodes_modes.reshape(-1).astype(np.int8)
    if modes.min() < 0 or modes.max() > MEMBER:
        raise InvalidInput(f"a tree's node has mode {modes.max()}, the last one is {MEMBER}")
    # a leaf may be shared: each branch to one gets a node of its own, behind the others
    leaves = ids[leads_to_leaf]
    children = ids.copy()
    children[leads_to_leaf] = n + np.arange(len(leaves))
    more = len(leaves)
    sets = _sets(membership_values, modes)
    forest = Forest(
        np.pad(features, (0, more)),
        np.pad(splits, (0, more)),
        np.pad(modes, (0, more), constant_values=LEAF),
        np.pad(children, ((0, more), (0, 0))),
        np.pad(missing, (0, more)),
        roots,
        None if sets is None else (sets[0], np.pad(sets[1], ((0, more), (0, 0)))),
    )
    targets, weights = np.asarray(leaf_targetids, np.int64), leaf_weights.reshape(-1)
    positions = n + np.arange(len(leaves))
    ensemble = Ensemble(forest, positions, targets[leaves], weights[leaves], n_targets, weights[:0])
    return {"ensemble": ensemble, "how": AGGREGATES[aggregate_function], "transform": TRANSFORMS[post_transform]}


@kernel("TreeEnsemble", 5, domain="ai.onnx.ml", prepare=_prepare)
def tree_ensemble(xp: ModuleType, x: Array, *, ensemble: Ensemble, how: str, transform: str) -> Array:
    """TreeEnsemble 5. x: [N, F]. Result: [N, targets] in the type of x."""
    return regression(xp, x, ensemble, how, transform).astype(x.dtype, copy=False)
