"""The operators of ai.onnx.ml: encoders, scalers, linear models, support vectors, trees, maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..case import Case, case, since
from ..sweep import sweep

Array = np.ndarray[Any, Any]
_ML = "ai.onnx.ml"
_BINDINGS = "its bindings make maps of float values alone"


def _words(*values: str) -> Array:
    return np.array(values, object)


def _f(*values: Any) -> Array:
    return np.array(values, np.float32)


_X = _f([1, -2, 3], [0.5, 4, -1])
_WHOLE = np.array([[1, -2, 3], [0, 4, -1]])


def _numbers(name: str, function: Any, attributes: dict[str, Any], variable: str = "T", **more: Any) -> list[Case]:
    """For each element type the whole numbers in _WHOLE."""
    return sweep(
        name,
        lambda t: ([_WHOLE.astype(t)], [np.asarray(v) for v in function(_WHOLE.astype(np.float64))]),
        variable,
        attributes,
        domain=_ML,
        **{"rtol": 1e-5, **more},
    )


def _maps() -> list[Case]:
    one = np.float32
    sparse = {0: one(1.5), 3: one(-2)}
    return [
        case("CastMap", inputs=[sparse], expected=[_f([1.5, -2])], attributes={"cast_to": "TO_FLOAT"}, domain=_ML),
        case(
            "CastMap",
            inputs=[sparse],
            expected=[_f([1.5, 0, 0, -2, 0])],
            attributes={"cast_to": "TO_FLOAT", "map_form": "SPARSE", "max_map": 5},
            domain=_ML,
            label="sparse",
        ),
        case(
            "CastMap",
            inputs=[sparse],
            expected=[np.array([[1, -2]])],
            attributes={"cast_to": "TO_INT64"},
            domain=_ML,
            label="int64",
        ),
        case(
            "CastMap",
            inputs=[{1: "2.5", 0: "-1"}],
            expected=[_f([-1, 2.5])],
            attributes={"cast_to": "TO_FLOAT"},
            domain=_ML,
            label="strings",
            onnxruntime_differs=_BINDINGS,
        ),
        case(
            "DictVectorizer",
            inputs=[{"a": one(1.5), "c": one(-2)}],
            expected=[_f([-2, 0, 1.5])],
            attributes={"string_vocabulary": ["c", "b", "a"]},
            domain=_ML,
        ),
        case(
            "DictVectorizer",
            inputs=[{10: 2.5, 30: -1.0}],
            expected=[np.array([[0, 2.5, -1.0]])],
            attributes={"int64_vocabulary": [20, 10, 30]},
            domain=_ML,
            label="int64-double",
            onnxruntime_differs=_BINDINGS,
        ),
        case(
            "DictVectorizer",
            inputs=[{"a": 4, "z": 9}],
            expected=[np.array([[4, 0]])],
            attributes={"string_vocabulary": ["a", "b"]},
            domain=_ML,
            label="int64-values",
            onnxruntime_differs=_BINDINGS,
        ),
        case(
            "ZipMap",
            inputs=[_f([0.25, 0.75], [1, 0])],
            expected=[[{"no": 0.25, "yes": 0.75}, {"no": 1.0, "yes": 0.0}]],
            attributes={"classlabels_strings": ["no", "yes"]},
            domain=_ML,
        ),
        case(
            "ZipMap",
            inputs=[_f(0.25, 0.75)],
            expected=[[{7: 0.25, -1: 0.75}]],
            attributes={"classlabels_int64s": [7, -1]},
            domain=_ML,
            label="int64",
        ),
    ]


def _encoders() -> list[Case]:
    cats = {"cats_int64s": [1, 5], "cats_strings": ["one", "five"], "default_string": "?", "default_int64": -3}
    found = [
        case(
            "CategoryMapper",
            inputs=[_words("five", "one", "two")],
            expected=[np.array([5, 1, -3])],
            attributes=cats,
            domain=_ML,
        ),
        case(
            "CategoryMapper",
            inputs=[np.array([[5, 2]])],
            expected=[np.array([["five", "?"]], object)],
            attributes=cats,
            domain=_ML,
            label="int64",
        ),
        case(
            "LabelEncoder",
            1,
            inputs=[_words("b", "x", "a")],
            expected=[np.array([1, -1, 0])],
            attributes={"classes_strings": ["a", "b"]},
            domain=_ML,
        ),
        case(
            "LabelEncoder",
            1,
            inputs=[np.array([[1, 7]])],
            expected=[np.array([["b", "?"]], object)],
            attributes={"classes_strings": ["a", "b"], "default_string": "?"},
            domain=_ML,
            label="int64",
        ),
        case(
            "OneHotEncoder",
            inputs=[np.array([[2, 0], [9, 2]])],
            expected=[_f([[0, 1], [1, 0]], [[0, 0], [0, 1]])],
            attributes={"cats_int64s": [0, 2]},
            domain=_ML,
        ),
        case(
            "OneHotEncoder",
            inputs=[_words("b", "a")],
            expected=[_f([0, 1], [1, 0])],
            attributes={"cats_strings": ["a", "b"], "zeros": 0},
            domain=_ML,
            label="strings",
        ),
        *sweep(
            "OneHotEncoder",
            lambda t: ([np.array([2, 0], t)], [_f([0, 1], [1, 0])]),
            "T",
            {"cats_int64s": [0, 2]},
            domain=_ML,
            only=lambda version, dtype: dtype.kind != "O",
        ),
    ]
    kinds: dict[str, tuple[list[Any], Any, Any]] = {
        "int64s": ([3, 8], np.int64, -1),
        "strings": (["u", "v"], object, "_Unused"),
        "floats": ([0.5, 1.5], np.float32, -0.0),
    }
    for key, (keys, key_type, _) in kinds.items():
        for value, (values, value_type, default) in kinds.items():
            strange = "w" if key == "strings" else 99
            found.append(
                case(
                    "LabelEncoder",
                    *since("LabelEncoder", 2, domain=_ML),
                    inputs=[np.array([keys[1], strange, keys[0]], key_type)],
                    expected=[np.array([values[1], default, values[0]], value_type)],
                    attributes={f"keys_{key}": keys, f"values_{value}": values},
                    domain=_ML,
                    label=f"{key}-{value}",
                )
            )
    return found


def _rows() -> list[Case]:
    """What works along the features of a row."""
    missing = np.where(_X == -2, np.nan, _X)

    def normed(norm: str) -> Any:
        if norm == "MAX":
            return lambda x: [(x / np.abs(x).max(1, keepdims=True)).astype(np.float32)]
        if norm == "L1":
            return lambda x: [(x / np.abs(x).sum(1, keepdims=True)).astype(np.float32)]
        return lambda x: [(x / np.sqrt((x * x).sum(1, keepdims=True))).astype(np.float32)]

    return [
        *_numbers(
            "Scaler",
            lambda x: [((x - [1, 0, 2]) * [2, 3, 4]).astype(np.float32)],
            {"offset": [1.0, 0.0, 2.0], "scale": [2.0, 3.0, 4.0]},
        ),
        case(
            "Scaler",
            inputs=[_X],
            expected=[(_X - 1) * 2],
            attributes={"offset": [1.0], "scale": [2.0]},
            domain=_ML,
            label="shared",
        ),
        *(
            item
            for norm in ("MAX", "L1", "L2")
            for item in _numbers("Normalizer", normed(norm), {"norm": norm}, label=f"{norm}-")
        ),
        case(
            "Imputer",
            inputs=[missing],
            expected=[np.where(np.isnan(missing), 9, missing).astype(np.float32)],
            attributes={"replaced_value_float": math.nan, "imputed_value_floats": [8.0, 9.0, 7.0]},
            domain=_ML,
        ),
        case(
            "Imputer",
            inputs=[_X],
            expected=[np.where(_X == 3, 5, _X).astype(np.float32)],
            attributes={"replaced_value_float": 3.0, "imputed_value_floats": [5.0]},
            domain=_ML,
            label="shared",
        ),
        case(
            "Imputer",
            inputs=[_WHOLE],
            expected=[np.where(_WHOLE == 4, 6, _WHOLE)],
            attributes={"replaced_value_int64": 4, "imputed_value_int64s": [5, 6, 7]},
            domain=_ML,
            label="int64",
        ),
        case(
            "Binarizer",
            inputs=[_X],
            expected=[(_X > 0.5).astype(np.float32)],
            attributes={"threshold": 0.5},
            domain=_ML,
        ),
        case("ArrayFeatureExtractor", inputs=[_X, np.array([2, 0])], expected=[_X[:, [2, 0]]], domain=_ML),
        case(
            "FeatureVectorizer",
            inputs=[_X, _X[:, :2] * 2],
            expected=[np.concatenate([_X, _X[:, :2] * 2], 1)],
            attributes={"inputdimensions": [3, 2]},
            domain=_ML,
        ),
        *sweep(
            "FeatureVectorizer",
            lambda t: ([_WHOLE.astype(t), _WHOLE.astype(t)], [np.tile(_WHOLE, 2).astype(np.float32)]),
            "T1",
            {"inputdimensions": [3, 3]},
            domain=_ML,
        ),
    ]


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _linear() -> list[Case]:
    w = np.array([[1, 0.5, -1], [0, 1, 0.25], [-0.5, 0, 1]])
    b = np.array([0.5, -1, 0.25])
    transforms = {
        "NONE": lambda z: z,
        "SOFTMAX": _softmax,
        "LOGISTIC": lambda z: 1 / (1 + np.exp(-z)),
        "SOFTMAX_ZERO": lambda z: np.where(z == 0, 0, _softmax(z)),
    }
    weights = {"coefficients": w.ravel().tolist(), "intercepts": b.tolist()}
    found = []
    for name, transform in transforms.items():
        found += _numbers(
            "LinearClassifier",
            lambda x, f=transform: [(x @ w.T + b).argmax(1), f(x @ w.T + b).astype(np.float32)],
            {**weights, "classlabels_ints": [0, 1, 2], "post_transform": name},
            "T1",
            label=f"{name}-",
        )
        if name != "SOFTMAX_ZERO":
            found += _numbers(
                "LinearRegressor",
                lambda x, f=transform: [f(x @ w.T + b).astype(np.float32)],
                {**weights, "targets": 3, "post_transform": name},
                label=f"{name}-",
            )
    z = _X @ w[0] + b[0]
    found += [
        case(
            "LinearClassifier",
            inputs=[_X],
            expected=[np.where(z > 0, "yes", "no").astype(object), np.stack([-z, z], 1).astype(np.float32)],
            attributes={
                "coefficients": [*(-w[0]), *w[0]],
                "intercepts": [-b[0], b[0]],
                "classlabels_strings": ["no", "yes"],
            },
            domain=_ML,
            label="strings",
        ),
        case(
            "LinearRegressor",
            inputs=[_X],
            expected=[(_X @ w[0])[:, None].astype(np.float32)],
            attributes={"coefficients": w[0].tolist()},
            domain=_ML,
            label="one",
        ),
    ]
    return found


_VECTORS = np.array([[1, 0, 1], [0, -1, 2], [2, 1, 0]], np.float64)


def _kernels(gamma: float, coef: float, degree: float) -> dict[str, Any]:
    return {
        "LINEAR": lambda x: x @ _VECTORS.T,
        "POLY": lambda x: (gamma * (x @ _VECTORS.T) + coef) ** degree,
        "RBF": lambda x: np.exp(-gamma * ((x[:, None] - _VECTORS) ** 2).sum(-1)),
        "SIGMOID": lambda x: np.tanh(gamma * (x @ _VECTORS.T) + coef),
    }


def _vectors() -> list[Case]:
    """Two classes with a vector and two vectors; the decision of the pair is against the first where it is negative."""
    dual, rho = np.array([0.5, -0.75, 1.25]), 0.25
    found = []
    for name, kernel in _kernels(0.5, 1.0, 2.0).items():
        shared = {
            "kernel_type": name,
            "kernel_params": [0.5, 1.0, 2.0],
            "support_vectors": _VECTORS.ravel().tolist(),
            "coefficients": dual.tolist(),
            "rho": [rho],
        }
        found += _numbers(
            "SVMRegressor",
            lambda x, k=kernel: [(k(x) @ dual + rho)[:, None].astype(np.float32)],
            {**shared, "n_supports": 3},
            label=f"{name}-",
            atol=1e-4,
        )
        z = kernel(_X.astype(np.float64)) @ dual + rho
        found.append(
            case(
                "SVMRegressor",
                inputs=[_X],
                expected=[np.where(z > 0, 1, -1)[:, None].astype(np.float32)],
                attributes={**shared, "n_supports": 3, "one_class": 1},
                domain=_ML,
                label=f"{name}-one-class",
            )
        )
        found.append(
            case(
                "SVMClassifier",
                inputs=[_X],
                expected=[np.where(z > 0, 4, 9), lambda got: np.testing.assert_equal(got.shape, (2, 2))],
                attributes={**shared, "vectors_per_class": [1, 2], "classlabels_ints": [4, 9]},
                domain=_ML,
                label=name,
            )
        )
    return found


#: one split on feature 1 at 0.5, then one on feature 0 at 0
_TREE = {
    "nodes_treeids": [0] * 5,
    "nodes_nodeids": [0, 1, 2, 3, 4],
    "nodes_featureids": [1, 0, 0, 0, 0],
    "nodes_truenodeids": [1, 3, 0, 0, 0],
    "nodes_falsenodeids": [2, 4, 0, 0, 0],
}
_MODES: dict[str, Any] = {
    "BRANCH_LEQ": lambda a, b: a <= b,
    "BRANCH_LT": lambda a, b: a < b,
    "BRANCH_GTE": lambda a, b: a >= b,
    "BRANCH_GT": lambda a, b: a > b,
    "BRANCH_EQ": lambda a, b: a == b,
    "BRANCH_NEQ": lambda a, b: a != b,
}
_ROWS = _f([0, 1, 0], [-1, 0, 5], [1, 0.5, 2], [0, 0.5, 3], [2, 9, 9])


def _leaf(row: Array, mode: str) -> int:
    """Which of the leaves 2, 3, 4."""
    compare = _MODES[mode]
    if not compare(row[1], 0.5):
        return 2
    return 3 if compare(row[0], 0) else 4


def _trees() -> list[Case]:
    found = []
    for mode in _MODES:
        leaves = [_leaf(row, mode) for row in _ROWS]
        modes = {**_TREE, "nodes_modes": [mode, mode, "LEAF", "LEAF", "LEAF"]}
        values = [0.5, 0.0, 0.0, 0.0, 0.0]
        target = {"target_treeids": [0] * 3, "target_nodeids": [2, 3, 4], "target_ids": [0, 0, 0], "n_targets": 1}
        weights = {2: (1.5,), 3: (-2,), 4: (4,)}
        want = _f(*(weights[leaf] for leaf in leaves)) + _f(10)
        as_floats = {"nodes_values": values, "target_weights": [1.5, -2.0, 4.0], "base_values": [10.0]}
        found.append(
            case(
                "TreeEnsembleRegressor",
                1,
                3,
                inputs=[_ROWS],
                expected=[want],
                attributes={**modes, **target, **as_floats},
                domain=_ML,
                label=mode,
            )
        )
        classes = {"class_treeids": [0] * 3, "class_nodeids": [2, 3, 4], "class_ids": [0, 1, 2]}
        scores = {2: (0.75, 0, 0), 3: (0, 0.5, 0), 4: (0, 0, 1)}
        found.append(
            case(
                "TreeEnsembleClassifier",
                1,
                3,
                inputs=[_ROWS],
                expected=[
                    np.array([{2: "x", 3: "y", 4: "z"}[leaf] for leaf in leaves], object),
                    _f(*map(scores.get, leaves)),
                ],
                attributes={
                    **modes,
                    **classes,
                    "nodes_values": values,
                    "class_weights": [0.75, 0.5, 1.0],
                    "classlabels_strings": ["x", "y", "z"],
                },
                domain=_ML,
                label=mode,
            )
        )
    return found


CASES = [*_maps(), *_encoders(), *_rows(), *_linear(), *_vectors(), *_trees()]
