"""Kernels that take the words of the CPU's, by the tests of the CPU's; and what else runs without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto

from distort.engine import load_model
from distort.kernels.cuda import plans
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram
from distort.kernels.program import Program
from tests.compiler import test_classes, test_trees
from tests.compiler.comparing import model_of

from .graphs import check, graph_of, operations_of, run
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(43)


def _both(
    nodes: Sequence[NodeProto],
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array],
    fetch: Sequence[str] = ("y",),
    n_threads: int = 1,
) -> tuple[list[Any], list[Any], list[str]]:
    """As the CPU tests' function, on a GPU."""
    del n_threads
    graph = load_model(model_of(nodes, feeds, weights, fetch)).graph
    program = CudaProgram(graph, CudaOptions(use_tf32=False))
    results = [value.get() if hasattr(value, "get") else value for value in program.run(feeds)]
    ((_, plan),) = program.plans
    kinds = [f"host {s.host.node.op_type}" if s.host is not None else s.operation.kind for s in plan.steps]
    return results, Program(graph).run(feeds), kinds


@pytest.fixture
def on_gpu(fake_cuda_for_all: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)
    for module in (test_trees, test_classes):
        monkeypatch.setattr(module, "both", _both)


_TREES: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
    *((test_trees.test_comparisons, (mode, missing)) for mode in ("LEQ", "GT", "NEQ") for missing in (False, True)),
    (test_trees.test_numbers_of_rows_and_trees, (8,)),
    (test_trees.test_targets_base_values_and_averages, ()),
    *((test_trees.test_classes, (transform,)) for transform in ("NONE", "LOGISTIC", "SOFTMAX")),
    (test_trees.test_two_classes_with_votes_for_one, ("LOGISTIC",)),
    (test_trees.test_aggregates, ("MIN", 3)),
    (test_trees.test_classes_without_a_vote, ([3, 5, 9], "some", "SOFTMAX")),
    (test_trees.test_comparisons_of_several_kinds, (True,)),
    *((test_trees.test_doubles, (votes,)) for votes in ("all", "one", "some")),
    (test_trees.test_scaler, ()),
    (test_trees.test_normalizer, ("L2", (5, 33))),
]
_CLASSES: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
    *((test_classes.test_linear_classifiers, (transform, 3)) for transform in ("NONE", "SOFTMAX", "PROBIT")),
    (test_classes.test_linear_regressors, ()),
    (test_classes.test_regressors_of_support_vectors, ()),
    (test_classes.test_labels_by_a_search, ()),
    (test_classes.test_labels_by_a_table, ()),
    (test_classes.test_one_of_several, ()),
]


@pytest.mark.parametrize(("function", "arguments"), _TREES + _CLASSES)
def test_as_on_the_cpu(function: Callable[..., None], arguments: tuple[Any, ...], on_gpu: None) -> None:
    function(*arguments)


def _regions(count: int, size: float) -> Array:
    """Inside, across borders, outside, turned round and without area."""
    corners = RANDOM.uniform(-8, 1.3 * size, (count, 4)).astype(np.float32)
    corners[: count // 2, 2:] = corners[: count // 2, :2] + RANDOM.uniform(0, 20, (count // 2, 2)).astype(np.float32)
    corners[0] = 0
    return corners


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("way", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("samples", [0, 3])
def test_regions(samples: int, way: str, mode: str) -> None:
    feeds = {"x": RANDOM.normal(size=(2, 3, 13, 9)).astype(np.float32), "r": _regions(9, 13)}
    feeds["i"] = RANDOM.integers(0, 2, 9)
    attributes = f'mode = "{mode}", coordinate_transformation_mode = "{way}", sampling_ratio = {samples}'
    attributes += ", output_height = 2, output_width = 3, spatial_scale = 0.7"
    check(f"(float y) {{ y = RoiAlign <{attributes}> (x, r, i) }}", feeds, kinds=["native"], ways=WAYS[:2])


def test_regions_of_half_precision_and_none() -> None:
    x = RANDOM.normal(size=(2, 3, 13, 9)).astype(np.float16)
    feeds = {"x": x, "r": _regions(4, 9).astype(np.float16), "i": np.array([0, 1, 1, 0])}
    text = "(float16 y) { y = RoiAlign <output_height = 2, sampling_ratio = 2> (x, r, i) }"
    check(text, feeds, rtol=2e-2, atol=2e-2, ways=WAYS[1:2])


def test_largest_pixels_of_regions() -> None:
    x = RANDOM.normal(size=(2, 3, 13, 9)).astype(np.float32)
    images = RANDOM.integers(0, 2, (7, 1)).astype(np.float32)
    feeds = {"x": x, "r": np.concatenate([images, np.rint(_regions(7, 12))], axis=1).astype(np.float32)}
    text = "(float y) { y = MaxRoiPool <pooled_shape = [2, 3], spatial_scale = 0.5> (x, r) }"
    check(text, feeds, kinds=["native"], ways=WAYS[:2])


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "float16"])
@pytest.mark.parametrize("batch", [0, 1])
def test_sequences_turned_round(batch: int, dtype: str) -> None:
    x = (RANDOM.normal(size=(4, 5, 3)) * 9).astype(dtype)
    lengths = np.array([0, 1, 5, 3] if batch == 0 else [4, 0, 2, 3, 1])
    name = {"float32": "float"}.get(dtype, dtype)
    text = f"({name} y) {{ y = ReverseSequence <batch_axis = {batch}, time_axis = {1 - batch}> (x, n) }}"
    check(text, {"x": x, "n": lengths}, kinds=["native"], ways=WAYS[:2])


def test_lengths_beyond_the_sequence_are_refused() -> None:
    text = "(float y) { y = ReverseSequence (x, n) }"
    feeds = {"x": np.ones((3, 2), np.float32), "n": np.array([4, 1])}
    operations, results = operations_of(graph_of(text, feeds, 21), feeds)
    with pytest.raises(AssertionError, match="refused"):
        run(operations, results, feeds, WAYS[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("attributes", ["strides = [2, 1], pads = [1, 0, 1, 2]", "dilations = [2, 1]"])
def test_windows_are_added_where_they_lie(attributes: str, dtype: str) -> None:
    strides = 2 if "strides" in attributes else 1
    down = (7 + 2 - 2) // 2 + 1 if strides == 2 else 7 - 2
    across = 6 + 2 - 3 + 1 if strides == 2 else 6 - 3 + 1
    x = RANDOM.normal(size=(2, 2 * 6, down * across)).astype(dtype)
    name = {"float32": "float", "float64": "double"}[dtype]
    text = f"({name} y) <int64[2] s = {{7, 6}}, int64[2] k = {{2, 3}}> {{ y = Col2Im <{attributes}> (x, s, k) }}"
    check(text, {"x": x}, kinds=["native"], ways=WAYS[:2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_windows(p: int, dtype: str) -> None:
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    feeds = {"x": RANDOM.normal(size=(2, 3, 7, 6)).astype(dtype)}
    tolerance = 1e-2 if dtype == "float16" else 1e-4
    for op in (
        f"LpPool <p = {p}, kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]>",
        f"GlobalLpPool <p = {p}>",
    ):
        check(f"({name} y) {{ y = {op} (x) }}", feeds, ways=WAYS[1:2], rtol=tolerance)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_neighbouring_channels(size: int) -> None:
    feeds = {"x": RANDOM.normal(size=(2, 7, 3, 2)).astype(np.float32)}
    text = f"(float y) {{ y = LRN <size = {size}, alpha = 0.3, beta = 0.6, bias = 1.5> (x) }}"
    check(text, feeds, ways=WAYS[1:2])


def test_pixels_put_back() -> None:
    x = RANDOM.normal(size=(1, 2, 6, 6)).astype(np.float32)
    text = """(float y) {
        p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i)
    }"""
    check(text, {"x": x}, ways=WAYS[1:2])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_statistics_of_a_run(dtype: str) -> None:
    feeds = {"x": RANDOM.normal(size=(2, 3, 4)).astype(dtype)}
    feeds |= {name: RANDOM.uniform(0.5, 2, 3).astype(dtype) for name in "sbmv"}
    name = {"float32": "float"}.get(dtype, dtype)
    text = f"({name} y) {{ y = BatchNormalization <epsilon = 0.01> (x, s, b, m, v) }}"
    check(text, feeds, ways=WAYS[1:2], rtol=1e-4 if dtype == "float32" else 1e-2)


def test_nothing_is_dropped() -> None:
    text = "(float y, bool m) { d, m = Dropout (x) \n y = Relu (d) }"
    check(text, {"x": RANDOM.normal(size=(3, 4)).astype(np.float32)}, kinds=["map"], ways=WAYS[1:2])


@pytest.mark.parametrize("function", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_functions_of_bytes(function: str) -> None:
    x = RANDOM.integers(0, 255, (3, 50), np.uint8, endpoint=True)
    text = f"""(uint8 y) <float s = {{0.05}}, uint8 z = {{120}}, float t = {{0.004}}, uint8 u = {{0}}> {{
        y = com.microsoft.{function} (x, s, z, t, u)
    }}"""
    check(text, {"x": x}, kinds=["native"], ways=WAYS[:2])
