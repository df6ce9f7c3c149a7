"""Tree ensembles, compiled: scores and labels of the NumPy kernels."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper, numpy_helper

from tests.compiler.comparing import agree, both, object_for

Array = np.ndarray[Any, Any]
_ML = "ai.onnx.ml"


def trees(
    n_trees: int, depth: int, mode: str, missing: bool, seed: int = 0
) -> tuple[dict[str, list[Any]], list[tuple[int, int]]]:
    """Attributes of nodes, and (tree, id) of leaves: random trees, some of whose branches end early."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    leaves: list[tuple[int, int]] = []
    for tree in range(n_trees):
        count = 1
        waiting = [(0, 0)]
        while waiting:
            number, level = waiting.pop()
            if level >= depth or (level and rng.random() < 0.2):
                rows.append((tree, number, 0, 0.0, "LEAF", 0, 0, 0))
                leaves.append((tree, number))
                continue
            split = float(np.float32(rng.choice([-0.5, 0.0, 0.25, 1.0])))
            rows.append(
                (
                    tree,
                    number,
                    int(rng.integers(0, 6)),
                    split,
                    mode,
                    count,
                    count + 1,
                    int(missing and rng.random() < 0.5),
                )
            )
            waiting += [(count, level + 1), (count + 1, level + 1)]
            count += 2
    names = (
        "treeids",
        "nodeids",
        "featureids",
        "values",
        "modes",
        "truenodeids",
        "falsenodeids",
        "missing_value_tracks_true",
    )
    return {f"nodes_{name}": [row[i] for row in rows] for i, name in enumerate(names)}, leaves


def rows(n: int) -> Array:
    x = np.random.default_rng(n).choice([-1, -0.5, 0, 0.25, 0.5, 1, 2, np.nan, np.inf], (n, 6))
    return x.astype(np.float32)


def regressor(
    n_targets: int = 1, n_trees: int = 11, depth: int = 5, mode: str = "BRANCH_LEQ", missing: bool = False, **more: Any
) -> NodeProto:
    attributes, leaves = trees(n_trees, depth, mode, missing)
    rng = np.random.default_rng(7)
    votes = [(*leaf, target) for leaf in leaves for target in range(n_targets)]
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain=_ML,
        n_targets=n_targets,
        target_treeids=[v[0] for v in votes],
        target_nodeids=[v[1] for v in votes],
        target_ids=[v[2] for v in votes],
        target_weights=rng.standard_normal(len(votes)).tolist(),
        **attributes,
        **more,
    )


def classifier(classes: list[int], per_tree: bool = False, n_trees: int = 9, **more: Any) -> NodeProto:
    """``per_tree``: each tree votes for one class; else every leaf for all of them."""
    attributes, leaves = trees(n_trees, 4, "BRANCH_LT", False)
    rng = np.random.default_rng(8)
    n = len(classes)
    votes = [(*leaf, c) for leaf in leaves for c in ([leaf[0] % max(1, n if n > 2 else 1)] if per_tree else range(n))]
    return helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "y"],
        domain=_ML,
        classlabels_int64s=classes,
        class_treeids=[v[0] for v in votes],
        class_nodeids=[v[1] for v in votes],
        class_ids=[v[2] for v in votes],
        class_weights=rng.random(len(votes)).tolist(),
        **attributes,
        **more,
    )


def check(node: NodeProto, x: Array, fetch: tuple[str, ...] = ("y",), rtol: float = 0.0, n_threads: int = 1) -> None:
    results, expected, kinds = both([node], {"x": x}, {}, fetch, n_threads)
    assert not any(kind.startswith("host") for kind in kinds)
    agree(results, expected, rtol, rtol)


@pytest.mark.parametrize("mode", ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"])
@pytest.mark.parametrize("missing", [False, True])
def test_comparisons(mode: str, missing: bool) -> None:
    check(regressor(mode=f"BRANCH_{mode}", missing=missing), rows(40))


@pytest.mark.parametrize("n", [1, 3, 8, 150])
def test_numbers_of_rows_and_trees(n: int) -> None:
    for n_trees in (1, 3, 8, 9):
        check(regressor(n_trees=n_trees, depth=9), rows(n), n_threads=2)
    check(regressor(depth=0), rows(n))


def test_targets_base_values_and_averages() -> None:
    check(regressor(3, base_values=[0.5, 0.25, -1.0]), rows(20))
    check(regressor(aggregate_function="AVERAGE", base_values=[0.5]), rows(20))
    check(regressor(2, post_transform="LOGISTIC"), rows(20), rtol=1e-6)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_classes(transform: str) -> None:
    fetch = ("label", "y")
    for node in (
        classifier([3, 5, 9], post_transform=transform),
        classifier([3, 5, 9], per_tree=True, post_transform=transform, base_values=[0.1, 0.2, 0.3]),
        classifier([3, 5], post_transform=transform),
    ):
        check(node, rows(50), fetch, rtol=1e-6)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
def test_two_classes_with_votes_for_one(transform: str) -> None:
    node = classifier([4, 6], per_tree=True, post_transform=transform)
    check(node, rows(50), ("label", "y"), rtol=1e-6)


@pytest.mark.parametrize("how", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_aggregates(how: str, n_targets: int) -> None:
    for n_trees in (1, 3, 11):
        for base in ([], [0.5] * n_targets):
            for votes in ("all", "one", "some"):
                node = sparse(regressor(n_targets, n_trees, aggregate_function=how, **of_base(base)), votes)
                check(node, rows(20))


def of_base(base: list[float]) -> dict[str, Any]:
    return {"base_values": base} if base else {}


def sparse(node: NodeProto, votes: str) -> NodeProto:
    """The same with fewer votes: ``one`` for each leaf, or ``some``, which may be none."""
    stem = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    names = [f"{stem}_{name}" for name in ("treeids", "nodeids", "ids", "weights")]
    attributes = {a.name: a for a in node.attribute}
    columns = [helper.get_attribute_value(attributes[name]) for name in names]
    rng = np.random.default_rng(3)
    n = len(columns[0])
    n_ids = max(columns[2]) + 1
    if votes == "one":
        kept = [i for i in range(n) if columns[2][i] == (columns[1][i] * 7 + columns[0][i]) % n_ids]
    else:
        kept = [i for i in range(n) if votes == "all" or rng.random() < 0.3]
    for name, column in zip(names, columns, strict=True):
        node.attribute.remove(attributes[name])
        node.attribute.append(helper.make_attribute(name, [column[i] for i in kept]))
    return node


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("votes", ["one", "some"])
@pytest.mark.parametrize("classes", [[1, 2], [3, 5, 9]])
def test_classes_without_a_vote(classes: list[int], votes: str, transform: str) -> None:
    for n_trees in (1, 2, 9):
        for base in ([], [0.25], [0.1, -0.2], [0.1, 0.2, 0.3]):
            if len(base) not in (0, len(classes)) and len(classes) > 2:
                continue
            if len(base) > len(classes):
                continue
            node = sparse(classifier(classes, n_trees=n_trees, post_transform=transform, **of_base(base)), votes)
            if len(classes) == 2 and transform == "SOFTMAX" and len(base) < 2:
                results, expected, _ = both([node], {"x": rows(30)}, {}, ("label", "y"))
                agree(results, expected, 1e-6, 1e-6)
            else:
                check(node, rows(30), ("label", "y"), rtol=1e-6)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("negative", [False, True])
def test_two_classes_of_which_one_has_some_votes(target: int, negative: bool) -> None:
    for base in ([], [0.25], [0.1, -0.2]):
        for votes in ("all", "some"):
            node = sparse(classifier([1, 2], n_trees=3, **of_base(base)), votes)
            for attribute in node.attribute:
                if attribute.name == "class_ids":
                    attribute.ints[:] = [target] * len(attribute.ints)
                if attribute.name == "class_weights" and negative:
                    attribute.floats[0] = -1
            check(node, rows(30), ("label", "y"), rtol=1e-6)


@pytest.mark.parametrize("missing", [False, True])
def test_comparisons_of_several_kinds(missing: bool) -> None:
    for n in (1, 30):
        node = regressor(mode="BRANCH_LEQ", missing=missing, n_trees=5, depth=6)
        rng = np.random.default_rng(1)
        for attribute in node.attribute:
            if attribute.name == "nodes_modes":
                kinds = [f"BRANCH_{name}".encode() for name in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")]
                attribute.strings[:] = [s if s == b"LEAF" else kinds[rng.integers(6)] for s in attribute.strings]
        check(node, rows(n))


def doubled(node: NodeProto, base: bool = True) -> NodeProto:
    """The same with its numbers as tensors of doubles, which they are not all as float32."""
    kinds = ("nodes_values", "target_weights", "class_weights", "base_values")
    for attribute in [a for a in node.attribute if a.name in kinds]:
        if attribute.name == "base_values" and not base:
            continue
        numbers = np.array(attribute.floats, np.float64) + 1e-9
        node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute(f"{attribute.name}_as_tensor", numpy_helper.from_array(numbers)))
    return node


@pytest.mark.parametrize("votes", ["all", "one", "some"])
def test_doubles(votes: str) -> None:
    for n in (1, 30):
        for x in (rows(n).astype(np.float64) + 2e-9, rows(n).astype(np.float64)):
            for n_targets, how in ((1, "SUM"), (3, "AVERAGE"), (2, "MAX")):
                for missing in (False, True):
                    plain = regressor(n_targets, aggregate_function=how, base_values=[0.1] * n_targets, missing=missing)
                    for make in (lambda node: node, doubled, lambda node: doubled(node, base=False)):
                        check(make(sparse(copy.deepcopy(plain), votes)), x, rtol=1e-6)
            for classes in ([1, 2], [3, 5, 9]):
                plain = classifier(classes, base_values=[0.1] * len(classes), post_transform="LOGISTIC")
                for make in (lambda node: node, doubled):
                    check(make(sparse(copy.deepcopy(plain), votes)), x, ("label", "y"), rtol=1e-6)
    check(doubled(sparse(regressor(2), votes)), rows(9), rtol=1e-6)  # of float32, compared with doubles


def test_rows_of_integers() -> None:
    x = np.arange(-12, 12).reshape(4, 6)
    check(regressor(), x)
    check(classifier([1, 2, 3]), x, ("label", "y"), rtol=1e-6)


def test_probit() -> None:
    def within(node: NodeProto) -> NodeProto:
        for attribute in node.attribute:
            if attribute.name.endswith("_weights"):
                attribute.floats[:] = np.random.default_rng(0).uniform(0.05, 0.1, len(attribute.floats))
        return node

    for n_targets in (1, 3):
        check(within(regressor(n_targets, n_trees=4, post_transform="PROBIT")), rows(20), rtol=1e-4)
    for classes in ([1, 2], [1, 2, 3]):
        check(within(classifier(classes, n_trees=4, post_transform="PROBIT")), rows(20), ("label", "y"), rtol=1e-4)


def test_what_is_left_to_numpy_agrees() -> None:
    for node in (regressor(2, post_transform="SOFTMAX_ZERO"),):
        results, expected, kinds = both([node], {"x": rows(5)}, {})
        assert kinds == ["host TreeEnsembleRegressor"]
        agree(results, expected)


def test_scaler_of_doubles() -> None:
    node = helper.make_node("Scaler", ["x"], ["y"], domain=_ML, offset=[1.0, 2, 3, 4, 5, 6], scale=[2.0, 1, 1, 1, 3, 1])
    check(node, rows(5).astype(np.float64) + 1e-9)


def test_scaler() -> None:
    node = helper.make_node("Scaler", ["x"], ["y"], domain=_ML, offset=[1.0, 2, 3, 4, 5, 6], scale=[2.0, 1, 1, 1, 3, 1])
    check(node, rows(5))


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("shape", [(5, 33), (7,)])
def test_normalizer(norm: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[0] = 0
    node = helper.make_node("Normalizer", ["x"], ["y"], domain=_ML, norm=norm)
    check(node, x, rtol=1e-6)
    check(node, x.astype(np.float64), rtol=1e-6)
    check(node, (x * 9).astype(np.int64), rtol=1e-6)


def test_kernels_for_arm() -> None:
    code, families = object_for("aarch64-unknown-linux-gnu", {"neon": True}, [regressor()], {"x": rows(3)}, {})
    assert code and "trees" in families
