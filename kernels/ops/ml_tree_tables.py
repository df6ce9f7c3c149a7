"""Trees as tables, and the descent of all rows through all trees, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput

Array = Any
#: comparison -> whether a row goes to the true branch when the feature is (less, equal, greater, NaN)
_MODES: dict[str, tuple[bool, bool, bool, bool]] = {
    "BRANCH_LEQ": (True, True, False, False),
    "BRANCH_LT": (True, False, False, False),
    "BRANCH_GTE": (False, True, True, False),
    "BRANCH_GT": (False, False, True, False),
    "BRANCH_EQ": (False, True, False, False),
    "BRANCH_NEQ": (True, False, True, True),
}
MODE_NAMES = tuple(_MODES)
# the same as functions of numpy
_COMPARISONS = ("less_equal", "less", "greater_equal", "greater", "equal", "not_equal")
MEMBER = len(MODE_NAMES)  # true where the feature is one of the node's set
LEAF = MEMBER + 1
_DECISIONS = np.array(list(_MODES.values()))
# rows times trees that descend together: their working arrays stay in the cache
_CHUNK = 1 << 17


def mode_numbers(names: Sequence[str]) -> np.ndarray[Any, Any]:
    known = {**{name: number for number, name in enumerate(MODE_NAMES)}, "LEAF": LEAF}
    try:
        return np.array([known[name] for name in names], np.int8)
    except KeyError as error:
        raise InvalidInput(f"unknown mode of a tree's node: {error.args[0]!r}") from None


class Forest:
    """Nodes of all trees by position. Leaves are nodes whose mode is LEAF.

    features, modes, missing: [nodes]; splits: [nodes], their type is the one of comparisons;
    children: [nodes, 2], positions of the false and the true branch; roots: [trees], positions;
    sets: members in ascending order, one set behind the other, and [nodes, 2], where that of a node starts and ends.
    Raises InvalidInput unless every node lies in just one tree.
    """

    def __init__(
        self,
        features: Array,
        splits: Array,
        modes: Array,
        children: Array,
        missing: Array,
        roots: Array,
        sets: tuple[Array, Array] | None = None,
    ) -> None:
        leaf = modes == LEAF
        self.roots = roots
        self.n_nodes = len(modes)
        self.depth = _depth(children, leaf, roots)
        inner = modes[~leaf]
        alike = inner.size and (inner == inner[0]).all() and inner[0] != MEMBER
        self.mode = int(inner[0]) if alike else None  # of all branches, where they have one comparison
        self.n_features = int(features[~leaf].max(initial=-1)) + 1
        if (features[~leaf] < 0).any():
            raise InvalidInput("a tree's node has a negative feature id")
        self.tracks_missing = bool(missing[~leaf].any())
        self.dtype = splits.dtype
        members, bounds = (splits[:0], np.zeros((len(modes), 2), np.int64)) if sets is None else sets
        self._set_bits = int((bounds[:, 1] - bounds[:, 0]).max(initial=0)).bit_length()
        self.host = (
            *(features, splits, modes, children.reshape(-1), missing.astype(bool), leaf, roots, _DECISIONS),
            *(members, bounds),
        )
        self._tables: dict[int, tuple[Array, ...]] = {}  # by device

    def _on(self, xp: ModuleType) -> tuple[Array, ...]:
        if xp is np:
            return self.host
        device = xp.cuda.runtime.getDevice()
        tables = self._tables.get(device)
        if tables is None:
            tables = self._tables[device] = tuple(xp.asarray(table) for table in self.host)
        return tables

    def leaves(self, xp: ModuleType, x: Array) -> Array:
        """The leaf that each row reaches in each tree. x: [N, F] -> [N, trees], positions of nodes."""
        if x.shape[1] < self.n_features:
            raise InvalidInput(f"trees read feature {self.n_features - 1} of rows with {x.shape[1]} features")
        if x.dtype.kind != "f":
            x = x.astype(self.dtype)
        rows = max(1, _CHUNK // max(1, len(self.roots)))
        parts = [self._descend(xp, x[start : start + rows]) for start in range(0, len(x), rows)]
        if not parts:
            return xp.zeros((0, len(self.roots)), xp.int64)
        return parts[0] if len(parts) == 1 else xp.concatenate(parts)

    def _descend(self, xp: ModuleType, x: Array) -> Array:
        features, splits, modes, children, missing, leaf, roots, decisions, members, bounds = self._on(xp)
        n_trees = len(roots)
        at = xp.tile(roots, len(x))  # [N * trees]
        start = xp.repeat(xp.arange(len(x)) * x.shape[1], n_trees)  # of the row, in the flat x
        flat = x.reshape(-1)
        moving = xp.arange(len(at))
        if leaf[roots].any():
            moving = moving[~leaf[at]]
        for _ in range(self.depth):
            node = at[moving]
            value, split = flat[start[moving] + features[node]], splits[node]
            if self.mode is not None:
                true = getattr(xp, _COMPARISONS[self.mode])(value, split)
            else:
                nan = xp.isnan(value) | xp.isnan(split)
                outcome = xp.where(nan, 3, xp.where(value < split, 0, xp.where(value == split, 1, 2)))
                kind = modes[node]
                true = decisions[xp.minimum(kind, MEMBER - 1), outcome]
                if self._set_bits:
                    true = xp.where(kind == MEMBER, self._among(xp, value, members, bounds[node]), true)
            if self.tracks_missing:
                true = true | (missing[node] & xp.isnan(value))
            node = children[2 * node + true]
            at[moving] = node
            moving = moving[~leaf[node]]
        return at.reshape(len(x), n_trees)

    def _among(self, xp: ModuleType, value: Array, members: Array, bounds: Array) -> Array:
        """Whether each value is in members[start:end], by bisection. bounds: [values, 2]"""
        low, high = bounds[:, 0], bounds[:, 1]
        last = len(members) - 1
        for _ in range(self._set_bits):
            middle = (low + high) // 2
            right = (low < high) & (members[xp.minimum(middle, last)] < value)
            low, high = xp.where(right, middle + 1, low), xp.where(right, high, middle)
        return (low < bounds[:, 1]) & (members[xp.minimum(low, last)] == value)


def _depth(children: Array, leaf: Array, roots: Array) -> int:
    """Levels of branches above the deepest leaf. Raises InvalidInput for cycles and for nodes with two parents."""
    seen = np.zeros(len(leaf), bool)
    level, depth = roots, 0
    while True:
        # np.unique would import numpy.ma, which takes as long as all else of a small ensemble
        if seen[level].any() or (np.diff(np.sort(level)) == 0).any():
            raise InvalidInput("a node of a tree ensemble has two parents, or is its own ancestor")
        seen[level] = True
        inner = level[~leaf[level]]
        if not inner.size:
            if not (seen | leaf).all():
                raise InvalidInput("a node of a tree ensemble is its own ancestor")
            return depth
        level = children[inner].reshape(-1)
        if level.min() < 0 or level.max() >= len(leaf):
            raise InvalidInput("a branch of a tree leads to a node that does not exist")
        depth += 1
