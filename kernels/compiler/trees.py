"""Tables of tree ensembles, as ``codegen.trees`` walks them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from distort.kernels.compiler.codegen.trees import (
    ADD,
    ALL,
    CONDITIONS,
    EQUAL,
    GREATER,
    LESS,
    MAXIMUM,
    MINIMUM,
    MIXED,
    NAN,
    NEUTRAL,
    ONE,
    PAIR,
    SOME,
    TREES,
    WIDE_NODE_NBYTES,
)
from distort.kernels.compiler.ir import Array
from distort.kernels.ops.ml_tree_tables import MEMBER, MODE_NAMES
from distort.kernels.ops.ml_trees import Ensemble

_NODE = np.dtype([("split", "f4"), ("feature", "i4"), ("child", "i4"), ("last", "i4")])
_WIDE_NODE = np.dtype([("split", "f8"), ("feature", "i4"), ("child", "i4"), ("last", "i8"), ("none", "i8")])
#: nodes beyond this are not addressed by 32 bits
_MOST_NODES = (1 << 31) // WIDE_NODE_NBYTES - 16


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
    combined: str
    all_vote: bool  # whether each row has a vote for each target
    wide: bool  # whether numbers are float64


#: of aggregate functions
COMBINED = {"SUM": ADD, "AVERAGE": ADD, "MIN": MINIMUM, "MAX": MAXIMUM}


def tables_of(ensemble: Ensemble, how: str, x: np.dtype[Any]) -> Tables | None:
    """For rows of float32 or float64. None for what the kernel can't do: sets, sums of less precision than splits."""
    forest = ensemble.forest
    features, splits, modes, children, missing, leaf, roots = forest.host[:7]
    wide = bool(np.result_type(ensemble.weights.dtype, x) == np.float64)
    if (splits.dtype != np.float32 and not wide) or len(modes) > _MOST_NODES // 2:
        return None
    node = _WIDE_NODE if wide else _NODE
    if (modes == MEMBER).any():
        return None
    mixed = forest.mode is None and not leaf.all()
    if (forest.tracks_missing or mixed) and np.isnan(splits[~leaf]).any():
        return None
    condition = MIXED if mixed else "ole" if forest.mode is None else CONDITIONS[MODE_NAMES[forest.mode]]
    children = children.reshape(-1, 2)
    order, place, depths = _placed(children, leaf, roots)
    all_vote = _all_vote(ensemble, order, roots, leaf)
    # a leaf stands alone, or beside its sibling; those of padding trees are behind all
    size = int(place.max()) + 2
    nodes = np.zeros(size + 1, node)
    at = place[~leaf]
    nodes["split"][at], nodes["feature"][at] = splits[~leaf], features[~leaf] * x.itemsize
    nodes["child"][at] = place[children[~leaf, 0]] * node.itemsize
    if mixed:
        holds = forest.host[7][modes[~leaf]] * (LESS, EQUAL, GREATER, NAN)
        nodes["last"][at] = holds.sum(axis=1) | missing[~leaf] * NAN
    elif forest.tracks_missing:
        nodes["last"][at] = missing[~leaf]
    ends = np.append(place[leaf], size)
    nodes["split"][ends] = np.nan
    nodes["child"][ends] = ends * node.itemsize - (node.itemsize if condition == "une" else 0)
    votes, weights, spans = _votes(ensemble, leaf, place, nodes, size, NEUTRAL[COMBINED[how]])
    n_groups = -(-len(roots) // TREES)
    starts = np.full((n_groups, TREES), size * node.itemsize, np.int64)
    starts.reshape(-1)[: len(roots)] = place[roots] * node.itemsize
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
        forest.tracks_missing and not mixed,
        float(depths.mean()),
        COMBINED[how],
        all_vote,
        wide,
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


def _votes(
    ensemble: Ensemble, leaf: Array, place: Array, nodes: Array, end: int, neutral: float
) -> tuple[str, Array, Array]:
    """(how leaves vote, weights, spans); enters into the leaves' last words what they have of it.

    ``neutral``: the vote of padding trees.
    """
    counts, starts = ensemble.counts[leaf], ensemble.starts[leaf]
    real, whole = (np.float64, np.int64) if nodes["split"].dtype == np.float64 else (np.float32, np.int32)
    none, own = np.zeros(1, real), ensemble.weights.astype(real, copy=False)
    n_targets = ensemble.n_targets
    if n_targets == 1 and (counts == 1).all():
        nodes["last"][place[leaf]] = own[starts].view(whole)
        nodes["last"][end] = real(neutral).view(whole)
        return ONE, none, none
    number = np.arange(len(counts), dtype=np.int32)
    nodes["last"][place[leaf]], nodes["last"][end] = number, len(number)
    if (counts == n_targets).all():
        index = starts[:, None] + np.arange(n_targets)
        if (ensemble.targets[index] == np.arange(n_targets)).all():
            weights = np.concatenate([own[index], np.full((1, n_targets), neutral, real)])
            return ALL, weights, none
    pairs = np.stack([ensemble.targets.astype(whole), own.view(whole)], axis=1)
    if (counts == 1).all():
        nodes["last"][place[leaf]], nodes["last"][end] = starts, -1
        return PAIR, pairs, none
    spans = np.zeros((len(counts) + 1, 2), np.int32)
    spans[:-1, 0], spans[:-1, 1] = starts, starts + counts
    return SOME, pairs if len(pairs) else np.zeros((1, 2), whole), spans
