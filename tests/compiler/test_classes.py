"""Linear models, support vector machines and features of ai.onnx.ml, compiled: what the NumPy kernels make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from distort.engine import load_model
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.errors import KernelError
from tests.compiler.comparing import agree, both, model_of, object_for

Array = np.ndarray[Any, Any]
_ML = "ai.onnx.ml"
_RNG = np.random.default_rng(0)


def node(op_type: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), domain=_ML, **attributes)


def numbers(*shape: int) -> Array:
    return _RNG.standard_normal(shape).astype(np.float32)


def check(one: NodeProto, rtol: float = 1e-5, hosts: int = 0, threads: int = 1, **feeds: Array) -> None:
    results, expected, kinds = both([one], feeds, {}, list(one.output), threads)
    assert sum(kind.startswith("host") for kind in kinds) == hosts, kinds
    for result, wanted in zip(results, expected, strict=True):
        if wanted.dtype == object:
            assert result.tolist() == wanted.tolist()
        else:
            agree([result], [wanted], rtol, rtol)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("n_classes", [2, 3, 9])
def test_linear_classifiers(transform: str, n_classes: int) -> None:
    for n_scores in {n_classes, 1} if n_classes == 2 else {n_classes}:
        attributes: dict[str, Any] = {
            "coefficients": numbers(n_scores * 5).tolist(),
            "intercepts": numbers(n_scores).tolist(),
            "post_transform": transform,
        }
        integers = node("LinearClassifier", outputs="l y", classlabels_ints=list(range(3, 3 + n_classes)), **attributes)
        text = node("LinearClassifier", outputs="l y", classlabels_strings=list("abcdefghi")[:n_classes], **attributes)
        for x in (numbers(1, 5), numbers(70, 5), numbers(5), numbers(4, 5).astype(np.float64)):
            check(integers, x=x)
            check(text, x=x, hosts=1)


def test_linear_regressors() -> None:
    for n_targets in (1, 4):
        attributes = {"coefficients": numbers(n_targets * 6).tolist(), "intercepts": numbers(n_targets).tolist()}
        one = node("LinearRegressor", targets=n_targets, **attributes)
        check(one, x=numbers(9, 6))
        check(one, x=np.arange(12).reshape(2, 6))


def machine(kernel: str, per_class: list[int], probabilities: bool, **attributes: Any) -> NodeProto:
    n, n_vectors = len(per_class), sum(per_class)
    n_pairs = n * (n - 1) // 2
    if probabilities:
        attributes |= {"prob_a": (-1 - _RNG.random(n_pairs)).tolist(), "prob_b": numbers(n_pairs).tolist()}
    return node(
        "SVMClassifier",
        outputs="l y",
        classlabels_ints=list(range(10, 10 + n)),
        coefficients=numbers((n - 1) * n_vectors).tolist(),
        kernel_params=[0.3, 0.5, 2.0],
        kernel_type=kernel,
        rho=numbers(n_pairs).tolist(),
        support_vectors=numbers(n_vectors * 4).tolist(),
        vectors_per_class=per_class,
        **attributes,
    )


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("per_class", [[3, 4], [2, 5, 3], [1, 2, 3, 4, 5]])
def test_vector_machines(kernel: str, per_class: list[int]) -> None:
    for probabilities in (False, True):
        one = machine(kernel, per_class, probabilities)
        check(one, rtol=2e-3 if probabilities else 1e-4, x=numbers(1, 4))
        check(one, rtol=2e-3 if probabilities else 1e-4, threads=2, x=numbers(33, 4))


def test_regressors_of_support_vectors() -> None:
    attributes = {
        "coefficients": numbers(7).tolist(),
        "kernel_params": [0.3, 0.5, 3.0],
        "kernel_type": "RBF",
        "n_supports": 7,
        "rho": [0.25],
        "support_vectors": numbers(7 * 4).tolist(),
    }
    check(node("SVMRegressor", **attributes), x=numbers(20, 4), rtol=1e-4)
    check(node("SVMRegressor", one_class=1, **attributes), x=numbers(20, 4))


def test_features() -> None:
    x = numbers(6, 5)
    x[1, 2] = np.nan
    check(node("Imputer", imputed_value_floats=[1.0, 2, 3, 4, 5], replaced_value_float=float("nan")), x=x)
    check(node("Imputer", imputed_value_int64s=[7], replaced_value_int64=2), x=np.arange(8).reshape(2, 4))
    check(node("Binarizer", threshold=0.25), x=numbers(3, 4))
    check(node("FeatureVectorizer", "x z", inputdimensions=[3, 2]), x=numbers(4, 3), z=numbers(4, 2, 1))
    rows = numbers(4, 6)
    rows[2] = 0
    for norm in ("MAX", "L1", "L2"):
        check(node("Normalizer", norm=norm), x=rows)


def test_extracted_features() -> None:
    for indices in ([1], [0, 2, 4], [4, 0, 0], [-1, 1]):
        weights = {"i": np.array(indices)}
        for x in (numbers(3, 5), numbers(5), numbers(2, 3, 5)):
            results, expected, kinds = both([node("ArrayFeatureExtractor", "x i")], {"x": x}, weights)
            assert not any(kind.startswith("host") for kind in kinds)
            agree(results, expected)
    check(node("ArrayFeatureExtractor", "x i"), x=numbers(3, 5), i=np.array([3, 1]))


def test_one_of_several() -> None:
    keys = [3, -1, 8]
    check(node("OneHotEncoder", cats_int64s=keys), x=np.array([[3, 4], [8, -1]]))
    check(node("OneHotEncoder", cats_int64s=keys), x=np.array([3.0, 8.5, 2], np.float32))
    strict = node("OneHotEncoder", cats_int64s=keys, zeros=0)
    check(strict, x=np.array([3, 8, -1]))
    program = CompiledProgram(load_model(model_of([strict], {"x": np.zeros(2, np.int64)}, {}, ["y"])).graph)
    assert program.run({"x": np.array([3, 8])})[0].tolist() == [[1, 0, 0], [0, 0, 1]]
    with pytest.raises(KernelError, match="Unknown Category"):
        program.run({"x": np.array([3, 7])})


def test_labels_by_a_search() -> None:
    keys = [7, -(1 << 40), 1 << 50, -3, (1 << 63) - 1, -(1 << 63), 123456789]
    for n in (2, 3, 4, 7):
        own = sorted(keys)[-n:]
        x = np.array([*own, *(k + 1 for k in own[:-1]), *(k - 1 for k in own[1:]), 0, 5], np.int64)
        check(node("LabelEncoder", keys_int64s=own[::-1], values_int64s=list(range(n)), default_int64=-7), x=x)
        check(node("LabelEncoder", keys_int64s=own, values_floats=[0.5 * i for i in range(n)], default_float=9.0), x=x)


def test_labels_by_a_table() -> None:
    x = np.array([[3, 4], [-5, 9], [np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
    check(node("LabelEncoder", keys_int64s=[3, -5, 9], values_int64s=[1, 2, 3], default_int64=-7), x=x)
    check(node("LabelEncoder", keys_int64s=[3, 4], values_floats=[0.5, 0.25], default_float=2.0), x=x)
    check(node("LabelEncoder", keys_int64s=[0, 1], values_strings=["a", "b"]), x=np.array([0, 1, 2, -1]), hosts=1)


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"])
def test_other_machines(triple: str) -> None:
    _, families = object_for(triple, {}, [machine("RBF", [2, 3, 4], True)], {"x": numbers(5, 4)}, {}, ["l", "y"])
    assert "couplings" in families
