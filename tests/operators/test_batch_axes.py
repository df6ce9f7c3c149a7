"""Every proof that an operator keeps samples apart is put to the test: the whole batch against its parts.

Each operator's cases give inputs. Every way in which some of them may be made of samples is offered to the proof; where
it agrees, the operator is run on the whole and on parts.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.case.node import collect_testcases

from distort.engine import has_kernel
from distort.graph import reader
from distort.graph.batch import BatchProof, prove
from distort.graph.functions import expand
from distort.graph.ir import Graph
from distort.kernels.errors import KernelError
from distort.kernels.program import Program, evaluate_node

from .case import Case, feeds_of, model_of
from .test_operators import CASES

#: ways that are offered for one case; a case of many inputs has more
OFFERED = 40


def assignments(feeds: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, int | None]]]:
    """A batch size, and an axis of that size for at least one of the inputs."""
    shapes = {name: np.shape(value) if not isinstance(value, list | dict) else () for name, value in feeds.items()}
    for size in sorted({dim for shape in shapes.values() for dim in shape if dim > 1}):
        choices = [[None, *(axis for axis, dim in enumerate(shape) if dim == size)] for shape in shapes.values()]
        # those with most inputs made of samples first: they are proved most often
        found = sorted(
            itertools.islice(itertools.product(*choices), 4000), key=lambda axes: -sum(a is not None for a in axes)
        )
        for axes in found[:OFFERED]:
            if any(axis is not None for axis in axes):
                yield size, dict(zip(shapes, axes, strict=True))


def grown(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with one row, such as an image, as three that differ."""
    found = dict(feeds)
    for name, value in feeds.items():
        shape = np.shape(value) if not isinstance(value, list | dict) else ()
        if len(shape) > 1 and shape[0] == 1:
            value = np.asarray(value)
            found[name] = np.concatenate([value, np.roll(value, 1, -1), np.roll(value, 1, 1)])
    return found


def offers(feeds: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int, dict[str, int | None]]]:
    """What is fed, the batch size, and where samples lie."""
    for given in (feeds, grown(feeds)):
        for size, axes in assignments(given):
            yield given, size, axes


def run(graph: Graph, feeds: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(graph.outputs, Program(graph).run(feeds), strict=True))


def check(graph: Graph, feeds: Mapping[str, Any], size: int, axes: Mapping[str, int | None], case: str) -> bool | None:
    """Whether it is proved; fails where it is, and parts give something else. None: the whole fails itself."""
    shapes = {name: None if isinstance(value, list | dict) else np.shape(value) for name, value in feeds.items()}
    values = {name: np.asarray(feeds[name]) for name, axis in axes.items() if axis is None and shapes[name] is not None}
    proof = prove(graph, axes, shapes, None, evaluated, values)
    if not isinstance(proof, BatchProof):
        return False
    try:
        whole = run(graph, feeds)
    except KernelError:
        return None
    where = f"{case} with samples along {dict(axes)}"
    for cut in {1, size - 1}:
        pieces = []
        for part in (slice(0, cut), slice(cut, size)):
            given = {
                name: value if axes[name] is None else np.asarray(value)[(slice(None),) * axes[name] + (part,)]
                for name, value in feeds.items()
            }
            pieces.append(run(graph, given))
        for name, axis in proof.outputs.items():
            parts = [piece[name] for piece in pieces]
            if axis is None:
                for part in parts:
                    assert_equal(part, whole[name], where)
            elif isinstance(whole[name], list):
                assert_equal(parts[0] + parts[1], whole[name], where)
            else:
                assert_equal(np.concatenate(parts, axis), whole[name], where)
            if axis is not None and name in proof.layouts:
                known, real = proof.layouts[name].of(size), np.shape(whole[name])
                assert len(known) == len(real) or isinstance(whole[name], list), where
                assert all(a in (None, b) for a, b in zip(known, real, strict=False)), f"{where}: {known}, not {real}"
    return True


def evaluated(node: Any, inputs: Any) -> Any:
    try:
        return evaluate_node(node, inputs)
    except KernelError:
        return None


def assert_equal(got: Any, want: Any, where: str) -> None:
    if isinstance(want, list | dict):
        assert got == want, where
        return
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape), where
    if want.dtype.kind in "OUSb":
        assert got.tolist() == want.tolist(), where
    else:
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=1e-5, atol=1e-6, err_msg=where)


def graph_of(item: Case, version: int) -> Graph:
    model = reader.read_model(model_of(item, version))
    expand(model, has_kernel)
    return model.graph


def by_operator() -> list[Any]:
    groups: dict[str, list[tuple[Case, int]]] = {}
    for item in CASES:
        for version in item.versions:
            groups.setdefault(item.op_type, []).append((item, version))
    return [pytest.param(group, id=name) for name, group in groups.items()]


@pytest.mark.parametrize("group", by_operator())
def test_cases(group: list[tuple[Case, int]]) -> None:
    for item, version in group:
        graph, feeds = graph_of(item, version), feeds_of(item)
        with np.errstate(all="ignore"):
            for given, size, axes in offers(feeds):
                check(graph, given, size, axes, item.name(version))


@pytest.mark.slow
def test_cases_of_the_standard() -> None:
    """onnx's own node tests, those with an operator replaced by its body too."""
    n_proved = 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what the cases expect overflows on purpose
        found = collect_testcases(None)
    for test in found:
        model = reader.read_model(test.model)
        expand(model, has_kernel)
        data = test.data_sets[0][0]
        if len(data) != len(model.graph.inputs) or not all(isinstance(value, np.ndarray) for value in data):
            continue  # sequences, and inputs left out
        feeds = dict(zip(model.graph.inputs, data, strict=True))
        with np.errstate(all="ignore"):
            for given, size, axes in offers(feeds):
                n_proved += bool(check(model.graph, given, size, axes, test.name))
    assert n_proved > 4000
