"""Tables of tree ensembles, as ``codegen.trees`` walks them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distort.kernels.compiler.codegen.trees import ALL, CONDITIONS, NODE_NBYTES, ONE, SOME, TREES
from distort.kernels.compiler.ir import Array
from distort.kernels.ops.ml_tree_tables import MODE_NAMES
from distort.kernels.ops.ml_trees import Ensemble

_NODE = np.dtype([("split", "f4"), ("feature", "i4"), ("child", "i4"), ("last", "i4")])
#: nodes beyond this are not addressed by 32 bits
_MOST_NODES = (1 << 31) // NODE_NBYTES - 16


class Tables(NamedTuple):
    nodes: Array
    roots: Array  # int64 [groups, TREES]
    levels: Array  # int64 [groups], of the deepest tree
    depths: Array  # int64 [trees]
    weights: Array
    spans: Array
    votes: str
    condition: str
    tracks_missing: bool
    depth: float  # mean over trees


def tables_of(ensemble: Ensemble) -> Tables | None:
    """None for what the kernel can't do: several comparisons, sets, double precision, targets without a vote."""
    forest = ensemble.forest
    features, splits, modes, children, missing, leaf, roots = forest.host[:7]
    if splits.dtype != np.float32 or ensemble.weights.dtype != np.float32 or len(modes) > _MOST_NODES // 2:
        return None
    if forest.mode is None and not leaf.all():
        return None
    if forest.tracks_missing and np.isnan(splits[~leaf]).any():
        return None
    condition = "ole" if forest.mode is None else CONDITIONS[MODE_NAMES[forest.mode]]
    children = children.reshape(-1, 2)
    order, place, depths = _placed(children, leaf, roots)
    if not _all_vote(ensemble, order, roots, leaf):
        return None
    # a leaf stands alone, or beside its sibling; those of padding trees are behind all
    size = int(place.max()) + 2
    nodes = np.zeros(size + 1, _NODE)
    at = place[~leaf]
    nodes["split"][at], nodes["feature"][at] = splits[~leaf], features[~leaf] * 4
    nodes["child"][at] = place[children[~leaf, 0]] * NODE_NBYTES
    if forest.tracks_missing:
        nodes["last"][at] = missing[~leaf]
    ends = np.append(place[leaf], size)
    nodes["split"][ends] = np.nan
    nodes["child"][ends] = ends * NODE_NBYTES - (NODE_NBYTES if condition == "une" else 0)
    votes, weights, spans = _votes(ensemble, leaf, place, nodes, size)
    n_groups = -(-len(roots) // TREES)
    starts = np.full((n_groups, TREES), size * NODE_NBYTES, np.int64)
    starts.reshape(-1)[: len(roots)] = place[roots] * NODE_NBYTES
    levels = np.zeros((n_groups, TREES), np.int64)
    levels.reshape(-1)[: len(roots)] = depths
    return Tables(
        nodes,
        starts,
        levels.max(axis=1),
        depths,
        weights,
        spans,
        votes,
        condition,
        forest.tracks_missing,
        float(depths.mean()),
    )


def _placed(children: Array, leaf: Array, roots: Array) -> tuple[list[Array], Array, Array]:
    """(levels of nodes, all trees together; the place of each node, siblings next to each other; the trees' depths).

    Nodes of a tree lie together, level by level.
    """
    tree = np.full(len(leaf), -1, np.int64)
    tree[roots] = np.arange(len(roots))
    level, levels = roots, [roots]
    depth = np.zeros(len(roots), np.int64)
    number = 0
    while True:
        inner = level[~leaf[level]]
        if not inner.size:
            break
        number += 1
        depth[tree[inner]] = number
        tree[children[inner]] = tree[inner][:, None]
        level = children[inner].reshape(-1)
        levels.append(level)
    flat = np.concatenate(levels)
    rank = np.concatenate([np.full(len(one), i) for i, one in enumerate(levels)])
    order = np.lexsort((np.arange(len(flat)), rank, tree[flat]))
    place = np.full(len(leaf), -1, np.int64)
    place[flat[order]] = np.arange(len(flat))
    return levels, place, depth


def _all_vote(ensemble: Ensemble, levels: list[Array], roots: Array, leaf: Array) -> bool:
    """Whether every row has a vote for every target: each has a tree all of whose leaves vote for it."""
    tree = np.full(len(leaf), -1, np.int64)
    tree[roots] = np.arange(len(roots))
    children = ensemble.forest.host[3].reshape(-1, 2)
    for level in levels[:-1]:
        inner = level[~leaf[level]]
        tree[children[inner]] = tree[inner][:, None]
    counts = np.bincount(tree[leaf & (tree >= 0)], minlength=len(roots))  # leaves of each tree
    nodes = np.repeat(np.arange(len(leaf)), ensemble.counts)
    # votes of one leaf for one target count once
    ordered = np.sort(nodes * ensemble.n_targets + ensemble.targets)
    pairs = ordered[np.diff(ordered, prepend=-1) != 0]  # np.unique would import numpy.ma
    of_tree, target = tree[pairs // ensemble.n_targets], pairs % ensemble.n_targets
    seen = np.zeros((len(roots), ensemble.n_targets), np.int64)
    np.add.at(seen, (of_tree, target), 1)
    return bool((seen == counts[:, None]).any(axis=0).all())


def _votes(ensemble: Ensemble, leaf: Array, place: Array, nodes: Array, end: int) -> tuple[str, Array, Array]:
    """(how leaves vote, weights, spans); enters into the leaves' last words what they have of it."""
    counts, starts = ensemble.counts[leaf], ensemble.starts[leaf]
    none = np.zeros(1, np.float32)
    n_targets = ensemble.n_targets
    if n_targets == 1 and (counts == 1).all():
        nodes["last"][place[leaf]] = ensemble.weights[starts].view(np.int32)
        nodes["last"][end] = 0
        return ONE, none, none
    number = np.arange(len(counts), dtype=np.int32)
    nodes["last"][place[leaf]], nodes["last"][end] = number, len(number)
    if (counts == n_targets).all():
        index = starts[:, None] + np.arange(n_targets)
        if (ensemble.targets[index] == np.arange(n_targets)).all():
            weights = np.concatenate([ensemble.weights[index], np.zeros((1, n_targets), np.float32)])
            return ALL, weights, none
    spans = np.zeros((len(counts) + 1, 2), np.int32)
    spans[:-1, 0], spans[:-1, 1] = starts, starts + counts
    pairs = np.stack([ensemble.targets.astype(np.int32), ensemble.weights.view(np.int32)], axis=1)
    return SOME, pairs if len(pairs) else np.zeros((1, 2), np.int32), spans
