"""LabelEncoder, ZipMap, Scaler and their neighbours in ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.graph.ir import Graph, Node
from distort.kernels.errors import InvalidInput
from distort.kernels.program import Program

NAN = float("nan")


def run(op_type: str, *inputs: Any, opset: int = 4, **attributes: Any) -> Any:
    names = [f"x{i}" for i in range(len(inputs))]
    node = Node(op_type, "ai.onnx.ml", names, ["y"], attributes, opset=opset)
    return Program(Graph(inputs=names, outputs=["y"], nodes=[node])).run(dict(zip(names, inputs, strict=True)))[0]


def strings(*values: Any) -> Any:
    return np.array(values, object)


KEYS: list[tuple[str, Any, Any]] = [
    ("keys_strings", ["a", "b"], strings("b", "q", "a")),
    ("keys_int64s", [-3, 2**40], np.int64([2**40, 0, -3])),
    ("keys_floats", [0.5, 2.0], np.float32([2, 1, 0.5])),
]
VALUES: list[tuple[str, Any, str, Any, Any]] = [
    ("values_strings", ["p", "q"], "default_string", "none", object),
    ("values_int64s", [5, 2**50], "default_int64", 7, np.int64),
    ("values_floats", [0.25, 4.0], "default_float", 1.5, np.float32),
]


@pytest.mark.parametrize(("keys", "names", "x"), KEYS)
@pytest.mark.parametrize(("values", "given", "default_name", "default", "dtype"), VALUES)
@pytest.mark.parametrize("opset", [2, 4])
def test_label_encoder(
    keys: str, names: Any, x: Any, values: str, given: Any, default_name: str, default: Any, dtype: Any, opset: int
) -> None:
    y = run("LabelEncoder", x, opset=opset, **{keys: names, values: given, default_name: default})
    assert y.dtype == dtype and y.tolist() == [given[1], default, given[0]]
    y = run("LabelEncoder", x.reshape(3, 1), opset=opset, **{keys: names, values: given})
    assert y.shape == (3, 1) and y[1, 0] == {object: "_Unused", np.int64: -1, np.float32: 0}[dtype]


def test_label_encoder_of_tensors() -> None:
    y = run(
        "LabelEncoder",
        np.float64([0.1, NAN, 3]),
        keys_tensor=np.float64([NAN, 0.1]),
        values_tensor=np.int16([4, 5]),
        default_tensor=np.int16([-2]),
    )
    assert y.dtype == np.int16 and y.tolist() == [5, 4, -2]


def test_equal_keys() -> None:
    given = {"keys_int64s": [1, 2, 1], "values_int64s": [10, 20, 30]}
    assert run("LabelEncoder", np.int64([1, 2]), opset=4, **given).tolist() == [30, 20]  # the standard: the last
    assert run("LabelEncoder", np.int64([1, 2]), opset=2, **given).tolist() == [10, 20]  # onnxruntime: the first


def test_label_encoder_of_positions() -> None:
    classes = ["u", "v"]
    assert run("LabelEncoder", strings("v", "x"), opset=1, classes_strings=classes).tolist() == [1, -1]
    y = run("LabelEncoder", np.int64([1, 0, 5]), opset=1, classes_strings=classes, default_string="?")
    assert y.tolist() == ["v", "u", "?"]


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"keys_int64s": [1], "values_int64s": [1, 2]}, "1 keys for 2 values"),
        ({"values_int64s": [1, 2]}, "keys_"),
        ({"keys_int64s": [1], "keys_floats": [1.0], "values_int64s": [1]}, "keys_"),
        ({"keys_floats": [1.0], "values_int64s": [1]}, "looked up"),
    ],
)
def test_contradicting_labels(attributes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        run("LabelEncoder", np.int64([1]), **attributes)


def test_zip_map() -> None:
    x = np.float32([[0.5, 0.25], [1, 2]])
    assert run("ZipMap", x, classlabels_int64s=[7, 3]) == [{7: 0.5, 3: 0.25}, {7: 1.0, 3: 2.0}]
    assert run("ZipMap", x[0], classlabels_strings=["a", "b"]) == [{"a": 0.5, "b": 0.25}]
    with pytest.raises(InvalidInput, match="class labels"):
        run("ZipMap", x, classlabels_int64s=[7, 3, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_scaler(dtype: Any) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    y = run("Scaler", x, offset=[1.0, 2.0, 0.5], scale=[2.0, 0.5, 4.0])
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, (x - [1, 2, 0.5]) * [2, 0.5, 4])
    np.testing.assert_array_equal(run("Scaler", x, offset=[1.0], scale=[2.0]), (x - 1.0) * 2)
    with pytest.raises(InvalidInput):
        run("Scaler", x, offset=[1.0, 2.0], scale=[2.0, 1.0])


def test_scaler_of_large_doubles_subtracts_before_it_rounds() -> None:
    y = run("Scaler", np.float64([[2.0**30 + 1]]), offset=[2.0**30], scale=[1.0])
    assert y.tolist() == [[1.0]]


def test_normalizer() -> None:
    x = np.float32([[3, -4], [0, 0]])
    np.testing.assert_allclose(run("Normalizer", x, norm="L2"), [[0.6, -0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(run("Normalizer", x, norm="L1"), [[3 / 7, -4 / 7], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(run("Normalizer", x, norm="MAX"), [[1, -4 / 3], [0, 0]], rtol=1e-6)
    assert run("Normalizer", np.int64([1, 3]), norm="L1").tolist() == [0.25, 0.75]


def test_imputer() -> None:
    x = np.float32([[NAN, 1], [0, NAN]])
    filled = run("Imputer", x, imputed_value_floats=[8.0, 9.0], replaced_value_float=NAN)
    assert filled.tolist() == [[8, 1], [0, 9]]
    assert run("Imputer", np.int64([[0, 4]]), imputed_value_int64s=[5], replaced_value_int64=4).tolist() == [[0, 5]]
    with pytest.raises(InvalidInput):
        run("Imputer", x, imputed_value_int64s=[5])


def test_feature_rows() -> None:
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    assert run("Binarizer", x, threshold=3.0).tolist() == [[0, 0, 0], [1, 1, 1]]
    joined = run("FeatureVectorizer", x, np.int64([[7], [8]]), inputdimensions=[2, 2])
    assert joined.dtype == np.float32 and joined.tolist() == [[1, 2, 7, 0], [4, 5, 8, 0]]
    assert run("ArrayFeatureExtractor", x, np.int64([2, 0])).tolist() == [[3, 1], [6, 4]]
    assert run("ArrayFeatureExtractor", strings("a", "b"), np.int64([1])).tolist() == [["b"]]
    for wrong in ([3], [-9], []):
        with pytest.raises(InvalidInput, match="Invalid Y"):
            run("ArrayFeatureExtractor", x, np.int64(wrong))


def test_categories() -> None:
    cats = {"cats_strings": ["a", "b"], "cats_int64s": [10, 20]}
    assert run("CategoryMapper", strings("b", "q"), **cats).tolist() == [20, -1]
    assert run("CategoryMapper", np.int64([10, 0]), **cats).tolist() == ["a", "_Unused"]
    assert run("OneHotEncoder", strings("b", "q"), cats_strings=["a", "b"]).tolist() == [[0, 1], [0, 0]]
    one_hot = run("OneHotEncoder", np.float32([[2, 1]]), cats_int64s=[1, 2])
    assert one_hot.dtype == np.float32 and one_hot.tolist() == [[[0, 1], [1, 0]]]
    with pytest.raises(InvalidInput, match="Unknown Category"):
        run("OneHotEncoder", np.int64([3]), cats_int64s=[1, 2], zeros=0)


def test_maps() -> None:
    assert run("DictVectorizer", {"b": 2.0, "z": 1.0}, string_vocabulary=["a", "b"]).tolist() == [[0, 2]]
    y = run("DictVectorizer", {4: 2}, int64_vocabulary=[4, 5])
    assert y.dtype == np.int64 and y.tolist() == [[2, 0]]
    assert run("DictVectorizer", {4: "s"}, int64_vocabulary=[4, 5]).tolist() == [["s", ""]]
    assert run("CastMap", {5: 2.5, 1: 1.5}).tolist() == [[1.5, 2.5]]
    y = run("CastMap", {2: "7"}, cast_to="TO_INT64", map_form="SPARSE", max_map=4)
    assert y.dtype == np.int64 and y.tolist() == [[0, 0, 7, 0]]
    with pytest.raises(InvalidInput, match="columns"):
        run("CastMap", {4: 1.0}, map_form="SPARSE", max_map=4)
